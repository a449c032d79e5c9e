"""Runs on the grid that users have, with real atlases, masks and confounds."""

import json
import shutil

import nibabel as nb
import numpy as np
from isal import igzip

from support import datasets

# Confounds of three fMRIPrep versions and the names they come under.
CONFOUNDS = {
    "fmriprep-20.2.1": "sub-15_ses-post_task-emomatching_acq-seq",
    "fmriprep-23.1.2": "sub-wlsubj063_ses-nyu3t01_task-prf_acq-PA_run-08",
    "fmriprep-23.2.0": "sub-dd_ses-2_task-agency_run-4",
}


def write_templateflow_home(home, shared):
    """The real Schaefer 400 in TemplateFlow's layout and under its name."""
    folder = home / f"tpl-{datasets.SPACE}"
    folder.mkdir(parents=True)
    stem = f"tpl-{datasets.SPACE}"
    parcels = "atlas-Schaefer2018_desc-400Parcels7Networks_dseg"
    shutil.copy(
        shared / f"atlases/volume/schaefer400x7_{datasets.SPACE}_2mm.nii.gz",
        folder / f"{stem}_res-02_{parcels}.nii.gz",
    )
    table = f"{stem}_{parcels}.tsv"
    shutil.copy(shared / "atlases/templateflow" / stem / table, folder / table)
    return home


def write_series(path, shape, n_volumes, volumes, affine):
    """As write_image, volume by volume, compressed by ISA-L: these files are large."""
    plain = path.with_name("plain.nii")
    one = np.zeros((*shape, 1), np.int16)
    datasets.write_image(plain, one, affine, repetition_time=2.0, slope=0.1)
    header = bytearray(plain.read_bytes()[:352])
    header[48:50] = np.int16(n_volumes).tobytes()  # dim[4]
    plain.unlink()
    with igzip.open(path, "wb", 0) as packed:
        packed.write(header)
        for volume in volumes:
            packed.write(volume)


def write_real_grid(root, shared):
    """Three fMRIPrep-like runs on the real 97x115x97 grid; the folder."""
    datasets.write_dataset(root, [])
    mask_path = shared / f"atlases/masks/{datasets.SPACE}_2mm_brainmask.nii.gz"
    image = nb.load(mask_path)
    inside = np.flatnonzero(np.asarray(image.dataobj).ravel(order="F"))
    rng = np.random.default_rng(0)
    level = rng.integers(4000, 12000, inside.size, dtype=np.int16)
    volume = np.zeros(np.prod(image.shape), np.int16)

    def noise():
        volume[inside] = level + rng.integers(-100, 100, inside.size, dtype=np.int16)
        return volume

    for version, name in CONFOUNDS.items():
        entities = dict(part.split("-", 1) for part in name.split("_"))
        func = root / f"sub-{entities['sub']}" / f"ses-{entities['ses']}" / "func"
        func.mkdir(parents=True)
        table = f"{name}_desc-confounds_timeseries"
        for suffix in (".tsv", ".json"):
            shutil.copy(shared / "confounds" / version / f"{table}{suffix}", func)
        n_volumes = len((func / f"{table}.tsv").read_text().splitlines()) - 1
        stem = f"{name}_space-{datasets.SPACE}_res-2"
        write_series(
            func / f"{stem}_desc-preproc_bold.nii.gz",
            image.shape,
            n_volumes,
            (noise() for _ in range(n_volumes)),
            image.affine,
        )
        shutil.copy(mask_path, func / f"{stem}_desc-brain_mask.nii.gz")
        sidecar = {"RepetitionTime": 2.0, "TaskName": entities["task"]}
        path = func / f"{stem}_desc-preproc_bold.json"
        path.write_text(json.dumps(sidecar))
    return root
