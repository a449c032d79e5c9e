"""Tables of surfaces: which region each name goes to, against the files' own names."""

import shutil

import nibabel as nb
import numpy as np
import pytest
from support import dense
from support import gifti_files as gii
from support import surface_runs as runs

from bids_roi.atlases.names import AtlasKey
from bids_roi.atlases.open import AtlasFiles, open_atlas
from bids_roi.errors import AtlasError

V = 10242
OWN = ("bankssts", "cuneus", "insula", "precuneus")
TURNED = ("insula", "precuneus", "bankssts", "cuneus")


def hemisphere(path, names, first=1, zero="???"):
    """A label.gii with 100 vertices of each region, keys in order from ``first``."""
    keys = np.zeros(V, np.int32)
    for number in range(len(names)):
        keys[200 * number + 300 :][:100] = first + number
    labels = [(0, zero), *enumerate(names, first)]
    arrays = [gii.array(keys, intent="LABEL")]
    path.write_text(gii.document(arrays, labels=labels))
    return path


def pair(folder, first_right=1, names=OWN):
    return (
        hemisphere(folder / "hemi-L_dk.label.gii", names),
        hemisphere(folder / "hemi-R_dk.label.gii", names, first_right),
    )


def opened(folder, rows, files):
    table = folder / "my.tsv"
    lines = ["index\tname\themi", *("\t".join(map(str, row)) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    left, right = files
    key = AtlasKey("dk")
    return open_atlas(AtlasFiles(key, "fsaverage5", left, table, right=right))


SPELLINGS = ("{n}", "{s}H_{n}", "{n}_{s}", "{l}h.{n}", "{l}h_{n}", "{l}h-{n}")


@pytest.mark.parametrize("first_right", [1, 5])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_in_another_order_are_an_error(tmp_path, spelling, first_right):
    files = pair(tmp_path, first_right)

    def rows(names):
        return [
            (k + start, spelling.format(n=name, s=side, l=side.lower()), side)
            for side, start in (("L", 1), ("R", first_right))
            for k, name in enumerate(names)
        ]

    assert len(opened(tmp_path, rows(OWN), files).regions.name) == 8
    with pytest.raises(AtlasError, match="8 names are those of other regions"):
        opened(tmp_path, rows(TURNED), files)
    # one side only, and a table that lacks a region
    with pytest.raises(AtlasError, match="4 names are those of other regions"):
        opened(tmp_path, rows(TURNED)[:4] + rows(OWN)[4:], files)
    with pytest.raises(AtlasError, match="3 names are those of other regions"):
        opened(tmp_path, rows(TURNED)[:3] + rows(OWN)[4:], files)


def test_names_of_another_language_are_no_error(tmp_path):
    rows = [(k, f"area{k}", side) for side in "LR" for k in (1, 2, 3, 4)]
    assert len(opened(tmp_path, rows, pair(tmp_path)).regions.name) == 8


def test_a_table_without_the_keys_of_one_side_is_an_error(tmp_path):
    rows = [(k, f"LH_{name}", "L") for k, name in enumerate(OWN, 1)]
    rows += [(k, f"RH_{name}", "R") for k, name in enumerate(OWN, 5)]
    with pytest.raises(AtlasError, match=r"side R \(index 5, 6, 7, 8\)"):
        opened(tmp_path, rows, pair(tmp_path))


def single(path):
    return open_atlas(AtlasFiles(AtlasKey("dk"), "fsLR", path, None))


def dense_labels(folder, zero):
    axis = dense.small_axis()
    keys = np.arange(len(axis)) % 4
    table = {k: (n, (0.5, 0.5, 0.5, 1)) for k, n in enumerate((zero, *OWN[1:]))}
    path = folder / "my.dlabel.nii"
    xml = dense.labels_xml(axis, [table])
    return dense.write(path, xml, np.asarray(keys, "f4")[None], intent=3007)


NOTHING = ("???", "Unknown", "Medial_wall_L", "FreeSurfer_Defined_Medial_Wall", "none")


@pytest.mark.parametrize("zero", [*NOTHING, "V1"])
def test_a_region_of_key_0_is_an_error(tmp_path, zero):
    """Of a dlabel, a label.gii, and an annot (whose key is its colour)."""
    left, right = pair(tmp_path)
    hemisphere(left, OWN, zero=zero)
    annots = [tmp_path / f"{side}.my.annot" for side in ("lh", "rh")]
    colours = np.array([[0, 0, 0, 0, 0], [9, 8, 7, 0, 0], [1, 1, 1, 0, 0]])
    for place, path in enumerate(annots):
        numbers = np.roll(np.arange(V) % 3, place)  # of the same bytes is refused
        words = [zero, "insula", "cuneus"]
        nb.freesurfer.write_annot(path, numbers, colours, words, fill_ctab=True)

    def open_pair(one, other):
        key = AtlasKey("dk")
        return open_atlas(AtlasFiles(key, "fsaverage5", one, None, right=other))

    for opening, path, n_regions in (
        (lambda: single(dense_labels(tmp_path, zero)), "my.dlabel.nii", 3),
        (lambda: open_pair(left, right), left.name, 8),
        (lambda: open_pair(*annots), "lh.my.annot", 4),
    ):
        if zero in NOTHING:
            assert len(opening().regions.name) == n_regions
        else:
            with pytest.raises(AtlasError, match="index 0 is the background") as told:
                opening()
            assert path in str(told.value)


def test_key_0_without_points_and_a_table_with_a_row_0(tmp_path):
    keys = 1 + np.arange(len(dense.small_axis())) % 3
    names = dict(enumerate(OWN))
    path = tmp_path / "full.dlabel.nii"
    runs.write_dlabel(path, dense.small_axis(), keys, names)
    assert len(single(path).regions.name) == 3
    rows = [(k, name, side) for side in "LR" for k, name in enumerate(OWN)]
    with pytest.raises(AtlasError, match="index 0 is the background"):
        opened(tmp_path, rows, pair(tmp_path))


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *(("same", ".label.gii"), ("linked", ".label.gii")),
        *(("same", ".annot"), ("linked", ".annot"), ("copied", ".annot")),
    ],
)
def test_one_file_for_both_hemispheres_is_an_error(tmp_path, how, kind):
    """A copy too of an annot, which cannot say of which hemisphere it is."""
    one = other = tmp_path / f"lh.a{kind}"
    if kind == ".annot":
        keys = np.arange(V) % len(OWN)
        colours = [[n, 20 * n, 3, 0] for n in range(1, len(OWN) + 1)]
        nb.freesurfer.write_annot(one, keys, np.array(colours), OWN, fill_ctab=True)
    else:
        hemisphere(one, OWN)
    if how != "same":
        other = tmp_path / f"rh.a{kind}"
    if how == "linked":
        other.symlink_to(one)
    if how == "copied":
        shutil.copyfile(one, other)
    rows = [(k, name, side) for side in "LR" for k, name in enumerate(OWN, 1)]
    with pytest.raises(AtlasError, match="one file is given for both hemispheres"):
        opened(tmp_path, rows, (one, other))
