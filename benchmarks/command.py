"""What the whole command costs, as ratios to bare decompression in one benchmark.

    python benchmarks/command.py             the figures, beside Workbench and nilearn
    python benchmarks/command.py --write     the same, written into docs/benchmarks.md
    python benchmarks/command.py --check     ours alone, with a warning above the limits
    python benchmarks/command.py --quick     small and once, to see that it runs

Processor seconds (user and system, of a process and its children) per run after the
first: a call on several participants less one on the first, shared out. The cases take
turns, round after round; of each the least of its rounds counts, as what comes on top
is other people's. The run is ``extraction.py``'s with 200 columns of confounds, the
same file for every participant, so that it is read from memory. Decompression alone is
a process that does nothing else: by 512 kB at a time and without a copy, which is the
least that ISA-L takes, and into a buffer of 16 MiB, as in ``extraction.py``, which the
limits are held against.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from extraction import GRID_2MM, SPACE, TEN, machine, make_atlas, make_data, say

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- from benchmarks/command.py -->", "<!-- to here -->"
BARE = """
import sys
from isal import igzip
with igzip.open(sys.argv[1], "rb") as file:
    while file.read1(2**19):
        pass
"""
BARE_INTO = """
import sys
from isal import igzip
room = memoryview(bytearray(2**24))
with igzip.open(sys.argv[1], "rb") as file:
    while file.readinto(room):
        pass
"""
# A process as small as can be: the peak of its children begins at its own size.
ACCOUNT = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(child, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""
NILEARN = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy
from nilearn.maskers import NiftiLabelsMasker
bold, mask, atlas, out = sys.argv[1:]
masker = NiftiLabelsMasker(atlas, mask_img=mask, standardize=None)
numpy.savetxt(out, masker.fit_transform(bold), delimiter=chr(9))
"""
# One command as the module does it: ours, whatever is installed.
OURS = [sys.executable, "-m", "bids_roi"]
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
DEFAULT = ("--denoise", "none", "36P", "--relmat", "pearson")
SCHAEFER = (100, 200, 400)


@dataclass
class Case:
    """A command, and what it took in each round."""

    name: str
    command: list[str]
    # The same on one participant: what is left is of the further runs.
    less: list[str] = field(default_factory=list)
    n_further: int = 1
    limit: float | None = None
    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    peak: float = 0.0

    def measure(self, out: Path) -> None:
        """Take a round."""
        cpu, peak = spend([*self.command], out)
        self.seconds.append(cpu)
        self.peak = max(self.peak, peak)
        if self.less:
            self.first.append(spend([*self.less], out)[0])

    @property
    def per_run(self) -> float:
        """Processor seconds of a further run, or of all where there is one."""
        least = min(self.seconds) - (min(self.first) if self.first else 0.0)
        return least / self.n_further


def spend(command: list[str], out: Path) -> tuple[float, float]:
    """Run a command; processor seconds and peak memory, MB."""
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-S", "-c", ACCOUNT, *command],
        env=os.environ | THREADS,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    cpu, peak = map(float, done.stdout.split()[-2:])
    return cpu, peak / 1024


def write_confounds(folder: Path, n_volumes: int) -> None:
    """Write fMRIPrep's columns for 36P, and 160 more that are read by."""
    rng = np.random.default_rng(1)
    plain = ["csf", "white_matter", "global_signal"]
    plain += [f"{what}_{axis}" for what in ("trans", "rot") for axis in "xyz"]
    ends = ("", "_derivative1", "_power2", "_derivative1_power2")
    names = [name + end for name in plain for end in ends]
    names += ["framewise_displacement", "std_dvars"]
    names += [f"a_comp_cor_{i:03}" for i in range(162)]
    values = rng.normal(size=(n_volumes, len(names)))
    values[:, names.index("framewise_displacement")] = rng.uniform(0, 0.2, n_volumes)
    rows = [[repr(float(v)) for v in row] for row in values]
    for column, name in enumerate(names):
        if "derivative1" in name or name in ("framewise_displacement", "std_dvars"):
            rows[0][column] = "n/a"
    text = "\n".join("\t".join(row) for row in [names, *rows]) + "\n"
    (func,) = folder.glob("sub-01/func")
    table = func / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    table.write_text(text)


def share(folder: Path, n_participants: int) -> None:
    """Give the files of the first participant to others."""
    for number in range(2, n_participants + 1):
        func = folder / f"sub-{number:02}" / "func"
        func.mkdir(parents=True)
        for path in folder.glob("sub-01/func/*"):
            name = path.name.replace("sub-01", func.parent.name)
            func.joinpath(name).hardlink_to(path)


def make_cases(
    folder: Path, shape: tuple[int, ...], n_volumes: int, n_runs: int, *, others: bool
) -> list[Case]:
    """Make the data; what is measured, decompression alone, in two ways, first."""
    root = make_data(folder / "data", shape, n_volumes)
    write_confounds(root, n_volumes)
    share(root, n_runs)
    out = folder / "out"
    share_of = 1 if shape == GRID_2MM else 10  # parcels of a small grid are as large
    ten = [make_atlas(folder, shape, n // share_of, s) for s, n in enumerate(TEN)]
    three = [ten[TEN.index(n)] for n in SCHAEFER]
    (bold,) = map(str, root.glob("sub-01/func/*_bold.nii.gz"))

    def ours(name: str, limit: float, atlases: list[str], *more: str) -> Case:
        command = [*OURS, str(root), str(out), "participant", "--executor", "serial"]
        command += ["--space", SPACE, "--atlas-file", *atlases, *more]
        one = [*command, "--participant-label", "01"]
        return Case(f"**bids_roi**, {name}", command, one, n_runs - 1, limit)

    mean = str(folder / "mean.nii.gz")
    mask = bold.replace("preproc_bold", "brain_mask")
    image = ten[0].partition(",")[0]
    bare, into = ([sys.executable, "-c", text, bold] for text in (BARE, BARE_INTO))
    cases = [
        Case("decompression alone, ISA-L, without a copy", bare),
        Case("the same into a buffer of 16 MiB", into),
        ours("one atlas, no report", 1.15, ten[:1], "--no-report"),
        ours("one atlas, none and 36P, pearson, report", 1.5, ten[:1], *DEFAULT),
        ours("three atlases (100, 200, 400), the same", 1.8, three, *DEFAULT),
        ours("ten atlases (2,535 regions), the same", 4.0, ten, *DEFAULT),
    ]
    if others:
        nilearn = [sys.executable, "-c", NILEARN, bold, mask, image]
        nilearn += [str(folder / "nilearn.tsv")]
        cases.append(Case("nilearn `NiftiLabelsMasker`, one atlas", nilearn))
        if wb := shutil.which("wb_command"):
            reduce = [wb, "-volume-reduce", bold, "MEAN", mean]
            cases.append(Case("`wb_command -volume-reduce MEAN`, no atlas", reduce))
        gzip = [str(shutil.which("gzip")), "-dc", bold]
        cases.append(Case("`gzip -dc`, nothing else", gzip))
    return cases


def table(cases: list[Case]) -> list[str]:
    """Rows in Markdown."""
    quick, usual = (case.per_run for case in cases[:2])
    rows = [
        "| per run after the first | CPU s | to no copy | to 16 MiB | peak memory |",
        "|---|---|---|---|---|",
    ]
    return rows + [
        f"| {case.name} | {case.per_run:.2f} | {case.per_run / quick:.2f} |"
        f" {case.per_run / usual:.2f} | {case.peak:.0f} MB |"
        for case in cases
    ]


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--check", action="store_true", help="ours alone, and warn")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    shape, n_volumes, rounds, n_runs = GRID_2MM, given.volumes, given.rounds, 5
    if given.quick:
        shape, n_volumes, rounds, n_runs = (24, 28, 24), 60, 1, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = make_cases(folder, shape, n_volumes, n_runs, others=not given.check)
        if given.quick:
            # Calls on several participants less those on one: shown by the first.
            for case in cases[3:]:
                if case.less:
                    case.command, case.less = case.less, []
        for _ in range(rounds):
            for case in cases:
                case.measure(folder / "out")
    grid = "x".join(map(str, (*shape, n_volumes)))
    lines = [*table(cases), "", f"{grid} float32; {rounds} rounds on {machine()}."]
    for line in lines:
        say(line)
    for case in cases:
        ratio = case.per_run / cases[1].per_run
        if given.check and case.limit is not None and ratio > case.limit:
            say(f"warning: {case.name}: {ratio:.2f}, {case.limit} is the aim")
    if given.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join(lines)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
