"""Two participants that were processed in different ways share no group table.

Over the table of options and over the fields of the settings of a strategy, with an
atlas for all and with participants' own segmentations.
"""

import dataclasses
import json
import shutil
import typing

import numpy as np
import pytest
from support import datasets
from support.calls import run
from support.datasets import INDEX, NAMES
from support.toy_confounds import write_confounds

from bids_roi.errors import DataError
from bids_roi.group.outputs import check_digests, check_outputs
from bids_roi.images.nifti import write_image
from bids_roi.options.settings import Settings
from bids_roi.options.table import OPTIONS

BASE = Settings(
    filter="butterworth",
    detrend=True,
    high_pass=0.02,
    fd_threshold=1e4,  # the toys move by metres
    dummy_scans="auto",
    motion_filter="notch",
    motion_filter_band=(4.0, 5.0),
)
STRATEGY = {
    "name": "mine",
    "description": "As it is.",
    "components": [
        *({"motion": "basic"}, {"columns": ["trans_x"]}),
        {"table": "own", "columns": ["mine"]},
    ],
    "settings": dataclasses.asdict(BASE),
}
# What else to ask for, in words of the command line; "MASK" and so on are made below.
CHANGES = {
    "mask": ["none"],
    "min_coverage": ["0.4"],
    "region_measures": ["homogeneity"],
    "smoothing_fwhm": ["4"],
    "repetition_time": ["2.5"],
    "detrend": None,  # a switch that is on already; see the fields of Settings
    "high_pass": ["0.03"],
    "low_pass": ["0.2"],
    "filter": ["cosine"],
    "filter_order": ["2"],
    "filter_padding": ["odd"],
    "filter_ends": ["nearest"],
    "interpolation": ["cubic_spline"],
    "standardize": ["psc"],
    "fd_threshold": ["2e4"],
    "std_dvars_threshold": ["1.5"],
    "scrub": ["3"],
    "censor_before": ["1"],
    "censor_after": ["1"],
    "dummy_scans": ["4"],
    "motion_filter": ["lp", "--motion-filter-band", "6"],
    "motion_filter_band": ["12", "16"],
    "head_radius": ["35"],
    "censored": ["na"],
    "high_variance_confounds": [],
    "allow_missing_confounds": [],
    "aroma_dataset": ["AROMA"],
    "confounds_dataset": ["own=OTHER"],
    "partial_estimator": ["pseudo_inverse"],
    "xdf_regularisation": ["tukey"],
    "relmat_volumes": ["9"],
    "relmat_seed": ["1", "--relmat-volumes", "8"],
    "min_degrees_of_freedom": ["3"],
}
# Other values make other files, or none: there is nothing to mix.
APART = {
    "strategy": ["24P"],
    "atlas": None,
    "statistic": ["median"],
    "map_statistic": ["weighted_mean"],
    "relmat": ["spearman", "partial"],
    "fisher_z": [],
    "min_volumes": ["2"],
    "min_time": ["2"],
    "max_censored": ["0.9"],
}
COMMON = (
    "--relmat",
    "pearson",
    "partial",
    "pearsonxdfz",
    "--offline",
    "--atlas-space",
    "T1w",
)


def other_value(field):
    """Another valid value of a field of the settings."""
    kind, now = typing.get_type_hints(Settings)[field], getattr(BASE, field)
    if isinstance(now, bool):
        return not now
    if isinstance(now, tuple):
        return tuple(2 * value for value in now)
    if isinstance(now, str):
        if "auto" in str(kind):
            return 3
        parts = (kind, *typing.get_args(kind))
        words = {word for part in parts for word in typing.get_args(part)}
        return next(word for word in sorted(map(str, words)) if word != now)
    if isinstance(now, int):
        return now + 1
    if now is None:
        return 1.5 if field == "std_dvars_threshold" else 0.2
    return now * 1.5


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two participants, an atlas for all and one of each, and how to process them."""
    folder = tmp_path_factory.mktemp("study")
    root = datasets.write_dataset(folder / "in", ())
    for shift, person in enumerate(("01", "02")):
        stem = f"sub-{person}_task-rest_space-T1w"
        path = datasets.write_run(root, stem, datasets.bold(shift, 60))
        own = np.roll(datasets.labels(), shift, axis=1)  # no two heads are the same
        image = path.with_name(f"{stem}_desc-own_dseg.nii.gz")
        write_image(image, own, datasets.oblique())
    write_confounds(root)
    func = root / "sub-01" / "func"
    for path in func.glob("*confounds*"):
        other = root / "sub-02" / "func" / path.name.replace("sub-01", "sub-02")
        shutil.copy(path, other)
    table = "".join(f"{i}\t{n}\n" for i, n in zip(INDEX, NAMES, strict=True))
    (root / "desc-own_dseg.tsv").write_text(f"index\tname\n{table}")
    (folder / "AROMA").mkdir()
    text = json.dumps({"GeneratedBy": [{"Name": "fMRIPost-AROMA", "Version": "0.1"}]})
    (folder / "AROMA" / "dataset_description.json").write_text(text)
    rows = "\n".join(map(str, np.random.default_rng(2).normal(size=60)))
    for place in ("OWN", "OTHER"):
        (folder / place).mkdir()
        for person in ("01", "02"):
            table = folder / place / f"sub-{person}_task-rest_regressors.tsv"
            table.write_text(f"mine\n{rows}\n")
    (folder / "OTHER" / "dataset_description.json").write_text(text)
    atlas = datasets.write_atlas(folder / "atlas", "atlas-Toy_dseg.nii.gz")

    def process(capsys, person, out, *arguments, strategy=STRATEGY):
        file = folder / "mine.json"
        file.write_text(json.dumps(strategy))
        given = [str(folder / a) if a == "AROMA" else a for a in arguments]
        if "--denoise" not in given:
            given += ["--denoise", file]
            own = "OTHER" if "own=OTHER" in given else "OWN"
            given = [a for a in given if a not in ("--confounds-dataset", "own=OTHER")]
            given += ["--confounds-dataset", f"own={folder / own}"]
        common = [root, out, "participant", "--participant-label", person, *COMMON]
        common += ["--atlas-file", atlas, "--atlas", "subject:own"]
        run(capsys, *common, *given)

    return folder, process


@pytest.fixture
def finished(study, capsys):
    """Both participants with the same options; made once."""
    folder, process = study
    out = folder / "base"
    if not out.exists():
        for person in ("01", "02"):
            process(capsys, person, out)
    return out


def refused(out):
    """Atlases of which the outputs are not put together."""
    found, names = check_outputs(out), set()
    for name in ("Toy", "own"):
        kept = {
            kind: tuple(o for o in getattr(found, kind) if o.atlas_name == name)
            for kind in ("regions", "series", "relmats")
        }
        assert len(kept["series"]) >= 2
        try:
            check_digests(dataclasses.replace(found, **kept))
        except DataError as error:
            names |= {name} if {"sub-01", "sub-02"} <= _people(error) else set()
    return names


def _people(error):
    return {path.partition("/")[0] for path in str(error).split() if "/func/" in path}


def mix(finished, tmp_path):
    """The first participant as ever; the second is to come."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for folder in (out / "sub-02", out / "logs" / "sub-02"):
        shutil.rmtree(folder)
    return out


def arguments_of(name, values):
    return [f"--{name.replace('_', '-')}", *values]


def test_the_same_settings_are_put_together(study, finished, tmp_path, capsys):
    out = mix(finished, tmp_path)
    _, process = study
    process(capsys, "02", out)
    assert refused(out) == set()
    run(capsys, "x", out, "group")
    sidecars = [json.loads(p.read_text()) for p in out.glob("sub-*/func/*own*.json")]
    assert len(sidecars) == 10  # regions, series and three matrices of both
    assert len({s["OptionsDigest"] for s in sidecars}) == 10
    assert len({s["SettingsDigest"] for s in sidecars}) == 5


def test_every_option_that_decides_numbers_is_here():
    deciding = {o.name for o in OPTIONS if o.sidecar or o.group == "cleaning"}
    assert deciding == {*CHANGES, *APART}


@pytest.mark.parametrize("name", [n for n, v in CHANGES.items() if v is not None])
def test_another_option_is_refused(study, finished, tmp_path, capsys, name):
    out = mix(finished, tmp_path)
    _, process = study
    process(capsys, "02", out, *arguments_of(name, CHANGES[name]))
    assert refused(out) == {"Toy", "own"}
    told = run(capsys, "x", out, "group", code=65)
    assert "made with different options" in told.err


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings)])
def test_another_setting_of_a_strategy_is_refused(
    study, finished, tmp_path, capsys, field
):
    out = mix(finished, tmp_path)
    _, process = study
    settings = {**STRATEGY["settings"], field: other_value(field)}
    if field == "motion_filter":  # another takes another number of ends
        settings["motion_filter_band"] = [4]
    assert settings != STRATEGY["settings"]
    process(capsys, "02", out, strategy={**STRATEGY, "settings": settings})
    assert refused(out) == {"Toy", "own"}


def test_other_regressors_of_the_same_name_are_refused(
    study, finished, tmp_path, capsys
):
    out = mix(finished, tmp_path)
    _, process = study
    more = [*STRATEGY["components"], {"columns": ["csf"]}]
    process(capsys, "02", out, strategy={**STRATEGY, "components": more})
    assert refused(out) == {"Toy", "own"}


@pytest.mark.parametrize("name", [n for n, v in APART.items() if v is not None])
def test_what_is_not_refused_is_the_same(study, finished, tmp_path, capsys, name):
    """A table of the same name has the same numbers, or another digest."""
    _, process = study
    out = tmp_path / "out"
    process(capsys, "02", out, *arguments_of(name, APART[name]))
    shared = 0
    for path in (finished / "sub-02").rglob("*own*.tsv"):
        other = out / path.relative_to(finished)
        if other.exists() and other.read_bytes() != path.read_bytes():
            digests = [
                json.loads(p.with_suffix(".json").read_text())["SettingsDigest"]
                for p in (path, other)
            ]
            assert len(set(digests)) == 2, path.name
        shared += other.exists()
    assert shared


def test_a_mask_is_known_by_its_content(study, tmp_path, capsys):
    _, process = study
    out, image = tmp_path / "out", tmp_path / "mask.nii.gz"
    write_image(image, datasets.mask(), datasets.oblique())
    process(capsys, "01", out, "--mask", image)
    moved = tmp_path / "elsewhere.nii.gz"
    shutil.copy(image, moved)
    process(capsys, "02", out, "--mask", moved)
    assert refused(out) == set()
    less = datasets.mask()
    less[5] = 0
    write_image(image, less, datasets.oblique())
    process(capsys, "02", out, "--mask", image, "--overwrite")
    assert refused(out) == {"Toy", "own"}


def test_outputs_of_a_participants_own_atlas_need_the_digest(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for path in out.glob("sub-02/func/*own*_timeseries.json"):
        content = json.loads(path.read_text())
        del content["SettingsDigest"]
        path.write_text(json.dumps(content))
    problems = [p.reason for p in check_outputs(out).problems]
    assert len(problems) == 1
    assert "SettingsDigest is missing" in problems[0]
    assert "--overwrite" in problems[0]
