"""RegionMasker against nilearn's NiftiLabelsMasker, and in scikit-learn's hands."""

import pickle
import sys
import warnings

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiLabelsMasker
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import InputTags, get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted
from support import datasets
from support.toy_confounds import T

import bids_roi
from bids_roi.arguments import ALLOWED
from bids_roi.errors import BidsRoiError, UsageError
from bids_roi.masker import RegionMasker

pytestmark = pytest.mark.parity

KEPT = np.setdiff1d(np.arange(T), [3, 20, 21, 40])


@pytest.fixture(scope="module")
def images():
    """A run of smooth series about a level, labels with gaps, a mask."""
    rng = np.random.default_rng(5)
    data = datasets.bold(3, T) + rng.normal(0, 30, T).cumsum()
    bold = nb.Nifti1Image(data, datasets.oblique())
    bold.header.set_zooms((*bold.header.get_zooms()[:3], 2.0))
    labels = nb.Nifti1Image(datasets.labels(), datasets.oblique())
    return bold, labels, nb.Nifti1Image(datasets.mask(), datasets.oblique())


def nilearns(bold, labels, *, confounds=None, sample_mask=None, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masker = NiftiLabelsMasker(labels, verbose=0, reports=False, **params)
        return masker.fit_transform(bold, confounds=confounds, sample_mask=sample_mask)


def assert_alike(ours, theirs, tolerance=1e-12):
    """Relative to the largest value; the columns are in the order of the labels."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize(
    "params",
    [
        {},
        *[
            {"strategy": word}
            for word in ("mean", "median", "sum", "minimum", "maximum", "variance")
        ],
        {"strategy": "standard_deviation"},
        {"detrend": True},
        {"standardize": "zscore_sample"},
        {"standardize": "zscore_sample", "detrend": True},
        {"high_pass": 0.01, "t_r": 2.0},
        {"low_pass": 0.1, "t_r": 2.0},
        {"low_pass": 0.1, "high_pass": 0.01, "t_r": 2.0},
        {"low_pass": 0.1, "t_r": 2.0, "detrend": True, "standardize": "zscore_sample"},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_confounds", [False, True])
@pytest.mark.parametrize("kept", [None, KEPT], ids=["all", "some"])
def test_signals_are_nilearns(images, params, with_confounds, kept):
    bold, labels, _ = images
    if kept is not None and "detrend" in params and "low_pass" not in params:
        params = {**params, "detrend": False}  # see the next test
    given = {"sample_mask": kept}
    if with_confounds:
        given["confounds"] = np.random.default_rng(1).normal(size=(T, 4))
    theirs = nilearns(bold, labels, **params, **given)
    ours = RegionMasker(labels, **params).fit_transform(bold, **given)
    # Filters in another arrangement of the same sums.
    filtered = "low_pass" in params or "high_pass" in params
    assert_alike(ours, theirs, 1e-9 if filtered else 1e-12)


def test_a_trend_is_straight_in_time(images):
    """nilearn's is straight over what is left, as if the gaps had taken no time."""
    bold, labels, _ = images
    raw = RegionMasker(labels).fit_transform(bold)[KEPT]
    ours = RegionMasker(labels, detrend=True).fit_transform(bold, sample_mask=KEPT)
    line = np.stack([np.ones(KEPT.size), KEPT], axis=1)
    expected = raw - line @ np.linalg.lstsq(line, raw, rcond=None)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    theirs = nilearns(bold, labels, detrend=True, sample_mask=KEPT)
    assert np.abs(ours - theirs).max() > 1e-3
    line[:, 1] = np.arange(KEPT.size)
    other = raw - line @ np.linalg.lstsq(line, raw, rcond=None)[0]
    np.testing.assert_allclose(theirs, other, atol=1e-9)


def test_masks_are_nilearns(images):
    bold, labels, mask = images
    theirs = nilearns(bold, labels, mask_img=mask)
    assert_alike(RegionMasker(labels, mask_img=mask).fit_transform(bold), theirs)


def test_true_is_the_z_score(images):
    bold, labels, _ = images
    masker = RegionMasker(labels, standardize=True)
    one = masker.fit_transform(bold)
    np.testing.assert_allclose(one.std(axis=0, ddof=1), 1)
    masker.set_params(standardize="zscore_sample")
    np.testing.assert_array_equal(one, masker.fit_transform(bold))


def test_it_is_the_engine_of_extract(images):
    bold, labels, mask = images
    confounds = np.random.default_rng(1).normal(size=(T, 4))
    found = bids_roi.extract(
        bold, labels, mask=mask, confounds=confounds, statistic="median", detrend=True
    )
    masker = RegionMasker(labels, mask_img=mask, strategy="median", detrend=True)
    ours = masker.fit(bold).transform(bold, confounds)
    np.testing.assert_array_equal(ours, found.signals.to_numpy())
    assert masker.get_feature_names_out().tolist() == list(found.signals)


def test_presets_of_cleaning_work_beside_a_derivative(cleaned_input, atlas):
    _, _, path = cleaned_input
    image, table = atlas.split(",")
    options = {"strategy": "24P", "fd_threshold": 0.5}
    found = bids_roi.extract(path, image, atlas_table=table, strategy="24P")
    masker = RegionMasker(image, lut=table, mask_img="auto", cleaning="24P")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = masker.fit_transform(path)
    np.testing.assert_array_equal(ours, found.signals.to_numpy())
    assert np.isnan(ours[:, datasets.NAMES.index("Nowhere")]).all()
    assert options["strategy"] == masker.cleaning


def test_output_as_a_table(images):
    bold, labels, _ = images
    masker = RegionMasker(labels).set_output(transform="pandas")
    frame = masker.fit_transform(bold, sample_mask=KEPT)
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == KEPT.tolist()
    assert list(frame) == masker.get_feature_names_out().tolist()
    mask = np.isin(np.arange(T), KEPT)
    again = masker.fit_transform(bold, sample_mask=mask)
    pd.testing.assert_frame_equal(frame, again, check_exact=True)
    assert isinstance(masker.set_output().transform(bold), pd.DataFrame)
    assert isinstance(
        masker.set_output(transform="default").transform(bold), np.ndarray
    )
    with pytest.raises(ValueError, match="'default' or 'pandas', not 'polars'"):
        masker.set_output(transform="polars")


def test_global_output_of_scikit_learn(images):
    from sklearn import config_context

    bold, labels, _ = images
    with config_context(transform_output="pandas"):
        assert isinstance(RegionMasker(labels).fit_transform(bold), pd.DataFrame)


def test_in_a_pipeline(images):
    bold, labels, _ = images
    pipeline = make_pipeline(RegionMasker(labels, detrend=True), StandardScaler())
    confounds = np.random.default_rng(1).normal(size=(T, 4))
    found = pipeline.fit_transform(bold, regionmasker__confounds=confounds)
    raw = RegionMasker(labels, detrend=True).fit_transform(bold, confounds=confounds)
    np.testing.assert_array_equal(found, StandardScaler().fit_transform(raw))
    pipeline.set_params(regionmasker__strategy="median")
    assert pipeline[0].strategy == "median"
    names = pipeline[:1].get_feature_names_out().tolist()
    assert names == pipeline[0].region_names_
    frame = clone(pipeline).set_output(transform="pandas").fit_transform(bold)
    assert list(frame) == names


def test_several_images_make_a_list(images):
    bold, labels, _ = images
    masker = RegionMasker(labels)
    confounds = np.random.default_rng(1).normal(size=(T, 2))
    one = masker.fit_transform(bold, confounds=confounds, sample_mask=KEPT)
    two = masker.fit_transform(
        [bold, bold], confounds=[confounds, None], sample_mask=[KEPT, None]
    )
    np.testing.assert_array_equal(two[0], one)
    np.testing.assert_array_equal(two[1], masker.transform(bold))


def test_clones_and_copies(images):
    bold, labels, _ = images
    masker = RegionMasker(labels, standardize=True, strategy="sum").fit(bold)
    copy = clone(masker)
    assert copy.get_params().keys() == masker.get_params().keys()
    assert copy.strategy == "sum"
    np.testing.assert_array_equal(
        copy.fit_transform(bold), pickle.loads(pickle.dumps(masker)).transform(bold)
    )
    with pytest.raises(NotFittedError, match="Call fit first"):
        clone(masker).transform(bold)
    with pytest.raises(UsageError, match="Call fit first"):
        clone(masker).get_feature_names_out()
    with pytest.raises(
        ValueError, match=r"no parameter standardise\. Nearest: standard"
    ):
        masker.set_params(standardise=True)


def test_inverse_paints_what_transform_takes(images):
    bold, labels, _ = images
    masker = RegionMasker(labels).fit()
    signals = masker.transform(bold)
    painted = masker.inverse_transform(signals)
    assert painted.shape == bold.shape
    np.testing.assert_allclose(painted.affine, labels.affine, atol=1e-6)  # as stored
    np.testing.assert_allclose(masker.transform(painted), signals, rtol=1e-12)
    assert (painted.get_fdata()[datasets.labels() == 0] == 0).all()
    one = masker.inverse_transform(signals[0])
    np.testing.assert_array_equal(one.get_fdata(), painted.get_fdata()[..., 0])
    for wrong in (signals[:, :2], 3, signals[None]):
        with pytest.raises(UsageError, match="signals have shape"):
            masker.inverse_transform(wrong)


def test_inverse_on_the_grid_of_the_run(images):
    """Labels of half the voxel size, fitted on the run: the image is the run's."""
    bold, labels, _ = images
    affine = labels.affine @ np.diag([0.5, 0.5, 0.5, 1])
    fine = np.kron(labels.get_fdata(), np.ones((2, 2, 2))).astype(np.int32)
    affine[:3, 3] = (labels.affine @ [-0.25, -0.25, -0.25, 1])[:3]
    masker = RegionMasker(nb.Nifti1Image(fine, affine))
    signals = masker.fit_transform(bold)
    painted = masker.inverse_transform(signals)
    assert painted.shape == bold.shape
    assert masker.fit().inverse_transform(signals[0]).shape == fine.shape
    np.testing.assert_allclose(masker.transform(painted), signals, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(RegionMasker().get_params()))
@pytest.mark.parametrize(
    "value", [object(), b"x", 1j, {"a": 1}, [object()]], ids=lambda v: type(v).__name__
)
def test_a_wrong_parameter_is_told_by_its_name(images, name, value):
    bold, labels, _ = images
    masker = RegionMasker(labels).set_params(**{name: value})
    with pytest.raises(BidsRoiError) as caught:
        masker.fit_transform(bold)
    word = {"lut": "atlas_table", "labels_img": "atlas", "mask_img": "mask"}.get(name)
    text = str(caught.value)
    assert name in text or (word and word in text) or name == "filter", text
    assert "--" not in text


def test_an_unknown_statistic_names_the_place_of_strategies(images):
    bold, labels, _ = images
    with pytest.raises(UsageError, match=r"strategy is one of mean.*cleaning="):
        RegionMasker(labels, strategy="36P").fit(bold)


@pytest.mark.parametrize(
    ("sample_mask", "told"),
    [
        ([0, 60], "0 to 59"),
        ([3, 1], "in order"),
        ([-1], "0 to 59"),
        (np.ones(59, bool), "59 values"),
        ([0.5], "positions of volumes"),
        ("abc", "positions of volumes|sample_mask"),
    ],
)
def test_wrong_sample_masks(images, sample_mask, told):
    bold, labels, _ = images
    with pytest.raises(UsageError, match=told):
        RegionMasker(labels, detrend=True).fit_transform(bold, sample_mask=sample_mask)


def test_an_atlas_by_name_needs_an_image():
    with pytest.raises(UsageError, match="fit needs imgs"):
        RegionMasker("schaefer400", space="MNI152NLin6Asym").fit()
    with pytest.raises(UsageError, match="labels_img is missing"):
        RegionMasker().fit()


def test_its_repr_shows_what_was_changed():
    assert repr(RegionMasker("schaefer400")) == "RegionMasker(labels_img='schaefer400')"
    labels = nb.Nifti1Image(np.zeros((9, 9, 9)), np.eye(4))
    shown = repr(RegionMasker(labels, low_pass=0.1))
    assert shown == "RegionMasker(labels_img=a Nifti1Image, low_pass=0.1)"


def test_parameters_are_options_or_nilearns():
    theirs = set(NiftiLabelsMasker().get_params())
    own = {"cleaning", "filter", "min_coverage", "space", "templateflow_home"}
    assert set(RegionMasker().get_params()) - theirs == own
    assert own - {"cleaning", "space"} <= set(ALLOWED)


# scikit-learn's checks that cannot apply. Those that make a table of numbers of its own
# cannot make an image of a brain, nor an atlas that fits it; what they are after is
# tested with images below.
_TABLE = "fits a table (samples, features), which is no image"
CANNOT = dict.fromkeys(
    (
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_transformer_general",
        "check_transformer_preserve_dtypes",
    ),
    _TABLE,
) | dict.fromkeys(
    (
        "check_estimator_sparse_array",
        "check_estimator_sparse_matrix",
        "check_estimator_sparse_tag",
    ),
    "fits a sparse table; there are no sparse images",
)


class Checked(RegionMasker):
    """Claims to take tables, without which scikit-learn runs none of its checks."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags(two_d_array=True, allow_nan=True)
        return tags


def test_checks_of_scikit_learn_that_can_apply_pass():
    with warnings.catch_warnings():
        # It does without scikit-learn, so that it inherits nothing of it.
        warnings.filterwarnings("ignore", message=".*does not inherit from")
        found = check_estimator(
            Checked(), expected_failed_checks=CANNOT, on_fail="raise", on_skip=None
        )
    status = {each["check_name"]: each["status"] for each in found}
    assert {name for name, each in status.items() if each == "xfail"} == set(CANNOT)
    passed = {name for name, each in status.items() if each == "passed"}
    assert passed >= {
        "check_estimator_cloneable",
        "check_estimators_unfitted",
        "check_get_params_invariance",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_transformers_unfitted",
        "check_valid_tag_types",
    }


def test_what_those_checks_are_after_holds_for_images(images):
    """Parameters stay as they were; fit returns itself, and does the same twice."""
    bold, labels, mask = images
    masker = RegionMasker(labels, mask_img=mask, standardize=True)
    before = masker.get_params()
    assert masker.fit(bold, y=None) is masker
    state = dict(vars(masker))
    first = masker.transform(bold)
    assert all(vars(masker)[name] is value for name, value in state.items())
    assert all(masker.get_params()[name] is value for name, value in before.items())
    np.testing.assert_array_equal(masker.fit(bold).transform(bold), first)
    np.testing.assert_array_equal(masker.fit_transform(bold), first)
    check_is_fitted(masker)
    with pytest.raises(NotFittedError):
        check_is_fitted(clone(masker))


def test_tags_say_what_it_takes():
    tags = get_tags(RegionMasker())
    assert tags.estimator_type == "transformer"
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required


def test_scikit_learn_is_not_needed(tmp_path):
    """Nor imported by the package, nor by a masker at work."""
    import subprocess

    code = (
        "import sys; import numpy as np, nibabel as nb, bids_roi\n"
        "sys.modules['sklearn'] = None\n"
        "image = nb.Nifti1Image(np.ones((3, 3, 3, 4)), np.eye(4))\n"
        "labels = nb.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4))\n"
        "masker = bids_roi.RegionMasker(labels)\n"
        "try: masker.transform(image)\n"
        "except bids_roi.errors.UsageError: pass\n"
        "print(masker.fit_transform(image).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(4, 1)", done.stderr
