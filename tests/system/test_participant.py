"""The participant level on toy datasets: numbers, files, bad input."""

import gzip
import json
import subprocess

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets, oracles
from support.calls import FUNC, STEM, read, read_regions, run
from support.datasets import INDEX, NAMES, SPACE

from bids_roi.options.words import name_statistics

# What needs whole series has tests of its own.
SERIES = name_statistics(family="series")
STATISTICS = [s for s in name_statistics(of="labels") if s not in SERIES]


def test_every_statistic_equals_the_loop(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    statistics = ["--statistic", *STATISTICS]
    run(capsys, dataset, out, "participant", "--atlas-file", atlas, *statistics)
    path = dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    values = nb.load(path).get_fdata()
    inside = datasets.mask() > 0
    usable = oracles.usable_voxels(values, inside)
    shares = oracles.coverage(
        usable, datasets.oblique(), datasets.labels(), datasets.oblique(), INDEX
    )
    for statistic in STATISTICS:
        stat = statistic.replace("_", "")
        name = f"{STEM}_atlas-Toy_stat-{stat}_timeseries.tsv"
        header, found = read(out / FUNC / name)
        assert header == list(NAMES)
        expected = oracles.regional(values, datasets.labels(), INDEX, inside, statistic)
        expected[:, shares < 0.5] = np.nan
        assert_allclose(found, expected, rtol=1e-12)
        assert np.isnan(found[:, NAMES.index("Nowhere")]).all()
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    assert table["name"] == list(NAMES)
    assert table["index"] == [str(i) for i in INDEX]
    assert_allclose([float(c) for c in table["coverage"]], shares, rtol=1e-12)
    assert table["status"][NAMES.index("Nowhere")] == "absent_from_atlas"


def test_sidecar_names_sources_that_exist_and_every_choice(
    dataset, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    name = f"{STEM}_atlas-Toy_stat-mean_timeseries.json"
    sidecar = json.loads((out / FUNC / name).read_text())
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "bids_roi"
    assert description["GeneratedBy"][1]["Name"] == "fMRIPrep"
    for uri in sidecar["Sources"]:
        _, dataset_name, path = uri.split(":", 2)
        base = out / description["DatasetLinks"][dataset_name] if dataset_name else out
        assert (base / path).is_file(), uri
    assert sidecar["RepetitionTime"] == 2.0
    assert sidecar["SamplingFrequency"] == 0.5
    assert sidecar["TaskName"] == "rest"
    assert sidecar["Statistic"] == "mean"
    assert sidecar["MinimumCoverage"] == 0.5
    assert sidecar["Mask"] == "auto"
    assert sidecar["SoftwareFilters"] == "n/a"


def test_integers_with_a_slope_and_an_uncompressed_big_endian_file(
    tmp_path, atlas, capsys
):
    root = datasets.write_dataset(tmp_path / "in", [])
    stored = np.round(datasets.bold(5)).astype(np.int16)
    path = datasets.write_run(root, STEM, stored, slope=0.25)
    other = datasets.write_run(root, STEM.replace("rest", "big"), stored)
    image = nb.Nifti1Image(
        datasets.bold(6).astype(">f4"),
        datasets.oblique(),
        nb.Nifti1Header(endianness=">"),
    )
    image.header.set_data_dtype(">f4")
    image.set_sform(datasets.oblique(), 4)
    other.unlink()
    plain = other.with_name(other.name.removesuffix(".gz"))
    nb.save(image, plain)
    assert nb.load(plain).header.endianness == ">"
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas, "--mask", "none")
    inside = np.ones(datasets.SHAPE, bool)
    for source in (path, plain):
        stem = source.name.split("_desc-")[0]
        _, found = read(out / FUNC / f"{stem}_atlas-Toy_stat-mean_timeseries.tsv")
        values = nb.load(source).get_fdata()
        expected = oracles.regional(values, datasets.labels(), INDEX, inside, "mean")
        assert_allclose(found, expected, rtol=1e-12)


def test_nan_voxel_leaves_the_mean_and_lowers_coverage(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    data = datasets.bold()
    data[4, 2, 2, 3] = np.nan  # one volume of one voxel of "Right V1"
    path = datasets.write_run(root, STEM, data)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    _, found = read(out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv")
    values = nb.load(path).get_fdata()
    expected = oracles.regional(
        values, datasets.labels(), INDEX, datasets.mask() > 0, "mean"
    )
    kept = [NAMES.index("Left V1"), NAMES.index("Right V1")]
    assert_allclose(found[:, kept], expected[:, kept], rtol=1e-12)
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    right = NAMES.index("Right V1")
    n_atlas = int(table["n_voxels_atlas"][right])
    assert int(table["n_voxels_used"][right]) == n_atlas - 1
    assert float(table["coverage"][right]) == (n_atlas - 1) / n_atlas


def test_cut_field_of_view_gives_missing_values_never_zero(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    data = datasets.bold()
    data[:, :5] = 0  # most of both V1
    datasets.write_run(root, STEM, data, with_mask=False)
    out = tmp_path / "out"
    arguments = ["--atlas-file", atlas, "--mask", "none"]
    run(capsys, root, out, "participant", *arguments)
    _, found = read(out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv")
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    left = NAMES.index("Left V1")
    assert table["status"][left] == "below_coverage"
    assert table["mean"][left] == "n/a"
    assert np.isnan(found[:, left]).all()
    assert table["status"][NAMES.index("Edge")] == "constant"
    run(
        capsys, root, out, "participant", *arguments, "--min-coverage", 0, "--overwrite"
    )
    _, found = read(out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv")
    assert (found[:, left] > 100).all()


def test_status_words_for_mask_and_nonfinite(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    data = datasets.bold()
    data[:, 0, :, 4] = np.inf  # all of "Edge", in one volume
    datasets.write_run(root, STEM, data)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    assert table["status"][NAMES.index("Edge")] == "all_nonfinite"
    inside = np.zeros(datasets.SHAPE, np.uint8)
    inside[3:] = 1
    path = tmp_path / "right.nii.gz"
    datasets.write_image(path, inside, datasets.oblique())
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas),
        *("--mask", path, "--overwrite"),
    )
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    assert table["status"][NAMES.index("Left V1")] == "outside_mask"


def test_same_bytes_twice_and_input_untouched(dataset, atlas, tmp_path, capsys):
    before = datasets.snapshot(dataset)
    for name in ("one", "two"):
        common = ["participant", "--atlas-file", atlas]
        run(capsys, dataset, tmp_path / name, *common, report=True)
        run(capsys, dataset, tmp_path / name, "group", report=True)
    assert datasets.snapshot(dataset) == before
    one, two = datasets.snapshot(tmp_path / "one"), datasets.snapshot(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        if not name.startswith("logs/"):
            assert one[name] == two[name], name
    assert not [name for name in one if name.endswith(".tmp")]


def test_second_call_skips_and_other_options_are_refused(
    dataset, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    run(capsys, *arguments)
    tables = sorted(out.glob("sub-*/func/*.tsv"))
    times = [p.stat().st_mtime_ns for p in tables]
    assert "already there" in run(capsys, *arguments).out
    assert [p.stat().st_mtime_ns for p in tables] == times
    refused = run(capsys, *arguments, "--min-coverage", 0.1, code=1)
    assert "made with other options" in refused.err
    assert "--overwrite" in refused.err
    assert [p.stat().st_mtime_ns for p in tables] == times
    run(capsys, *arguments, "--min-coverage", 0.1, "--overwrite")
    assert [p.stat().st_mtime_ns for p in tables] != times


def test_changed_input_is_processed_again(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    run(capsys, *arguments)
    name = out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv"
    before = name.read_bytes()
    datasets.write_run(dataset, STEM, datasets.bold(9))
    assert "1  extracted" in run(capsys, *arguments).out
    assert name.read_bytes() != before


BAD = {
    "empty": (lambda p: p.write_bytes(b""), "0 bytes", "datalad get"),
    "truncated": (
        lambda p: p.write_bytes(p.read_bytes()[:-3000]),
        "truncated",
        "Copy or download it again",
    ),
    "damaged": (
        lambda p: p.write_bytes(
            p.read_bytes()[:-8] + b"\0\0\0\0" + p.read_bytes()[-4:]
        ),
        "damaged",
        "Copy or download it again",
    ),
    "pointer": (
        lambda p: p.write_text("/annex/objects/MD5E-s9--0.nii.gz\n"),
        "git-annex",
        "datalad get",
    ),
    "link": (
        lambda p: (p.unlink(), p.symlink_to("../.git/annex/objects/x")),
        "git-annex",
        "datalad get",
    ),
    "3D": (
        lambda p: datasets.write_image(p, datasets.mask(), datasets.oblique()),
        "3 axes (6x7x5)",
        "Check that the file is a series",
    ),
    "orientation": (
        lambda p: datasets.write_image(
            p, datasets.bold(), datasets.oblique(), space_code=0
        ),
        "no orientation",
        "Write the image with its affine",
    ),
    "not gzip": (lambda p: p.write_bytes(b"x" * 400), "cannot be read", "gzip -t"),
    "too long": (
        lambda p: p.write_bytes(
            gzip.compress(gzip.decompress(p.read_bytes()) + bytes(8))
        ),
        "goes on after the 12 volumes",
        "Write the image again",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_run_says_what_where_and_remedy_and_others_finish(
    name, dataset, atlas, tmp_path, capsys
):
    spoil, problem, remedy = BAD[name]
    path = dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    spoil(path)
    out = tmp_path / "out"
    captured = run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=1)
    assert problem in captured.err
    assert remedy in captured.err
    assert path.name in captured.err
    assert "Traceback" not in captured.err
    assert not list(out.glob("sub-01/**/*.tsv"))
    assert len(list(out.glob("sub-02/**/*_timeseries.tsv"))) == 1
    record = json.loads((out / "logs/sub-01").glob("*.jsonl").__next__().read_text())
    assert record["status"] == "failed"
    assert problem in record["reason"]


def test_damage_is_told_with_the_volume_reached(dataset, atlas, tmp_path, capsys):
    path = dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    content = gzip.decompress(path.read_bytes())
    volume = 6 * 7 * 5 * 8
    path.write_bytes(gzip.compress(content[: 352 + 7 * volume + 100]))
    out = tmp_path / "out"
    captured = run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=1)
    assert "ends in volume 8 of 12" in captured.err


def test_stop_on_first_crash(dataset, atlas, tmp_path, capsys):
    (dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz").write_bytes(b"")
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    run(capsys, *arguments, "--stop-on-first-crash", code=1)
    assert not list(out.glob("sub-02/**/*.tsv"))


def test_missing_mask_names_both_ways_out(dataset, atlas, tmp_path, capsys):
    (dataset / FUNC / f"{STEM}_desc-brain_mask.nii.gz").unlink()
    out = tmp_path / "out"
    captured = run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=1)
    assert "no brain mask" in captured.err
    assert "--mask none" in captured.err


def test_runs_that_differ_in_acq_have_two_outputs(tmp_path, atlas, capsys):
    names = ["sub-01_task-rest_acq-a", "sub-01_task-rest_acq-b", "sub-01_task-rest"]
    root = datasets.write_dataset(tmp_path / "in", names)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    assert len(list(out.glob("sub-01/func/*_timeseries.tsv"))) == 3


def test_of_two_inputs_for_one_output_none_is_written(dataset, atlas, tmp_path, capsys):
    path = dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    plain = path.with_name(path.name.removesuffix(".gz"))
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    out = tmp_path / "out"
    captured = run(
        capsys,
        *(dataset, out, "participant", "--atlas-file", atlas),
        *("--participant-label", "01"),
        code=1,
    )
    assert "are one run twice; none of the two is processed" in captured.err
    assert plain.name in captured.err
    assert not [p for p in out.glob("sub-*/**/*") if p.is_file()]


def test_output_inside_input(dataset, atlas, capsys):
    captured = run(
        capsys, dataset, dataset / "out", "participant", "--atlas-file", atlas, code=73
    )
    assert "inside the input" in captured.err
    assert not (dataset / "out").exists()


def test_output_that_cannot_be_written(dataset, atlas, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out", "/proc/bids_roi"):
        captured = run(
            capsys, dataset, out, "participant", "--atlas-file", atlas, code=73
        )
        assert "output folder" in captured.err


def test_space_guard_names_both_spaces(dataset, tmp_path, capsys):
    atlas = datasets.write_atlas(
        tmp_path / "other", "tpl-MNI152NLin6Asym_atlas-Toy_dseg.nii.gz"
    )
    out = tmp_path / "out"
    captured = run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=65)
    assert "atlas Toy is in space MNI152NLin6Asym" in captured.err
    assert SPACE in captured.err
    assert not list(out.glob("sub-*/func"))


def test_runs_in_another_space_are_left_out_not_failed(
    dataset, atlas, tmp_path, capsys
):
    datasets.write_run(dataset, "sub-01_task-rest_space-T1w")
    out = tmp_path / "out"
    captured = run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    assert "1  skipped" in captured.out
    assert len(list(out.glob("sub-*/func/*_timeseries.tsv"))) == 2


def test_atlas_file_without_a_space_needs_one(dataset, tmp_path, capsys):
    atlas = datasets.write_atlas(tmp_path / "plain", "my_atlas.nii.gz")
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    captured = run(capsys, *arguments, code=64)
    assert "--atlas-space" in captured.err
    run(capsys, *arguments, "--atlas-space", SPACE)
    assert list(out.glob("sub-01/func/*_atlas-myatlas_stat-mean_timeseries.tsv"))


def test_dry_run_shows_the_plan_and_writes_nothing(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    shown = run(
        capsys, dataset, out, "participant", "--atlas-file", atlas, "--dry-run"
    ).out
    assert not out.exists()
    for text in ("6x7x5 voxels", "2 s", "brain_mask", "stat-mean_timeseries", "MB"):
        assert text in shown


def test_a_dry_run_names_what_a_run_writes(cleaned_input, atlas, tmp_path, capsys):
    """Its names, as bash expands them, are the files of the run itself."""
    root, _, bold = cleaned_input
    datasets.write_run(root, f"sub-02_task-rest_space-{SPACE}", datasets.bold(5, 60))
    for kind in (".tsv", ".json"):
        table = bold.with_name(f"sub-01_task-rest_desc-confounds_timeseries{kind}")
        there = root / "sub-02" / "func" / table.name.replace("sub-01", "sub-02")
        there.write_bytes(table.read_bytes())
    more = tmp_path / "more"
    second = datasets.write_atlas(more, f"tpl-{SPACE}_atlas-B_scale-5_dseg.nii.gz")
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, second]
    common += ["--denoise", "none", "simple", "--relmat", "pearson"]
    shown = run(capsys, *common, "--dry-run", report=True).out
    lines = [line.partition("->")[2] for line in shown.splitlines() if "->" in line]
    words = [word.rstrip(",") for line in lines for word in line.split()]
    expanded = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {' '.join(words)}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    named = {name for name in expanded if "." in name}
    assert "logs/" in shown
    assert "sub-02/figures" in shown
    run(capsys, *common, report=True)
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert named == {n for n in written if "figures/" not in n and "logs/" not in n}
    assert len(lines) <= 2 * (2 + 1 + 1) + 3  # a run: two atlases, outliers; a page


def test_atlas_on_another_grid(dataset, tmp_path, capsys):
    fine = np.repeat(np.repeat(datasets.labels(), 2, axis=0), 2, axis=1)
    affine = datasets.oblique() @ np.diag([0.5, 0.5, 1, 1])
    affine[:3, 3] += datasets.oblique()[:3, :3] @ [-0.25, -0.25, 0]
    image = tmp_path / f"tpl-{SPACE}_atlas-Fine_dseg.nii.gz"
    datasets.write_image(image, fine, affine)
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", image)
    values = nb.load(dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz").get_fdata()
    index = [3, 12, 500, 40000]
    moved = oracles.nearest_labels(fine, affine, datasets.SHAPE, datasets.oblique())
    expected = oracles.regional(values, moved, index, datasets.mask() > 0, "mean")
    name = f"{STEM}_atlas-Fine_stat-mean_timeseries.tsv"
    header, found = read(out / FUNC / name)
    assert header == [f"region_{i}" for i in index]
    table = read_regions(out / FUNC / f"{STEM}_atlas-Fine_dseg.tsv")
    usable = oracles.usable_voxels(values, datasets.mask() > 0)
    shares = oracles.coverage(usable, datasets.oblique(), fine, affine, index)
    assert_allclose([float(c) for c in table["coverage"]], shares, rtol=1e-12)
    expected[:, shares < 0.5] = np.nan
    assert_allclose(found, expected, rtol=1e-12)


def test_truncated_uncompressed_file_says_the_volume_reached(
    dataset, atlas, tmp_path, capsys
):
    path = dataset / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    plain = path.with_name(path.name.removesuffix(".gz"))
    plain.write_bytes(gzip.decompress(path.read_bytes())[: 352 + 5 * 6 * 7 * 5 * 8 + 9])
    path.unlink()
    out = tmp_path / "out"
    shown = run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=1)
    assert "ends in volume 6 of 12" in shown.err
    assert plain.name in shown.err
