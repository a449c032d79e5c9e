"""Damaged files of surfaces and grayordinates: read, or refused in words."""

from support import dense

DENSE = r"""
import random, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
from support import dense
from bids_roi.errors import BidsRoiError
from bids_roi.images.cifti import open_dense_series, read_dense_labels
path, seed, n = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
axis = dense.small_axis()[::3]
xml = dense.series_xml(axis, 5)
label_xml = dense.labels_xml(axis, [{0: ("?", (0,) * 4), 1: ("A", (0,) * 4)}] * 2)
seeds = [
    (open_dense_series, dense.cifti_bytes(xml, dense.ramp(5, len(axis)))),
    (read_dense_labels, dense.cifti_bytes(label_xml, dense.ramp(2, len(axis)) * 0,
                                          intent=3007)),
]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
rng = random.Random(seed)
read = refused = 0
for _ in range(n):
    function, content = rng.choice(seeds)
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Half of the changes in the header of 544 bytes, half in the XML.
        stop = rng.choice((544, len(content)))
        dense.mutate(content, rng.randrange(stop), rng)
        if len(content) < 2:
            break
    path.write_bytes(content)
    try:
        opened = function(path, "fsLR")
        if function is open_dense_series:
            for _ in opened.source.blocks():
                pass
        read += 1
    except BidsRoiError as error:
        assert str(error)
        refused += 1
print(read, refused)
"""


def test_mutated_headers_and_xml(tmp_path):
    dense.run_mutants(DENSE, tmp_path / "x.nii")


SURFACES = r"""
import random, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
import numpy as np
from support import dense
from support import gifti_files as gii
from bids_roi.errors import BidsRoiError
from bids_roi.images.surfaces import open_surface_series
from bids_roi.images.surfaces import read_surface_labels
folder, seed, n = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
data = dense.ramp(3, 40).astype("f4")
table = [(0, "???"), (1, "A"), (2**31 + 5, "B")]
keys = np.arange(40, dtype="i4") % 2
annot = (40).to_bytes(4, "big") + b"".join(
    i.to_bytes(4, "big") + (i % 2).to_bytes(4, "big") for i in range(40))
annot += b"".join(k.to_bytes(4, "big", signed=True) for k in (1, -2, 2, 2))
annot += b"x\0" + b"".join(k.to_bytes(4, "big") for k in (1, 1, 2))
annot += b"a\0" + b"".join(k.to_bytes(4, "big") for k in (1, 0, 0, 0))
seeds = [("L.func.gii", gii.document([gii.array(v, e, style=s) for v in data], style=s))
         for e in ("ASCII", "Base64Binary", "GZipBase64Binary")
         for s in ("freesurfer", "workbench")]
seeds += [("L.func.gii", gii.document([gii.array(data.T)])),
          ("L.label.gii", gii.document([gii.array(keys, intent="LABEL")],
                                       labels=table)),
          ("lh.annot", annot)]
seeds = [(name, t if isinstance(t, bytes) else t.encode()) for name, t in seeds]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
rng = random.Random(seed)
words = [b"</Data>", b"<Data>", b"</DataArray>", b"\x7f\xff\xff\xff", b"ColumnMajor"]
read = refused = 0
for _ in range(n):
    name, content = rng.choice(seeds)
    content = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        dense.mutate(content, rng.randrange(len(content)), rng, words)
    path = folder / name
    path.write_bytes(content)
    try:
        if "func" in name:
            series = open_surface_series({"L": path}, "fsnative:1", hemispheres=("L",))
            for _ in series.blocks():
                pass
        else:
            labels = read_surface_labels(path)
            labels.unnamed
        read += 1
    except BidsRoiError as error:
        assert str(error)
        refused += 1
print(read, refused)
"""


def test_mutated_files(tmp_path):
    dense.run_mutants(SURFACES, tmp_path)
