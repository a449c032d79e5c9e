"""bids_roi.extract: images and tables in memory, and several at once in one pass."""

import contextlib
import json
from xml.etree import ElementTree as ET

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from support import datasets, toy_confounds
from support.calls import FUNC, STEM, run
from support.toy_confounds import MOTION

import bids_roi
import bids_roi.images.stream as stream
from bids_roi.errors import BidsRoiError, ImageError, MissingInput, UsageError
from bids_roi.images.nifti import write_image


def read_tsv(path, index_col=None):
    """Read numbers as Python does, to the last digit."""
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    if index_col:
        frame = frame.set_index(index_col)
    for name in frame:
        with contextlib.suppress(ValueError):
            frame[name] = [np.nan if x == "n/a" else float(x) for x in frame[name]]
    frame.index.name = None
    return frame


def assert_written(found, path):
    """The signals of an extraction are a table of the app's, bit for bit."""
    written = read_tsv(path)
    assert list(found.signals) == list(written)
    np.testing.assert_array_equal(found.signals.to_numpy(), written.to_numpy())


@pytest.fixture
def second_atlas(tmp_path):
    """Another atlas on the same grid: two halves."""
    labels = np.ones(datasets.SHAPE, np.int16)
    labels[:, :, 2:] = 2
    path = tmp_path / "atlas" / f"tpl-{datasets.SPACE}_atlas-Halves_dseg.nii.gz"
    path.parent.mkdir(exist_ok=True)
    write_image(path, labels, datasets.oblique())
    return path


@pytest.fixture
def runs(cleaned_input):
    """Two runs, of which the second has no confounds."""
    root, _, path = cleaned_input
    other = datasets.write_run(root, f"sub-02_task-rest_space-{datasets.SPACE}")
    return path, other


@pytest.fixture
def made(cleaned_input, runs, atlas, second_atlas, tmp_path, capsys):
    """Outputs of the app: both runs, two atlases, two strategies, matrices."""
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, second_atlas, "--strategy", "none", "24P"]
    options += ["--relmat", "pearson"]
    run(capsys, cleaned_input[0], out, "participant", *options, code=1)
    return out, *runs


def test_several_in_one_pass_are_the_apps_tables(
    made, atlas, second_atlas, monkeypatch
):
    out, path, _ = made
    image, table = atlas.split(",")
    n_passes = []
    for way in ("blocks", "pick"):
        read = getattr(stream.VolumeSource, way)

        def counted(self, *arguments, _read=read, **how):
            n_passes.append(self.path.name)
            return _read(self, *arguments, **how)

        monkeypatch.setattr(stream.VolumeSource, way, counted)
    found = bids_roi.extract(
        path,
        [image, second_atlas],
        atlas_table=[table, None],
        strategy=["none", "24P"],
        relmat="pearson",
    )
    assert n_passes.count(path.name) == 1
    keys = [(0, a, s) for a in ("Toy", "Halves") for s in ("none", "24P")]
    assert list(found) == keys
    for _, name, strategy in keys:
        tail = "" if strategy == "none" else f"_desc-{strategy}"
        stem = out / FUNC / f"{STEM}_atlas-{name}"
        one = found[0, name, strategy]
        assert_written(one, f"{stem}_stat-mean{tail}_timeseries.tsv")
        relmat = f"{stem}_stat-pearsoncorrelation{tail}_relmat.tsv"
        expected = read_tsv(relmat, index_col="Node")
        assert_frame_equal(one.relmats["pearson"], expected, check_exact=True)
        assert one.sidecar["Atlas"] == name
    regions = read_tsv(out / FUNC / f"{STEM}_atlas-Halves_dseg.tsv")
    for column in ("mean", "standard_deviation", "tsnr", "coverage"):
        values = found[0, "Halves", "24P"].regions[column]
        np.testing.assert_array_equal(values.astype(float), regions[column])


def test_a_run_that_fails_costs_its_own_only(made, atlas, second_atlas):
    """The second run has no confounds: what needs none is there all the same."""
    out, path, other = made
    with pytest.warns(UserWarning, match="could not be extracted.*no table of conf"):
        found = bids_roi.extract(
            {"one": path, "two": other},
            {"mine": atlas.split(",")[0], "halves": second_atlas},
            strategy=["24P", "none"],
        )
    assert [key for key in found if key[1] == "mine"] == [
        ("one", "mine", "24P"),
        ("one", "mine", "none"),
        ("two", "mine", "none"),
    ]
    assert list(found.failed) == [("two", "mine", "24P"), ("two", "halves", "24P")]
    with pytest.raises(MissingInput, match="no table of confounds"):
        found["two", "mine", "24P"]
    # The canonical name of the outputs will do, too.
    assert found["one", "Toy", "24P"] is found["one", "mine", "24P"]
    for wrong in (("one", "other", "24P"), "one", 0, ("one", "Toy", "36P")):
        with pytest.raises(KeyError):
            found[wrong]
    assert "no table" in found.table().status.iloc[-1]
    second = out / "sub-02" / "func" / STEM.replace("sub-01", "sub-02")
    path = f"{second}_atlas-Halves_stat-mean_timeseries.tsv"
    assert_written(found["two", "halves", "none"], path)


def test_all_that_fails_is_an_error(tmp_path, second_atlas):
    gone = [tmp_path / "a_bold.nii.gz", tmp_path / "b_bold.nii.gz"]
    with pytest.raises(MissingInput, match="no such file"):
        bids_roi.extract(gone, second_atlas, mask="none")


def test_an_image_knows_what_lies_beside_its_file(runs, atlas):
    """Mask, confounds, repetition time and space, as for the path."""
    path, _ = runs
    image, table = atlas.split(",")
    options = {"atlas_table": table, "strategy": "24P", "low_pass": 0.1}
    by_path = bids_roi.extract(path, image, **options)
    loaded = nb.load(path)
    found = bids_roi.extract(loaded, nb.load(image), **options)
    assert_frame_equal(found.signals, by_path.signals, check_exact=True)
    assert found.sidecar == by_path.sidecar
    loaded.get_fdata()  # a cache that holds what the file does
    found = bids_roi.extract(loaded, nb.load(image), **options)
    assert_frame_equal(found.signals, by_path.signals, check_exact=True)


def test_an_image_that_was_changed_is_taken_as_it_is(runs, atlas):
    """Twice the values, with the confounds and the mask of the file it is of."""
    path, _ = runs
    image = atlas.split(",")[0]
    before = datasets.snapshot(path.parents[2])
    plain = bids_roi.extract(path, image, strategy="24P")
    values = nb.load(path).get_fdata()
    changed = nb.Nifti1Image(2 * values, nb.load(path).affine, nb.load(path).header)
    changed.set_filename(path)
    found = bids_roi.extract(changed, image, strategy="24P")
    np.testing.assert_allclose(found.signals, 2 * plain.signals, rtol=1e-6)
    assert found.regions.coverage.tolist() == plain.regions.coverage.tolist()
    assert changed.get_filename() == str(path)
    assert datasets.snapshot(path.parents[2]) == before


def test_values_changed_in_the_cache_are_refused(runs, atlas):
    """nibabel itself would save the file's: neither is surely meant."""
    path, _ = runs
    loaded = nb.load(path)
    loaded.get_fdata()[:] = 1
    with pytest.raises(ImageError, match="changed in nibabel's cache"):
        bids_roi.extract(loaded, atlas.split(",")[0])


def test_a_changed_header_counts(runs, atlas):
    """An affine that was moved puts the atlas elsewhere, whatever the file says."""
    path, _ = runs
    image = atlas.split(",")[0]
    loaded = nb.load(path)
    affine = loaded.affine.copy()
    affine[:3, 3] += [2, 0, 0]
    moved = nb.Nifti1Image(loaded.dataobj, affine, loaded.header)
    by_hand = bids_roi.extract(moved, image, mask="none", space=datasets.SPACE)
    loaded.affine[:3, 3] += [2, 0, 0]
    found = bids_roi.extract(loaded, image, mask="none")
    assert_frame_equal(found.signals, by_hand.signals, check_exact=True)
    assert not np.array_equal(
        found.signals, bids_roi.extract(path, image, mask="none").signals
    )


def test_masks_in_memory(runs, atlas):
    path, other = runs
    image = atlas.split(",")[0]
    file = str(path).replace("preproc_bold", "brain_mask")
    expected = bids_roi.extract(path, image, mask=file)
    found = bids_roi.extract(path, image, mask=nb.load(file))
    assert_frame_equal(found.signals, expected.signals, check_exact=True)
    own = nb.Nifti1Image(np.ones(datasets.SHAPE, np.uint8), datasets.oblique())
    both = bids_roi.extract([path, path, other], image, mask=[file, own, "auto"])
    first, second = both[0, "Toy", "none"], both[1, "Toy", "none"]
    assert_frame_equal(first.signals, expected.signals, check_exact=True)
    whole = bids_roi.extract(path, image, mask="none")
    assert_frame_equal(second.signals, whole.signals, check_exact=True)


def test_confounds_in_memory_with_a_strategy_are_those_of_the_file(runs, atlas):
    path, _ = runs
    image = atlas.split(",")[0]
    table = path.parent / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    options = {"strategy": "24P", "fd_threshold": 0.5}
    expected = bids_roi.extract(path, image, **options)
    frame = read_tsv(table)
    records = frame.to_records(index=False)
    columns = {name: frame[name].to_numpy() for name in frame}
    for given in (frame, records, columns, [frame]):
        found = bids_roi.extract(path, image, confounds=given, **options)
        assert_frame_equal(found.signals, expected.signals, check_exact=True)


@pytest.mark.parametrize("as_given", [np.asarray, pd.DataFrame])
def test_confounds_alone_are_regressed_out_whole(runs, atlas, as_given):
    """By the normal equations: residuals of mean and columns, with the mean kept."""
    path, _ = runs
    image = atlas.split(",")[0]
    raw = bids_roi.extract(path, image).signals
    columns = np.random.default_rng(0).normal(size=(toy_confounds.T, 3))
    given = as_given(columns)
    before = given.copy()
    found = bids_roi.extract(path, image, confounds=given, detrend=False)
    assert list(bids_roi.extract([path], image, confounds=[given])) == [
        (0, "Toy", "confounds")
    ]
    design = columns - columns.mean(axis=0)
    for name in raw:
        y = raw[name].to_numpy()
        if np.isnan(y).any():
            continue
        beta = np.linalg.solve(design.T @ design, design.T @ y)
        expected = y - design @ beta
        left = found.signals[name] - found.signals[name].mean()
        np.testing.assert_allclose(left, expected - expected.mean(), atol=1e-9)
    np.testing.assert_array_equal(given, before)


def test_columns_that_settings_read_are_not_regressed(runs, atlas):
    path, _ = runs
    image = atlas.split(",")[0]
    frame = read_tsv(path.parent / "sub-01_task-rest_desc-confounds_timeseries.tsv")
    some = frame[[*MOTION, "framewise_displacement", "non_steady_state_outlier00"]]
    options = {"fd_threshold": 0.5, "dummy_scans": "auto"}
    found = bids_roi.extract(path, image, confounds=some, **options)
    assert sorted(found.sidecar["ConfoundRegressors"]) == sorted(MOTION)
    assert len(found.signals) == toy_confounds.T - 1 - len(toy_confounds.SPIKES)
    # Without a threshold nothing reads FD: it is a column like the others.
    found = bids_roi.extract(path, image, confounds=some)
    assert sorted(found.sidecar["ConfoundRegressors"]) == sorted(some)


def test_a_table_that_nothing_reads_is_told(runs, atlas, tmp_path):
    """A path says where the table is; a strategy, which columns are regressed out."""
    path, _ = runs
    image = atlas.split(",")[0]
    table = path.parent / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    with pytest.warns(UserWarning, match="strategy= says which"):
        found = bids_roi.extract(path, image, confounds=table)
    plain = bids_roi.extract(path, image)
    assert_frame_equal(found.signals, plain.signals, check_exact=True)
    with pytest.raises(MissingInput, match="no such file"):
        bids_roi.extract(path, image, confounds=tmp_path / "gone.tsv")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((59, 2)), "59 rows"),
        (np.zeros((60, 2, 2)), r"array \(volumes, columns\)"),
        (np.full((60, 1), np.inf), "infinite"),
        (np.full((60, 1), 1j), "does not hold numbers"),
        (pd.DataFrame({"a": ["x"] * 60}), "column a does not hold numbers"),
        (pd.DataFrame(np.zeros((60, 2)), columns=["a", "a"]), "a twice"),
        (pd.DataFrame(), "is empty"),
        ({"a": [1, 2], "b": [1]}, "is no table"),
        (3, "not 3"),
        (datasets, "not a module"),
    ],
)
def test_confounds_that_are_none(runs, atlas, given, told):
    path, _ = runs
    with pytest.raises(BidsRoiError, match=told) as caught:
        bids_roi.extract(path, atlas.split(",")[0], confounds=given)
    assert "/tmp" not in str(caught.value)
    assert "confounds" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bold": None}, "bold is missing"),
        ({"bold": []}, "bold holds nothing"),
        ({"atlas": None}, "atlas is missing"),
        ({"atlas": {}}, "atlas holds nothing"),
        ({"atlas": 7}, "atlas: a int is neither a path nor a nibabel image"),
        ({"bold": b"x"}, "bold: a bytes is neither"),
        ({"bold": ""}, "bold is no path"),
        ({"atlas": "absent/atlas.nii.gz"}, "no such file"),
        ({"atlas_table": 3}, "atlas_table is a path or a DataFrame, not 3"),
        ({"atlas_table": "gone.tsv"}, "no such file"),
        ({"atlas_table": ["a", "b"]}, "atlas_table has 2 entries for 1"),
        ({"mask": 3}, "mask: a int is neither"),
        ({"mask": True}, "mask: a bool is neither"),
        ({"mask": np.ones(datasets.SHAPE)}, "mask: a ndarray is neither"),
        ({"mask": "gone.nii"}, "no such file"),
        ({"mask": ["none", "none"]}, "mask has 2 entries for 1"),
        ({"mask": {"x": "none"}}, "keys of mask are 'x', not 0"),
        ({"space": 3}, "space is the label of a template, not 3"),
        ({"strategy": 36}, "strategy is a name, the path of a JSON file, or sev"),
        ({"strategy": []}, "strategy is an empty list"),
        ({"strategy": ["24P", None]}, "not None"),
        ({"strategy": {"a": 1}}, "strategy is a name"),
        ({"strategy": "mean"}, "statistic='mean'"),
    ],
)
def test_what_is_given_wrongly(runs, atlas, given, told):
    path, _ = runs
    arguments = {"bold": path, "atlas": atlas.split(",")[0]} | given
    with pytest.raises(BidsRoiError, match=told) as caught:
        bids_roi.extract(**arguments)
    assert "--" not in str(caught.value)


def test_image_and_table_in_one_word_are_told_apart(runs, atlas):
    path, _ = runs
    with pytest.raises(UsageError, match="atlas=IMAGE, atlas_table=TABLE"):
        bids_roi.extract(path, atlas)


def test_several_runs_need_a_table_each(runs, atlas):
    path, other = runs
    with pytest.raises(UsageError, match="confounds is one for 2"):
        bids_roi.extract(
            [path, other], atlas.split(",")[0], confounds=np.zeros((60, 1))
        )


def test_two_images_of_one_name_have_two(runs):
    path, _ = runs
    one = nb.Nifti1Image(datasets.labels(), datasets.oblique())
    found = bids_roi.extract(path, [one, one])
    assert list(found) == [(0, "atlas1", "none"), (0, "atlas2", "none")]
    named = bids_roi.extract(path, {"left half": one, "Right": one})
    assert [key[1] for key in named] == ["left half", "Right"]
    assert named[0, "left half", "none"].sidecar["Atlas"] == "lefthalf"


def test_names_with_commas(runs, atlas, tmp_path):
    """The command line parts image and table there; Python does not."""
    path, _ = runs
    image, table = atlas.split(",")
    moved = tmp_path / "a,b" / "my,atlas.nii.gz"
    moved.parent.mkdir()
    moved.write_bytes((tmp_path / image).read_bytes())
    found = bids_roi.extract(path, moved, atlas_table=table)
    plain = bids_roi.extract(path, image, atlas_table=table)
    assert_frame_equal(found.signals, plain.signals, check_exact=True)


def test_own_file_of_a_strategy_goes_by_its_label(runs, atlas, tmp_path):
    path, _ = runs
    own = tmp_path / "own.json"
    content = {"name": "mine", "label": "mine", "components": [{"motion": "basic"}]}
    own.write_text(json.dumps(content))
    found = bids_roi.extract(path, atlas.split(",")[0], strategy=[own, "none"])
    assert list(found) == [(0, "Toy", "mine"), (0, "Toy", "none")]


def test_reprs_fit_a_screen_and_show_tables(runs, atlas):
    path, _ = runs
    image, table = atlas.split(",")
    one = bids_roi.extract(path, image, atlas_table=table, relmat="pearson")
    assert len(repr(one)) < 160
    assert "60 volumes x 5 regions (1 lost); Toy; none; pearson" in repr(one)
    page = one._repr_html_()
    assert page.count("<table") == 2
    assert "Left V1" in page
    assert len(page) < 10_000
    found = bids_roi.extract([path] * 30, image, strategy=["none", "24P"])
    assert len(repr(found).splitlines()) < 20
    assert max(map(len, repr(found).splitlines())) <= 100
    assert found._repr_html_().count("<tr") < 16


def test_results_survive_a_copy(runs, atlas):
    """As joblib makes them: pickled whole."""
    import pickle

    path, _ = runs
    found = bids_roi.extract([path], atlas.split(",")[0])
    again = pickle.loads(pickle.dumps(found))
    assert_frame_equal(again[0, "Toy", "none"].signals, found[0, "Toy", "none"].signals)


def test_relative_paths_and_text_will_do(runs, atlas, monkeypatch):
    path, _ = runs
    image = atlas.split(",")[0]
    monkeypatch.chdir(path.parent)
    found = bids_roi.extract(path.name, image)
    by_path = bids_roi.extract(path, image)
    assert_frame_equal(found.signals, by_path.signals, check_exact=True)


def test_a_picture_of_some_regions(runs, atlas, tmp_path):
    """One line each, in seconds; gaps where volumes were censored, stripes if lost."""
    path, _ = runs
    image, table = atlas.split(",")
    options = {"atlas_table": table, "strategy": "24P", "fd_threshold": 0.5}
    found = bids_roi.extract(path, image, **options)
    picture = found.plot("Left V1", "Thalamus", "Nowhere")
    root = ET.fromstring(picture._repr_svg_())
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"Left V1", "Thalamus", "Nowhere (lost)", "Time (s)"} <= set(texts)
    assert "100" in texts  # seconds, of 60 volumes of 2 s
    lines = [each.get("d") for each in root.iter(f"{space}path")]
    blue = [
        e.get("d") for e in root.iter(f"{space}path") if e.get("stroke") == "#0072b2"
    ]
    assert len(blue) == 2
    assert all(d.count("M") == 3 for d in blue)  # two gaps: 20 and 21, 40
    assert len(lines) > len(blue)
    picture.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == picture.svg
    assert repr(picture) == "<Picture: Series of Left V1, Thalamus, Nowhere>"
    with pytest.raises(UsageError, match=r"no region 'left v1'\. Nearest: Left V1"):
        found.plot("left v1")
    with pytest.raises(UsageError, match="no region is named"):
        found.plot()
