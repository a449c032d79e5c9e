"""Derivatives with grayordinates and surfaces, small or on real meshes."""

import functools
import json

import nibabel as nb
import numpy as np
from nibabel import cifti2

from support import dense
from support import gifti_files as gii

ENTITIES = "sub-01_task-rest"
CIFTI = f"{ENTITIES}_space-fsLR_den-91k"
GIFTI = f"{ENTITIES}_space-fsaverage5"


def write_root(root, version="23.2.0"):
    """Root of a derivative; returns its folder for runs."""
    folder = root / "sub-01/func"
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": "Toy",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": version}],
        "License": "CC0",
        "Authors": ["A. Author", "B. Author"],
    }
    (root / "dataset_description.json").write_text(json.dumps(description))
    return folder


def write_cifti(root, axis, data, *, tr=2.0, stem=CIFTI, sidecar=True, **options):
    """A dense series as fMRIPrep names it; (T, V) stored values."""
    folder = write_root(root)
    path = folder / f"{stem}_bold.dtseries.nii"
    dense.write(path, dense.series_xml(axis, len(data), tr), data, **options)
    if sidecar:
        content = {"RepetitionTime": tr, "TaskName": "rest"}
        (folder / f"{stem}_bold.json").write_text(json.dumps(content))
    return path


def write_gifti(root, left, right, *, tr=2.0, stem=GIFTI):
    """A pair as fMRIPrep writes it; (T, V) of each hemisphere."""
    folder = write_root(root)
    head, _, space = stem.partition("_space-")
    paths = []
    for side, name, values in (("L", "Left", left), ("R", "Right", right)):
        path = folder / f"{head}_hemi-{side}_space-{space}_bold.func.gii"
        meta = {"AnatomicalStructurePrimary": f"Cortex{name}"}
        gii.write_series(path, np.asarray(values, "f4"), meta=meta)
        content = {"RepetitionTime": tr, "TaskName": "rest"}
        path.with_name(path.name.replace(".func.gii", ".json")).write_text(
            json.dumps(content)
        )
        paths.append(path)
    return paths


def write_dlabel(path, axis, keys, names):
    """Labels (V,) with their table, key to name; 0 is the background."""
    table = {0: ("???", (0, 0, 0, 0))}
    table |= {key: (name, (0.5, 0.5, 0.5, 1)) for key, name in names.items()}
    xml = dense.labels_xml(axis, [table])
    return dense.write(path, xml, np.asarray(keys, "f4")[None], intent=3007)


@functools.cache
def real_axes(path):
    """nibabel's axes of a file, without the copies that ``nibabel.load`` makes."""
    (extension,) = nb.Nifti2Image.from_filename(path).header.extensions
    return tuple(extension.get_content().get_axis(i) for i in (0, 1))


def real_axis(shared):
    """Brain models of a real 91k file, and the labels of its 4S atlas."""
    path = shared / "atlases/cifti/tpl-fsLR_atlas-4S_scale-156_den-91k_dseg.dlabel.nii"
    keys = np.asarray(nb.Nifti2Image.from_filename(path).dataobj).squeeze()
    return path, real_axes(path)[1], keys.astype(int)


def reorder(axis, order):
    """The same brain models with their grayordinates in another order of models."""
    parts = [axis[span] for _, span, _ in axis.iter_structures()]
    joined = parts[order[0]]
    for number in order[1:]:
        joined = joined + parts[number]
    spans = [span for _, span, _ in axis.iter_structures()]
    taken = np.concatenate([np.arange(len(axis))[spans[n]] for n in order])
    assert isinstance(joined, cifti2.BrainModelAxis)
    return joined, taken
