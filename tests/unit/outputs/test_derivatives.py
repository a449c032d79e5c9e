"""What surface sidecars say of the run's place: the meshes that its values lie on."""

from pathlib import Path

import numpy as np
import pytest

from bids_roi.core.frame import Frame, Mesh, Part
from bids_roi.core.grid import Grid
from bids_roi.dataset.run import BoldRun
from bids_roi.files.names import parse_name
from bids_roi.outputs.derivatives import _spatial_reference

URL = "https://templateflow.s3.amazonaws.com"
AVERAGE, LR = (f"{URL}/tpl-{t}/tpl-{t}" for t in ("fsaverage", "fsLR"))
OWN = "bids:preprocessed:sub-01/anat/sub-01"
SIDES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}


def reference(name, frame):
    path = Path("/data/sub-01/func") / name
    entities = parse_name(path).entities
    return _spatial_reference(
        BoldRun(Path("/data"), (path,), entities, None, None, {}), frame
    )


def frame_of(template, n_vertices, sides="LR", grid=None):
    parts = [Part(Mesh(template, n_vertices), SIDES[side]) for side in sides]
    if grid:
        affine = np.diag([grid[1]] * 3 + [1.0])
        parts.append(Part(Grid(grid[0], affine), "THALAMUS_LEFT"))
    return Frame(tuple(parts))


TWO, FINE = ((91, 109, 91), 2.0), ((113, 136, 113), 1.6)


@pytest.mark.parametrize(
    ("words", "n_vertices", "grid", "den", "res"),
    [
        ("space-MNI152NLin6Asym", 32492, TWO, "32k", "02"),
        ("space-fsLR_den-91k", 32492, TWO, "32k", "02"),
        ("space-fsLR_den-170k", 59292, FINE, "59k", "06"),
        ("space-fsLR", 59292, FINE, "59k", "06"),
        ("space-fsLR", 59292, ((10, 11, 12), 2.0), "59k", None),
    ],
)
def test_grayordinates(words, n_vertices, grid, den, res):
    name = f"sub-01_task-rest_{words}_bold.dtseries.nii"
    stem = f"{URL}/tpl-fsLR/tpl-fsLR_den-{den}"
    expected = {
        f"CIFTI_STRUCTURE_{SIDES[s]}": f"{stem}_hemi-{s}_midthickness.surf.gii"
        for s in "LR"
    }
    if res:
        six = "tpl-MNI152NLin6Asym"
        expected["VolumeReference"] = f"{URL}/{six}/{six}_res-{res}_T1w.nii.gz"
    assert reference(name, frame_of("fsLR", n_vertices, grid=grid)) == expected


@pytest.mark.parametrize(
    ("space", "template", "n_vertices", "sides", "stem"),
    [
        ("fsaverage5", "fsaverage", 10242, "LR", f"{AVERAGE}_den-10k"),
        ("fsaverage", "fsaverage", 40962, "LR", f"{AVERAGE}_den-41k"),
        ("fsaverage", "fsaverage", 163842, "R", f"{AVERAGE}_den-164k"),
        ("fsLR", "fsLR", 32492, "L", f"{LR}_den-32k"),
        ("fsnative", "fsnative:sub-01", 1234, "LR", OWN),
    ],
)
def test_surfaces(space, template, n_vertices, sides, stem):
    name = f"sub-01_task-rest_hemi-L_space-{space}_bold.func.gii"
    assert reference(name, frame_of(template, n_vertices, sides)) == {
        f"CIFTI_STRUCTURE_{SIDES[s]}": f"{stem}_hemi-{s}_midthickness.surf.gii"
        for s in sides
    }
