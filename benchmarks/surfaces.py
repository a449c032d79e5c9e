"""What reading grayordinates and surfaces costs, beside other ways to do it.

    python benchmarks/surfaces.py                    91k series, pairs of GIFTI files
    python benchmarks/surfaces.py --quick            small and once, to see that it runs

Every measurement is a process of its own (but with --quick, where figures mean nothing:
one does all); processor time is of the work, without imports, and memory is what the
work adds to the process. The cases take turns, round
after round, and ratios are taken within a round: these machines are noisy, and
absolute times compare with nothing. Regional means are of 400 regions: by the whole
reduction here, by a sparse product with nibabel. The data are made here: noise on brain
models as large as fMRIPrep's, and on meshes as large as fsaverage's.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from extraction import machine, say

N_REGIONS = 400
MESHES = {10_242: "fsaverage5", 40_962: "fsaverage6", 163_842: "fsaverage"}


def dense_axis(share: int):
    """Brain models with as many grayordinates as the 91k space has, or a share."""
    from nibabel import cifti2

    axis = None
    for side, count in (("LEFT", 29_696), ("RIGHT", 29_716)):
        vertices = np.arange(count // share) * 32_492 // (count // share)
        name = f"CIFTI_STRUCTURE_CORTEX_{side}"
        part = cifti2.BrainModelAxis.from_surface(vertices, 32_492, name)
        axis = part if axis is None else axis + part
    mask = np.zeros((91, 109, 91), bool)
    mask.ravel()[200_000 : 200_000 + 31_870 // share] = True
    affine = np.diag([-2.0, 2, 2, 1])
    return axis + cifti2.BrainModelAxis.from_mask(mask, "CEREBELLUM_LEFT", affine)


def make_dense(folder: Path, n_volumes: int, share: int) -> dict[str, str]:
    """Write a float32 series and a label file; return their paths."""
    import nibabel as nb
    from nibabel import cifti2

    axis = dense_axis(share)
    bold = folder / f"{n_volumes}.dtseries.nii"
    nothing = np.broadcast_to(np.float32(0), (n_volumes, len(axis)))
    series = cifti2.SeriesAxis(0, 2, n_volumes)
    image = cifti2.Cifti2Image(nothing, (series, axis))
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
    image.to_filename(bold)
    offset = nb.load(bold).dataobj.offset
    rows = np.memmap(bold, "<f4", "r+", offset, (len(axis), n_volumes))
    rng = np.random.default_rng(0)
    for start in range(0, len(axis), 1000):
        stop = min(start + 1000, len(axis))
        rows[start:stop] = rng.normal(800, 20, (stop - start, n_volumes))
    rows.flush()
    labels = folder / f"{n_volumes}.dlabel.nii"
    keys = np.arange(len(axis))[None] % N_REGIONS + 1
    table = {k: (f"R{k}", (0.5, 0.5, 0.5, 1)) for k in range(1, N_REGIONS + 1)}
    table[0] = ("???", (0, 0, 0, 0))
    image = cifti2.Cifti2Image(
        keys.astype("f4"), (cifti2.LabelAxis(["all"], [table]), axis)
    )
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS")
    image.to_filename(labels)
    return {"bold": str(bold), "labels": str(labels), "n_points": len(axis)}


def make_pair(folder: Path, n_vertices: int, n_volumes: int) -> dict[str, str]:
    """Write two hemispheres as FreeSurfer does: an array for each volume."""
    rng = np.random.default_rng(0)
    paths = {}
    for side in "LR":
        path = folder / f"{n_vertices}_hemi-{side}.func.gii"
        with path.open("w") as file:
            file.write(f'<GIFTI Version="1.0" NumberOfDataArrays="{n_volumes}">')
            for _ in range(n_volumes):
                values = rng.normal(800, 20, n_vertices).astype("<f4").tobytes()
                text = base64.b64encode(zlib.compress(values, 1)).decode()
                file.write(
                    '<DataArray Intent="NIFTI_INTENT_TIME_SERIES"'
                    ' DataType="NIFTI_TYPE_FLOAT32" ArrayIndexingOrder="RowMajorOrder"'
                    f' Dimensionality="1" Dim0="{n_vertices}"'
                    ' Encoding="GZipBase64Binary" Endian="LittleEndian"'
                    ' ExternalFileName="" ExternalFileOffset="">'
                    f"<MetaData/><Data>{text}</Data></DataArray>\n"
                )
            file.write("</GIFTI>")
        paths[side] = str(path)
    return {**paths, "n_points": 2 * n_vertices, "template": MESHES[n_vertices]}


def read_raw(case: dict) -> None:
    """Bytes of the files, a block at a time."""
    buffer = memoryview(bytearray(4 * 2**20))
    for key in ("bold", "L", "R"):
        if key in case:
            with Path(case[key]).open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def membership(case: dict):
    """Which point is of which region, (regions, V)."""
    from scipy import sparse

    n_points = case["n_points"]
    rows = np.arange(n_points) % N_REGIONS
    ones = np.ones(n_points, "f4")
    return sparse.csr_matrix((ones, (rows, np.arange(n_points))))


def open_ours(case: dict):
    """Header or heads of a run."""
    from bids_roi.images.nifti import open_series

    if "bold" in case:
        return open_series("cifti", {"": Path(case["bold"])}, "fsLR")
    return open_series("gifti", {s: Path(case[s]) for s in "LR"}, case["template"])


def read_ours(case: dict) -> None:
    """All blocks."""
    for _ in open_ours(case).source.blocks():
        pass


def prepare_partition(case: dict):
    """The atlas on the run's points, which is made once for all runs of a dataset."""
    from bids_roi.core.mapping import map_labels
    from bids_roi.core.partition import build_partition

    frame = open_ours(case).frame
    labels = np.arange(frame.n_points) % N_REGIONS + 1
    index = np.arange(1, N_REGIONS + 1)
    return build_partition([map_labels(labels, index, frame, frame)])


def reduce_ours(case: dict, partition) -> None:
    """Regional means: header, values, what can be used, sums."""
    from bids_roi.core.reduce import reduce_run

    series = open_ours(case)
    reduce_run(
        series.source.blocks,
        partition,
        in_mask=np.ones(partition.voxels.size, bool),
        statistics={"mean"},
        n_volumes=series.source.n_volumes,
        scaling=(series.slope, series.intercept),
    )


def read_nibabel(case: dict, *, sums: bool) -> None:
    """The whole array in memory, as scripts do it."""
    import nibabel as nb

    if "bold" in case:
        image = nb.load(case["bold"])
        image.header.get_axis(1)
        values = image.get_fdata(dtype=np.float32)
    else:
        values = np.vstack([nb.load(case[s]).agg_data() for s in "LR"]).T
    if sums:
        membership(case) @ values.T


def read_header(case: dict, *, again: bool) -> None:
    """Header alone, of a first or of a further run."""
    for _ in range(10 if again else 1):
        open_ours(case)


def parcellate(case: dict) -> None:
    """Workbench, with the table of regions that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["-cifti-parcellate", case["bold"], case["labels"], "COLUMN"]
        argv.append(f"{folder}/out.ptseries.nii")
        subprocess.run(["wb_command", *argv], check=True, stdout=subprocess.DEVNULL)


REDUCED = "bids_roi, regional means"
WAYS = {
    "raw read": read_raw,
    "bids_roi, header of a first run": partial(read_header, again=False),
    "bids_roi, headers of 10 runs": partial(read_header, again=True),
    "bids_roi, values": read_ours,
    REDUCED: reduce_ours,
    "nibabel, values": partial(read_nibabel, sums=False),
    "nibabel, values and sums": partial(read_nibabel, sums=True),
    "wb_command -cifti-parcellate": parcellate,
}


def memory(word: str) -> float:
    """Size of this process in MB: VmRSS now, VmHWM at its largest."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{word}:")[2].split()[0]) / 1024


def work(cases: list[dict]) -> None:
    """Do cases in this process, one as a rule, and print what each took."""
    import nibabel as nb  # imports are not what is measured
    import scipy.sparse  # noqa: F401

    nb.cifti2, nb.gifti  # noqa: B018
    import bids_roi.core.reduce
    import bids_roi.images.nifti  # noqa: F401

    for case in cases:
        more = (prepare_partition(case),) if case["way"] == REDUCED else ()
        base, cpu = memory("VmRSS"), time.process_time()
        WAYS[case["way"]](case, *more)
        cpu = time.process_time() - cpu
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = children.ru_maxrss / 1024 or memory("VmHWM") - base
        cpu += children.ru_utime + children.ru_stime
        sys.stdout.write(json.dumps({"cpu": cpu, "peak": peak}) + "\n")


def measure(cases: list[dict]) -> list[dict[str, float]]:
    """Run cases in a process of their own; seconds and MB of each."""
    command = [sys.executable, __file__, "--cases", json.dumps(cases)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{', '.join(case['way'] for case in cases)} failed")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(title: str, data: dict, rounds: int, *, quick: bool) -> None:
    """All ways for one run, interleaved."""
    ways = [
        way
        for way in WAYS
        if way != "wb_command -cifti-parcellate"
        or ("bold" in data and shutil.which("wb_command"))
    ]
    found = {way: [] for way in ways}
    for _ in range(rounds):
        for together in [ways] if quick else [[way] for way in ways]:
            took = measure([{**data, "way": way} for way in together])
            for way, result in zip(together, took, strict=True):
                found[way].append(result)
    size = sum(
        Path(data[key]).stat().st_size for key in ("bold", "L", "R") if key in data
    )
    say(f"\n{title}, {size / 1e6:.0f} MB; medians of {rounds} rounds\n")
    say("| way | CPU s | / raw read | / bids_roi, means | MB above the process |")
    say("|---|---|---|---|---|")
    for way in ways:
        cells = [f"{statistics.median(r['cpu'] for r in found[way]):.3f}"]
        for other in ("raw read", REDUCED):
            pairs = zip(found[way], found[other], strict=True)
            ratio = statistics.median(a["cpu"] / b["cpu"] for a, b in pairs)
            cells.append(f"{ratio:.2f}")
        cells.append(f"{statistics.median(r['peak'] for r in found[way]):.0f}")
        say(f"| {way} | {' | '.join(cells)} |")


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.cases:
        work(json.loads(given.cases))
        return
    rounds = 1 if given.quick else given.rounds
    dense = [5] if given.quick else [300, 1200]
    pairs = (
        [(10_242, 3)] if given.quick else [(10_242, 300), (40_962, 300), (163_842, 150)]
    )
    say(machine())
    for n_volumes in dense:
        with tempfile.TemporaryDirectory() as folder:
            data = make_dense(Path(folder), n_volumes, 50 if given.quick else 1)
            title = f"{data['n_points']:,} grayordinates x {n_volumes}, float32"
            compare(title, data, rounds, quick=given.quick)
    for n_vertices, n_volumes in pairs:
        with tempfile.TemporaryDirectory() as folder:
            data = make_pair(Path(folder), n_vertices, n_volumes)
            title = f"{MESHES[n_vertices]}, 2 x {n_vertices:,} vertices x {n_volumes}"
            compare(title, data, rounds, quick=given.quick)


if __name__ == "__main__":
    main()
