"""Runs in T1w space and native ones, with atlases that transforms bring there."""

import errno
import os

import nibabel as nb
import numpy as np
import pytest
from support import datasets
from support.calls import read, read_regions, run, sidecar
from support.moved_trees import (
    NAMES,
    SPACE,
    anatomical,
    as_itk,
    coregistration,
    onward_of,
    write_moved,
)
from support.transform_cases import write_h5, write_text

from bids_roi.api import extract
from bids_roi.errors import SpaceMismatch, UsageError
from bids_roi.images.nifti import write_image
from bids_roi.loading import load

ALL = ("--space", "T1w", "native", SPACE)


@pytest.fixture
def tree(tmp_path):
    return write_moved(tmp_path / "fmriprep")


def series_of(out, space, atlas="Toy", sub="01"):
    stem = NAMES[space].replace("sub-01", f"sub-{sub}")
    return out / f"sub-{sub}/func/{stem}_atlas-{atlas}_stat-mean_timeseries.tsv"


def call(capsys, root, out, atlas, *more, code=0, report=False):
    return run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas, *more),
        code=code,
        report=report,
    )


def test_a_plain_call_moves_nothing_and_says_how_to(tree, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas)
    assert [p.name for p in sorted(out.glob("sub-*/func/*_timeseries.tsv"))] == [
        series_of(out, "template").name
    ]
    told = " ".join(p.read_text() for p in out.glob("logs/**/*") if p.is_file())
    assert "With --space T1w it is brought there by the transforms" in told
    assert "With --space native" in told
    own = sidecar(series_of(out, "template"))
    assert not {"CoverageOf", "AtlasTransform", "AtlasTransformDigest"} & set(own)


def test_one_run_in_three_spaces_gives_one_table(tree, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, *ALL)
    expected = series_of(out, "template")
    _, values = read(expected)
    assert np.isfinite(values[:, :4]).all()
    regions = read_regions(next(out.glob(f"sub-*/func/*{SPACE}*_dseg.tsv")))
    for space, inverse in (("T1w", 0), ("native", 1)):
        path = series_of(out, space)
        assert path.read_bytes() == expected.read_bytes()
        stem = path.name.partition("_stat-")[0]
        found = read_regions(path.with_name(f"{stem}_dseg.tsv"))
        for key in ("n_voxels_atlas", "n_voxels_used", "x", "volume", "status"):
            assert found[key] == regions[key]
        own = sidecar(path)
        assert own["CoverageOf"] == "moved atlas on the grid of the run"
        files = [anatomical(tree)]
        files = [coregistration(tree), *files] if inverse else files
        uris = [f"bids:preprocessed:{p.relative_to(tree).as_posix()}" for p in files]
        assert set(uris) <= set(own["Sources"])
        assert own["AtlasTransform"] == [
            f"{uri} (inverse)" if inverse and uri == uris[0] else uri for uri in uris
        ]
        assert own["AtlasTransformDigest"].startswith("sha256:")
        fit = own["AtlasTransformFit"]
        assert fit["VolumeRatio"] == pytest.approx(1.15**-3, abs=1e-4)
        assert fit["ShareMirrored"] == 0
        assert 0.8 < fit["ShareInMask"] <= 1
    assert "CoverageOf" not in sidecar(expected)


def test_a_disk_that_fails_under_a_transform_is_told(
    tree, atlas, tmp_path, capsys, monkeypatch
):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("bids_roi.atlases.subject.file_digest", fail)
    told = call(capsys, tree, tmp_path / "out", atlas, *ALL, code=1)
    assert "the transform cannot be read (Input/output error)" in told.err
    assert series_of(tmp_path / "out", "template").exists()


def test_workers_and_one_process_give_the_same(tree, atlas, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    call(capsys, tree, one, atlas, *ALL)
    call(capsys, tree, two, atlas, *ALL, "--n-procs", "2")
    for path in one.glob("sub-*/func/*"):
        assert (two / path.relative_to(one)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["timeseries", "regions", "relmats"])
def test_native_runs_are_a_choice_of_their_own(tree, atlas, tmp_path, capsys, kind):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "T1w", "native", "--relmat", "pearson")
    read_all = getattr(load(out), kind)
    with pytest.raises(UsageError, match="choose from: T1w, native"):
        read_all()
    native, moved = read_all(space="native"), read_all(space="T1w")
    assert native.index.equals(moved.index)
    assert not native.index.has_duplicates
    if kind == "timeseries":
        assert np.array_equal(native, read(series_of(out, "native"))[1], equal_nan=True)
    both = out / "sub-01/func"
    for path in [*both.glob("*task-rest_atlas-*")]:  # runs that no column tells apart
        own = path.with_name(path.name.replace("_task-rest_", "_task-rest_mod-x_"))
        own.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="no column would tell its rows"):
        getattr(load(out, space="native"), kind)()


def test_no_transforms_where_none_are_wanted(tree, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, *ALL, "--atlas-transform", "none")
    assert len(list(out.glob("sub-*/func/*_timeseries.tsv"))) == 1


def test_maps_are_moved_too(tree, tmp_path, capsys):
    rng = np.random.default_rng(3)
    maps = rng.uniform(0.2, 1, (*datasets.SHAPE, 3))
    image = tmp_path / f"tpl-{SPACE}_atlas-Soft_probseg.nii.gz"
    write_image(image, maps.astype("f4"), datasets.oblique())
    out = tmp_path / "out"
    call(capsys, tree, out, image, *ALL, "--mask", "none")
    found = sorted(out.glob("sub-*/func/*Soft*_timeseries.tsv"))
    assert len(found) == 3
    expected = read(found[0])[1]
    for path in found[1:]:
        np.testing.assert_allclose(read(path)[1], expected, rtol=1e-6)


def damage(tree):
    path = anatomical(tree)
    path.write_bytes(path.read_bytes()[:600])


def other_kind(tree):
    write_h5(anatomical(tree), [("BSplineTransform_double_3_3", [1.0], [0.0])])


def ambiguous(tree):
    path = anatomical(tree)
    path.with_name(path.name.replace("_from", "_run-2_from")).write_bytes(
        path.read_bytes()
    )


def mirror(tree):
    """About the middle of the template's grid, where regions stay in the mask."""
    turn = np.diag([-1.0, 1, 1, 1])
    middle = datasets.oblique() @ [*(np.array(datasets.SHAPE) - 1) / 2, 1]
    turn[0, 3] = 2 * middle[0]
    write_h5(anatomical(tree), [as_itk(turn @ onward_of(0))])


FAULTS = {
    damage: ("from-MNI152NLin2009cAsym_to-T1w", "cannot be read as an ITK transform"),
    other_kind: ("BSplineTransform_double_3_3", "antsApplyTransforms"),
    ambiguous: ("several transforms fit the run", "run-2_from"),
    mirror: ("turns left into right in 100% of the atlas", "LPS+"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_each_failure_has_its_words_and_costs_its_atlas_only(
    fault, tree, atlas, tmp_path, capsys
):
    fault(tree)
    own = tree / "sub-01/anat/sub-01_desc-own_dseg.nii.gz"
    native = nb.load(tree / f"sub-01/func/{NAMES['T1w']}_desc-preproc_bold.nii.gz")
    write_image(own, datasets.labels(), native.affine)
    out = tmp_path / "out"
    told = call(capsys, tree, out, atlas, *ALL, "--atlas", "subject:own", code=1)
    for word in FAULTS[fault]:
        assert word in told.err
    made = {p.name for p in out.glob("sub-*/func/*_timeseries.tsv")}
    assert made == {
        series_of(out, "template").name,
        series_of(out, "T1w", "own").name,
        series_of(out, "native", "own").name,
    }


def test_a_participant_without_the_transform_that_others_have(atlas, tmp_path, capsys):
    tree = write_moved(tmp_path / "fmriprep", ("01", "02"))
    anatomical(tree, "02").unlink()
    coregistration(tree, "01").unlink()
    out = tmp_path / "out"
    told = call(capsys, tree, out, atlas, *ALL, code=1)
    assert f"sub-02_from-{SPACE}_to-T1w_mode-image_xfm.h5 is absent" in told.err
    assert "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt" in told.err
    done = {p.name for p in out.glob("sub-*/func/*_timeseries.tsv")}
    assert done == {
        series_of(out, "template").name,
        series_of(out, "T1w").name,
        series_of(out, "template", sub="02").name,
    }


def test_a_template_that_nobody_was_aligned_to_is_skipped(tree, tmp_path, capsys):
    six = datasets.write_atlas(
        tmp_path / "six", "tpl-MNI152NLin6Asym_atlas-Six_dseg.nii.gz"
    )
    toy = datasets.write_atlas(tmp_path / "toy")
    out = tmp_path / "out"
    told = call(capsys, tree, out, toy, six, *ALL, code=65)
    assert "from-MNI152NLin6Asym_to-T1w_mode-image_xfm.h5 is absent" in told.err
    assert f"there are transforms from {SPACE}" in told.err
    assert not list(out.glob("sub-*/func/*Six*_timeseries.tsv"))


def test_transforms_the_wrong_way_round_are_told(tree, atlas, tmp_path, capsys):
    """Moving and fixed swapped: regions would be 1.5 times too large."""
    write_h5(anatomical(tree), [as_itk(np.diag([1 / 1.15] * 3 + [1]))])
    out = tmp_path / "out"
    told = call(capsys, tree, out, atlas, "--space", "T1w", report=True)
    own = sidecar(series_of(out, "T1w"))
    (note,) = [n for n in own["Warnings"] if "transforms may not be" in n]
    assert "regions have 1.52 of their volume in the template" in note
    assert own["AtlasTransformFit"]["VolumeRatio"] == pytest.approx(1.15**3, abs=1e-4)
    assert "transforms may not be those of this run" in told.err
    assert (
        "transforms may not be those of this run"
        in next(out.glob("*.html")).read_text()
    )


def test_another_transform_is_noticed(tree, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, *ALL)
    before = {p: p.stat().st_mtime_ns for p in out.glob("sub-*/func/*.tsv")}
    call(capsys, tree, out, atlas, *ALL)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    moved = np.eye(4)
    moved[:3, 3] = [1.0, 2, -1]
    write_text(coregistration(tree), [as_itk(moved)])
    told = call(capsys, tree, out, atlas, *ALL, code=1)
    assert "were made with another transform to Toy" in told.err
    assert NAMES["native"] in told.err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    call(capsys, tree, out, atlas, *ALL, "--overwrite")
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(
            read(series_of(out, "native"))[1], read(series_of(out, "T1w"))[1]
        )


def test_participants_with_transforms_of_their_own_make_a_group(
    atlas, tmp_path, capsys
):
    tree = write_moved(tmp_path / "fmriprep", ("01", "02"), ("T1w",))
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "T1w", "--relmat", "pearson")
    own = [sidecar(series_of(out, "T1w", sub=sub)) for sub in ("01", "02")]
    assert own[0]["OptionsDigest"] != own[1]["OptionsDigest"]
    assert own[0]["SettingsDigest"] == own[1]["SettingsDigest"]
    run(capsys, tree, out, "group")
    assert "space-T1w" in " ".join(p.name for p in out.glob("group*"))


def test_another_atlas_image_is_not_mixed_into_a_group(tmp_path, capsys):
    tree = write_moved(tmp_path / "fmriprep", ("01", "02"), ("T1w",))
    out = tmp_path / "out"
    first = datasets.write_atlas(tmp_path / "a")
    call(capsys, tree, out, first, "--space", "T1w", "--participant-label", "01")
    second = datasets.write_atlas(tmp_path / "b")
    image = tmp_path / f"b/tpl-{SPACE}_atlas-Toy_dseg.nii.gz"
    write_image(image, datasets.labels()[::-1].copy(), datasets.oblique())
    call(capsys, tree, out, second, "--space", "T1w", "--participant-label", "02")
    own = [sidecar(series_of(out, "T1w", sub=sub)) for sub in ("01", "02")]
    assert own[0]["SettingsDigest"] != own[1]["SettingsDigest"]


@pytest.mark.parametrize("desc", ["aparcaseg", "parcels"])
def test_a_participant_s_own_parcels_reach_native_runs(desc, tree, tmp_path, capsys):
    affine = nb.load(
        tree / f"sub-01/func/{NAMES['T1w']}_desc-preproc_bold.nii.gz"
    ).affine
    labels = np.where(datasets.labels() == 500, 2, 4).astype(np.int32)
    write_image(tree / f"sub-01/anat/sub-01_desc-{desc}_dseg.nii.gz", labels, affine)
    (tree / f"desc-{desc}_dseg.tsv").write_text("index\tname\n2\tA\n4\tB\n")
    out = tmp_path / "out"
    given = ("--atlas", f"subject:{desc}", "--space")
    run(capsys, tree, out, "participant", *given, "T1w", "native")
    first, second = (series_of(out, space, desc) for space in ("T1w", "native"))
    assert first.read_bytes() == second.read_bytes()
    assert "CoverageOf" not in sidecar(first)
    steps = sidecar(second)["AtlasTransform"]
    assert len(steps) == 1
    assert steps[0].endswith("desc-coreg_xfm.txt (inverse)")
    told = run(
        capsys,
        *(tree, tmp_path / "none", "participant", *given, "native"),
        *("--atlas-transform", "none"),
        code=65,
    )
    assert "in space native (there is one in T1w)" in told.err


def test_cohorts_of_infants(tmp_path, capsys):
    tree = write_moved(
        tmp_path / "nibabies", spaces=("T1w", "native"), template="MNIInfant+1"
    )
    atlas = datasets.write_atlas(
        tmp_path / "a", "tpl-MNIInfant_cohort-1_atlas-Toy_dseg.nii.gz"
    )
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "T1w", "native")
    assert series_of(out, "T1w").read_bytes() == series_of(out, "native").read_bytes()
    assert "from-MNIInfant+1_to-T1w" in " ".join(
        sidecar(series_of(out, "T1w"))["Sources"]
    )


def test_a_dry_run_names_the_transforms(tree, atlas, tmp_path, capsys):
    told = call(capsys, tree, tmp_path / "out", atlas, *ALL, "--dry-run").out
    assert told.count(f"    by {anatomical(tree).name}\n") == 2
    assert told.count(f"    by {coregistration(tree).name}, inverted\n") == 1


def test_each_session_has_parcels_of_its_own(tmp_path, capsys):
    """In every space that they are in; of two sessions neither takes the other's."""
    tree = datasets.write_dataset(tmp_path / "fmriprep", runs=())
    for number, ses in enumerate("ab"):
        stem = f"sub-01_ses-{ses}"
        for space, more in ((SPACE, "_res-2"), ("T1w", "")):
            datasets.write_run(tree, f"{stem}_task-rest_space-{space}{more}")
            anat = tree / f"sub-01/ses-{ses}/anat"
            anat.mkdir(exist_ok=True)
            named = "" if space == "T1w" else f"_space-{space}"
            parcels = np.roll(datasets.labels(), number, axis=0)
            for res in ("",) if space == "T1w" else ("_res-1", "_res-2"):
                shifted = np.roll(parcels, res == "_res-1", axis=1)
                image = anat / f"{stem}{named}{res}_desc-mine_dseg.nii.gz"
                write_image(image, shifted, datasets.oblique())
    out = tmp_path / "out"
    run(capsys, tree, out, "participant", "--atlas", "subject:mine")
    for number, ses in enumerate("ab"):
        found = sorted(out.glob(f"sub-01/ses-{ses}/func/*_timeseries.tsv"))
        assert len(found) == 2
        parcels = np.roll(datasets.labels(), number, axis=0)
        inside = datasets.mask() > 0
        for path in found:
            header, values = read(path)
            column = values[:, header.index("region_500")]
            expected = datasets.bold()[(parcels == 500) & inside].mean(axis=0)
            np.testing.assert_allclose(column, expected, rtol=1e-6)


def test_regions_at_the_edge_of_the_grid_are_named(tree, atlas, tmp_path, capsys):
    """Label 12 fills a face of the toy grid: it may go on beyond it."""
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "native")
    notes = " ".join(sidecar(series_of(out, "native"))["Warnings"])
    assert "reach the edge of the run's grid" in notes
    assert "Edge" in notes


def test_notebooks_have_it_too(tree, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "T1w")
    image, table = atlas.split(",")
    bold = tree / f"sub-01/func/{NAMES['T1w']}_desc-preproc_bold.nii.gz"
    found = extract(bold, image, atlas_table=table)
    np.testing.assert_allclose(
        found.signals.to_numpy(), read(series_of(out, "T1w"))[1], rtol=1e-12
    )
    assert found.sidecar["CoverageOf"]
    native = tree / f"sub-01/func/{NAMES['native']}_desc-preproc_bold.nii.gz"
    again = extract(native, image, atlas_table=table, space="native")
    np.testing.assert_array_equal(again.signals, found.signals)
    # A derivative's series without space- is native, not in the atlas's template.
    again = extract(native, image, atlas_table=table)
    np.testing.assert_array_equal(again.signals, found.signals)
    with pytest.raises(SpaceMismatch):
        extract(native, image, atlas_table=table, atlas_transform="none")
    with pytest.raises(SpaceMismatch):
        extract(bold, image, atlas_table=table, atlas_transform="none")


def test_outputs_stay_done_when_their_moved_input_has_been_dropped(
    tree, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    call(capsys, tree, out, atlas, "--space", "T1w")
    before = series_of(out, "T1w").read_bytes()
    bold = next(tree.rglob("*space-T1w*_bold.nii.gz"))
    bold.unlink()
    bold.symlink_to("../.git/annex/objects/elsewhere")
    told = call(capsys, tree, out, atlas, "--space", "T1w")
    assert "another transform" not in told.err
    assert "already there" in told.out
    assert series_of(out, "T1w").read_bytes() == before
