"""What extraction costs, beside bare decompression and beside nilearn.

    python benchmarks/extraction.py                  the table of docs/benchmarks.md
    python benchmarks/extraction.py --sweep          cost against volumes, regions, ...
    python benchmarks/extraction.py --statistics     cost of each beside the mean
    python benchmarks/extraction.py --quick          small and once, to see that it runs

Every measurement is a process of its own, so that its peak memory and processor time
are its own too; wall and processor time are of the work, without imports. (But with
--quick, where figures mean nothing: one process does all cases.) The cases take turns,
round after round, and ratios are taken within a round: these machines are noisy, and
absolute times compare with nothing. The data are made here: a head-shaped
mask on fMRIPrep's 2 mm grid, noise inside, zero outside, and parcels of nearest seeds.
The first run on a grid brings the atlases to it; further runs of a process share that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPACE = "MNI152NLin2009cAsym"
GRID_2MM = (97, 115, 97)
TEN = (400, 100, 200, 300, 116, 48, 264, 360, 500, 247)  # 2,535 regions


def make_data(folder: Path, shape: tuple[int, ...], n_volumes: int) -> Path:
    """Write one run with mask and sidecar; return the derivative's folder."""
    from isal import igzip

    from bids_roi.images.nifti import write_image

    func = folder / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = f"sub-01_task-rest_space-{SPACE}_res-2"
    affine = grid_affine(shape)
    inside = head(shape)
    write_image(func / f"{stem}_desc-brain_mask.nii.gz", inside.astype("u1"), affine)
    rng = np.random.default_rng(0)
    level = rng.uniform(500, 1000, inside.sum()).astype("f4")
    header = func / "header.nii"
    write_image(header, np.zeros((*shape, 2), "f4"), affine, repetition_time=2.0)
    head_bytes = bytearray(header.read_bytes()[:352])
    head_bytes[48:50] = n_volumes.to_bytes(2, "little")  # dim[4]
    header.unlink()
    volume = np.zeros(int(np.prod(shape)), "f4")
    where = np.flatnonzero(inside.ravel(order="F"))
    with igzip.open(func / f"{stem}_desc-preproc_bold.nii.gz", "wb", 1) as file:
        file.write(bytes(head_bytes))
        for _ in range(n_volumes):
            volume[where] = level + rng.normal(0, 20, level.size).astype("f4")
            file.write(volume.tobytes())
    (func / f"{stem}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
    (folder / "dataset_description.json").write_text(
        '{"Name": "benchmark", "BIDSVersion": "1.9.0", "DatasetType": "derivative",'
        ' "GeneratedBy": [{"Name": "benchmark"}]}'
    )
    return folder


def grid_affine(shape: tuple[int, ...]) -> np.ndarray:
    """2 mm at full size; coarser grids span the same head."""
    zooms = [2.0 * full / n for full, n in zip(GRID_2MM, shape, strict=True)]
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = (-96.5, -132.5, -78.5)
    return affine


def head(shape: tuple[int, ...]) -> np.ndarray:
    """An ellipsoid of the size of a brain: a fifth of the grid."""
    axes = [np.linspace(-1, 1, n) / r for n, r in zip(shape, (0.7, 0.75, 0.75))]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= 1


def make_atlas(folder: Path, shape: tuple[int, ...], n_regions: int, seed: int) -> str:
    """Write an atlas of nearest seeds; return the value of --atlas-file."""
    from scipy.spatial import cKDTree

    from bids_roi.images.nifti import write_image

    rng = np.random.default_rng(seed)
    inside = np.argwhere(head(shape))
    seeds = inside[rng.choice(len(inside), n_regions, replace=False)]
    labels = np.zeros(shape, np.int16)
    labels[tuple(inside.T)] = cKDTree(seeds).query(inside)[1] + 1
    stem = f"tpl-{SPACE}_atlas-N{n_regions}x{seed}_dseg"
    write_image(folder / f"{stem}.nii.gz", labels, grid_affine(shape))
    rows = "".join(f"{i}\tR{i}\n" for i in range(1, n_regions + 1))
    (folder / f"{stem}.tsv").write_text(f"index\tname\n{rows}")
    return f"{folder / stem}.nii.gz,{folder / stem}.tsv"


def work(cases: list[dict]) -> None:
    """Do cases in this process, one as a rule, and print what each took."""
    function = {"isal": _decompress, "zlib": _decompress, "nilearn": _nilearn}
    for case in cases:
        begin = function.get(case["kind"], _bids_roi)(case)
        wall, cpu = time.perf_counter(), time.process_time()
        begin()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # Not from the parent's accounts: those start at the parent's own size.
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}) + "\n")


def _decompress(case: dict):
    if case["kind"] == "isal":
        from isal import igzip as library
    else:
        import gzip as library
    buffer = memoryview(bytearray(16 * 2**20))

    def run() -> None:
        with library.open(case["bold"], "rb") as file:
            while file.readinto(buffer):
                pass

    return run


def _nilearn(case: dict):
    import warnings

    warnings.simplefilter("ignore")
    from nilearn.maskers import NiftiLabelsMasker

    def run() -> None:
        for atlas in case["atlases"]:
            masker = NiftiLabelsMasker(
                atlas.partition(",")[0], mask_img=case["mask"], standardize=None
            )
            signals = masker.fit_transform(case["bold"])
            np.savetxt(case["out"] + ".tsv", signals, delimiter="\t")

    return run


def _bids_roi(case: dict):
    import scipy.ndimage  # imports are not what is measured
    import scipy.sparse  # noqa: F401

    from bids_roi.options.record import Options
    from bids_roi.participant.extraction import partition_grid
    from bids_roi.participant.level import open_level, plan_dataset
    from bids_roi.participant.outcomes import Outcomes
    from bids_roi.participant.run import process_run

    given = {"n_procs": 1, "no_report": True, **case.get("options", {})}
    options = Options.of(atlas_file=tuple(case["atlases"]), **given)
    out = Path(case["out"])
    level = open_level(Path(case["root"]), out, options)
    ((_, (planned,)),) = plan_dataset(level, Outcomes(level))
    if case.get("known"):  # the atlases were brought to this grid for an earlier run
        atlases = [atlas for atlas, _ in planned.atlases]
        partition_grid(
            tuple(atlas.image for atlas in atlases),
            tuple(a.regions.index for a in atlases),
            planned.image.frame,
        )

    def run() -> None:
        process_run(planned, options=options, output_dir=out)

    return run


def measure(rows: list[Row], rounds: int, *, quick: bool) -> None:
    """Run the cases in turn, each in a process of its own: seconds and MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for _ in range(rounds):
        for together in [rows] if quick else [[row] for row in rows]:
            with tempfile.TemporaryDirectory() as out:
                cases = [
                    {**row.case, "out": f"{out}/{number}"}
                    for number, row in enumerate(together)
                ]
                done = subprocess.run(
                    [sys.executable, __file__, "--cases", json.dumps(cases)],
                    stdout=subprocess.PIPE,
                    env=environment,
                    check=False,
                )
            if done.returncode:
                sys.exit(f"{', '.join(row.name for row in together)} failed")
            for row, line in zip(together, done.stdout.splitlines(), strict=True):
                row.results.append(json.loads(line))


@dataclasses.dataclass
class Row:
    """One case, and what it took in each round."""

    name: str
    case: dict
    results: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def median(self, key: str) -> float:
        return statistics.median(result[key] for result in self.results)

    def ratio(self, other: Row) -> float:
        pairs = zip(self.results, other.results, strict=True)
        return statistics.median(a["wall"] / b["wall"] for a, b in pairs)


def compare(
    folder: Path, shape: tuple[int, ...], n_volumes: int, rounds: int, *, quick: bool
) -> None:
    """Bare decompression, ours with 1, 3 and 10 atlases, nilearn with 1 and 3."""
    root = make_data(folder / "data", shape, n_volumes)
    atlases = [make_atlas(folder, shape, n, seed) for seed, n in enumerate(TEN)]
    (bold,) = root.glob("sub-01/func/*_bold.nii.gz")
    common = {
        "root": str(root),
        "bold": str(bold),
        "mask": str(bold).replace("preproc_bold", "brain_mask"),
    }
    cases = [
        {"name": "ISA-L, decompression alone", "kind": "isal"},
        {"name": "zlib, decompression alone", "kind": "zlib"},
        *(
            {
                "name": f"bids_roi, {n} atlas, {'further' if known else 'first'} run",
                "kind": "ours",
                "atlases": atlases[:n],
                "known": known,
            }
            for n in (1, 3, 10)
            for known in (False, True)
        ),
        *(
            {"name": f"nilearn, {n} atlas", "kind": "nilearn", "atlases": atlases[:n]}
            for n in (1, 3)
        ),
        *(
            {
                "name": f"bids_roi, 1 atlas, {name}",
                "kind": "ours",
                "atlases": atlases[:1],
                "options": options,
            }
            for name, options in (
                ("connectivity", {"relmat": ("pearson", "partial")}),
                ("report", {"no_report": False}),
            )
        ),
    ]
    rows = [Row(case["name"], {**common, **case}) for case in cases]
    measure(rows, rounds, quick=quick)
    size = bold.stat().st_size / 1e6
    grid = "x".join(map(str, (*shape, n_volumes)))
    say(f"{grid} float32, {size:.0f} MB; {sum(TEN)} regions in ten atlases;")
    say(f"medians of {rounds} rounds on {machine()}.\n")
    say("| case | wall s | CPU s | peak MB | wall / ISA-L |")
    say("|---|---|---|---|---|")
    for row in rows:
        numbers = [f"{row.median(k):.2f}" for k in ("wall", "cpu")]
        numbers += [f"{row.median('peak'):.0f}", f"{row.ratio(rows[0]):.2f}"]
        say(f"| {row.name} | {' | '.join(numbers)} |")
    say("")
    for ours, theirs, n in ((3, 8, 1), (5, 9, 3)):
        ratio = rows[theirs].ratio(rows[ours])
        say(f"nilearn / bids_roi, {n} atlas: {ratio:.1f}")
    ten = rows[8].median("wall") * 10 / rows[7].median("wall")
    say(f"ten times nilearn's one atlas / bids_roi, 10 atlases: {ten:.1f}")


def sweep(folder: Path, rounds: int, *, quick: bool) -> None:
    """Cost against volumes, regions, atlases and voxels, one at a time."""
    full = (12, 14, 12) if quick else GRID_2MM
    coarse = (6, 7, 6) if quick else (49, 58, 49)
    few, usual, many = (5, 10, 20) if quick else (100, 300, 3000)
    n_regions = (4, 8) if quick else (10, 400, 1000, 5000)
    made: dict[tuple, Path] = {}
    lines, rows = [], []
    plans = [("volumes", full, n, (100,)) for n in (few, usual, many)]
    plans += [("regions", full, few, (n,)) for n in n_regions]
    plans += [("atlases", full, few, (n_regions[1],) * n) for n in (1, 3, 10)]
    plans += [("voxels", shape, few, n_regions[1:2]) for shape in (coarse, full)]
    plans = plans[2::2] if quick else plans  # one of each kind
    for what, shape, n_volumes, counts in plans:
        key = (shape, n_volumes)
        if key not in made:
            made[key] = folder / f"data{len(made)}"
            make_data(made[key] / "in", shape, n_volumes)
        place = made[key]
        atlases = [make_atlas(place, shape, n, seed) for seed, n in enumerate(counts)]
        (bold,) = place.glob("in/sub-01/func/*_bold.nii.gz")
        common = {"root": f"{place}/in", "bold": str(bold), "atlases": atlases}
        rows += [Row(what, {**common, "kind": kind}) for kind in ("ours", "isal")]
        cells = [n_volumes, int(np.prod(shape)), len(counts), sum(counts)]
        lines.append(" | ".join([what, *map(str, cells)]))
    measure(rows, rounds, quick=quick)
    say("| what | volumes | voxels | atlases | regions | wall s | ISA-L s | peak MB |")
    say("|---|---|---|---|---|---|---|---|")
    for line, ours, bare in zip(lines, rows[::2], rows[1::2], strict=True):
        times = " | ".join(f"{row.median('wall'):.2f}" for row in (ours, bare))
        say(f"| {line} | {times} | {ours.median('peak'):.0f} |")


def beside_the_mean(
    folder: Path, shape: tuple[int, ...], n_volumes: int, rounds: int, *, quick: bool
) -> None:
    """Processor seconds of statistics and measures, as ratios to the mean's."""
    root = make_data(folder / "data", shape, n_volumes)
    n_regions = 4 if quick else TEN[0]
    atlases = [make_atlas(folder, shape, n_regions, 0)]
    (bold,) = root.glob("sub-01/func/*_bold.nii.gz")
    common = {"root": str(root), "bold": str(bold), "atlases": atlases}
    common |= {"kind": "ours", "known": True}
    cases = {
        name: {"statistic": (name,)}
        for name in ("mean", "median", "trimmed_mean_20", "eigenvariate")
    }
    cases["mean, voxel_tsnr and homogeneity"] = {
        "region_measures": ("voxel_tsnr", "homogeneity")
    }
    rows = [Row(name, {**common, "options": given}) for name, given in cases.items()]
    measure(rows, rounds, quick=quick)
    say("| statistic | CPU s | to the mean | peak MB |")
    say("|---|---|---|---|")
    least = [min(result["cpu"] for result in row.results) for row in rows]
    for row, cpu in zip(rows, least, strict=True):
        numbers = f"{cpu:.2f} | {cpu / least[0]:.2f} | {row.median('peak'):.0f}"
        say(f"| {row.name} | {numbers} |")


def machine() -> str:
    """Processor and cores, as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            x.split(":")[1].strip() for x in lines if x.startswith("model name")
        )
    except (OSError, StopIteration):
        name = "an unknown processor"
    return f"{os.cpu_count()} cores of {name}"


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=300)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--statistics", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.cases:
        work(json.loads(given.cases))
        return
    with tempfile.TemporaryDirectory() as folder:
        rounds = 1 if given.quick else given.rounds
        if given.sweep:
            sweep(Path(folder), rounds, quick=given.quick)
        else:
            shape = (24, 28, 24) if given.quick else GRID_2MM
            n_volumes = 8 if given.quick else given.volumes
            run = beside_the_mean if given.statistics else compare
            run(Path(folder), shape, n_volumes, rounds, quick=given.quick)


if __name__ == "__main__":
    main()
