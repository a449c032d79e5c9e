"""A derivative whose runs in three spaces are one and the same, voxel for voxel.

A run in T1w space and a native one have the values of the run in the template, on grids
that the transforms between them take to its grid. So all three must give one table.
"""

import numpy as np

from support import datasets
from support.transform_cases import write_h5, write_text

SPACE = datasets.SPACE
NAMES = {
    "template": f"sub-01_task-rest_space-{SPACE}",
    "T1w": "sub-01_task-rest_space-T1w",
    "native": "sub-01_task-rest",
}
FLIP = np.diag([-1.0, -1, 1, 1])


def affine_of(seed, scale=1.0):
    """A map of points that is not far from none, (4, 4) in RAS+."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.sign(np.diag(turn)) * scale
    matrix[:3, 3] = rng.uniform(-9, 9, 3)
    return matrix


def onward_of(number, scale=1.15):
    """From points of a participant's T1w image to the template."""
    return affine_of(10 + number, scale)


def as_itk(matrix):
    """(type, parameters, fixed) in LPS+."""
    own = FLIP @ matrix @ FLIP
    kind = "MatrixOffsetTransformBase_double_3_3"
    return kind, [*own[:3, :3].ravel(), *own[:3, 3]], [0.0, 0, 0]


def anatomical(root, sub="01", space=SPACE):
    return root / f"sub-{sub}/anat/sub-{sub}_from-{space}_to-T1w_mode-image_xfm.h5"


def coregistration(root, sub="01"):
    name = f"sub-{sub}_task-rest_from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
    return root / f"sub-{sub}/func/{name}"


def write_moved(root, subs=("01",), spaces=tuple(NAMES), scale=1.15, template=SPACE):
    """Runs in some of the spaces, and their transforms; the folder."""
    datasets.write_dataset(root, runs=())
    for number, sub in enumerate(subs):
        onward = onward_of(number, scale)
        coreg = affine_of(20 + number)  # from T1w points to those of the run
        in_t1w = np.linalg.inv(onward) @ datasets.oblique()
        grids = {"template": datasets.oblique(), "T1w": in_t1w}
        grids["native"] = coreg @ in_t1w
        for space in spaces:
            name = NAMES[space].replace("sub-01", f"sub-{sub}")
            datasets.write_run(root, name, datasets.bold(number), affine=grids[space])
        path = anatomical(root, sub, template)
        path.parent.mkdir()
        write_h5(path, [as_itk(onward)])
        write_text(coregistration(root, sub), [as_itk(coreg)])
    return root
