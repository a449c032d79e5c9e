"""Small datasets that the tests write themselves, in fMRIPrep's layout."""

import json
import re
import shutil
from pathlib import Path

import numpy as np

from bids_roi.images.nifti import write_image

SPACE = "MNI152NLin2009cAsym"
SHAPE = (6, 7, 5)  # unequal sides, so that a swapped axis shows
INDEX = (500, 3, 40000, 12, 77)  # gaps, large values, and not in ascending order
NAMES = ("Left V1", "Right V1", "Thalamus", "Edge", "Nowhere")


def oblique():
    """Voxels of 2 x 2.5 x 3 mm, turned by a few degrees about two axes."""
    a, b = np.deg2rad(8), np.deg2rad(-5)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag([2, 2.5, 3])
    affine[:3, 3] = [-7, -9, -5]
    return affine


def labels():
    """Four of the five regions; 77 is in the table only."""
    volume = np.zeros(SHAPE, np.int32)
    volume[:3, 1:6, 1:4] = 500
    volume[3:, 1:6, 1:4] = 3
    volume[2:4, 3:5, 2] = 40000
    volume[:, 0, :] = 12
    return volume


def bold(seed=0, n_volumes=12):
    """Noise about a level that differs between voxels."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(500, 1500, (*SHAPE, 1))
    return level + rng.normal(0, 10, (*SHAPE, n_volumes))


def mask():
    """All but one corner region."""
    inside = np.ones(SHAPE, np.uint8)
    inside[0, :3] = 0
    return inside


def write_atlas(folder, name=f"tpl-{SPACE}_atlas-Toy_dseg.nii.gz", volume=None):
    """Atlas image and table; returns the value of --atlas-file."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / name
    write_image(image, labels() if volume is None else volume, oblique())
    table = folder / name.replace(".nii.gz", ".tsv")
    rows = [f"{i}\t{n}\tnet{i % 2}" for i, n in zip(INDEX, NAMES, strict=True)]
    table.write_text("\n".join(["index\tname\tnetwork", *rows]) + "\n")
    return f"{image},{table}"


def write_run(
    root, name, data=None, *, affine=None, tr=2.0, slope=1.0, with_mask=True, **sidecar
):
    """One run from the stem before ``_desc-``; returns the path of the BOLD file."""
    entities = dict(part.split("-", 1) for part in name.split("_"))
    folder = root / f"sub-{entities['sub']}"
    if "ses" in entities:
        folder /= f"ses-{entities['ses']}"
    folder /= "func"
    folder.mkdir(parents=True, exist_ok=True)
    data = bold() if data is None else data
    affine = oblique() if affine is None else affine
    path = folder / f"{name}_desc-preproc_bold.nii.gz"
    write_image(path, data, affine, repetition_time=tr, slope=slope)
    content = {"RepetitionTime": tr, "TaskName": "rest", **sidecar}
    (folder / f"{name}_desc-preproc_bold.json").write_text(json.dumps(content))
    if with_mask:
        write_image(folder / f"{name}_desc-brain_mask.nii.gz", mask(), affine)
    return path


def write_dataset(root, runs=("sub-01_task-rest", "sub-02_task-rest")):
    """A derivative with the runs named, in the toy space."""
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Toy",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.0"}],
        "License": "CC0",
        "Authors": ["A. Author", "B. Author"],
    }
    (root / "dataset_description.json").write_text(json.dumps(description))
    for seed, run in enumerate(runs):
        write_run(root, f"{run}_space-{SPACE}", bold(seed))
    return root


def copy_pyhrf(shared, folder):
    """A dataset of pyhrf's real BOLD; its folder, the BOLD file and its labels."""
    source, labels = (
        shared / "bold" / "pyhrf" / f"real_data_vol_4_regions_{what}.nii.gz"
        for what in ("BOLD", "mask")
    )
    root = write_dataset(folder, [])
    bold = root / "sub-01/func/sub-01_task-hrf_space-MNI152Lin_desc-preproc_bold.nii.gz"
    bold.parent.mkdir(parents=True)
    shutil.copy(source, bold)
    return root, source, labels


def without_call(path):
    """Bytes of a file; of a page without the calls that made it, which name folders."""
    content = path.read_bytes()
    if path.name.startswith("command_"):
        return b""
    if path.suffix == ".html":
        content = re.sub(
            rb'<pre class="command">.*?</pre>', b"", content, flags=re.DOTALL
        )
    return content


def snapshot(folder):
    """Every file with its bytes, and the folders: to see that nothing has changed."""
    folder = Path(folder)
    return {
        p.relative_to(folder).as_posix(): without_call(p) if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }
