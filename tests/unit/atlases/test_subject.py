"""Which transforms lead from a run to a template: real trees, and odd ones."""

import gzip
import re

import numpy as np
import pytest
from support.broken_disk import fail_to_list
from support.transform_cases import place_field, random_affine, write_h5, write_text
from support.trees import plant

from bids_roi.atlases.subject import find_route, find_segmentation
from bids_roi.errors import AtlasError, BidsRoiError, MissingInput, SpaceMismatch

MNI = "MNI152NLin2009cAsym"
XFM = "mode-image_xfm.h5"
COREG = "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
SCANNER = "from-scanner_to-T1w_mode-image_xfm.txt"


def plant_list(shared, name, folder):
    listing = shared / "trees" / name
    if name.endswith(".gz"):
        lines = gzip.decompress(listing.read_bytes()).decode().splitlines()[1:]
    else:
        lines = listing.read_text().splitlines()
    paths = [line.split("\t")[0] for line in lines]
    kept = [
        p
        for p in paths
        if re.search(r"_xfm\.|desc-preproc_(T1w|bold)\.nii", p) and "figures" not in p
    ]
    plant(folder, *kept)
    return kept


def expected_route(bold, paths, template):
    """The same by patterns over the list of all paths; None where one is absent."""
    subject = bold.split("/")[0]
    session = re.match(r"sub-\w+/(ses-\w+)/", bold)
    session = session[1] if session else ""
    tail = f"_from-{template}_to-T1w_mode-image_xfm.h5"
    mine = [p for p in paths if p.startswith(f"{subject}/") and p.endswith(tail)]
    own = [p for p in mine if f"/{session}/anat/" in p] if session else []
    near = [p for p in mine if p.startswith(f"{subject}/anat/")]
    anatomical = (own or near or mine or [None])[0]
    if "space-T1w" in bold:
        steps = [(anatomical, False)]
    else:
        stem = re.sub(r"(_echo-\d+)?_desc-preproc_bold\.nii\.gz$", "", bold)
        there = [f"{stem}_{end}" for end in (COREG, SCANNER)]
        steps = [(next((p for p in there if p in paths), None), True)]
        steps.append((anatomical, False))
    return None if any(path is None for path, _ in steps) else steps


# Runs in T1w space or native, and those of them that have all their transforms.
LISTS = {
    "ds000114-fmriprep-21.0.2_filelist.tsv.gz": (200, 200),
    "ds000117-fmriprep-21.0.2_filelist.tsv.gz": (288, 288),
    "ds003495-fmriprep-20.2.1_filelist.tsv.gz": (0, 0),
    "ds004698-fmriprep-21.0.1_filelist.tsv.gz": (144, 144),
    "ds005239-fmriprep-23.2.0_filelist.tsv.gz": (72, 54),  # sub-gg has no anat
    "ds005639-fmriprep-23.1.2_filelist.tsv.gz": (526, 508),  # two have none
    "fmriprep-25.2_ci/ds054_outputs.txt": (4, 4),
    "fmriprep-25.2_ci/ds210_outputs.txt": (3, 3),
}


@pytest.mark.parametrize("name", LISTS)
def test_real_trees(name, shared, tmp_path):
    paths = set(plant_list(shared, name, tmp_path))
    runs = [
        p
        for p in paths
        if p.endswith("_desc-preproc_bold.nii.gz")
        and re.search(r"space-(\w+?)_|$", p)[1] in (None, "T1w")
    ]
    n_found = 0
    for run in runs:
        expected = expected_route(run, paths, MNI)
        if expected is None:
            with pytest.raises(MissingInput) as told:
                find_route(tmp_path, tmp_path / run, MNI)
            named = re.findall(r"sub-\S+_xfm\.(?:h5|txt)", told.value.problem)
            assert named
            assert not set(named) & paths
            assert not {re.sub("[^/]*$", "", run) + n for n in named} & paths
            continue
        n_found += 1
        steps = find_route(tmp_path, tmp_path / run, MNI).steps
        found = [(p.relative_to(tmp_path).as_posix(), back) for p, back in steps]
        assert found == expected
    assert (len(runs), n_found) == LISTS[name]


def route(root, run, template=MNI):
    folder = "/".join(p for p in run.split("_") if p.startswith(("sub-", "ses-")))
    bold = root / folder / "func" / f"{run}_desc-preproc_bold.nii.gz"
    return [
        (path.relative_to(root).as_posix(), back)
        for path, back in find_route(root, bold, template).steps
    ]


def test_the_session_comes_first_then_the_participant_then_the_others(tmp_path):
    other = f"sub-01/ses-b/anat/sub-01_ses-b_from-{MNI}_to-T1w_{XFM}"
    whole = f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM}"
    own = f"sub-01/ses-a/anat/sub-01_ses-a_acq-x_from-{MNI}_to-T1w_{XFM}"
    run = "sub-01_ses-a_task-rest_space-T1w"
    for path in (other, whole, own):
        plant(tmp_path, path)
        assert route(tmp_path, run) == [(path, False)]


def test_a_session_with_its_own_t1w_takes_no_other_session_s(tmp_path):
    """Its T1w space is another one: the numbers would be of other places."""
    plant(
        tmp_path,
        f"sub-01/ses-b/anat/sub-01_ses-b_from-{MNI}_to-T1w_{XFM}",
        f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM}",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-x_desc-preproc_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_space-MNI_desc-preproc_T1w.nii.gz",
    )
    with pytest.raises(BidsRoiError) as told:
        route(tmp_path, "sub-01_ses-a_task-rest_space-T1w")
    named = f"sub-01/ses-a/anat/sub-01_ses-a_acq-x_from-{MNI}_to-T1w_{XFM} is absent"
    assert named in told.value.problem


def test_entities_of_the_run_are_matched(tmp_path):
    plant(
        tmp_path,
        f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM}",
        *(
            f"sub-01_task-rest_{more}{COREG}"
            for more in ("", "run-1_", "run-01_", "dir-AP_run-1_", "acq-x_")
        ),
        f"sub-01_task-rest_run-1_{SCANNER}",
        "sub-01_task-rest_run-1_from-boldref_to-T1w_mode-image_desc-other_xfm.txt",
        "sub-01_task-rest_run-1_from-boldref_to-auto00000_mode-image_desc-fmap_xfm.txt",
    )
    for more in ("", "run-1_", "run-01_", "dir-AP_run-1_", "acq-x_"):
        for space in ("", "echo-2_", "part-mag_"):
            run = f"sub-01_task-rest_{more}{space}".rstrip("_")
            (first, back), _ = route(tmp_path, run)
            assert first == f"sub-01/func/sub-01_task-rest_{more}{COREG}"
            assert back
    with pytest.raises(MissingInput) as told:
        route(tmp_path, "sub-01_task-rest_run-2")
    assert f"no sub-01/func/sub-01_task-rest_run-2_{COREG}" in told.value.problem
    assert f"nor sub-01_task-rest_run-2_{SCANNER}" in told.value.problem
    assert (
        told.value.where
        == "sub-01/func/sub-01_task-rest_run-2_desc-preproc_bold.nii.gz"
    )


def test_several_are_an_error_that_names_them(tmp_path):
    names = [f"sub-01/anat/sub-01_run-{n}_from-{MNI}_to-T1w_{XFM}" for n in (1, 2)]
    plant(tmp_path, *names)
    with pytest.raises(AtlasError, match="several transforms") as told:
        route(tmp_path, "sub-01_task-rest_space-T1w")
    assert all(name in told.value.problem for name in names)
    both = [f"sub-01_task-rest_{more}{COREG}" for more in ("", "res-2_")]
    plant(tmp_path, *both)
    with pytest.raises(AtlasError, match="several transforms") as told:
        route(tmp_path, "sub-01_task-rest")
    assert all(f"sub-01/func/{name}" in told.value.problem for name in both)


def test_an_absent_transform_is_named_with_those_that_there_are(tmp_path):
    plant(
        tmp_path,
        "sub-01/anat/sub-01_acq-mprage_desc-preproc_T1w.nii.gz",
        f"sub-01/anat/sub-01_acq-mprage_from-MNI152NLin6Asym_to-T1w_{XFM}",
        f"sub-01/anat/sub-01_acq-mprage_from-T1w_to-{MNI}_{XFM}",
        f"sub-01/anat/sub-01_acq-mprage_from-MNIInfant+1_to-T1w_{XFM}",
    )
    run = "sub-01_task-rest_space-T1w"
    with pytest.raises(SpaceMismatch) as told:
        route(tmp_path, run)
    problem, name = told.value.problem, f"sub-01_acq-mprage_from-{MNI}_to-T1w_{XFM}"
    assert f"sub-01/anat/{name} is absent" in problem
    assert "transforms from MNI152NLin6Asym, MNIInfant+1" in problem
    assert f"one from T1w to {MNI}, which leads the other way" in problem
    # Where another participant has it, this one's is a file that is lost.
    other = tmp_path / "b"
    plant(other, f"sub-02/anat/sub-02_from-{MNI}_to-T1w_{XFM}", "sub-01/anat/x")
    with pytest.raises(MissingInput, match="other participants have theirs") as told:
        route(other, run)
    assert f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM} is absent" in told.value.problem


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
@pytest.mark.parametrize("closed", ["sub-01", "sub-01/ses-a/anat", "sub-01/ses-b/anat"])
def test_a_closed_folder_does_not_lead_to_another_transform(
    tmp_path, monkeypatch, closed, code
):
    """That of the session may be in it: what is taken in its place is of another."""
    names = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}" for s in "bc"]
    plant(tmp_path, *(f"{name}_from-{MNI}_to-T1w_{XFM}" for name in names))
    plant(tmp_path, "sub-01/ses-a/anat/x", "sub-01/anat/x")
    with monkeypatch.context() as patch:
        fail_to_list(patch, tmp_path / closed, code)
        with pytest.raises(MissingInput, match="the folder cannot be read") as told:
            route(tmp_path, "sub-01_ses-a_task-rest_space-T1w")
    assert told.value.where == str(tmp_path / closed)


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
@pytest.mark.parametrize("closed", ["ses-a/anat", "anat"])
def test_a_closed_folder_does_not_lead_to_another_segmentation(
    tmp_path, monkeypatch, closed, code
):
    plant(tmp_path, "sub-01/ses-a/anat/x", "sub-01/anat/x", "sub-02/func/x")
    plant(tmp_path, "sub-01/ses-b/anat/sub-01_ses-b_desc-aseg_dseg.nii.gz")
    bold = tmp_path / "sub-01/ses-a/func/sub-01_ses-a_space-T1w_desc-preproc_bold.nii"
    found = find_segmentation(tmp_path, bold, "T1w", "aseg")
    assert found.image.name == "sub-01_ses-b_desc-aseg_dseg.nii.gz"
    fail_to_list(monkeypatch, tmp_path / "sub-01" / closed, code)
    with pytest.raises(MissingInput, match="the folder cannot be read") as told:
        find_segmentation(tmp_path, bold, "T1w", "aseg")
    assert told.value.where == str(tmp_path / "sub-01" / closed)


@pytest.mark.parametrize("code", ["EIO", "EACCES"])
def test_a_closed_folder_of_another_participant_costs_nobody(
    tmp_path, monkeypatch, code
):
    plant(
        tmp_path,
        "sub-01/anat/x",
        f"sub-02/anat/sub-02_from-{MNI}_to-T1w_{XFM}",
        f"sub-03/anat/sub-03_from-{MNI}_to-T1w_{XFM}",
    )
    fail_to_list(monkeypatch, tmp_path / "sub-02" / "anat", code)
    with pytest.raises(MissingInput, match="other participants have theirs"):
        route(tmp_path, "sub-01_task-rest_space-T1w")


@pytest.mark.parametrize("template", ["MNIInfant+1", "UNCInfant+2", "MNIInfant+11"])
def test_a_cohort_has_its_own_transform(template, tmp_path):
    plant(
        tmp_path,
        *(
            f"sub-01/anat/sub-01_from-{name}_to-{image}_{XFM}"
            for name in ("MNIInfant", "MNIInfant+1", "MNIInfant+11", "UNCInfant+2")
            for image in ("T1w", "T2w")
        ),
    )
    for image in ("T1w", "T2w"):
        path = f"sub-01/anat/sub-01_from-{template}_to-{image}_{XFM}"
        assert route(tmp_path, f"sub-01_space-{image}", template) == [(path, False)]
    with pytest.raises(SpaceMismatch, match=r"from-MNIInfant\+2_to-T1w"):
        route(tmp_path, "sub-01_space-T1w", "MNIInfant+2")


def test_runs_in_another_template_are_not_moved(tmp_path):
    plant(tmp_path, f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM}")
    with pytest.raises(SpaceMismatch, match="the run is in space fsLR"):
        route(tmp_path, "sub-01_space-fsLR")


def test_points_of_a_native_run_go_to_the_template(tmp_path):
    """Against the direction in which fMRIPrep's names move images.

    A landmark at b in the run lies at t in the T1w image and at m in the template.
    antsApplyTransforms brings the run's image to the T1w grid by from-boldref_to-T1w:
    that file maps t to b. from-<template>_to-T1w maps t to m.
    """
    rng = np.random.default_rng(0)
    flip = np.array([-1.0, -1, 1])
    t = rng.uniform(-50, 50, (30, 3))

    def by_hand(points, values, centre):
        matrix, shift = np.reshape(values[:9], (3, 3)), np.array(values[9:])
        moved = [matrix @ (p - centre) + centre + shift for p in points * flip]
        return np.array(moved) * flip

    coreg, template = random_affine(rng), random_affine(rng)
    b, m = by_hand(t, *coreg), by_hand(t, *template) + np.array([1.5, 0, 0]) * flip
    plant(tmp_path, "sub-01/anat/x", "sub-01/func/x")
    kind = "MatrixOffsetTransformBase_double_3_3"
    write_text(tmp_path / f"sub-01/func/sub-01_{COREG}", [(kind, *coreg)])
    # A field that is 1.5 mm along x everywhere, after the affine: first in the file.
    field = place_field(np.full((3, 3, 3, 3), [1.5, 0, 0]), [-200] * 3, [200.0] * 3)
    path = tmp_path / f"sub-01/anat/sub-01_from-{MNI}_to-T1w_{XFM}"
    write_h5(path, [field, ("AffineTransform_double_3_3", *template)])
    found = find_route(tmp_path, tmp_path / "sub-01/func/sub-01_bold.nii.gz", MNI)
    np.testing.assert_allclose(found.apply(b), m, atol=1e-9)
    in_t1w = tmp_path / "sub-01/func/sub-01_space-T1w_bold.nii.gz"
    np.testing.assert_allclose(find_route(tmp_path, in_t1w, MNI).apply(t), m, atol=1e-9)
