"""Which atlas a run gets: by name, from datasets, its participant's own; offline."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.calls import LUT, read, run, segmentation, write_native
from support.datasets import SPACE, write_run
from support.tf_server import FINE, IMAGE, TABLE, Server, write_image_of

from bids_roi.atlases.asked import parse_file
from bids_roi.atlases.checks import check_values
from bids_roi.atlases.names import describe_known_atlas, own_table, space_of
from bids_roi.atlases.regions import (
    build_regions,
    parse_table,
    read_raw_table,
    sides_of,
)
from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.atlases.templateflow import (
    choose_table,
    download_home,
    list_skeleton,
    read_skeleton,
    scan_names,
    search_path,
    template_grids,
)
from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError, CollisionError, MissingInput, UsageError
from bids_roi.images.nifti import write_image
from bids_roi.options.table import Atlases

SIX = "MNI152NLin6Asym"
NAME = "Schaefer2018_seg-7n_scale-100"
TWO_MM = Grid.of((91, 109, 91), np.diag([2.0, 2, 2, 1]))
ONE_MM = Grid.of((182, 218, 182), np.diag([1.0, 1, 1, 1]))


@pytest.fixture(autouse=True)
def no_caches(monkeypatch, tmp_path):
    """No atlas of the machine that runs the tests, and no network."""
    for name in ("TEMPLATEFLOW_HOME", "BIDS_ROI_TEMPLATEFLOW", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", "http://127.0.0.1:9")


@pytest.fixture
def home(tmp_path):
    """A home with one atlas on the 2 mm grid of MNI152NLin6Asym."""
    write_image_of(tmp_path / "home" / IMAGE)
    return tmp_path / "home"


def find(shelf, name=NAME, space=SIX, grid=TWO_MM, root=None, bold=None):
    return shelf.find(name, space, grid, root=root, bold=bold)


def shelf(**values):
    return AtlasShelf(Atlases(**values))


# Names and where they are found


@pytest.mark.parametrize(
    "name", [NAME, "schaefer100", "Schaefer2018:100Parcels7Networks", NAME.lower()]
)
def test_every_spelling_finds_it(name, home):
    own = shelf(atlas=(name,), templateflow_home=home, offline=True)
    assert own.names == (NAME,)
    atlas = find(own)
    assert atlas.image_path == home / IMAGE
    assert atlas.regions.name[0] == "7Networks_LH_Vis_1"
    assert atlas.source == f"bids:templateflow:{IMAGE}"
    assert find(own) is atlas


def test_the_table_comes_from_the_package_where_the_home_has_none(home):
    atlas = find(shelf(atlas=(NAME,), templateflow_home=home, offline=True))
    assert atlas.table_path is None
    assert len(atlas.table_digest) == 64
    (home / TABLE).write_bytes(read_skeleton(TABLE))
    again = find(shelf(atlas=(NAME,), templateflow_home=home, offline=True))
    assert again.table_path == home / TABLE
    assert again.regions == atlas.regions


def test_citation_and_licence():
    # of an atlas that is known, in the description that goes to the output
    for label in ("Schaefer2018", "HOCPA", "DiFuMo", "MIAL67ThalamicNuclei"):
        description = describe_known_atlas(label)
        assert description["License"]
        assert all(
            u.startswith("https://doi.org/10.")
            for u in description["ReferencesAndLinks"]
        )
        assert description["BibTeX"].startswith("@article{")
    assert describe_known_atlas("Toy") == {}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("schafer400", r"schaefer400\."),
        ("shaefer400x17", r"schaefer400x17\."),
        ("schaefer450", "schaefer400"),
        ("havardoxford", "harvardoxford"),
        ("harvardoxfrd", r"harvardoxford\."),
        ("Schaefer2018_seg-7n_scale-1234", "schaefer100"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"no atlas '{name}'.*Nearest: .*({near})"):
        shelf(atlas=(name,))


def test_another_template_is_refused_with_what_fits(home):
    own = shelf(atlas=("HCP",), templateflow_home=home)
    with pytest.raises(AtlasError, match=f"HCP is in {SIX}, the run in {SPACE}") as e:
        find(own, "HCP", SPACE)
    assert f"In {SPACE} there are: DiFuMo" in e.value.remedy
    with pytest.raises(AtlasError, match="No atlas is known in T1w"):
        find(own, "HCP", "T1w", bold=Path("sub-01_space-T1w_bold.nii.gz"))


def test_a_cohort_is_a_space_of_its_own():
    own = shelf(atlas=("AAL",), offline=True)
    with pytest.raises(MissingInput, match="tpl-UNCInfant_cohort-2_atlas-AAL_dseg"):
        find(own, "AAL", "UNCInfant+2")
    with pytest.raises(AtlasError, match=r"UNCInfant\+1, UNCInfant\+2, UNCInfant\+3"):
        find(own, "AAL", "UNCInfant")


# Resolution


def test_the_resolution_nearest_to_the_run(home):
    write_image_of(home / FINE)
    own = shelf(atlas=(NAME,), templateflow_home=home, offline=True)
    # FINE is written on the 2 mm grid, too: the header counts and not the label
    assert find(own, grid=ONE_MM).image_path == home / FINE
    affine = np.diag([1.0, 1, 1, 1])
    labels = np.zeros((20, 30, 20), np.int16)
    labels.ravel()[:100] = range(1, 101)
    write_image(home / FINE, labels, affine)
    (home / TABLE).write_text(
        "index\tname\n" + "".join(f"{i}\tr{i}\n" for i in range(1, 101))
    )
    own = shelf(atlas=(NAME,), templateflow_home=home, offline=True)
    assert find(own, grid=ONE_MM).image_path == home / FINE
    assert find(own, grid=TWO_MM).image_path == home / IMAGE
    three = Grid.of((60, 70, 60), np.diag([3.0, 3, 3, 1]))
    assert find(own, grid=three).image_path == home / IMAGE


def test_another_resolution_serves_offline_and_is_told(home):
    own = shelf(atlas=(NAME,), templateflow_home=home, offline=True)
    atlas = find(own, grid=ONE_MM)
    assert atlas.image_path == home / IMAGE
    assert "could not be had" in atlas.warnings[0]
    assert find(own, grid=TWO_MM).warnings == ()


# Offline, caches, downloads


def test_offline_names_the_missing_files_at_once(dataset, tmp_path, app):
    """No network, a home that cannot be written, an empty cache."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    environment = {
        "TEMPLATEFLOW_HOME": str(nowhere / "home"),
        "HOME": str(nowhere / "user"),
    }
    arguments = [dataset, tmp_path / "out", "participant", "--offline"]
    (tmp_path / "archive").mkdir()
    with Server(tmp_path / "archive") as server:
        environment["BIDS_ROI_TEMPLATEFLOW_URL"] = server.url
        done = app(*arguments, env=environment)
        assert server.asked == []
    assert done.returncode == 66
    image = (
        f"tpl-{SPACE}/tpl-{SPACE}_res-02_atlas-Schaefer2018_desc-400Parcels7Networks"
    )
    assert f"{image}_dseg.nii.gz" in done.stderr
    assert "bids_roi_tools fetch" in done.stderr
    assert not (tmp_path / "out" / "sub-01").exists()


def test_a_local_atlas_needs_no_home_at_all(dataset, atlas, tmp_path, app):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    environment = {
        "TEMPLATEFLOW_HOME": str(nowhere / "home"),
        "HOME": str(nowhere / "user"),
    }
    arguments = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    done = app(*arguments, "--offline", env=environment)
    assert done.returncode == 0, done.stderr


def test_a_download_on_the_way(tmp_path, monkeypatch):
    write_image_of(tmp_path / "archive" / IMAGE)
    with Server(tmp_path / "archive") as server:
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
        atlas = find(shelf(atlas=(NAME,)))
        assert server.asked == [IMAGE]
        cache = tmp_path / "user/.cache/bids_roi/templateflow"
        assert atlas.image_path == cache / IMAGE
        find(shelf(atlas=(NAME,)))
        assert server.asked == [IMAGE]


def test_a_home_that_cannot_be_written_is_read_and_the_cache_written(
    home, tmp_path, monkeypatch
):
    write_image_of(tmp_path / "archive" / IMAGE)
    (tmp_path / "file").write_text("")
    with Server(tmp_path / "archive") as server:
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
        own = shelf(atlas=(NAME,), templateflow_home=tmp_path / "file" / "home")
        atlas = find(own)
    cache = tmp_path / "user/.cache/bids_roi/templateflow"
    assert atlas.image_path == cache / IMAGE


def test_a_damaged_file_in_the_cache_is_replaced(home, tmp_path, monkeypatch):
    write_image_of(tmp_path / "archive" / IMAGE)
    good = (home / IMAGE).read_bytes()
    for damaged in (b"", good[: len(good) // 2], b"<?xml version='1.0'?><Error/>"):
        (home / IMAGE).write_bytes(damaged)
        with pytest.raises(MissingInput, match=r"--offline|download") as caught:
            find(shelf(atlas=(NAME,), templateflow_home=home, offline=True))
        assert IMAGE in str(caught.value)
        with Server(tmp_path / "archive") as server:
            monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
            atlas = find(shelf(atlas=(NAME,), templateflow_home=home))
        assert atlas.image_path.read_bytes() == good


def test_a_failure_is_not_tried_for_every_run(tmp_path, monkeypatch):
    with Server(tmp_path) as server:
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
        own = shelf(atlas=(NAME,))
        for _ in range(3):
            with pytest.raises(MissingInput, match=r"status code 404.*--atlas-file"):
                find(own)
        assert server.asked == [IMAGE]


def test_search_path(tmp_path):
    environment = {
        "TEMPLATEFLOW_HOME": "/tf",
        "BIDS_ROI_TEMPLATEFLOW": "/image",
        "XDG_CACHE_HOME": "/cache",
    }
    found = [str(p) for p in search_path(tmp_path, environment)]
    assert found == [
        str(tmp_path),
        "/tf",
        "/image",
        "/cache/templateflow",
        "/cache/bids_roi/templateflow",
    ]
    assert search_path(None, {}) == ()
    with pytest.raises(MissingInput, match="no folder that downloads"):
        download_home(None, {})


def test_an_empty_home_of_templateflow_is_left_alone(tmp_path):
    """Partly filled, its client would take it for complete."""
    empty = tmp_path / "tf"
    empty.mkdir()
    environment = {"TEMPLATEFLOW_HOME": str(empty), "HOME": str(tmp_path)}
    assert download_home(None, environment) == tmp_path / ".cache/bids_roi/templateflow"
    (empty / "tpl-X").mkdir()
    assert download_home(None, environment) == empty
    assert download_home(tmp_path / "new", environment) == tmp_path / "new"


# Harvard-Oxford: tables of our own


@pytest.mark.parametrize(
    ("name", "n_regions", "first", "last"),
    [
        ("harvardoxford", 48, "Frontal Pole", "Occipital Pole"),
        ("harvardoxford-lateral", 96, "Left Frontal Pole", "Right Occipital Pole"),
        ("harvardoxford-sub", 21, "Left Cerebral White Matter", "Right Accumbens"),
    ],
)
@pytest.mark.parametrize("space", [SIX, SPACE])
def test_harvard_oxford(name, n_regions, first, last, space, tmp_path):
    (key,) = shelf(atlas=(name,)).names
    label, _, seg = key.partition("_seg-")
    file = f"tpl-{space}/tpl-{space}_res-02_atlas-{label}_desc-{seg}_dseg.nii.gz"
    path = tmp_path / "home" / file
    path.parent.mkdir(parents=True)
    write_sided(path, own_table(label))
    there = shelf(atlas=(name,), templateflow_home=tmp_path / "home", offline=True)
    atlas = there.find(key, space, TWO_MM, root=None, bold=None)
    names = atlas.regions.name
    assert (len(names), names[0], names[-1]) == (n_regions, first, last)
    assert "bids_roi's own" in " ".join(atlas.warnings)
    assert "region list that FSL publishes" in atlas.description["RegionTable"]


def write_sided(path, table):
    """An image with all regions of a table, each at the side that the table says."""
    regions = build_regions(read_raw_table(table))[0]
    sides = sides_of(regions.original_name, regions.extra)
    labels = np.zeros((20, len(sides), 3), np.int32)
    for row, (value, side) in enumerate(zip(regions.index, sides, strict=True)):
        labels[{"L": 2, "R": 17}.get(side, 10), row] = value
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -20
    write_image(path, labels, affine)


def test_templateflows_own_table_of_hocpal_would_be_one_off():
    """Why there are tables of our own: 52 of 96 rows, counted from 0."""
    name = f"tpl-{SIX}/tpl-{SIX}_atlas-HOCPAL_dseg.tsv"
    raw = parse_table(read_skeleton(name).decode(), Path(name))
    findings = check_values(build_regions(raw)[0], range(1, 97))
    assert [(f.severity, f.check) for f in findings] == [("error", "off by one")]


# The list inside the package


def test_the_list_is_read_without_importing_templateflow():
    held = scan_names(list_skeleton())
    keys = {(h.key.name, h.space, h.kind) for h in held}
    assert ("Schaefer2018_seg-17n_scale-1000", SPACE, "dseg") in keys
    assert ("DiFuMo_scale-64", SIX, "probseg") in keys
    assert ("Yeo2011_seg-7n", "fsaverage", "surface") in keys
    assert template_grids()[SPACE]["02"].shape == (97, 115, 97)
    assert template_grids()[SIX]["06"].zooms == (1.6, 1.6, 1.6)


def test_tables_of_images():
    def table(image):
        found = choose_table(image, list_skeleton())
        return found and found.rpartition("/")[2]

    assert table(IMAGE) == TABLE.rpartition("/")[2]
    stem = f"tpl-{SIX}/tpl-{SIX}_res-01_atlas-"
    assert (
        table(f"{stem}HOSPA_desc-th25_dseg.nii.gz") == f"tpl-{SIX}_atlas-HOSPA_dseg.tsv"
    )
    assert table(f"{stem}HOSPA_probseg.nii.gz") == f"tpl-{SIX}_atlas-HOSPA_dseg.tsv"
    assert table(f"{stem}HCP_dseg.nii.gz") is None
    sym = "tpl-MNI152NLin2009cSym"
    assert table(f"{sym}/{sym}_res-1_atlas-CerebrA_dseg.nii.gz") == (
        f"{sym}_atlas-CerebA_dseg.tsv"
    )
    massp = f"tpl-{SPACE}/tpl-{SPACE}_res-01_atlas-MASSP20_dseg"
    names = [f"{massp}.tsv", massp.replace("_res-01", "_res-02") + ".tsv"]
    assert choose_table(f"{massp}.nii.gz", names) == names[0]


# BIDS-atlas datasets


def write_atlas_dataset(root, folder, name=f"tpl-{SPACE}_atlas-Toy_dseg.nii.gz"):
    datasets.write_atlas(root / folder, name)
    description = {"Name": "Toy atlas", "License": "CC0", "Authors": ["A", "B"]}
    (root / "atlas-Toy_description.json").write_text(json.dumps(description))
    return root


@pytest.mark.parametrize("folder", [f"tpl-{SPACE}", f"tpl-{SPACE}/anat"])
def test_a_dataset_from_end_to_end(folder, dataset, tmp_path, capsys):
    own = write_atlas_dataset(tmp_path / "toys", folder)
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-dataset", f"toys={own}")
    stem = f"sub-01/func/sub-01_task-rest_space-{SPACE}_atlas-Toy"
    header, _ = read(out / f"{stem}_stat-mean_timeseries.tsv")
    assert header == list(datasets.NAMES)
    sidecar = json.loads((out / f"{stem}_stat-mean_timeseries.json").read_text())
    source = f"bids:toys:{folder}/tpl-{SPACE}_atlas-Toy_dseg.nii.gz"
    assert source in sidecar["Sources"]
    assert sidecar["AtlasTableDigest"].startswith("sha256:")
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert (out / links["toys"]).resolve() == own.resolve()
    description = json.loads((out / "atlas-Toy_description.json").read_text())
    assert description["Name"] == "Toy atlas"
    assert description["License"] == "CC0"


@pytest.mark.parametrize("label", ["AAL", "DiFuMo", "Schaefer"])
def test_real_layouts(label, shared, tmp_path):
    """Real names and tables; the images, which are annexed there, are made up."""
    source = shared / "atlases/bids-atlas-layout" / f"atlas-{label}"
    root = shutil.copytree(source, tmp_path / "atlas")
    made = 0
    for path in sorted(root.glob("tpl-*/anat/*_atlas-*.json")):
        image, table = path.with_suffix(".nii.gz"), path.with_suffix(".tsv")
        if label == "DiFuMo":
            n_maps = len(table.read_text().splitlines()) - 1
            write_image(image, np.ones((2, 3, 2, n_maps), np.float32), np.eye(4))
        elif table.exists():
            write_sided(image, table)
        else:
            write_image(image, datasets.labels(), datasets.oblique())
        made += 1
    own = shelf(atlas_dataset=(f"given={root}",))
    assert len(own.names) == made
    space = "MNIColin27" if label == "AAL" else SIX
    for name in own.names:
        atlas = find(own, name, space)
        assert atlas.kind == ("probseg" if label == "DiFuMo" else "dseg")
        assert atlas.description["License"] != "n/a"
        assert atlas.source.startswith(f"bids:given:tpl-{space}/anat/")
        assert (atlas.table_path is None) == (label == "Schaefer")


def test_datasets_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        f"a={tmp_path / 'nowhere'}": (MissingInput, "no such folder"),
        f"a={tmp_path / 'empty'}": (UsageError, "holds no atlas"),
        f"templateflow={tmp_path}": (UsageError, "cannot be the name"),
        f"a b={tmp_path}": (UsageError, "letters, digits and hyphens"),
    }
    for text, (kind, message) in cases.items():
        with pytest.raises(kind, match=message):
            shelf(atlas_dataset=(text,))
    own = write_atlas_dataset(tmp_path / "toys", f"tpl-{SPACE}")
    with pytest.raises(UsageError, match="same name"):
        shelf(atlas_dataset=(f"a={own}", f"a={tmp_path / 'toys'}"))
    # without a name, the folder's
    assert list(shelf(atlas_dataset=(str(own),)).links) == ["toys"]


@pytest.mark.parametrize(
    ("name", "declared", "space"),
    [
        ("tpl-A_atlas-x_dseg.nii.gz", "A", "A"),
        ("space-A_x.nii.gz", "A", "A"),
        ("x.nii.gz", "B", "B"),
        ("tpl-A_atlas-x_dseg.nii.gz", None, "A"),
        ("tpl-A_cohort-2_atlas-x_dseg.nii.gz", "A+2", "A+2"),
        ("tpl-A_atlas-x_dseg.nii.gz", "A+2", "A+2"),
        ("tpl-A_atlas-x_dseg.nii.gz", "B", None),
        ("space-A_x.nii.gz", "a", None),
        ("tpl-A_cohort-2_atlas-x_dseg.nii.gz", "A+1", None),
        ("tpl-A_cohort-2_atlas-x_dseg.nii.gz", "A", None),
    ],
)
def test_a_declared_space_does_not_contradict_the_name(name, declared, space, tmp_path):
    image = tmp_path / name
    write_image(image, datasets.labels(), datasets.oblique())
    if space is not None:
        assert parse_file(str(image), declared).space == space
        return
    with pytest.raises(UsageError) as caught:
        parse_file(str(image), declared)
    for words in (name, f"in {space_of(image)},", f"--atlas-space {declared}."):
        assert words in str(caught.value)


def test_a_declared_space_that_no_file_needs(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-space", SPACE]
    shown = run(capsys, *arguments, "--atlas", "schaefer100", "--offline", code=64)
    assert "--atlas-space is for the files of --atlas-file and --seeds" in shown.err
    atlas = datasets.write_atlas(tmp_path / "own")
    run(capsys, *arguments, "--atlas-file", atlas)
    wrong = [dataset, out, "participant", "--atlas-space", SIX, "--atlas-file", atlas]
    shown = run(capsys, *wrong, code=64)
    assert SPACE in shown.err
    assert SIX in shown.err


def test_two_files_for_one_atlas(tmp_path):
    one = datasets.write_atlas(tmp_path / "one")
    two = datasets.write_atlas(tmp_path / "two")
    with pytest.raises(CollisionError, match="would both be atlas Toy"):
        shelf(atlas_file=(one, two))


@pytest.mark.parametrize("place", ["in_func", "in_anat"])
def test_a_segmentation_from_end_to_end(place, tmp_path, capsys):
    places = {"in_func": place == "in_func", "in_anat": place == "in_anat"}
    root, out = write_native(tmp_path / "in", **places), tmp_path / "out"
    arguments = [root, out, "participant", "--atlas", "subject:aparcaseg", "--offline"]
    run(capsys, *arguments)
    stem = "sub-01/func/sub-01_task-rest_space-T1w_atlas-aparcaseg"
    header, signals = read(out / f"{stem}_stat-mean_timeseries.tsv")
    # the columns are a function of the table: 14 is in no voxel, 9999 in no aparc+aseg
    assert header == [name for value, name in LUT if value not in (0, 9999)]
    assert np.isnan(signals[:, -1]).all()
    assert np.isfinite(signals[:, 0]).all()
    sidecar = json.loads((out / f"{stem}_stat-mean_timeseries.json").read_text())
    folder = "func" if place == "in_func" else "anat"
    assert any(
        f"bids:preprocessed:sub-01/{folder}/" in s for s in sidecar["Sources"][2:]
    )
    description = json.loads((out / "atlas-aparcaseg_description.json").read_text())
    assert description["LevelType"] == "individual"
    assert "10.1016/S0896-6273(02)00569-X" in description["BibTeX"]


def test_columns_are_the_same_for_participants_who_differ(tmp_path, capsys):
    root, out = write_native(tmp_path / "in"), tmp_path / "out"
    write_run(root, "sub-02_task-rest_space-T1w")
    path = root / "sub-02/func/sub-02_task-rest_space-T1w_desc-aparcaseg_dseg.nii.gz"
    other = segmentation((2035, 14, 4, 77))  # 77 has no row in this LUT
    write_image(path, other, datasets.oblique())
    arguments = [root, out, "participant", "--atlas", "subject:aparcaseg"]
    captured = run(capsys, *arguments)
    headers = [
        read(path)[0] for path in sorted(out.glob("sub-*/func/*_timeseries.tsv"))
    ]
    assert len(headers) == 2
    assert headers[0] == headers[1]
    assert "other content" not in captured.err


def test_no_segmentation_skips_the_run_and_says_where_there_is_one(tmp_path, capsys):
    root, out = write_native(tmp_path / "in"), tmp_path / "out"
    write_run(root, f"sub-01_task-rest_space-{SPACE}")
    run(capsys, root, out, "participant", "--atlas", "subject:aparcaseg")
    assert len(list(out.glob("sub-01/func/*_timeseries.tsv"))) == 1
    logs = "".join(p.read_text() for p in out.glob("logs/**/*") if p.is_file())
    assert f"no segmentation desc-aparcaseg of the participant in space {SPACE}" in logs
    assert "there is one in T1w" in logs


def test_several_segmentations_are_an_error(tmp_path):
    root = write_native(tmp_path / "in", in_func=False, in_anat=True)
    other = root / "sub-01/anat/sub-01_acq-fast_desc-aparcaseg_dseg.nii.gz"
    write_image(other, segmentation(), datasets.oblique())
    own = shelf(atlas=("subject:aparcaseg",))
    assert own.names == ("aparcaseg",)
    bold = root / "sub-01/func/sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz"
    with pytest.raises(AtlasError, match=r"several.*acq-fast"):
        find(own, "aparcaseg", "T1w", root=root, bold=bold)


def test_the_anatomy_of_another_session_serves_where_it_is_the_only_one(tmp_path):
    root = write_native(tmp_path / "in", in_func=False, in_anat=True)
    (root / "sub-01/ses-a").mkdir()
    (root / "sub-01/anat").rename(root / "sub-01/ses-a/anat")
    bold = write_run(root, "sub-01_ses-b_task-rest_space-T1w")
    own = shelf(atlas=("subject:aparcaseg",))
    atlas = find(own, "aparcaseg", "T1w", root=root, bold=bold)
    assert atlas.image_path.parent == root / "sub-01/ses-a/anat"


def test_a_segmentation_whose_content_is_not_here(tmp_path):
    root = write_native(tmp_path / "in", in_anat=True)
    bold = root / "sub-01/func/sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz"
    path = bold.with_name("sub-01_task-rest_space-T1w_desc-aparcaseg_dseg.nii.gz")
    path.unlink()
    path.symlink_to("../../.git/annex/objects/x")
    with pytest.raises(MissingInput, match="datalad get"):
        find(
            shelf(atlas=("subject:aparcaseg",)),
            "aparcaseg",
            "T1w",
            root=root,
            bold=bold,
        )


def test_any_desc_and_no_table(tmp_path):
    root = write_native(tmp_path / "in", lut=False)
    source = "sub-01/func/sub-01_task-rest_space-T1w_desc-{}_dseg.nii.gz"
    (root / source.format("aparcaseg")).rename(root / source.format("hippo"))
    own = shelf(atlas=("subject:hippo",))
    bold = root / "sub-01/func/sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz"
    atlas = find(own, "hippo", "T1w", root=root, bold=bold)
    assert atlas.regions.name == ("region_2", "region_4", "region_1002", "region_2035")
    assert "no table" in atlas.warnings[0]
    with pytest.raises(UsageError, match="names no segmentation"):
        shelf(atlas=("subject:",))


def test_zero_based_table_stops_with_the_fix(dataset, tmp_path, capsys):
    image = tmp_path / f"tpl-{SPACE}_atlas-Off_dseg.nii.gz"
    labels = np.zeros(datasets.SHAPE, np.uint8)
    labels[:, 1:6, 1:4] = np.arange(1, 7)[:, None, None]
    write_image(image, labels, datasets.oblique())
    table = tmp_path / "off.tsv"
    table.write_text("index\tname\n" + "".join(f"{i}\tr{i}\n" for i in range(6)))
    out = tmp_path / "out"
    given = ["--atlas-file", f"{image},{table}"]
    captured = run(capsys, dataset, out, "participant", *given, code=65)
    assert "the table counts from 0" in captured.err
    assert "Add 1 to the index column" in captured.err
    assert not [p for p in out.glob("sub-*/**/*") if p.is_file()]


def test_the_environment_is_read_when_asked(home, monkeypatch):
    monkeypatch.setitem(os.environ, "TEMPLATEFLOW_HOME", str(home))
    assert find(shelf(atlas=(NAME,), offline=True)).image_path == home / IMAGE
