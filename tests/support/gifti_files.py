"""GIFTI files as the programs of the field write them, text by text."""

import base64
import zlib
from xml.sax.saxutils import escape

import numpy as np

NAMES = {"u1": "UINT8", "i2": "INT16", "i4": "INT32", "f4": "FLOAT32", "f8": "FLOAT64"}
NAMES |= {"u4": "UINT32", "i1": "INT8"}


def metadata(values, cdata):
    wrap = (lambda text: f"<![CDATA[{text}]]>") if cdata else escape
    rows = "".join(
        f"<MD><Name>{wrap(name)}</Name><Value>{wrap(value)}</Value></MD>"
        for name, value in values.items()
    )
    return f"<MetaData>{rows}</MetaData>"


def encode(values, encoding, endian, ordering):
    order = "C" if ordering == "RowMajorOrder" else "F"
    flat = values.ravel(order=order)
    if encoding == "ASCII":
        return "\n".join(map(repr, flat.tolist()))
    kind = values.dtype.newbyteorder("<" if endian == "LittleEndian" else ">")
    content = flat.astype(kind).tobytes()
    if encoding == "GZipBase64Binary":
        content = zlib.compress(content, 1)
    return base64.b64encode(content).decode()


def array(
    values,
    encoding="GZipBase64Binary",
    endian="LittleEndian",
    ordering="RowMajorOrder",
    *,
    intent="TIME_SERIES",
    style="freesurfer",
    meta=None,
    data=None,
    external="",
):
    """A DataArray; attributes over several lines and CDATA as Workbench has them."""
    gap = "\n\t\t" if style == "workbench" else " "
    attributes = {
        "Intent": f"NIFTI_INTENT_{intent}",
        "DataType": f"NIFTI_TYPE_{NAMES[values.dtype.str[1:]]}",
        "ArrayIndexingOrder": ordering,
        "Dimensionality": values.ndim,
        **{f"Dim{i}": n for i, n in enumerate(values.shape)},
        "Encoding": encoding,
        "Endian": endian,
        "ExternalFileName": external,
        "ExternalFileOffset": "" if style == "freesurfer" else 0,
    }
    said = gap.join(f'{name}="{value}"' for name, value in attributes.items())
    text = encode(values, encoding, endian, ordering) if data is None else data
    if style == "workbench":
        text = f"\n{text}\n"
    inside = metadata(meta or {}, style == "workbench")
    return f"<DataArray{gap}{said}>{inside}<Data>{text}</Data></DataArray>\n"


def document(arrays, *, n_arrays=None, meta=None, style="freesurfer", labels=()):
    count = len(arrays) if n_arrays is None else n_arrays
    rows = "".join(
        f'<Label Key="{key}" Red="0.5" Green="0" Blue="1" Alpha="1">{name}</Label>'
        for key, name in labels
    )
    url = "http://www.nitrc.org/frs/download.php/115/gifti.dtd"
    doctype = f'<!DOCTYPE GIFTI SYSTEM "{url}">'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}\n'
        f'<GIFTI Version="1.0" NumberOfDataArrays="{count}">\n'
        f"{metadata(meta or {}, style == 'workbench')}"
        f"<LabelTable>{rows}</LabelTable>\n{''.join(arrays)}</GIFTI>\n"
    )


def write_series(path, values, *, meta=None, style="freesurfer", **options):
    """One array for each volume of (T, V)."""
    arrays = [array(np.asarray(v), style=style, **options) for v in values]
    path.write_text(document(arrays, meta=meta, style=style))
    return path


def all_values(series, block_bytes=4 * 2**20):
    """Fill (T, V) from the blocks; every value must come once."""
    filled = np.full((series.n_volumes, series.frame.n_points), np.nan)
    for block in series.blocks(block_bytes):
        assert np.isnan(filled[block.volumes, block.points]).all()
        filled[block.volumes, block.points] = block.values
    return filled
