"""Regressors equal those of nilearn, on real tables and on its own excerpts."""

import itertools
import shutil
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.confound_tables import (
    COMPCOR,
    EXPANSIONS,
    FULL,
    P24,
    REAL,
    expand,
    largest,
    loader,
    select,
    strategy,
    toy,
    write,
)

from bids_roi.confounds.strategies import Component, load_strategy
from bids_roi.confounds.table import (
    framewise_displacement,
    non_steady_state,
    read_confounds,
    std_dvars,
)
from bids_roi.errors import ConfoundsError


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    return loader(shared, tmp_path_factory.mktemp("real"))


def assert_same(selected, expected):
    """Same columns in the same order, with the same bits."""
    assert list(selected.names) == list(expected.columns)
    # Bit for bit with pandas 3.1; before, its parser was off by up to 1e-12.
    assert_allclose(selected.regressors, expected.to_numpy(), rtol=2e-12)


PRESETS = {
    "simple": ("simple", {}),
    "simple+gsr": ("simple", {"global_signal": "basic"}),
    "simple+gsr-full": ("simple", {"global_signal": "full"}),
    "scrubbing": ("scrubbing", {}),
    "scrubbing+gsr": ("scrubbing", {"global_signal": "basic"}),
    "scrubbing+gsr-full": ("scrubbing", {"global_signal": "full"}),
    "compcor": ("compcor", {}),
    "compcor+gsr": ("compcor", {"global_signal": "basic"}),
    "compcor+gsr-full": ("compcor", {"global_signal": "full"}),
    "ica_aroma": ("ica_aroma", {}),
    "ica_aroma+gsr": ("ica_aroma", {"global_signal": "basic"}),
    "ica_aroma+gsr-full": ("ica_aroma", {"global_signal": "full"}),
    "scrubbing.2": ("scrubbing", {"fd_threshold": 0.2}),
    "scrubbing.2+gsr": ("scrubbing", {"fd_threshold": 0.2, "global_signal": "basic"}),
    "scrubbing.5": ("scrubbing", {"fd_threshold": 0.5}),
    "scrubbing.5+gsr": ("scrubbing", {"fd_threshold": 0.5, "global_signal": "basic"}),
    "acompcor50": ("compcor", {}),
    "icaaroma": ("ica_aroma", {}),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("version", REAL)
def test_presets_equal_nilearn(real, version, name):
    confounds, nilearn = real(version)
    theirs, options = PRESETS[name]
    desc = "smoothAROMAnonaggr" if theirs == "ica_aroma" else "preproc"
    options = {"denoise_strategy": theirs, "image_desc": desc, **options}
    expected, _ = nilearn(demean=False, **options)
    selected = select(confounds, name)
    assert_same(selected, expected)
    assert np.isfinite(selected.regressors).all()
    # The default of nilearn: less the mean over the volumes that it keeps.
    expected, kept = nilearn(**options)
    kept = np.arange(confounds.n_volumes) if kept is None else kept
    if not kept.size:  # the excerpt of 21 is all motion
        assert version == "21"
        return
    centred = selected.regressors - selected.regressors[kept].mean(axis=0)
    scale = largest(selected.regressors)
    assert_allclose(centred / scale, expected.to_numpy() / scale, rtol=0, atol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("version", REAL)
def test_every_model_of_every_group_equals_nilearn(real, version):
    confounds, nilearn = real(version)
    combinations = zip(
        itertools.cycle(EXPANSIONS),
        itertools.cycle(("full", "basic", "power2", "derivatives", "basic")),
        itertools.cycle(("derivatives", "power2", "full")),
        itertools.product(COMPCOR, ("all", 1, 3, 5, 500)),
        strict=False,
    )
    n_checked = 0
    for motion, wm_csf, global_signal, (compcor, n) in combinations:
        expected, _ = nilearn(
            strategy=("motion", "wm_csf", "global_signal", "high_pass", "compcor"),
            motion=motion,
            wm_csf=wm_csf,
            global_signal=global_signal,
            compcor=compcor,
            n_compcor=n,
            demean=False,
        )
        count = None if n == "all" else n
        chosen = strategy(
            Component("motion", motion),
            Component("wm_csf", wm_csf),
            Component("global_signal", global_signal),
            Component("cosine", "all"),
            Component("compcor", compcor, n_components=count),
        )
        assert_same(select(confounds, chosen), expected)
        n_checked += 1
    assert n_checked == 25


@pytest.mark.parity
def test_aroma_columns_equal_nilearn(real):
    confounds, nilearn = real("1.4")
    expected, _ = nilearn(strategy=("ica_aroma",), ica_aroma="basic", demean=False)
    selected = select(confounds, strategy(Component("ica_aroma", "basic")))
    assert_same(selected, expected)
    assert len(selected.names) == 13


@pytest.mark.parity
@pytest.mark.parametrize("version", REAL)
def test_what_nilearn_drops_by_threshold_can_be_had_from_the_columns(real, version):
    confounds, nilearn = real(version)
    for fd, dvars in [(0.5, 1.5), (0.2, 3.0), (0.05, 1.0)]:
        _, kept = nilearn(
            strategy=("scrub",), scrub=0, fd_threshold=fd, std_dvars_threshold=dvars
        )
        ours = ~(framewise_displacement(confounds) > fd)
        ours &= ~(std_dvars(confounds) > dvars) & ~non_steady_state(confounds)
        if kept is None:
            assert ours.all()
        else:
            assert_array_equal(np.flatnonzero(ours), kept)


@pytest.mark.parity
def test_dvars_is_off_where_nilearn_keeps_its_default(tmp_path):
    columns = toy(20, *P24, *expand(["csf", "white_matter"], *FULL), "cosine00")
    columns["framewise_displacement"] = ["n/a", *[0.1] * 19]
    columns["std_dvars"] = ["n/a", *[1.0] * 19]
    columns["std_dvars"][10] = 1.8
    confounds = read_confounds(write(tmp_path, columns, {}))
    image = tmp_path / "sub-01_task-rest_desc-preproc_bold.nii.gz"
    image.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        from nilearn.interfaces.fmriprep import load_confounds_strategy

        _, kept = load_confounds_strategy(
            str(image), "scrubbing", fd_threshold=0.5, std_dvars_threshold=None, scrub=0
        )
    assert 10 not in kept  # although its caller switched the criterion off
    giga = load_strategy("scrubbing.5").settings
    assert giga.std_dvars_threshold is None
    assert not (framewise_displacement(confounds) > giga.fd_threshold).any()
    assert load_strategy("scrubbing").settings.std_dvars_threshold < 1.8


@pytest.mark.parity
@pytest.mark.parametrize(
    ("without", "name", "message"),
    [
        ("trans_x", "simple", r"all 24|4 of 24 of motion \(trans_x, trans_x_deriv"),
        ("rot_z_power2", "simple", r"1 of 24 of motion \(rot_z_power2\).*trans_x"),
        ("csf", "simple", r"1 of 2 of wm_csf \(csf\); the table has .*white_matter"),
        ("csf_power2", "scrubbing", r"1 of 8 of wm_csf \(csf_power2\)"),
        ("global_signal", "simple+gsr", r"all 1 of global_signal basic .* has global"),
        ("a_comp_cor_02", "compcor", r"1 of 33 of compcor \(a_comp_cor_02\)"),
    ],
)
def test_where_nilearn_stops_we_stop_and_say_more(
    shared, tmp_path, without, name, message
):
    source = shared / "confounds" / REAL["23.2.0"]
    lines = source.read_text().splitlines()
    header = lines[0].split("\t")
    cells = np.array([line.split("\t") for line in lines])
    drop = header.index(without)
    if without == "trans_x":
        drop = [i for i, n in enumerate(header) if n.startswith(without)]
    kept = np.delete(cells, drop, axis=1)
    stem = source.name.partition("_desc-")[0]
    path = tmp_path / source.name
    path.write_text("\n".join("\t".join(row) for row in kept) + "\n")
    shutil.copy(source.with_suffix(".json"), path.with_suffix(".json"))
    image = tmp_path / f"{stem}_desc-preproc_bold.nii.gz"
    image.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        from nilearn.interfaces.fmriprep import load_confounds_strategy

        preset, _, gsr = name.partition("+")
        options = {"global_signal": "basic"} if gsr else {}
        with pytest.raises(Exception, match=r"."):
            load_confounds_strategy(str(image), preset, **options)
    confounds = read_confounds(path)
    with pytest.raises(ConfoundsError, match=message) as caught:
        select(confounds, name)
    assert caught.value.where == str(path)
    assert "--allow-missing-confounds" in caught.value.remedy
    selected = select(confounds, name, allow_missing=True)
    assert without in selected.missing
    assert selected.notes[0].startswith("Columns are missing, as was allowed: ")
    assert selected.names
    assert without not in selected.names
