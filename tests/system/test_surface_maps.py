"""One map of a file with several, by name or number; and series that are packed."""

import contextlib
import gzip
import io
import json

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import dense
from support import gifti_files as gii
from support import surface_runs as runs
from support.calls import read

from bids_roi.atlases.asked import parse_file
from bids_roi.atlases.open import open_atlas
from bids_roi.cli import main
from bids_roi.errors import AtlasError, UsageError
from bids_roi.images.markup import choose_map
from bids_roi.images.surfaces import read_surface_labels

AXIS = dense.small_axis()
V, T = len(AXIS), 20
DATA = dense.ramp(T, V)
RNG = np.random.default_rng(3)
KEYS = {"7 Networks": RNG.choice([0, 1, 2], V), "other": RNG.choice([0, 3, 5], V)}
NAMES = {"7 Networks": {1: "A", 2: "B"}, "other": {3: "C", 5: "D"}}


def write_maps(path, names=tuple(KEYS)):
    tables = [
        {0: ("???", (0, 0, 0, 0))}
        | {k: (name, (0.5, 0.5, 0.5, 1)) for k, name in NAMES[m].items()}
        for m in KEYS
    ]
    xml = dense.labels_xml(AXIS, tables, list(names))
    keys = np.stack([KEYS[m] for m in KEYS]).astype("f4")
    return dense.write(path, xml, keys, intent=3007)


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "fmriprep"
    runs.write_cifti(root, AXIS, DATA)
    return root


def extract(root, out, *more):
    arguments = [root, out, "participant", "--no-report", "--executor", "serial"]
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = main([str(a) for a in (*arguments, *more)])
    return code, said.getvalue(), told.getvalue()


def check(out, stem, which):
    (path,) = out.rglob(f"*_atlas-{stem}_*stat-mean_timeseries.tsv")
    header, values = read(path)
    assert header == list(NAMES[which].values())
    for column, key in zip(values.T, NAMES[which], strict=True):
        expected = DATA[:, KEYS[which] == key].mean(axis=1)
        assert_allclose(column, expected, rtol=1e-6)
    return json.loads(path.with_suffix(".json").read_text())


def test_two_maps_of_one_file_are_two_atlases(data, tmp_path):
    atlas = write_maps(tmp_path / "net.dlabel.nii")
    out = tmp_path / "out"
    code, *_ = extract(data, out, "--atlas-file", f"{atlas}#7 Networks", f"{atlas}#2")
    assert code == 0
    first = check(out, "net_seg-7Networks", "7 Networks")
    second = check(out, "net_seg-map2", "other")
    assert (first["AtlasMap"], second["AtlasMap"]) == ("7 Networks", "2")
    assert first["AtlasImageDigest"] != second["AtlasImageDigest"]


def test_the_first_is_used_and_told_where_none_is_chosen(data, tmp_path):
    atlas = write_maps(tmp_path / "net.dlabel.nii")
    code, *_ = extract(data, tmp_path / "out", "--atlas-file", atlas)
    assert code == 0
    sidecar = check(tmp_path / "out", "net", "7 Networks")
    assert "AtlasMap" not in sidecar
    told = " ".join(sidecar["Warnings"])
    assert "2 maps (1 '7 Networks', 2 'other'); the first is used" in told
    assert "IMAGE#2" in told


@pytest.mark.parametrize("wanted", ["9", "0", "nothing", "7 networks"])
def test_a_map_that_is_not_there_names_those_that_are(data, tmp_path, wanted):
    atlas = write_maps(tmp_path / "net.dlabel.nii")
    code, _, told = extract(data, tmp_path / "out", "--atlas-file", f"{atlas}#{wanted}")
    assert code != 0
    assert f"no maps are called '{wanted}'" in told
    assert "1 '7 Networks', 2 'other'" in told


def test_two_maps_of_one_name_are_chosen_by_number(tmp_path):
    atlas = write_maps(tmp_path / "x_space-fsLR.dlabel.nii", names=("same", "same"))
    files = parse_file(f"{atlas}#same", None)
    with pytest.raises(AtlasError, match=r"2 maps are called 'same'.*by its number"):
        open_atlas(files)


def test_a_map_of_an_atlas_by_name(data, tmp_path):
    home = tmp_path / "atlases/tpl-fsLR"
    home.mkdir(parents=True)
    write_maps(home / "tpl-fsLR_atlas-Net_den-91k_dseg.dlabel.nii")
    out = tmp_path / "out"
    dataset = ["--atlas-dataset", f"mine={home.parent}"]
    code, *_ = extract(data, out, *dataset, "--atlas", "Net#other", "Net")
    assert code == 0
    assert check(out, "Net_seg-other", "other")["AtlasMap"] == "other"
    assert "AtlasMap" not in check(out, "Net_den-91k", "7 Networks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.nii.gz#2", "only .dlabel.nii and .gii have maps"),
        ("lh.x.annot#2", "only .dlabel.nii and .gii have maps"),
        ("L=a.label.gii#1,R=b.label.gii#2", "different maps"),
    ],
)
def test_maps_of_what_has_none_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse_file(text, "fsLR")


def test_a_file_whose_name_has_a_number_sign(data, tmp_path):
    atlas = write_maps(tmp_path / "net#2.dlabel.nii")
    code, *_ = extract(data, tmp_path / "out", "--atlas-file", f"{atlas}#2")
    assert code == 0
    check(tmp_path / "out", "net2_seg-map2", "other")


def test_a_map_of_both_hemispheres(tmp_path):
    files = {}
    for side in "LR":
        labels = [
            gii.array(np.full(642, k, "i4"), intent="LABEL", meta={"Name": name})
            for k, name in ((1, "one"), (2, "two"))
        ]
        rows = "".join(f'<Label Key="{k}">{side}{k}</Label>' for k in (0, 1, 2))
        files[side] = tmp_path / f"hemi-{side}_x.label.gii"
        files[side].write_text(
            '<GIFTI Version="1.0" NumberOfDataArrays="2"><LabelTable>'
            f"{rows}</LabelTable>{''.join(labels)}</GIFTI>"
        )
        assert (read_surface_labels(files[side], "two").keys == 2).all()
    text = f"L={files['L']}#two,R={files['R']}"
    found = parse_file(text, "fsaverage3")
    assert (found.map_name, found.key.seg) == ("two", "two")
    assert found.files == (files["L"], files["R"])


@pytest.mark.parametrize("kind", ["cifti", "gifti"])
def test_packed_series_are_found_extracted_and_resumed(tmp_path, kind):
    root, out = tmp_path / "fmriprep", tmp_path / "out"
    keys = np.repeat([1, 2], 321)
    if kind == "cifti":
        paths = [runs.write_cifti(root, AXIS, DATA)]
        atlas = write_maps(tmp_path / "net.dlabel.nii")
    else:
        left, right = dense.ramp(T, 642), dense.ramp(T, 642, 1)
        stem = f"{runs.ENTITIES}_space-fsaverage3"
        paths = runs.write_gifti(root, left, right, stem=stem)
        for side in "lr":
            array = nb.gifti.GiftiDataArray(keys.astype("i4"), "NIFTI_INTENT_LABEL")
            image = nb.gifti.GiftiImage(darrays=[array])
            nb.save(image, tmp_path / f"{side}h.net.label.gii")
        atlas = tmp_path / "lh.net.label.gii"
    more = ["--atlas-file", atlas]
    more += [] if kind == "cifti" else ["--atlas-space", "fsaverage3"]
    assert extract(root, tmp_path / "plain", *more)[0] == 0
    for path in paths:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert extract(root, out, *more)[0] == 0
    (one,) = (tmp_path / "plain").rglob("*_stat-mean_timeseries.tsv")
    (other,) = out.rglob("*_stat-mean_timeseries.tsv")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    mine, theirs = (
        json.loads(p.with_suffix(".json").read_text()) for p in (one, other)
    )
    assert mine["RepetitionTime"] == theirs["RepetitionTime"] == 2.0
    before = other.stat().st_mtime_ns
    assert extract(root, out, *more)[0] == 0
    assert other.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("names", "wanted", "number", "told"),
    [
        (["a", "b"], "2", 1, ""),
        (["1", "2"], "2", 1, ""),
        (["0", "1", "2"], "1", 1, "'1' is the name of map 2, which is used, and not"),
        (["17", "7"], "7", 1, ""),
        (["a", "b", "1"], "1", 2, "and not map 1 ('a')"),
    ],
)
def test_a_number_that_is_the_name_of_another_map_is_told(names, wanted, number, told):
    found, said = choose_map(names, wanted)
    assert found == number
    assert (told in said) if told else not said


def test_a_number_is_read_to_its_last_digit():
    with pytest.raises(AtlasError, match="no maps are called '0000000012'"):
        choose_map(["a", "b"], "0000000012")
