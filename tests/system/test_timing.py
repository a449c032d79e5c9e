"""VolumeTiming: even steps are a repetition time, uneven ones leave none."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import datasets
from support.calls import run
from support.datasets import SPACE

from bids_roi.errors import UsageError
from bids_roi.participant.plan import choose_repetition_time

STEM = f"sub-01_task-rest_space-{SPACE}"
N = 12
COSINE = ["--filter", "cosine", "--high-pass", "0.05"]
EVEN = [round(1.5 * n, 3) for n in range(N)]
SPARSE = np.cumsum([0, 2, 2, 9, 2, 2, 9, 2, 2, 9, 2, 2]).tolist()
BAD = {
    "short": (EVEN[:-1], "has 11 times, the series 12 volumes"),
    "long": ([*EVEN, 18.0], "has 13 times, the series 12 volumes"),
    "one": ([0.0], "has 1 times"),
    "empty": ([], "has 0 times"),
    "falls": ([*EVEN[:-1], 1.0], "15 s is followed by 1 s (volumes 11 and 12)"),
    "stands": ([0.0, *EVEN[:-1]], "0 s is followed by 0 s (volumes 1 and 2)"),
    "text": ([str(v) for v in EVEN], "no list of numbers"),
    "null": ([*EVEN[:-1], None], "no list of numbers"),
    "true": ([*EVEN[:-1], True], "no list of numbers"),
    "NaN": ([*EVEN[:-1], float("nan")], "no list of numbers"),
    "nested": ([EVEN], "no list of numbers"),
    "number": (1.5, "no list of numbers"),
}


@pytest.mark.parametrize(
    ("given_s", "metadata", "header", "expected", "words"),
    [
        (None, {"VolumeTiming": EVEN}, None, 1.5, []),
        (None, {"VolumeTiming": EVEN}, 1.5, 1.5, []),
        (None, {"VolumeTiming": EVEN}, 2.0, 1.5, ["header says 2 s"]),
        (None, {"VolumeTiming": EVEN, "RepetitionTime": 1.5}, 1.5, 1.5, []),
        (
            None,
            {"VolumeTiming": EVEN, "RepetitionTime": 3},
            1.5,
            1.5,
            ["1.5 s (VolumeTiming), the sidecar says 3 s"],
        ),
        (
            2.0,
            {"VolumeTiming": EVEN},
            None,
            2.0,
            ["2 s (flag), the VolumeTiming says 1.5 s"],
        ),
        # the clock starts anywhere
        (None, {"VolumeTiming": [v + 7.25 for v in EVEN]}, None, 1.5, []),
        # uneven, whoever says otherwise
        (None, {"VolumeTiming": SPARSE}, 3.9, None, ["2 to 9 s"]),
        (None, {"VolumeTiming": SPARSE, "RepetitionTime": 2}, 2.0, None, ["2 to 9"]),
        (
            2.0,
            {"VolumeTiming": SPARSE},
            None,
            None,
            ["--repetition-time 2 is not used"],
        ),
        # one volume is missing
        (None, {"VolumeTiming": [*EVEN[:5], *EVEN[6:], 18.0]}, 1.5, None, ["1.5 to 3"]),
        # uneven, and not as many: still no flag makes it even
        (2.0, {"VolumeTiming": SPARSE[:-1]}, None, None, ["2 to 9 s"]),
    ],
)
def test_choice(given_s, metadata, header, expected, words):
    found, warnings = choose_repetition_time(given_s, metadata, header, N)
    assert found == expected
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_timing_is_told_and_only_the_flag_counts(name):
    times, words = BAD[name]
    metadata = {"VolumeTiming": times, "RepetitionTime": 1.5}
    found, (warning,) = choose_repetition_time(None, metadata, 1.5, N)
    assert found is None
    assert words in warning
    assert "Give one time in s for each volume" in warning
    found, warnings = choose_repetition_time(1.5, metadata, 1.5, N)
    assert found == 1.5
    assert words in warnings[-1]


def test_implausible_steps_are_refused():
    times = [30.0 * n for n in range(N)]
    with pytest.raises(UsageError, match=r"30 s \(VolumeTiming\) is not plausible"):
        choose_repetition_time(None, {"VolumeTiming": times}, None, N)


@given(
    st.floats(0.3, 5),
    st.lists(st.floats(-0.02, 0.02), min_size=N, max_size=N),
)
def test_even_is_what_no_step_contradicts(step, jitter):
    """The rule in words: each step within 5 ms of their mean."""
    times = [step * n + j for n, j in enumerate(jitter)]
    steps = np.diff(times)
    far = np.abs(steps - steps.mean()).max()
    found, _ = choose_repetition_time(None, {"VolumeTiming": times}, None, N)
    if far < 0.00499:
        assert found == pytest.approx(steps.mean(), abs=1e-6)
    elif far > 0.00501:
        assert found is None


def change(path, **keys):
    side = path.with_name(path.name.replace(".nii.gz", ".json"))
    content = json.loads(side.read_text()) | keys
    side.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.fixture
def sparse(tmp_path):
    root = datasets.write_dataset(tmp_path / "in", ())
    path = datasets.write_run(root, STEM, tr=3.9)
    change(path, VolumeTiming=SPARSE, RepetitionTime=None)
    return root


@pytest.mark.parametrize(
    "options",
    [
        ["--high-pass", "0.01"],
        ["--low-pass", "0.1"],
        ["--high-pass", "0.01", "--filter", "cosine"],
        ["--high-pass", "0.01", "--repetition-time", "2"],
    ],
)
def test_filters_are_refused_for_uneven_volumes(
    options, sparse, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [sparse, out, "participant", "--atlas-file", atlas]
    shown = run(capsys, *arguments, *options, code=1)
    for words in (STEM, "VolumeTiming", "2 to 9 s", "Leave the filters out"):
        assert words in shown.err
    assert not list(out.glob("sub-*/func/*_desc-*timeseries.tsv"))


def test_raw_series_of_uneven_volumes_go_on_with_a_note(
    sparse, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [sparse, out, "participant", "--atlas-file", atlas]
    shown = run(capsys, *arguments)
    assert "2 to 9 s (VolumeTiming)" in shown.err
    (side,) = out.glob("sub-*/func/*_timeseries.json")
    said = json.loads(side.read_text())
    assert said["VolumeTiming"] == SPARSE
    assert said["SamplingFrequency"] == "TR"
    assert not {"RepetitionTime", "SecondsKept"} & set(said)
    assert any("2 to 9 s" in warning for warning in said["Warnings"])
    # what needs no time in Hz is not refused
    run(capsys, *arguments, "--standardize", "zscore_sample")


def test_even_volumes_are_as_those_with_a_repetition_time(
    dataset, atlas, tmp_path, capsys
):
    """The same filtered numbers, and the same said of them."""
    arguments = ["participant", "--atlas-file", atlas, *COSINE]
    only = ["--participant-label", "01"]
    run(capsys, dataset, tmp_path / "one", *arguments, *only)
    path = next(dataset.glob(f"sub-01/func/{STEM}_desc-preproc_bold.nii.gz"))
    even = [2.0 * n for n in range(N)]
    change(path, VolumeTiming=even, RepetitionTime=None)
    run(capsys, dataset, tmp_path / "two", *arguments, *only)
    (one,) = (tmp_path / "one").glob("sub-01/func/*timeseries.tsv")
    (two,) = (tmp_path / "two").glob("sub-01/func/*timeseries.tsv")
    assert one.read_bytes() == two.read_bytes()
    said = [json.loads(p.with_suffix(".json").read_text()) for p in (one, two)]
    for key in ("RepetitionTime", "SamplingFrequency", "SecondsKept"):
        assert said[0][key] == said[1][key]
    assert said[1]["SecondsKept"] == 24
    assert "VolumeTiming" not in said[1]


def test_uneven_times_of_other_volumes_are_not_passed_on(
    sparse, atlas, tmp_path, capsys
):
    path = next(sparse.glob("sub-01/func/*_bold.nii.gz"))
    change(path, VolumeTiming=SPARSE[:-2])
    out = tmp_path / "out"
    shown = run(capsys, sparse, out, "participant", "--atlas-file", atlas)
    assert "2 to 9 s" in shown.err
    (side,) = out.glob("sub-*/func/*_timeseries.json")
    said = {"VolumeTiming", "RepetitionTime", "SamplingFrequency", "SecondsKept"}
    assert not said & set(json.loads(side.read_text()))


@pytest.mark.parametrize("name", ["short", "falls", "text"])
def test_a_bad_timing_is_told_and_not_passed_on(name, dataset, atlas, tmp_path, capsys):
    times, words = BAD[name]
    path = next(dataset.glob(f"sub-01/func/{STEM}_desc-preproc_bold.nii.gz"))
    change(path, VolumeTiming=times)
    arguments = ["participant", "--atlas-file", atlas, "--participant-label", "01"]
    shown = run(capsys, dataset, tmp_path / "raw", *arguments)
    assert words in shown.err
    (side,) = (tmp_path / "raw").glob("sub-01/func/*timeseries.json")
    said = json.loads(side.read_text())
    assert not {"VolumeTiming", "RepetitionTime", "SecondsKept"} & set(said)
    filtered = [*arguments, *COSINE]
    shown = run(capsys, dataset, tmp_path / "no", *filtered, code=1)
    assert words in shown.err
    assert "--repetition-time" in shown.err
    given_s = ["--repetition-time", 2]
    run(capsys, dataset, tmp_path / "yes", *filtered, *given_s)


def test_min_time_without_a_repetition_time_says_so(
    sparse, atlas, dataset, tmp_path, capsys
):
    arguments = ["participant", "--atlas-file", atlas, "--detrend", "--min-time", 10]
    shown = run(capsys, sparse, tmp_path / "a", *arguments, code=1)
    assert "--min-time 10 s needs a repetition time" in shown.err
    assert "VolumeTiming" in shown.err
    assert "--min-volumes" in shown.err
    assert "censor" not in shown.err
    path = next(dataset.glob(f"sub-01/func/{STEM}_desc-preproc_bold.nii.gz"))
    datasets.write_run(dataset, STEM, tr=1.0)  # a header's 1 s tells nothing
    change(path, RepetitionTime=None)
    arguments += ["--participant-label", "01"]
    shown = run(capsys, dataset, tmp_path / "b", *arguments, code=1)
    assert "needs a repetition time: nothing tells it." in shown.err
    assert "--repetition-time" in shown.err
    assert "censor" not in shown.err
    run(capsys, dataset, tmp_path / "c", *arguments, "--repetition-time", 2)
