"""A small dataset that looks and behaves like fMRIPrep's output, with an atlas.

Two participants have two sessions of two resting-state runs, four have one run; all is
made from a seed, for trying the program, for its documentation and for its tests. What
it has to show: networks that correlate, jerks that leave their mark in images and
confounds, noise that confound regression removes, a field of view that ends below the
vertex in one participant, a network that holds together less in half of them, and a run
each on surfaces (GIFTI) and grayordinates (CIFTI).

The grid is far coarser than the ``res-2`` of the names, so that all of it stays small.
"""

from __future__ import annotations

import base64
import itertools
import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.demo.phantom import (
    ATLAS_GRID,
    BOLD_GRID,
    REGIONS,
    Grayordinates,
    Head,
    Hemisphere,
    Region,
    label_points,
    make_grayordinates,
    make_head,
    make_hemispheres,
    nearest_voxels,
)
from bids_roi.demo.simulate import (
    REPETITION_TIME,
    Confounds,
    Profile,
    Run,
    make_run,
    measure_confounds,
)
from bids_roi.errors import OutputError
from bids_roi.files.names import format_name
from bids_roi.images.nifti import write_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Entities = tuple[tuple[str, str], ...]


_TEMPLATE = "MNI152NLin2009cAsym"
_SPACE = (("space", _TEMPLATE), ("res", "2"))
_RESOLUTION = "Synthetic grid of 5 mm, far coarser than res-2 of the template."
_UNSTEADY = ("01", "2", "2")  # the run that begins before the signal settles

# What differs between participants.
_PROFILES = {
    "01": Profile(coupling=0.6, restlessness=1.0, top=np.inf, step=8.0),
    "02": Profile(coupling=0.2, restlessness=1.8, top=48.0, step=10.0),
    "03": Profile(coupling=0.55, restlessness=1.1, top=np.inf, step=10.0),
    "04": Profile(coupling=0.25, restlessness=1.3, top=np.inf, step=10.0),
    "05": Profile(coupling=0.6, restlessness=1.5, top=np.inf, step=10.0),
    "06": Profile(coupling=0.2, restlessness=1.0, top=np.inf, step=10.0),
}
_LONG = ("01", "02")  # have two sessions of two runs; the others have one run
_FLOATING = ("01",)  # stored as float32; the others as int16 with a slope
# Runs that are there on surfaces, too, of as many vertices as fsaverage5 and fsLR 32k.
_GIFTI_RUN, _GIFTI_CUTS = ("01", "1", "1"), 32
_CIFTI_RUN, _CIFTI_CUTS = ("02", "1", "1"), 57

_TIMING = {
    "RepetitionTime": REPETITION_TIME,
    "SliceTimingCorrected": True,
    "StartTime": 1.0,
    "TaskName": "rest",
}
_NETWORK_COLORS = {
    "Visual": "#781286",
    "Somatomotor": "#4682b4",
    "Attention": "#00760e",
    "Control": "#e69422",
    "Default": "#cd3e4e",
    "Limbic": "#b8a642",
    "Subcortical": "#5f6b78",
}

_IGNORE = """\
*.html
logs/
figures/
*_xfm.*
*.surf.gii
*_boldref.nii.gz
*_space-fsaverage5_bold.*
*_den-91k_bold.*
*_mixing.tsv
*_timeseries.*
"""

_README = """\
# bids_roi demo

Synthetic data in the layout of fMRIPrep's output, made by `bids_roi_tools demo`.
No person was scanned and no software but bids_roi was used; fMRIPrep was not run.

The head is made of formulae and stands in no relation to anybody's anatomy. sub-01 and
sub-02 have two sessions of two resting-state runs (120 volumes, 2 s), the others one
run. sub-01 moves a little; sub-02 moves more, and its field of view ends at a height of
47 mm. In the group "decoupled" the network Default is less coupled. The confounds are
computed from the images: csf and white_matter are the means over labels 3 and 2 of dseg
inside the brain mask.

The grid is one of 5 mm, although the names say res-2, so that the files are small.

The first run of sub-01 is there on a surface (GIFTI), that of sub-02 as grayordinates
(CIFTI). The meshes have as many vertices as fsaverage5 and fsLR 32k, but lie on the
simulated head and are not those; each vertex has the series of the nearest voxel of its
region.
"""


_NIFTI_TYPES = {"i2": 4, "f4": 16, "i4": 8}
_INTENTS = {3002: b"ConnDenseSeries", 3007: b"ConnDenseLabel"}
_GIFTI_TYPES = {"f4": "FLOAT32", "i4": "INT32"}


@dataclass(frozen=True, slots=True)
class DemoDataset:
    """Where everything is, and what is true.

    ``signals`` are those of the regions before any noise, (T, R), in percent, by the
    stem of the run (``sub-01_ses-1_task-rest_run-1``).
    """

    derivative: Path  # the fMRIPrep-like dataset
    templateflow_home: Path  # a folder that holds the atlas Demo
    atlas_image: Path
    atlas_table: Path
    region_names: tuple[str, ...]  # in the order of the table
    signals: Mapping[str, NDArray[np.float64]]


def write_demo_dataset(folder: Path, *, seed: int = 0) -> DemoDataset:
    """Write the demo dataset: ``fmriprep/`` and ``atlas/`` in a folder.

    The same seed gives the same bytes.
    """
    derivative, home = folder / "fmriprep", folder / "atlas"
    for path in (derivative, home):
        if path.exists():
            msg = "this exists already, and the demo dataset replaces nothing."
            raise OutputError(msg, where=path, remedy="Choose another folder.")
    try:
        image, table = _write_atlas(home)
        _write_root(derivative)
        signals = _write_participants(derivative, seed)
    except OSError as error:
        msg = f"the demo dataset cannot be written ({error.strerror})."
        remedy = "Choose a folder that can be written to and has 60 MB free."
        raise OutputError(msg, where=folder, remedy=remedy) from error
    names = tuple(region.name for region in REGIONS)
    return DemoDataset(derivative, home, image, table, names, signals)


def _write_participants(derivative: Path, seed: int) -> dict[str, NDArray[np.float64]]:
    """All runs of all participants; returns their true signals."""
    head = make_head()
    signals = {}
    for subject, profile in _PROFILES.items():
        _write_anatomy(derivative / f"sub-{subject}" / "anat", subject, head)
        long = subject in _LONG
        for session, number in itertools.product("12" if long else "1", repeat=2):
            folder = derivative / f"sub-{subject}" / f"ses-{session}" / "func"
            folder.mkdir(parents=True, exist_ok=True)
            # Seeded by its name, so that no run depends on those before it.
            rng = np.random.default_rng([seed, int(subject), int(session), int(number)])
            which = (subject, session, number)
            unsteady = int(which == _UNSTEADY)
            run = make_run(head, profile, rng, n_unsteady=unsteady)
            confounds = measure_confounds(head, run, profile.step, n_unsteady=unsteady)
            entities = (
                ("sub", subject),
                ("ses", session),
                ("task", "rest"),
                ("run", number),
            )
            _write_run(folder, entities, run, profile)
            if which == _GIFTI_RUN:
                _write_gifti_run(folder, entities, head, run, profile)
            elif which == _CIFTI_RUN:
                _write_cifti_run(folder, entities, head, run, profile)
            _write_confounds(folder, entities, confounds)
            signals["_".join(f"{key}-{label}" for key, label in entities)] = run.signals
    return signals


def _write_run(folder: Path, entities: Entities, run: Run, profile: Profile) -> None:
    """The series, its mask and its reference."""
    spaced = (*entities, *_SPACE)
    affine = BOLD_GRID.matrix
    stem = folder / format_name((*spaced, ("desc", "preproc")), "bold", "")
    slope = profile.step
    values: NDArray[Any] = run.stored.T  # (T, z, y, x) -> (x, y, z, T)
    place = stem.with_suffix(".nii.gz")
    if dict(entities)["sub"] in _FLOATING:
        values, slope = values.astype(np.float32) * np.float32(slope), 1.0
    write_image(place, values, affine, repetition_time=REPETITION_TIME, slope=slope)
    sidecar = {**_TIMING, "Resolution": _RESOLUTION, "SkullStripped": False}
    _write_json(stem.with_suffix(".json"), sidecar)
    stem = folder / format_name((*spaced, ("desc", "brain")), "mask", "")
    write_image(stem.with_suffix(".nii.gz"), run.mask.T.astype(np.uint8), affine)
    raw = format_name(entities, "bold", ".nii.gz")
    source = f"{folder.parent.parent.name}/{folder.parent.name}/func/{raw}"
    sidecar = {"RawSources": [source], "Resolution": _RESOLUTION, "Type": "Brain"}
    _write_json(stem.with_suffix(".json"), sidecar)
    reference = np.rint(run.stored.mean(axis=0) * profile.step).astype(np.float32)
    name = format_name(spaced, "boldref", ".nii.gz")
    write_image(folder / name, reference.T, affine)


def _write_gifti_run(
    folder: Path, entities: Entities, head: Head, run: Run, profile: Profile
) -> None:
    """The run on both hemispheres of fsaverage5."""
    flat = run.stored.reshape(len(run.stored), -1)
    for one in make_hemispheres(_GIFTI_CUTS):
        spaced = (*entities, ("hemi", one.side), ("space", "fsaverage5"))
        voxels = nearest_voxels(head, one.regions, one.vertices)
        series = flat[:, voxels] * np.float32(profile.step)
        path = folder / format_name(spaced, "bold", ".func.gii")
        write_surface_series(path, one.side, series)
        _write_json(folder / format_name(spaced, "bold", ".json"), _TIMING)


def _write_cifti_run(
    folder: Path, entities: Entities, head: Head, run: Run, profile: Profile
) -> None:
    """The run on grayordinates, and the surfaces that fMRIPrep writes with it."""
    points = make_grayordinates(_CIFTI_CUTS)
    spaced = (*entities, ("space", "fsLR"), ("den", "91k"))
    voxels = nearest_voxels(head, points.regions, points.places)
    series = run.stored.reshape(len(run.stored), -1)[:, voxels].T
    path = folder / format_name(spaced, "bold", ".dtseries.nii")
    write_dense_series(path, points, series, profile.step)
    sidecar = {
        **_TIMING,
        "Density": f"{len(voxels):,} grayordinates on meshes of 32,492 vertices.",
    }
    _write_json(folder / format_name(spaced, "bold", ".json"), sidecar)
    for one in make_hemispheres(_CIFTI_CUTS):
        named = (entities[0], ("hemi", one.side), ("space", "fsLR"), ("den", "32k"))
        name = format_name(named, "midthickness", ".surf.gii")
        write_mesh(folder.parent.parent / "anat" / name, one)


def _write_confounds(folder: Path, entities: Entities, confounds: Confounds) -> None:
    """The table and its sidecar."""
    stem = folder / format_name((*entities, ("desc", "confounds")), "timeseries", "")
    rows = [
        ["n/a" if np.isnan(value) else format(value, ".10g") for value in row]
        for row in np.column_stack(list(confounds.columns.values())).tolist()
    ]
    _write_table(stem.with_suffix(".tsv"), list(confounds.columns), *rows)
    _write_json(stem.with_suffix(".json"), confounds.components)


def _write_anatomy(folder: Path, subject: str, head: Head) -> None:
    """The tissues, on the grid of the BOLD series."""
    folder.mkdir(parents=True)
    stem = folder / format_name((("sub", subject), *_SPACE), "dseg", "")
    labels = head.tissue.T.astype(np.uint8)
    write_image(stem.with_suffix(".nii.gz"), labels, BOLD_GRID.matrix)
    _write_json(stem.with_suffix(".json"), {"Resolution": _RESOLUTION})
    rows = ["index", "name"], [1, "GM"], [2, "WM"], [3, "CSF"]
    _write_table(stem.with_suffix(".tsv"), *rows)


def _write_root(derivative: Path) -> None:
    """What stands at the root of the derivative."""
    derivative.mkdir(parents=True)
    description = {
        "Name": "bids_roi demo (synthetic, fMRIPrep-like)",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "bids_roi demo",
                "Description": "Simulated; laid out as by fMRIPrep, which was not run.",
            }
        ],
        "License": "CC0",
    }
    _write_json(derivative / "dataset_description.json", description)
    (derivative / "README.md").write_text(_README, encoding="utf-8")
    (derivative / ".bidsignore").write_text(_IGNORE, encoding="utf-8")
    header = ["participant_id", "group"]
    rows = [
        [f"sub-{subject}", "control" if profile.coupling > 0.4 else "decoupled"]
        for subject, profile in _PROFILES.items()
    ]
    _write_table(derivative / "participants.tsv", header, *rows)
    levels = {
        "control": "Regions of the network Default share most of their variance.",
        "decoupled": "They share little.",
    }
    sidecar = {"group": {"Description": "Simulated group.", "Levels": levels}}
    _write_json(derivative / "participants.json", sidecar)


def _write_atlas(home: Path) -> tuple[Path, Path]:
    """The atlas in TemplateFlow's layout; returns its volume and the table of that."""
    header = ["index", "name", "hemisphere", "network", "color"]
    table = _write_atlas_table(home, _TEMPLATE, header, REGIONS)
    stem = f"tpl-{_TEMPLATE}_res-02_atlas-Demo_dseg.nii.gz"
    image = table.with_name(stem)
    write_image(image, label_points(ATLAS_GRID).T, ATLAS_GRID.matrix)
    colours = [(r.value, r.name, _NETWORK_COLORS[r.network]) for r in REGIONS]
    points = make_grayordinates(_CIFTI_CUTS)
    folder = _write_atlas_table(home, "fsLR", header, REGIONS).parent
    path = folder / "tpl-fsLR_atlas-Demo_den-91k_dseg.dlabel.nii"
    write_dense_labels(path, points, colours)
    cortex = [region for region in REGIONS if not region.axes]
    folder = _write_atlas_table(home, "fsaverage", header, cortex).parent
    for one in make_hemispheres(_GIFTI_CUTS):
        name = f"tpl-fsaverage_hemi-{one.side}_den-10k_atlas-Demo_dseg.label.gii"
        own = [row for row in colours if row[0] in one.labels]
        write_surface_labels(folder / name, one, own)
    columns = {
        "hemisphere": {"Levels": {"L": "Left.", "R": "Right."}},
        "network": {"Description": "Regions of one network fluctuate together."},
    }
    _write_json(table.with_suffix(".json"), columns)
    description = {
        "Name": "Demo",
        "License": "CC0",
        "Authors": ["The bids_roi developers"],
        "Description": "Regions of a simulated head, divided by geometry alone; for"
        " demonstrations and tests, without anatomical meaning.",
        "LevelType": "group",
    }
    _write_json(home / "atlas-Demo_description.json", description)
    return image, table


def _write_atlas_table(
    home: Path, template: str, header: Sequence[str], regions: Sequence[Region]
) -> Path:
    folder = home / f"tpl-{template}"
    folder.mkdir(parents=True)
    rows = [
        [r.value, r.name, r.hemisphere, r.network, _NETWORK_COLORS[r.network]]
        for r in regions
    ]
    path = folder / f"tpl-{template}_atlas-Demo_dseg.tsv"
    _write_table(path, header, *rows)
    return path


def _write_table(path: Path, *rows: Sequence[object]) -> None:
    """Tab-separated values; the first row is the header."""
    lines = ["\t".join(map(str, row)) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, with a line break at the end."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_dense_series(
    path: Path, points: Grayordinates, series: NDArray[np.int16], slope: float
) -> None:
    """A ``.dtseries.nii`` of (V, T) stored values."""
    axis = (
        f'NumberOfSeriesPoints="{series.shape[1]}" SeriesExponent="0" SeriesStart="0"'
        f' SeriesStep="{REPETITION_TIME:g}" SeriesUnit="SECOND">'
    )
    _write_cifti(path, ("SERIES", axis), points, series, slope, 3002)


def write_dense_labels(
    path: Path, points: Grayordinates, colours: Sequence[tuple[int, str, str]]
) -> None:
    """A ``.dlabel.nii`` with the value, name and #colour of its labels."""
    labels = _label_table(colours)
    axis = f"><NamedMap><MapName>Demo</MapName>{labels}</NamedMap>"
    keys = points.regions.astype(np.float32)[:, None]
    _write_cifti(path, ("LABELS", axis), points, keys, 1.0, 3007)


def _label_table(colours: Sequence[tuple[int, str, str]]) -> str:
    rows = []
    for value, name, colour in ((0, "???", ""), *colours):
        rgb = (
            [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] if colour else [0] * 3
        )
        red, green, blue = (f"{share:.4f}" for share in rgb)
        rows.append(
            f'<Label Key="{value}" Red="{red}" Green="{green}" Blue="{blue}"'
            f' Alpha="{int(value > 0)}">{name}</Label>'
        )
    return f"<LabelTable>{''.join(rows)}</LabelTable>"


def _write_cifti(
    path: Path,
    axis: tuple[str, str],
    points: Grayordinates,
    values: NDArray[np.generic],
    slope: float,
    intent: int,
) -> None:
    """NIfTI-2 with the XML of CIFTI-2: one row for each point, one column a map."""
    kind, more = axis
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><CIFTI Version="2"><Matrix>'
        '<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType='
        f'"CIFTI_INDEX_TYPE_{kind}" {more}</MatrixIndicesMap>'
        '<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType='
        f'"CIFTI_INDEX_TYPE_BRAIN_MODELS">{points.xml}</MatrixIndicesMap>'
        "</Matrix></CIFTI>"
    ).encode()
    body = xml + b"\0" * (-(len(xml) + 8) % 16)
    n_rows, n_columns = values.shape
    code = values.dtype.str[1:]
    head = bytearray(540)
    kinds = _NIFTI_TYPES[code], 8 * values.itemsize
    struct.pack_into("<i8s2h", head, 0, 540, b"n+2\0\r\n\x1a\n", *kinds)
    struct.pack_into("<8q", head, 16, 6, 1, 1, 1, 1, n_columns, n_rows, 1)
    struct.pack_into("<8d", head, 104, *[1.0] * 8)
    struct.pack_into("<q2d", head, 168, 544 + 8 + len(body), slope, 0.0)
    struct.pack_into("<i", head, 500, 10)  # mm and s
    struct.pack_into("<i16s", head, 504, intent, _INTENTS[intent])
    extension = struct.pack("<4B2i", 1, 0, 0, 0, len(body) + 8, 32)
    path.write_bytes(
        bytes(head) + extension + body + values.astype(f"<{code}").tobytes()
    )


def write_surface_series(path: Path, side: str, series: NDArray[np.float32]) -> None:
    """A ``.func.gii`` of (T, V), one array for each volume as fMRIPrep writes it."""
    step = f"<MD><Name>TimeStep</Name><Value>{REPETITION_TIME * 1000:g}</Value></MD>"
    arrays = [_gifti_array("TIME_SERIES", volume) for volume in series]
    _write_gifti(path, side, step, "", arrays)


def write_surface_labels(
    path: Path, one: Hemisphere, colours: Sequence[tuple[int, str, str]]
) -> None:
    """A ``.label.gii`` of a hemisphere."""
    table = _label_table(colours)
    labels = _gifti_array("LABEL", one.labels.astype(np.int32))
    _write_gifti(path, one.side, "", table, [labels])


def write_mesh(path: Path, one: Hemisphere) -> None:
    """A ``.surf.gii`` of a hemisphere."""
    arrays = [
        _gifti_array("POINTSET", one.vertices.astype(np.float32)),
        _gifti_array("TRIANGLE", one.faces.astype(np.int32)),
    ]
    _write_gifti(path, one.side, "", "", arrays)


def _gifti_array(intent: str, values: NDArray[np.generic]) -> str:
    code = values.dtype.str[1:]
    sizes = "".join(f' Dim{k}="{n}"' for k, n in enumerate(values.shape))
    packed = zlib.compress(values.astype(f"<{code}").tobytes(), 1)
    return (
        f'<DataArray Intent="NIFTI_INTENT_{intent}" DataType="NIFTI_TYPE_'
        f'{_GIFTI_TYPES[code]}" ArrayIndexingOrder="RowMajorOrder" Dimensionality='
        f'"{values.ndim}"{sizes} Encoding="GZipBase64Binary" Endian="LittleEndian"'
        f' ExternalFileName="" ExternalFileOffset=""><MetaData></MetaData><Data>'
        f"{base64.b64encode(packed).decode()}</Data></DataArray>"
    )


def _write_gifti(
    path: Path, side: str, metadata: str, table: str, arrays: Sequence[str]
) -> None:
    of = {"L": "CortexLeft", "R": "CortexRight"}[side]
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<GIFTI Version="1.0" NumberOfDataArrays="{len(arrays)}"><MetaData>{metadata}'
        f"<MD><Name>AnatomicalStructurePrimary</Name><Value>{of}</Value></MD></MetaData>"
        f"{table or '<LabelTable/>'}{''.join(arrays)}</GIFTI>\n",
        encoding="utf-8",
    )
