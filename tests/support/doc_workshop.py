"""What the blocks of the pages work on: the files that their texts take for granted.

``fmriprep``             the demo, its first runs only, in a template and in T1w space,
                         in gzip's blocks without compression
``fmriprep-1.5``         the same as fMRIPrep 1.5 named it
``fmriprep-aroma``       the same as fMRIPrep 21 left it after ICA-AROMA
``fmripost-aroma``       what fMRIPost-AROMA writes
``my_atlas.nii.gz/.tsv`` an atlas of one's own, ``my_atlases`` a dataset of such
``my_seeds.tsv``         coordinates
``my_physio``            a table of two regressors for each run
``templateflow``         atlases as TemplateFlow names them, on the demo's head
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np

from bids_roi.atlases.templateflow import read_skeleton
from bids_roi.core.grid import Grid
from bids_roi.demo.phantom import label_points
from bids_roi.files.names import parse_name
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image, write_image
from support.transform_cases import write_h5

SPACE = "MNI152NLin2009cAsym"
RUN = "_ses-1_task-rest_run-1"

# Of the atlases; coarse, so that reading and checking them is quick.
ORIGIN = np.array([-96.5, -132.5, -78.5])
GRID = Grid.of((49, 58, 49), np.vstack([np.c_[np.eye(3) * 4, ORIGIN], [0, 0, 0, 1]]))


def write_workshop(folder, data):
    """Write all of it, from the demo dataset; returns the folder."""
    fmriprep = folder / "fmriprep"
    shutil.copytree(data.derivative, fmriprep)
    for func in fmriprep.glob("sub-*/ses-*/func"):
        for path in func.iterdir():
            if RUN not in path.name:
                path.unlink()
        if not any(func.iterdir()):
            shutil.rmtree(func.parent)
    _copy_old(fmriprep, folder / "fmriprep-1.5")
    _copy_aroma(fmriprep, folder / "fmriprep-aroma", folder / "fmripost-aroma")
    _write_physio(fmriprep, folder / "my_physio")
    for path in fmriprep.rglob("*_desc-preproc_bold.nii.gz"):  # read by most blocks
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 0))
    _add_native(fmriprep)
    shutil.copy(data.atlas_image, folder / "my_atlas.nii.gz")
    shutil.copy(data.atlas_table, folder / "my_atlas.tsv")
    seeds = "name\tx\ty\tz\nLeft\t-30\t10\t20\nRight\t30\t10\t20\n"
    (folder / "my_seeds.tsv").write_text(seeds)
    shutil.copytree(data.templateflow_home, folder / "my_atlases")
    _write_templateflow(folder / "templateflow")
    return folder


def _copy_old(source, target):
    """Names and a table as of fMRIPrep 1.5: ``_regressors``."""
    shutil.copytree(source, target)
    for path in target.rglob("*_desc-confounds_timeseries.*"):
        path.rename(path.with_name(path.name.replace("_timeseries.", "_regressors.")))


def _copy_aroma(source, target, post):
    shutil.copytree(source, target)
    for path in target.rglob("*_desc-preproc_bold.*"):
        new = path.name.replace("desc-preproc", "desc-smoothAROMAnonaggr")
        path.rename(path.with_name(new))
    rng = np.random.default_rng(0)
    for path in source.rglob("*_desc-confounds_timeseries.tsv"):
        own = post / path.parent.relative_to(source)
        own.mkdir(parents=True)
        n_volumes = path.read_text().count("\n") - 1
        head = "aroma_orth_motion_00\taroma_orth_motion_01"
        rows = [f"{a}\t{b}" for a, b in rng.normal(size=(n_volumes, 2))]
        name = path.name.replace("desc-confounds", "desc-aroma")
        (own / name).write_text("\n".join([head, *rows]) + "\n")


def _write_physio(source, target):
    target.mkdir()
    for path in source.rglob("*_desc-confounds_timeseries.tsv"):
        n_volumes = path.read_text().count("\n") - 1
        rows = "".join(f"{n**0.5}\t{n % 5}\n" for n in range(n_volumes))
        name = path.name.replace("desc-confounds", "desc-physio")
        (target / name).write_text(f"heart\tbreath\n{rows}")


def _add_native(root):
    """Runs in T1w space, FreeSurfer's segmentation beside them, and transforms."""
    for bold in list(root.rglob(f"*_space-{SPACE}_*_desc-preproc_bold.nii.gz")):
        native = bold.name.replace(f"space-{SPACE}_res-2", "space-T1w")
        shutil.copy(bold, bold.with_name(native))
        sidecar = bold.with_name(bold.name.replace(".nii.gz", ".json"))
        target = bold.with_name(native.replace(".nii.gz", ".json"))
        content = json.loads(sidecar.read_text())
        target.write_text(json.dumps(content | {"SpatialReference": "T1w"}))
        mask = bold.name.replace("preproc_bold", "brain_mask")
        shutil.copy(
            bold.with_name(mask),
            bold.with_name(native.replace("preproc_bold", "brain_mask")),
        )
        grid = open_image(bold, BOLD).grid
        nx, ny, nz = grid.shape
        labels = np.zeros((nx, ny, nz), np.int16)
        labels[nx // 2 : nx // 2 + 6, 10:20, 10:20] = 2035  # insula
        labels[nx // 2 - 6 : nx // 2, 10:20, 10:20] = 1035
        image = native.replace("preproc_bold", "aparcaseg_dseg")
        write_image(bold.with_name(image), labels, grid.matrix)
        name = parse_name(bold)
        sub, ses = name.get("sub"), name.get("ses")
        anat = bold.parent.parent / "anat"
        anat.mkdir(exist_ok=True)
        stem = f"sub-{sub}_ses-{ses}_from-{SPACE}_to-T1w_mode-image_xfm.h5"
        values = [*np.eye(3).ravel(), 0, 0, 0]  # the two spaces are one here
        write_h5(anat / stem, [("AffineTransform_double_3_3", values, [0, 0, 0])])
    rows = "0\tUnknown\n1035\tctx-lh-insula\n2035\tctx-rh-insula\n"
    (root / "desc-aparcaseg_dseg.tsv").write_text("index\tname\n" + rows)


def _write_templateflow(home):
    """Label images and maps of the demo's head, with TemplateFlow's tables."""
    labels, n = _parcel(400), 400
    _put(home, "atlas-Schaefer2018_desc-400Parcels7Networks_dseg", labels)
    bilateral = np.where(labels > 0, 1 + (labels - 1) % (n // 2) * 48 // (n // 2), 0)
    _put(home, "atlas-HOCPA_desc-th25_dseg", bilateral.astype(np.int16), table=False)
    coarse = labels[::3, ::3, ::3]
    maps = np.zeros((*coarse.shape, 64), np.float32)
    for number in range(64):
        maps[..., number] = (coarse > 0) & ((coarse - 1) * 64 // n == number)
    affine = GRID.matrix @ np.diag([3.0, 3, 3, 1])
    _put(home, "atlas-DiFuMo_desc-64dimensions_probseg", maps, affine)


def _parcel(n):
    """Share the demo's head out so that names are where anatomy has them."""
    head = label_points(GRID).T
    ijk = np.indices(head.shape).reshape(3, -1)
    x, y, z = GRID.matrix[:3, :3] @ ijk + GRID.matrix[:3, 3:]
    front = np.where(z < 10, "OFC", "PFC")
    zones = np.where(y < -40, "Vis", np.where(y > 0, front, ""))
    table = f"tpl-{SPACE}/tpl-{SPACE}_atlas-Schaefer2018_desc-{n}Parcels7Networks"
    rows = read_skeleton(f"{table}_dseg.tsv").decode().splitlines()[1:]
    wanted = {zone: {"L": [], "R": []} for zone in ("Vis", "OFC", "PFC", "")}
    for row in rows:
        index, name = row.split("\t")[:2]
        words = name.replace("ExStr", "Vis")
        zone = next(zone for zone in wanted if zone in words)
        wanted[zone]["L" if "_LH_" in name else "R"].append(int(index))
    labels = np.zeros(head.size, np.int16)
    for zone, sides in wanted.items():
        for side, values in sides.items():
            here = (x < 0) if side == "L" else (x >= 0)
            where = np.flatnonzero((head.ravel() > 0) & (zones == zone) & here)
            blocks = [(axis[where] + 200) // 20 for axis in (z, y, x)]
            where = where[np.lexsort(blocks)]  # parcels are compact
            share = np.arange(where.size) * len(values) // where.size
            labels[where] = np.array(values)[share]
    return labels.reshape(head.shape)


def _put(home, name, values, affine=None, *, table=True):
    folder = home / f"tpl-{SPACE}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"tpl-{SPACE}_res-02_{name}"
    affine = GRID.matrix if affine is None else affine
    write_image(folder / f"{stem}.nii.gz", values, affine)
    if table:
        own = f"tpl-{SPACE}/tpl-{SPACE}_{name}.tsv"
        (home / own).write_bytes(read_skeleton(own))


def open_bench(workshop, folder):
    """A folder in which the files lie by name; nothing in them is written."""
    folder.mkdir()
    for path in Path(workshop).iterdir():
        (folder / path.name).symlink_to(path)
    return folder
