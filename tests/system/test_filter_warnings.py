"""What is said of gaps and filters: in the sidecars, on the terminal, per volume."""

import json

import nibabel as nb
import numpy as np
import pytest
from support.calls import (
    FUNC,
    STEM,
    read_regions,
    read_relmat,
    relmat_path,
    run,
    series,
)
from support.cleaning_oracles import PLAIN, clean_signals
from support.toy_confounds import T

from bids_roi.confounds.strategies import Strategy
from bids_roi.options.settings import Settings
from bids_roi.participant.cleaning import warn_of_cleaning

GAP = range(24, 38)
BAND = ["--high-pass", "0.01", "--low-pass", "0.1", "--fd-threshold", "0.5"]


@pytest.fixture
def with_gap(cleaned_input):
    """A run of which 14 volumes in a row are censored, and 3 others."""
    root, _, _ = cleaned_input
    path = next(root.glob("sub-01/func/*confounds_timeseries.tsv"))
    head, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    for volume in GAP:
        rows[volume][head.index("framewise_displacement")] = "0.9"
    path.write_text("\n".join("\t".join(row) for row in (head, *rows)) + "\n")
    return root


def strategy(tmp_path, **settings):
    path = tmp_path / "mine.json"
    content = {"name": "mine", "components": [{"csf": "basic"}], "settings": settings}
    path.write_text(json.dumps(content))
    return path


def sidecar(out, label="mine"):
    return json.loads(series(out, label).with_suffix(".json").read_text())


SPLINE = {"filter": "butterworth", "interpolation": "cubic_spline"}


def test_gaps_are_counted_by_hand(with_gap, atlas, tmp_path, capsys):
    """20 to 21, 24 to 37 and 40; the dummy at the start is no gap."""
    out = tmp_path / "out"
    common = [with_gap, out, "participant", "--atlas-file", atlas]
    run(capsys, *common, "--denoise", "24P", "--fd-threshold", "0.5")
    beside = json.loads((out / FUNC / f"{STEM}_desc-24P_outliers.json").read_text())
    for content in (sidecar(out, "24P"), beside):
        assert (content["NumberOfGaps"], content["LongestGap"]) == (3, len(GAP))
        assert content["NumberOfVolumesKept"] == T - 1 - 3 - len(GAP)


def test_a_spline_that_costs_most_of_the_freedom_is_told(
    with_gap, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    common = [with_gap, out, "participant", "--atlas-file", atlas, *BAND]
    shown = run(capsys, *common, "--denoise", strategy(tmp_path, **SPLINE))
    found = sidecar(out)
    (note,) = [n for n in found["Warnings"] if "cubic splines across gaps" in n]
    assert note in shown.err
    assert f"leaves {found['DegreesOfFreedom']:.1f} of " in note
    assert "--interpolation linear" in note
    assert "--filter passband" in note
    filters = found["SoftwareFilters"]["Butterworth"]
    assert filters["Interpolation"] == "cubic_spline"
    assert (filters["Padding"], filters["Censored ends"]) == ("constant", "cut")


@pytest.mark.parametrize("name", ["passband", "linear"])
def test_the_remedies_help_and_are_not_warned_of(
    name, with_gap, atlas, tmp_path, capsys
):
    common = [with_gap, "participant", "--atlas-file", atlas, *BAND]
    freedom = {}
    for label, settings in {
        "spline": SPLINE,
        "passband": {"filter": "passband"},
        "linear": SPLINE | {"interpolation": "linear"},
    }.items():
        out = tmp_path / label
        run(
            capsys,
            *(common[0], out, *common[1:]),
            *("--denoise", strategy(tmp_path, **settings)),
        )
        freedom[label] = sidecar(out)["DegreesOfFreedom"]
    assert freedom[name] > 1.5 * freedom["spline"]
    warnings = sidecar(tmp_path / name).get("Warnings", [])
    assert not [note for note in warnings if "degrees of freedom" in note]


@pytest.mark.parametrize(
    ("padding", "cause"), [("odd", "odd padding"), ("constant", "this run's ends and")]
)
def test_no_remedy_is_what_is_done_already(padding, cause):
    """300 volumes of 0.2 s: the ends take more than half, whatever the padding."""
    settings = Settings(
        filter="butterworth", filter_padding=padding, high_pass=0.01, low_pass=0.1
    )
    noise = np.random.default_rng(0).normal(size=(300, 4))
    options = PLAIN | {"high_pass": 0.01, "low_pass": 0.1, "repetition_time": 0.2}
    options |= {"interpolation": "linear", "filter_padding": padding}
    cleaned = clean_signals(noise, **options)
    mine = Strategy("mine", "mine", "", (), settings)
    (note,) = [n for n in warn_of_cleaning(cleaned, mine) if "freedom" in n]
    assert f"with {cause}" in note
    assert ("--filter-padding constant" in note) == (padding == "odd")
    assert "--filter passband" in note


def test_a_low_pass_beyond_nyquist_is_told_and_not_stated(
    with_gap, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    common = [with_gap, out, "participant", "--atlas-file", atlas]
    common += ["--high-pass", "0.01", "--low-pass", "0.3"]
    shown = run(capsys, *common)
    found = sidecar(out, "cleaned")
    ((_, stated),) = found["SoftwareFilters"].items()
    assert "Low-pass cutoff (Hz)" not in stated
    assert stated["High-pass cutoff (Hz)"] == 0.01
    (note,) = [note for note in found["Warnings"] if "Nyquist" in note]
    assert "low_pass 0.3 Hz" in note
    assert "0.25 Hz" in note
    assert note in shown.err
    assert found["DenoisingDefinition"]["settings"]["low_pass"] == 0.3
    assert np.isfinite(found["DegreesOfFreedom"])


UNSTEADY = "1 volume that fMRIPrep flags as not steady is among those kept"


@pytest.mark.parametrize(
    ("options", "label", "in_series", "in_matrix"),
    [
        (["--detrend"], "cleaned", True, True),
        (["--detrend", "--dummy-scans", "auto"], "cleaned", False, False),
        (["--detrend", "--dummy-scans", "1"], "cleaned", False, False),
        (["--denoise", "24P"], "24P", False, False),
        (["--denoise", "24P", "--dummy-scans", "0"], "24P", True, True),
        (["--denoise", "SPIKE"], "spike", False, False),
        ([], None, False, True),
    ],
)
def test_volumes_that_are_not_steady_are_told_where_they_count(
    cleaned_input, atlas, tmp_path, capsys, options, label, in_series, in_matrix
):
    """The table flags the first; a series as it is has it and says no more of it."""
    root, _, _ = cleaned_input
    out, spike = tmp_path / "out", tmp_path / "spike.json"
    columns = {"columns": ["csf", "non_steady_state_outlier00"]}
    spike.write_text(json.dumps({"name": "spike", "components": [columns]}))
    options = [str(spike) if word == "SPIKE" else word for word in options]
    common = [root, out, "participant", "--atlas-file", atlas, "--no-report"]
    shown = run(capsys, *common, *options, "--relmat", "pearson")
    matrix = relmat_path(out, "pearsoncorrelation", label)
    for path, told in ((series(out, label), in_series), (matrix, in_matrix)):
        notes = json.loads(path.with_suffix(".json").read_text()).get("Warnings", [])
        assert len([note for note in notes if UNSTEADY in note]) == told
    assert (UNSTEADY in shown.err) == in_matrix


def test_one_step_at_the_start_makes_all_regions_alike(
    cleaned_input, atlas, tmp_path, capsys
):
    """Why it is told: of a first volume that is twice as bright, r is 0.9 or more."""
    root, _, _ = cleaned_input
    path = next(root.glob("sub-01/func/*_bold.nii.gz"))
    image = nb.load(path)
    values = np.random.default_rng(1).normal(1000, 10, image.shape).astype("f4")
    values[..., 0] *= 2
    nb.save(nb.Nifti1Image(values, image.affine, image.header), path)
    r = {}
    for dummies in ("0", "auto"):
        out = tmp_path / dummies
        common = [root, out, "participant", "--atlas-file", atlas, "--no-report"]
        cleaning = ["--detrend", "--dummy-scans", dummies, "--relmat", "pearson"]
        shown = run(capsys, *common, *cleaning)
        assert (UNSTEADY in shown.err) == (dummies == "0")
        found = read_relmat(relmat_path(out, "pearsoncorrelation", "cleaned"))
        r[dummies] = found[np.triu_indices(4, 1)]
    assert r["0"].min() > 0.9
    assert np.abs(r["auto"]).max() < 0.9


def test_motion_is_told_of_volumes_that_nothing_acts_on(
    cleaned_input, atlas, tmp_path, capsys
):
    root, columns, _ = cleaned_input
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas, "--detrend")
    table = read_regions(out / FUNC / f"{STEM}_desc-cleaned_outliers.tsv")
    for name, column in (
        ("fd", "framewise_displacement"),
        ("std_dvars", "std_dvars"),
    ):
        assert table[name][0] == "n/a"
        assert [float(cell) for cell in table[name][1:]] == list(columns[column][1:])
    assert set(table["outlier"]) == {"0"}
