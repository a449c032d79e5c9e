"""The flags of docs/atlases.md, with the real files where they are to be had."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.core.frame import Frame, Mesh, Part
from bids_roi.core.grid import Grid
from bids_roi.images.header import ATLAS
from bids_roi.images.nifti import open_image
from bids_roi.options.table import Atlases

PAGE = Path(__file__).parents[2] / "docs/atlases.md"
NAMES = "4S Schaefer Glasser Gordon Tian Yeo Cole-Anticevic Brainnetome MSDL BASC AAL3"
CIFTI, SURFACE = "atlases/cifti/", "atlases/surface/"
FOUR_S = "tpl-fsLR_atlas-4S_scale-156_den-91k_dseg"


def on(template, n_vertices):
    sides = ("CORTEX_LEFT", "CORTEX_RIGHT")
    return Frame(tuple(Part(Mesh(template, n_vertices), side) for side in sides))


# Row of the page: what its files are called in the real data, the run, the regions.
TRIED = {
    "4S": (
        {
            f"AtlasPack/tpl-fsLR/{FOUR_S}{ending}": f"{CIFTI}{FOUR_S}{ending}"
            for ending in (".dlabel.nii", ".tsv")
        },
        on("fsLR", 32492),
        156,
    ),
    "Schaefer, fsLR": (
        {
            "Schaefer2018_400Parcels_7Networks_order.dlabel.nii": f"{CIFTI}schaefer"
            "_space-fsLR_den-32k_desc-400Parcels7Networks_atlas.dlabel.nii"
        },
        on("fsLR", 32492),
        400,
    ),
    "Schaefer, fsaverage5": (
        {
            f"{side}.Schaefer2018_400Parcels_7Networks_order.annot": f"{SURFACE}fsa5"
            f"_{side}_schaefer_400.annot"
            for side in ("lh", "rh")
        },
        on("fsaverage", 10242),
        400,
    ),
    "Desikan-Killiany": (
        {
            f"sourcedata/freesurfer/sub-01/label/{side}.aparc.annot": f"{SURFACE}fsa5"
            f"_{side}_aparc.annot"
            for side in ("lh", "rh")
        },
        on("fsnative:sub-01", 10242),
        68,
    ),
}


def rows():
    """Name of an atlas and flags of each row of the page."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        flags = cells[-1].strip(" |")
        if len(cells) == 6 and flags.startswith(("`--atlas", "`--seeds")):
            found[cells[0].lstrip("| ")] = flags.strip("`")
    return found


def options_of(flags):
    words, values = shlex.split(flags), {}
    fields = {"--atlas", "--atlas-file", "--atlas-dataset", "--atlas-space"}
    fields |= {"--seeds", "--seed-radius"}
    assert set(words[::2]) <= fields
    for flag, value in zip(words[::2], words[1::2], strict=True):
        field = flag[2:].replace("-", "_")
        values[field] = value if field == "atlas_space" else (value,)
        if field == "seed_radius":
            values[field] = float(value)
    return values


def test_the_page_has_every_atlas():
    told = " ".join(rows())
    for name in (*NAMES.split(), "Power 264", "Desikan-Killiany"):
        assert name in told
    for flags in rows().values():
        options_of(flags)


@pytest.mark.parametrize("name", TRIED)
def test_flags_of_the_page(name, shared, tmp_path, monkeypatch):
    files, where, n_regions = TRIED[name]
    for target, source in files.items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared / source, tmp_path / target)
    monkeypatch.chdir(tmp_path)
    (flags,) = [text for row, text in rows().items() if row.startswith(name)]
    shelf = AtlasShelf(Atlases(offline=True, **options_of(flags)))
    bold = tmp_path / "sub-01/func/sub-01_task-rest_hemi-L_bold.func.gii"
    atlas = shelf.find(shelf.names[0], "", where, root=tmp_path, bold=bold)
    assert len(atlas.regions.index) == n_regions


def test_the_volume_of_the_page(shared, tmp_path):
    """CBIG's own file, given as it is."""
    name = "Schaefer2018_400Parcels_7Networks_order_FSLMNI152_2mm.nii.gz"
    assert re.search(re.escape(name), PAGE.read_text())
    path = shared / "atlases/volume" / name.replace("_7N", "_17N")
    shelf = AtlasShelf(
        Atlases(atlas_file=(str(path),), atlas_space="MNI152NLin6Asym", offline=True)
    )
    grid = open_image(path, ATLAS).grid
    assert isinstance(grid, Grid)
    atlas = shelf.find(
        shelf.names[0], "MNI152NLin6Asym", grid, root=tmp_path, bold=tmp_path
    )
    assert len(atlas.regions.index) == 400
