"""Names of atlases: what users type, what files are called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.atlases.names import (
    SHORT_NAMES,
    AtlasKey,
    key_of_file,
    nearest_atlases,
    parse_atlas_name,
    short_names,
    space_of,
)
from bids_roi.errors import UsageError


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("Schaefer2018_seg-7n_scale-400", "Schaefer2018_seg-7n_scale-400"),
        ("atlas-Schaefer2018_seg-7n_scale-400", "Schaefer2018_seg-7n_scale-400"),
        ("Schaefer2018_seg-7Networks_scale-400", "Schaefer2018_seg-7n_scale-400"),
        ("Schaefer2018:400Parcels17Networks", "Schaefer2018_seg-17n_scale-400"),
        ("Schaefer2018_desc-100Parcels7Networks", "Schaefer2018_seg-7n_scale-100"),
        ("schaefer400", "Schaefer2018_seg-7n_scale-400"),
        ("Schaefer1000", "Schaefer2018_seg-7n_scale-1000"),
        ("schaefer400x17", "Schaefer2018_seg-17n_scale-400"),
        ("harvardoxford", "HOCPA_seg-th25"),
        ("harvardoxford-sub", "HOSPA_seg-th25"),
        ("HOCPAL:th50", "HOCPAL_seg-th50"),
        ("difumo128", "DiFuMo_scale-128"),
        ("DiFuMo:128dimensions", "DiFuMo_scale-128"),
        ("MIAL67ThalamicNuclei", "MIAL67ThalamicNuclei"),
        ("AAL+3", "AAL+3"),
    ],
)
def test_what_users_type(name, canonical):
    assert parse_atlas_name(name).name == canonical


@pytest.mark.parametrize("name", ["my atlas", "a/b.nii.gz", "A_seg-", "A_res-2", ""])
def test_what_is_no_name(name):
    with pytest.raises(UsageError, match=r"not the name of an atlas.*--atlas-file"):
        parse_atlas_name(name)


@pytest.mark.parametrize(
    ("file", "canonical", "space"),
    [
        (
            "tpl-MNI152NLin6Asym_res-02_atlas-HOCPA_desc-th25_dseg.nii.gz",
            "HOCPA_seg-th25",
            "MNI152NLin6Asym",
        ),
        (
            "tpl-X_atlas-Schaefer2018_scale-400_res-2_desc-7Networks_probseg.nii.gz",
            "Schaefer2018_seg-7n_scale-400",
            "X",
        ),
        (
            "tpl-X_atlas-Schaefer2018_seg-17Networks_scale-400_res-2_probseg.nii.gz",
            "Schaefer2018_seg-17n_scale-400",
            "X",
        ),
        ("tpl-UNCInfant_cohort-1_atlas-AAL_dseg.nii.gz", "AAL", "UNCInfant+1"),
        (
            "tpl-fsaverage_atlas-Desikan2006_seg-aparc_desc-curated_dseg.label.gii",
            "Desikan2006_seg-aparc+curated",
            "fsaverage",
        ),
        ("my_atlas.nii.gz", "myatlas", None),
        ("lesions_space-MNI152NLin6Asym.nii.gz", "lesionsspaceMNI152NLin6Asym", None),
        ("a_space-T1w_dseg.nii.gz", "aspaceT1wdseg", "T1w"),
    ],
)
def test_what_files_are_called(file, canonical, space):
    assert key_of_file(f"some/folder/{file}").name == canonical
    assert space_of(file) == space


labels = st.from_regex(r"[A-Za-z0-9+]{1,8}", fullmatch=True)


@given(labels, st.none() | labels, st.none() | labels)
def test_canonical_names_read_back(label, seg, scale):
    key = AtlasKey(label, seg, scale)
    short = parse_atlas_name(key.name)
    # short names and the two spellings of networks are read as what they stand for
    if short != key:
        words = ("schaefer", "difumo", "4s", *SHORT_NAMES)
        assert label.lower().startswith(words) or (
            seg is not None and seg.lower().endswith("networks")
        )


def test_short_names_are_names_themselves():
    for short, canonical in SHORT_NAMES.items():
        assert parse_atlas_name(short).name == canonical


def test_nearest():
    """Short names first, each by its slips; whole names where none is near."""
    known = [
        AtlasKey("Schaefer2018", f"{n}n", str(s)) for n in (7, 17) for s in (400, 1000)
    ]
    known += [
        AtlasKey("CHARM"),
        AtlasKey("HOCPA", "th25"),
        AtlasKey("DiFuMo", None, "64"),
    ]
    assert nearest_atlases("schafer400", known) == ["schaefer400"]
    assert nearest_atlases("shaefer400x17", known) == ["schaefer400x17"]
    assert nearest_atlases("havardoxford", known)[0] == "harvardoxford"
    assert nearest_atlases("difum64", known) == ["difumo64"]
    assert nearest_atlases("charn", known) == ["CHARM"]
    assert nearest_atlases("zzzzzz", known) == []


def test_every_short_name_is_understood():
    for key in (AtlasKey("Schaefer2018", "7n", "400"), AtlasKey("4S", None, "156")):
        for name in short_names(key):
            assert parse_atlas_name(name) == key
    for name, whole in SHORT_NAMES.items():
        assert name in short_names(parse_atlas_name(whole))
