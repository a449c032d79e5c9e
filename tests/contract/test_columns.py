"""What is promised to those who read the outputs, against the code and its outputs."""

import json

import h5py
import pytest
from support.calls import run
from support.promises import FILE, promises

from bids_roi.loading import load

CHANGED = (
    "this changes what is promised: add a change fragment (changes/README.md) and run"
    " python tests/support/promises.py"
)
PROMISED = json.loads(FILE.read_text(encoding="utf-8"))
# Keys that some output of the runs below has no reason for.
NOT_HERE = {
    *("SliceTimingCorrected", "DelayTime", "Resolution", "Density"),
    *("SmoothingFWHM", "RepetitionTimeGiven", "StdDVARSThreshold"),
    *("StatisticParameters", "MapRank", "MapCondition", "FDDVARSCorrelation"),
    *("RegionsWithoutSignal", "ReasonNotAvailable", "RunsLeftOut", "MeanRMSD"),
    *("AtlasTransform", "AtlasTransformDigest", "AtlasTransformFit", "CoverageOf"),
    *("VertexWeights", "VertexAreas", "VertexAreasDigest", "AtlasMap"),
    *("AtlasParts", "SeedRadius", "StatisticNote", "RegionMeasures"),
    *("MotionFilter", "MotionFilterBand", "MotionFilterOrder", "HeadRadius"),
    *("MeanFilteredFramewiseDisplacement", "FDGlobalSignalCorrelationBefore"),
    *("CombinedRuns", "CombinedVolumes", "CombinedTables", "RunsNotCombined"),
    *("Condition", "ConditionShift", "ConditionVolumes", "ConditionEvents"),
}
NO_COLUMN = {"network", "structure", "area", "overlapped", "fd_filtered"}
NO_COLUMN |= {"voxel_tsnr", "homogeneity", "fd_filtered_mean"}
KINDS = {"timeseries": "series", "dseg": "regions"}


@pytest.mark.parametrize("part", ["exit codes", "sidecar keys", "columns"])
def test_the_code_keeps_its_promises(part):
    assert promises()[part] == PROMISED[part], CHANGED


def test_nothing_else_is_promised():
    assert promises().keys() == PROMISED.keys(), CHANGED


@pytest.fixture
def out(cleaned_input, atlas, tmp_path, capsys):
    """Outputs of both levels, of raw, shortened and interpolated series."""
    root, out = cleaned_input[0], tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--fd-threshold", 0.5]
    common += ["--relmat", "pearson", "partial"]
    run(capsys, *common, "--denoise", "none", "simple")
    some = [*common, "pearsonxdfz", "--relmat-volumes", 20]
    run(capsys, *some, "--denoise", "24P", "--censored", "interpolate")
    people = root / "participants.tsv"
    people.write_text("participant_id\tage\nsub-01\t30\n")
    asked = ["--covariates", "age", "--participants-file", people, "--permutations", 9]
    run(capsys, out.parent, out, "group", *asked, "--fd-measure", "fd_max")
    return out


def told_by(path):
    """Keys of a sidecar, and columns that it describes."""
    content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    described = {k for k, v in content.items() if isinstance(v, dict)}
    of_columns = {k for k in described if [*content[k]] == ["Description"]}
    return content.keys() - of_columns, of_columns


def test_outputs_have_what_is_promised_and_nothing_else(out):
    seen = {output: set() for output in PROMISED["sidecar keys"]}
    columns = PROMISED["columns"]
    for path in out.glob("sub-*/**/func/*.tsv"):
        suffix = path.stem.rpartition("_")[2]
        output = KINDS.get(suffix, suffix)
        keys, described = told_by(path)
        assert keys <= set(PROMISED["sidecar keys"][output]), path.name
        seen[output] |= keys
        if suffix in ("dseg", "outliers"):
            header = path.read_text().partition("\n")[0].split("\t")
            assert header == [c for c in columns[suffix] if c in header]
            assert set(columns[suffix]) - {*header} <= NO_COLUMN
            assert described == {*header} - {"index"}  # BIDS defines index itself
        else:
            assert not described
    for path in out.glob("group_*.tsv"):
        keys, described = told_by(path)
        assert keys <= set(PROMISED["sidecar keys"]["group"]), path.name
        seen["group"] |= keys
        header = path.read_text().partition("\n")[0].split("\t")
        of_table = columns.get(path.name, [])
        promised = [c for c in of_table if c in header or c not in NO_COLUMN]
        assert header[-len(promised) :] == promised or not promised
        assert set(promised) <= described
    missing = {
        k for o, keys in PROMISED["sidecar keys"].items() for k in {*keys} - seen[o]
    }
    assert missing == NOT_HERE


def test_tables_of_many_runs_have_what_is_promised(out):
    promised = PROMISED["columns"]["stack and Outputs.runs"]
    frame = load(out).runs()
    assert [column for column in frame if column in promised] == promised
    (path, *_) = sorted(out.glob("group_*_stack.h5"))
    with h5py.File(path) as file:
        assert {c for c in file["runs"] if "Units" in file["runs"][c].attrs} == {
            *promised
        }
