"""Atlases of templates beyond adults: found by name, and kept to their cohort."""

import nibabel as nb
import numpy as np
import pytest

from bids_roi.atlases.catalogue import Catalogue
from bids_roi.atlases.names import parse_atlas_name
from bids_roi.core.grid import Grid
from bids_roi.errors import MissingInput, SpaceMismatch

AFFINE = np.diag([2.0, 2, 2, 1])
GRID = Grid.of((4, 4, 4), AFFINE)
HELD = {
    ("AAL", "UNCInfant+1"): "UNCInfant/cohort-1/tpl-UNCInfant_cohort-1_atlas-AAL",
    ("AAL", "UNCInfant+3"): "UNCInfant/cohort-3/tpl-UNCInfant_cohort-3_atlas-AAL",
    ("D99", "NMT31Sym"): "NMT31Sym/tpl-NMT31Sym_res-1_atlas-D99",
    ("CHARM:level3", "NMT31Sym"): "NMT31Sym/tpl-NMT31Sym_res-1_atlas-CHARM_desc-level3",
    ("v3", "WHS"): "WHS/tpl-WHS_res-2_atlas-v3",
}


@pytest.mark.parametrize(("name", "space"), HELD)
def test_an_atlas_is_found_by_name(name, space, tmp_path):
    """First the file that is absent is named, then, planted, it is the one."""
    image = tmp_path / f"tpl-{HELD[name, space]}_dseg.nii.gz"
    key = parse_atlas_name(name)
    with pytest.raises(MissingInput) as told:
        Catalogue([], [], None).find(key, space, GRID)
    assert f"Missing: tpl-{HELD[name, space]}_dseg.nii.gz" in str(told.value)
    image.parent.mkdir(parents=True)
    nb.Nifti1Image(np.ones((4, 4, 4), np.int16), AFFINE).to_filename(image)
    found = Catalogue([], [tmp_path], None).find(key, space, GRID)
    assert (found.image, found.space, found.key) == (image, space, key)


@pytest.mark.parametrize(
    "space",
    [
        "UNCInfant+4",
        "UNCInfant",
        "UNCInfant+11",
        "MNIInfant+1",
        "MNIInfant",
        "NMT31Sym",
    ],
)
def test_an_atlas_of_other_ages_or_species_is_not_taken(space):
    with pytest.raises(SpaceMismatch) as told:
        Catalogue([], [], None).find(parse_atlas_name("AAL"), space, GRID)
    words = f"in UNCInfant+1, UNCInfant+2, UNCInfant+3, the run in {space}."
    assert words in str(told.value)


@pytest.mark.parametrize("cohort", ["1", "2"])
def test_a_user_s_atlas_is_kept_to_its_cohort(cohort, tmp_path):
    """MNIInfant has no atlas in the archive: one in a home of the user's."""
    folder = tmp_path / f"tpl-MNIInfant/cohort-{cohort}"
    folder.mkdir(parents=True)
    image = folder / f"tpl-MNIInfant_cohort-{cohort}_res-1_atlas-Mine_dseg.nii.gz"
    nb.Nifti1Image(np.ones((4, 4, 4), np.int16), AFFINE).to_filename(image)
    catalogue, key = Catalogue([], [tmp_path], None), parse_atlas_name("Mine")
    assert catalogue.find(key, f"MNIInfant+{cohort}", GRID).image == image
    other = {"1": "2", "2": "1"}[cohort]
    with pytest.raises(SpaceMismatch, match=rf"in MNIInfant\+{cohort}, the run in"):
        catalogue.find(key, f"MNIInfant+{other}", GRID)
