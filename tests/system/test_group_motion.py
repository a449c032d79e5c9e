"""A planted motion artefact, from images to QC-FC: it shows, and cleaning helps."""

import numpy as np
import pytest
from support import datasets
from support.calls import read_regions, run
from support.datasets import SPACE

N_PARTICIPANTS, N_VOLUMES = 14, 150
# How much of the head's position gets into the signal: one task for each.
CONTAMINATION = {"none": 0.0, "low": 2.0, "high": 20.0}
PARAMETERS = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]


def write_motion(path, motion, fd):
    """Six parameters of which one moves, with all expansions, and FD by hand."""
    columns = {}
    for number, name in enumerate(PARAMETERS):
        values = motion if number == 0 else np.roll(motion, 7 * number) * 1e-3
        slope = np.r_[np.nan, np.diff(values)]
        columns |= {name: values, f"{name}_derivative1": slope}
        columns |= {f"{name}_power2": values**2}
        columns |= {f"{name}_derivative1_power2": slope**2}
    columns["framewise_displacement"] = fd
    rows = [
        "\t".join("n/a" if np.isnan(v) else repr(float(v)) for v in row)
        for row in zip(*columns.values(), strict=True)
    ]
    path.write_text("\n".join(["\t".join(columns), *rows]) + "\n")
    path.with_suffix(".json").write_text("{}")


@pytest.fixture(scope="module")
def contaminated(tmp_path_factory):
    """Participants who move more and more; each region has a signal of its own."""
    root = datasets.write_dataset(tmp_path_factory.mktemp("motion") / "in", [])
    rng = np.random.default_rng(5)
    labels = datasets.labels()
    for number in range(N_PARTICIPANTS):
        reach = 0.02 * (1 + number)  # mm
        for task, strength in CONTAMINATION.items():
            motion = reach * rng.normal(size=N_VOLUMES).cumsum()
            motion -= motion.mean()
            fd = np.r_[np.nan, np.abs(np.diff(motion))]
            bold = 1000 + rng.normal(0, 1, (*datasets.SHAPE, N_VOLUMES))
            for index in datasets.INDEX:
                # Smooth in time, like BOLD, and unrelated between regions.
                own = np.convolve(rng.normal(size=N_VOLUMES + 4), np.ones(5), "valid")
                bold[labels == index] += own
            bold += strength * motion
            stem = f"sub-{number:02d}_task-{task}"
            datasets.write_run(root, f"{stem}_space-{SPACE}", bold)
            folder = root / f"sub-{number:02d}" / "func"
            write_motion(folder / f"{stem}_desc-confounds_timeseries.tsv", motion, fd)
    return root


def test_qcfc_rises_with_contamination_and_falls_after_cleaning(
    contaminated, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--denoise", "none", "24P", "--relmat", "pearson"]
    run(capsys, contaminated, out, "participant", *options, "--no-report")
    told = run(capsys, contaminated, out, "group")
    table = read_regions(out / "group_qcfc.tsv")
    found = {
        (task, desc): (float(level), int(n))
        for task, desc, level, n in zip(
            table["task_id"],
            table["desc_id"],
            table["median_abs_r"],
            table["n_participants"],
            strict=True,
        )
    }
    assert {n for _, n in found.values()} == {N_PARTICIPANTS}
    raw = {task: found[task, "n/a"][0] for task in CONTAMINATION}
    clean = {task: found[task, "24P"][0] for task in CONTAMINATION}
    # 14 participants correlate by about 0.2 by chance (median of |r|).
    assert raw["none"] < 0.4
    assert raw["none"] < raw["low"] < raw["high"]
    assert raw["high"] > 0.7
    assert max(clean.values()) < 0.4
    assert "group_qcfc.tsv" in told.out
