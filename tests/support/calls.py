"""The app called within the test's process, and its tables read back."""

import json

import numpy as np

from bids_roi.cli import main
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels, map_weights
from bids_roi.core.partition import build_partition
from bids_roi.core.reduce import reduce_run
from bids_roi.images.nifti import write_image
from bids_roi.tools import main as tools
from support import datasets, group_trees
from support.cuts import cut_points, cut_volumes
from support.datasets import NAMES, SPACE, write_dataset, write_run

FUNC = "sub-01/func"
STEM = f"sub-01_task-rest_space-{SPACE}"


def read(path):
    lines = path.read_text().splitlines()
    header = lines[0].split("\t")
    rows = [
        [np.nan if cell == "n/a" else float(cell) for cell in line.split("\t")]
        for line in lines[1:]
    ]
    return header, np.array(rows)


def read_regions(path):
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    return {name: list(cells) for name, *cells in zip(*lines, strict=True)}


def run(capsys, *arguments, code=0, report=False):
    arguments = [str(a) for a in arguments]
    if "--n-procs" not in arguments:  # workers take their time to start
        arguments += ["--executor", "serial"]
    if not report:  # figures take half a second a run; see test_report_pages.py
        arguments += ["--no-report"]
    found = main(arguments)
    captured = capsys.readouterr()
    assert code is None or found == code, captured.err
    return captured


def run_tools(capsys, *arguments):
    """What ``bids_roi_tools`` prints."""
    assert tools([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def series(out, desc, stat="mean"):
    tail = f"_desc-{desc}" if desc else ""
    return out / FUNC / f"{STEM}_atlas-Toy_stat-{stat}{tail}_timeseries.tsv"


def relmat_path(out, word, desc=None):
    tail = f"_desc-{desc}" if desc else ""
    return out / FUNC / f"{STEM}_atlas-Toy_stat-{word}{tail}_relmat.tsv"


def read_relmat(path):
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert header[0] == "Node"
    assert [row[0] for row in rows] == header[1:] == list(NAMES)
    return np.array(
        [[np.nan if c == "n/a" else float(c) for c in row[1:]] for row in rows]
    )


def sidecar(path):
    return json.loads(path.with_suffix(".json").read_text())


UPPER = np.triu_indices(len(group_trees.NAMES), 1)


def group_name(suffix, stat="pearsoncorrelation", desc="", task="rest"):
    label = f"_desc-{desc}" if desc else ""
    stem = f"group_task-{task}_space-{SPACE}_atlas-Toy_stat-{stat}{label}"
    return f"{stem}_{suffix}.tsv"


SHAPE = (7, 6, 5)
AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])
GRID = Grid.of(SHAPE, AFFINE)
MAP_STATISTICS = ("least_squares", "weighted_mean")


def engine(values, volumes, mask, source=GRID, block=2, labels=None, ends=None):
    n_volumes = values.shape[3]
    flat = values.reshape(-1, n_volumes, order="F").T
    atlases = [map_weights((v for v in volumes), source, GRID)]
    if labels is not None:
        atlases.insert(0, map_labels(labels, np.array([1, 2]), GRID, GRID))
    partition = build_partition(atlases)
    found = reduce_run(
        lambda: cut_points(flat, ends) if ends else cut_volumes(flat, block),
        partition,
        in_mask=mask.ravel(order="F")[partition.voxels],
        statistics=MAP_STATISTICS,
        n_volumes=n_volumes,
    )
    return found, partition


def usable_of(values, mask):
    with np.errstate(invalid="ignore"):
        return mask & np.isfinite(values).all(axis=3) & (np.ptp(values, axis=3) > 0)


# Segmentations of the participant


def segmentation(values=(2, 4, 1002, 2035), shift=0.0):
    volume = np.zeros(datasets.SHAPE, np.int32)
    for number, value in enumerate(values):
        volume[number, 1:6, 1:4] = value
    return volume


LUT = [
    (0, "Unknown"),
    (2, "Left-Cerebral-White-Matter"),
    (4, "Left-Lateral-Ventricle"),
    (1002, "ctx-lh-caudalanteriorcingulate"),
    (2035, "ctx-rh-insula"),
    (14, "3rd-Ventricle"),
    (9999, "of some other segmentation"),
]


def write_native(root, *, in_func=True, in_anat=False, lut=True):
    """A participant in T1w space with FreeSurfer's segmentation."""
    write_dataset(root, runs=())
    write_run(root, "sub-01_task-rest_space-T1w")
    name = "desc-aparcaseg_dseg.nii.gz"
    func, anat = root / "sub-01/func", root / "sub-01/anat"
    anat.mkdir()
    labels = segmentation()[::-1].copy()
    if in_func:
        path = func / f"sub-01_task-rest_space-T1w_{name}"
        write_image(path, labels, datasets.oblique())
    if in_anat:
        write_image(anat / f"sub-01_{name}", labels, datasets.oblique())
    if lut:
        rows = "".join(f'{i}\t"{n}"\t#000000\n' for i, n in LUT)
        (root / "desc-aparcaseg_dseg.tsv").write_text("index\tname\tcolor\n" + rows)
    return root


def state(folder):
    """All there is, to the byte and the nanosecond; times of folders too."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted((folder, *folder.rglob("*")))
    }
