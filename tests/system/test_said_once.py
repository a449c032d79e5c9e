"""What is said of many runs: once for each kind, with the strategy and a remedy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support import datasets
from support.calls import run, state

from bids_roi.cli import _say_warnings
from bids_roi.images.nifti import write_image
from bids_roi.outputs.records import Record, leave_out_numbers
from bids_roi.report.participant import _find_problems

PARTIAL = "partial correlation of desc-{}: {} degrees of freedom for {} regions."


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (PARTIAL.format("24P", 5.93, 32), PARTIAL.format("24P", 11, 26), True),
        (PARTIAL.format("24P", 5.93, 32), PARTIAL.format("36P", 5.93, 32), False),
        ("low_pass 0.1 Hz (0.25 Hz, Nyquist)", "low_pass 0.1 Hz (1 Hz, Nyquist)", True),
        ("condition number 1.0e+09", "condition number 3.2e+12", True),
        ("sub-01_bold.nii.gz", "sub-02_bold.nii.gz", False),
        ("sub-01 has 3 rows", "sub-01 has 4 rows", True),
    ],
)
def test_kinds_of_warnings(one, other, same):
    assert (leave_out_numbers(one) == leave_out_numbers(other)) is same


def test_warnings_that_differ_in_numbers_are_one_line(caplog):
    texts = {PARTIAL.format("24P", k + 0.5, 32): 2 for k in range(70)}
    with caplog.at_level("WARNING", logger="bids_roi"):
        _say_warnings({**texts, PARTIAL.format("36P", 3, 32): 1})
    assert [record.getMessage() for record in caplog.records] == [
        f"{min(texts)} (140 times, others with other numbers: see logs/)",
        PARTIAL.format("36P", 3, 32),
    ]


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (
            ["--high-pass", "0.03", "--low-pass", "0.0301", "--filter", "passband"],
            "no f",
        ),
        (["--high-pass", "0.0300", "--low-pass", "0.0301"], "no frequency of a run of"),
        (["--high-pass", "0.4"], "the highest frequency of a run sampled"),
    ],
)
def test_cutoffs_that_leave_nothing_are_to_be_changed(
    cut,
    words,
    cleaned_input,
    atlas,
    tmp_path,
    capsys,
):
    root, _, _ = cleaned_input
    given = [root, tmp_path / "out", "participant", "--atlas-file", atlas, *cut]
    shown = run(capsys, *given, "--denoise", "24P", code=1)
    assert words in shown.err
    assert "Change --high-pass and --low-pass" in shown.err
    assert "censor less" not in shown.err


def test_a_low_pass_that_is_not_applied_tells_the_highest_frequency(
    cleaned_input,
    atlas,
    tmp_path,
    capsys,
):
    root, _, _ = cleaned_input
    given = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *given, "--low-pass", "5")
    (side,) = (tmp_path / "out").glob("sub-*/func/*_timeseries.json")
    nyquist = 0.5 / json.loads(side.read_text())["RepetitionTime"]
    assert "low_pass 5 Hz is not below the highest frequency of the run" in shown.err
    assert f"({nyquist:g} Hz, Nyquist)" in shown.err


@pytest.mark.parametrize("name", ["scrub", "censor-before", "censor-after"])
def test_censoring_without_a_threshold_is_told(
    name,
    cleaned_input,
    atlas,
    tmp_path,
    capsys,
):
    root, _, _ = cleaned_input
    given = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    given += ["--denoise", "24P", f"--{name}", 3]
    words = f"{name.replace('-', '_')} does nothing without a threshold"
    assert words in run(capsys, *given).err
    more = ["--fd-threshold", "50", "--overwrite"]
    assert words not in run(capsys, *given, *more).err


def test_a_bad_mask_in_a_finished_folder_touches_nothing(
    dataset, atlas, tmp_path, capsys
):
    out, absent = tmp_path / "out", tmp_path / "absent.nii.gz"
    given = [dataset, out, "participant", "--atlas-file", atlas]
    run(capsys, *given)
    before = state(out)
    run(capsys, *given, "--mask", absent, code=66)
    assert state(out) == before


def test_warnings_of_a_page_that_differ_in_numbers_are_one():

    def run_of(name, *warnings):
        record = Record(name, "A", "done", warnings=warnings, strategy="24P")
        atlas = SimpleNamespace(name="A", records=[record])
        return SimpleNamespace(name=name, atlases=[atlas])

    runs = [run_of(f"run-{k}", PARTIAL.format("24P", k + 0.5, 32), "x") for k in (1, 2)]
    found = {problem["text"]: problem["where"] for problem in _find_problems(runs)}
    first = PARTIAL.format("24P", 1.5, 32)
    rest = "(Of the first; others differ in the numbers.)"
    assert set(found) == {f"{first} {rest}", "x"}
    assert set(found.values()) == {"all 2 runs (atlas A)"}


def test_a_fault_of_a_file_that_runs_share_is_one_line(
    dataset, atlas, tmp_path, capsys
):
    empty = tmp_path / "empty.nii.gz"
    write_image(empty, np.zeros(datasets.SHAPE, np.uint8), datasets.oblique())
    other = f"sub-02_task-rest_space-{datasets.SPACE}"
    datasets.write_run(dataset, other)
    given = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *given, "--mask", empty, code=1)
    assert shown.err.count("empty.nii.gz: the mask holds no voxel") == 1
    assert "(2 times)" in shown.out
