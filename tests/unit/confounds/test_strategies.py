"""Denoising strategies as data: presets, a user's file, the command line on top."""

import dataclasses
import json
import re
import warnings
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_roi.confounds.strategies import (
    Component,
    Strategy,
    describe_strategy,
    list_strategies,
    load_strategy,
    override_settings,
    parse_settings,
    parse_strategy,
)
from bids_roi.errors import ConfoundsError, DataError, MissingInput, UsageError
from bids_roi.options.settings import Settings

MINIMAL = {"name": "mine", "components": [{"motion": "full"}]}


def write(folder, content):
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- presets


def test_every_preset_of_the_peers_is_there():
    nilearn = {"simple", "scrubbing", "compcor", "ica_aroma"}
    xcp_d = {"24P", "27P", "36P", "acompcor", "acompcor_gsr", "gsr_only"}
    xcp_d |= {"aroma", "aroma_gsr"}
    giga = {"simple", "simple+gsr", "scrubbing.2", "scrubbing.2+gsr", "scrubbing.5"}
    giga |= {"scrubbing.5+gsr", "acompcor50", "icaaroma"}
    variants = {f"{name}+gsr{full}" for name in nilearn for full in ("", "-full")}
    assert set(list_strategies()) == nilearn | xcp_d | giga | variants


@pytest.mark.parametrize("name", list_strategies())
def test_a_preset_is_named_like_its_file_and_says_what_it_is(name):
    strategy = load_strategy(name)
    assert strategy.name == name
    assert re.fullmatch("[A-Za-z0-9]+", strategy.label)
    assert strategy.description.endswith(".")
    assert strategy.settings.dummy_scans == "auto"
    assert strategy.settings.high_pass is None  # left to the command line


def test_a_label_in_file_names_tells_what_was_done():
    # Also on file systems that take upper and lower case as the same.
    by_label = {}
    for name in list_strategies():
        strategy = load_strategy(name)
        done = (frozenset(strategy.components), strategy.settings)
        assert by_label.setdefault(strategy.label.casefold(), done) == done


def test_the_two_names_for_one_strategy_are_one_strategy():
    for ours, theirs in [("compcor", "acompcor50"), ("ica_aroma", "icaaroma")]:
        ours, theirs = load_strategy(ours), load_strategy(theirs)
        assert ours.components == theirs.components
        assert ours.settings == theirs.settings


@pytest.mark.parametrize(
    ("name", "fd", "dvars", "scrub"),
    [
        ("scrubbing", 0.5, 1.5, 5),
        ("scrubbing+gsr", 0.5, 1.5, 5),
        ("scrubbing.2", 0.2, None, 5),  # null in giga_connectome's JSON: truly off
        ("scrubbing.2+gsr", 0.2, None, 5),
        ("scrubbing.5", 0.5, None, 5),
        ("scrubbing.5+gsr", 0.5, None, 5),
        ("simple", None, None, 0),
        ("36P", None, None, 0),
    ],
)
def test_thresholds_of_the_presets(name, fd, dvars, scrub):
    settings = load_strategy(name).settings
    found = (settings.fd_threshold, settings.std_dvars_threshold, settings.scrub)
    assert found == (fd, dvars, scrub)


def test_xcp_d_takes_out_the_trend_and_nilearn_leaves_it_to_the_masker():
    assert load_strategy("36P").settings.detrend
    assert not load_strategy("simple").settings.detrend


def test_presets_are_package_data():
    folder = resources.files("bids_roi").joinpath("data", "denoise")
    files = {file.name for file in folder.iterdir()}
    assert files == {f"{name}.json" for name in list_strategies()}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"'36PP'\..*Nearest: 36P\.$"):
        load_strategy("36PP")
    with pytest.raises(UsageError, match=r"Nearest: scrubbing\.$"):
        load_strategy("scrubing")
    with pytest.raises(
        UsageError, match=r"no strategy 'qqqq'.*There are 24P, .*simple"
    ):
        load_strategy("qqqq")


def test_a_preset_is_known_in_any_case():
    assert load_strategy("36p") == load_strategy("36P")
    assert load_strategy("AcompCor_GSR").name == "acompcor_gsr"


# --- a user's file


def test_a_file_with_everything(tmp_path):
    content = {
        "name": "all of it",
        "label": "allOfIt",
        "description": "Every key of the format.",
        "components": [
            {"motion": "derivatives"},
            {"wm_csf": "power2"},
            {"csf": "basic"},
            {"white_matter": "full"},
            {"global_signal": "basic"},
            {"cosine": "all"},
            {"compcor": "anat_separated", "n_components": 5},
            {"compcor": "temporal", "variance_explained": 0.3},
            {"compcor": "anat_combined", "n_components": "all"},
            {"ica_aroma": "orthogonal"},
            {"columns": ["rmsd", "csf_wm"]},
            {"pattern": "edge_comp_0[0-4]"},
        ],
        "settings": {
            "detrend": True,
            "high_pass": 0.01,
            "low_pass": 0.08,
            "filter": "butterworth",
            "filter_order": 2,
            "filter_padding": "odd",
            "filter_ends": "nearest",
            "interpolation": "cubic_spline",
            "standardize_confounds": False,
            "standardize": "psc",
            "fd_threshold": 0.3,
            "std_dvars_threshold": None,
            "scrub": 3,
            "censor_before": 1,
            "censor_after": 2,
            "dummy_scans": 4,
        },
    }
    strategy = load_strategy(write(tmp_path, content))
    assert strategy == Strategy(
        "all of it",
        "allOfIt",
        "Every key of the format.",
        (
            Component("motion", "derivatives"),
            Component("wm_csf", "power2"),
            Component("csf", "basic"),
            Component("white_matter", "full"),
            Component("global_signal", "basic"),
            Component("cosine", "all"),
            Component("compcor", "anat_separated", n_components=5),
            Component("compcor", "temporal", variance_explained=0.3),
            Component("compcor", "anat_combined"),
            Component("ica_aroma", "orthogonal"),
            Component("columns", columns=("rmsd", "csf_wm")),
            Component("pattern", "edge_comp_0[0-4]"),
        ),
        Settings(
            detrend=True,
            high_pass=0.01,
            low_pass=0.08,
            filter="butterworth",
            filter_order=2,
            filter_padding="odd",
            filter_ends="nearest",
            interpolation="cubic_spline",
            standardize_confounds=False,
            standardize="psc",
            fd_threshold=0.3,
            scrub=3,
            censor_before=1,
            censor_after=2,
            dummy_scans=4,
        ),
    )


def test_what_is_left_out_is_off_and_the_label_comes_from_the_name(tmp_path):
    content = {"name": "6P + wm/csf", "components": [], "description": None}
    strategy = load_strategy(str(write(tmp_path, content)))
    assert strategy == Strategy("6P + wm/csf", "6Pwmcsf", "", (), Settings())


def test_null_is_off_for_every_setting():
    off = {field.name: None for field in dataclasses.fields(Settings)}
    assert parse_settings(off, "settings", []) == Settings()


def test_a_preset_copied_as_a_beginning_is_a_users_file(tmp_path):
    folder = resources.files("bids_roi").joinpath("data", "denoise")
    for name in list_strategies():
        text = folder.joinpath(f"{name}.json").read_text()
        assert load_strategy(write(tmp_path, text)) == load_strategy(name)


def with_component(item):
    return {**MINIMAL, "components": [{"motion": "full"}, item]}


def with_settings(**settings):
    return {**MINIMAL, "settings": settings}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "name: needed; components: a list of objects is needed, found nothing"),
        ({"name": 3, "components": []}, "name: a text is needed, found 3"),
        ({"name": " ", "components": []}, "name: a text is needed, found ' '"),
        ({"name": "+", "components": []}, "label: needed, the name holds neither"),
        ({**MINIMAL, "label": "a-b"}, "label: letters and digits are needed, found"),
        ({**MINIMAL, "label": 4}, "label: letters and digits are needed, found 4"),
        ({**MINIMAL, "description": 4}, "description: a text is needed, found 4"),
        ({**MINIMAL, "setings": {}}, r"setings: unknown key \(did you mean settings\?"),
        ({**MINIMAL, "x": 0}, r"x: unknown key \(the keys are name, label"),
        (
            {"name": "s", "function": "load_confounds", "parameters": {}},
            r"function: unknown key \(giga_connectome's format\)",
        ),
        ({"name": "n", "components": {}}, "components: a list of objects .*found {}"),
        (with_component("motion"), r"components\[1\]: an object like .* 'motion'"),
        (with_component({}), r"components\[1\]: one of motion, .*, found nothing"),
        (with_component({"moton": "full"}), r"found moton; did you mean motion\?"),
        (with_component({"csf": "basic", "motion": "full"}), "found csf and motion"),
        (
            with_component({"motion": "24"}),
            r"components\[1\]\.motion: one of basic, power2, derivatives, full is"
            " needed, found '24'",
        ),
        (with_component({"motion": ["full"]}), r"motion: one of basic, .*\['full'\]"),
        (with_component({"cosine": True}), "cosine: one of all is needed, found True"),
        (
            with_component({"motion": "full", "n_components": 5}),
            r"components\[1\]\.n_components: unknown key",
        ),
        (
            with_component({"compcor": "temporal", "n_components": 0}),
            r'n_components: "all" or a whole number above 0 is needed, found 0',
        ),
        (
            with_component({"compcor": "temporal", "n_components": True}),
            "n_components: .*, found True",
        ),
        (
            with_component({"compcor": "temporal", "variance_explained": 50}),
            "variance_explained: a share above 0 and up to 1 is needed, found 50",
        ),
        (
            with_component(
                {"compcor": "temporal", "variance_explained": 0.5, "n_components": 5}
            ),
            "n_components and variance_explained exclude one another",
        ),
        (with_component({"columns": "csf"}), "columns: a list of column names .*'csf'"),
        (with_component({"columns": []}), r"columns: a list of column names .* \[\]"),
        (with_component({"columns": ["csf", 3]}), r"columns: a list .*\['csf', 3\]"),
        (
            with_component({"pattern": "cosine[0-"}),
            r"components\[1\]\.pattern: not a regular expression: 'cosine\[0-' \(unter",
        ),
        (with_component({"pattern": "[[a]"}), r"'\[\[a\]' \(Possible nested set"),
        (with_component({"pattern": 4}), "pattern: not a regular expression: 4"),
        ({**MINIMAL, "settings": []}, r"settings: an object is needed, found \[\]"),
        (
            with_settings(fd_treshold=0.5),
            r"settings\.fd_treshold: unknown key \(did you mean fd_threshold\?\)",
        ),
        (
            with_settings(fd_threshold=0),
            "settings.fd_threshold: a length above 0 mm, or null for off, .*found 0",
        ),
        (with_settings(fd_threshold=True), "fd_threshold: .* found True"),
        (with_settings(std_dvars_threshold="off"), "std_dvars_threshold: .*'off'"),
        (with_settings(high_pass=float("nan")), "high_pass: a frequency .* nan"),
        (with_settings(low_pass=10**400), "low_pass: a frequency above 0 Hz"),
        (with_settings(detrend=1), "detrend: true or false is needed, found 1"),
        (
            with_settings(filter="fir"),
            "filter: passband, butterworth or cosine .*'fir'",
        ),
        (with_settings(filter_order=0), "filter_order: a whole number from 1 to 10"),
        (with_settings(standardize="z"), "standardize: none, zscore_sample or psc"),
        (with_settings(scrub=-1), "scrub: a number of volumes, 0 or more, .* -1"),
        (with_settings(scrub=2.5), "scrub: a number of volumes, 0 or more, .* 2.5"),
        (with_settings(dummy_scans="all"), "dummy_scans: auto, or a number .*'all'"),
        (
            with_settings(high_pass=0.1, low_pass=0.08),
            "settings: high_pass 0.1 Hz is not below low_pass 0.08 Hz",
        ),
        (
            with_settings(filter="cosine", low_pass=0.08),
            "settings: a cosine filter has no low_pass",
        ),
    ],
)
def test_a_wrong_file_is_answered_with_the_place_in_it(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ConfoundsError, match=message) as caught:
        load_strategy(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 65
    assert "Correct the file" in caught.value.remedy


def test_all_mistakes_are_named_at_once(tmp_path):
    content = {
        "name": "",
        "components": [{"motion": "x"}, {"pattern": "("}],
        "settings": {"scrub": "5", "low_pass": -1},
    }
    with pytest.raises(ConfoundsError) as caught:
        load_strategy(write(tmp_path, content))
    for place in ("name:", "[0].motion:", "[1].pattern:", ".scrub:", ".low_pass:"):
        assert place in caught.value.problem


def test_files_that_are_not_there_or_not_json(tmp_path):
    with pytest.raises(MissingInput, match=r"absent\.json: there is no such file"):
        load_strategy(tmp_path / "absent.json")
    with pytest.raises(MissingInput, match="no such file"):
        load_strategy(f"{tmp_path}/36P")
    with pytest.raises(DataError, match=r"not JSON \(line 1"):
        load_strategy(write(tmp_path, "{,"))
    with pytest.raises(DataError, match="a list where a JSON object is needed"):
        load_strategy(write(tmp_path, "[]"))


# --- the command line on top


def test_off_on_the_command_line_is_off():
    scrubbing = load_strategy("scrubbing")
    changed = override_settings(
        scrubbing, {"std_dvars_threshold": None, "scrub": None, "high_pass": 0.01}
    )
    expected = Settings(
        fd_threshold=0.5,
        high_pass=0.01,
        dummy_scans="auto",
        filter="butterworth",
        filter_padding="odd",
        interpolation="cubic_spline",
    )
    assert changed.settings == expected
    assert changed.components == scrubbing.components
    assert scrubbing == load_strategy("scrubbing")
    assert override_settings(scrubbing, {}) == scrubbing


def test_settings_that_contradict_one_another_are_refused():
    low = override_settings(load_strategy("36P"), {"low_pass": 0.08})
    with pytest.raises(UsageError, match=r"36P: high_pass 0\.1 Hz is not below"):
        override_settings(low, {"high_pass": 0.1})
    with pytest.raises(UsageError, match="fd_threshold: a length above 0 mm"):
        override_settings(low, {"fd_threshold": 0})
    with pytest.raises(UsageError, match="unknown key"):
        override_settings(low, {"tresholds": 0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filter": "cosine"}, "filter does nothing without high_pass or low_pass"),
        ({"filter_order": 3}, "filter_order does nothing without high_pass"),
        (
            {"filter_padding": "odd", "high_pass": 0.01, "filter": "passband"},
            "filter_padding is of a Butterworth filter, the filter is passband",
        ),
        (
            {"filter_ends": "cut", "high_pass": 0.01, "filter": "cosine"},
            "filter_ends is of a Butterworth filter, the filter is cosine",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        override_settings(load_strategy("24P"), given)


@pytest.mark.parametrize("name", list_strategies())
def test_presets_filter_as_their_tools_do(name):
    """Whose a preset is decides its filter; none has a cut-off of its own."""
    strategy = load_strategy(name)
    found = strategy.settings
    assert (found.high_pass, found.low_pass) == (None, None)
    assert (found.filter, found.interpolation) == ("butterworth", "cubic_spline")
    theirs = found.filter_order, found.filter_padding, found.filter_ends
    if "XCP-D's" in strategy.description:
        assert theirs == (2, "constant", "nearest")
        assert not found.standardize_confounds
        assert found.detrend
    else:
        assert theirs == (5, "odd", "cut")
        assert found.standardize_confounds
        assert not found.detrend


# --- properties

WORDS = st.text("abcXYZ019_ +-.[]{}()?*^$\\é", min_size=1, max_size=12)


def is_pattern(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(text)
    except (re.error, FutureWarning):
        return False
    return True


COMPONENTS = st.one_of(
    st.builds(
        Component,
        st.sampled_from(["motion", "wm_csf", "csf", "white_matter", "global_signal"]),
        st.sampled_from(["basic", "power2", "derivatives", "full"]),
    ),
    st.builds(
        Component,
        st.just("compcor"),
        st.sampled_from(["anat_combined", "anat_separated", "temporal"]),
        n_components=st.none() | st.integers(1, 50),
    ),
    st.builds(
        Component,
        st.just("compcor"),
        st.just("temporal_anat_separated"),
        variance_explained=st.floats(0.01, 1),
    ),
    st.builds(
        Component,
        st.just("columns"),
        columns=st.lists(WORDS, min_size=1).map(tuple),
    ),
    st.builds(Component, st.just("pattern"), WORDS.filter(is_pattern)),
)
SETTINGS = st.builds(
    Settings,
    detrend=st.booleans(),
    high_pass=st.none() | st.floats(0.001, 0.02),
    low_pass=st.none() | st.floats(0.03, 0.5),
    standardize=st.sampled_from(["none", "zscore_sample", "psc"]),
    fd_threshold=st.none() | st.floats(0.01, 5),
    scrub=st.integers(0, 20),
    dummy_scans=st.just("auto") | st.integers(0, 20),
)


@settings(deadline=None)
@given(
    name=WORDS.filter(str.strip),
    components=st.lists(COMPONENTS).map(tuple),
    chosen=SETTINGS,
)
def test_a_strategy_written_and_read_is_the_same(name, components, chosen):
    strategy = Strategy(name, "label0", "What it is.", components, chosen)
    problems = []
    text = json.dumps(describe_strategy(strategy))
    assert parse_strategy(json.loads(text), problems) == strategy, problems


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "components", "settings", "motion", "pattern", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["name", "components", "settings", "a"]), JSON),
)
def test_no_content_is_taken_for_a_strategy_without_a_word(content):
    problems = []
    strategy = parse_strategy(content, problems)
    assert (strategy is None) == bool(problems)


def test_descriptions_say_what_is_done_and_advise_nothing():
    """They become a key of the sidecar and a sentence of a paper."""
    for name in list_strategies():
        text = load_strategy(name).description
        assert text.endswith("."), name
        assert "--" not in text, name
        assert "give" not in text.split(), name
