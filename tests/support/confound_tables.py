"""Confounds tables for tests: real ones of several versions, and toys."""

import functools
import json
import shutil
import warnings

import numpy as np

from bids_roi.confounds.strategies import Component, Strategy, load_strategy
from bids_roi.confounds.table import read_confounds, select_confounds
from bids_roi.options.settings import Settings

# The real tables, by version; all but 21 are whole runs.
REAL = {
    "20.2.1": "fmriprep-20.2.1/sub-15_ses-post_task-emomatching_acq-seq"
    "_desc-confounds_timeseries.tsv",
    "23.1.2": "fmriprep-23.1.2/sub-wlsubj063_ses-nyu3t01_task-prf_acq-PA_run-08"
    "_desc-confounds_timeseries.tsv",
    "23.2.0": "fmriprep-23.2.0/sub-dd_ses-2_task-agency_run-4"
    "_desc-confounds_timeseries.tsv",
    "21": "nilearn/test-v21_desc-confounds_timeseries.tsv",
    "1.4": "nilearn/test_desc-confounds_regressors.tsv",
}
WHOLE = ("20.2.1", "23.1.2", "23.2.0")
AROMA = "fmripost-aroma/sub-042_task-restingstate_desc-aroma_timeseries.tsv"
CAMEL = "fmriprep-1.0/sub-50005_task-rest_bold_confounds.tsv"
EXPANSIONS = ("basic", "power2", "derivatives", "full")
COMPCOR = ("anat_combined", "anat_separated", "temporal")
COMPCOR += ("temporal_anat_combined", "temporal_anat_separated")

AXES = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]


def expand(names, *suffixes):
    return [f"{name}{suffix}" for name in names for suffix in ("", *suffixes)]


FULL = ("_derivative1", "_power2", "_derivative1_power2")
P24 = expand(AXES, *FULL)


def strategy(*components, **chosen):
    return Strategy("mine", "mine", "", components, Settings(**chosen))


def select(confounds, name, **options):
    """Preset or strategy, with the table's own length and the usual series."""
    chosen = load_strategy(name) if isinstance(name, str) else name
    aroma = Component("ica_aroma", "full") in chosen.components
    options = {
        "n_volumes": confounds.n_volumes,
        "image_desc": "smoothAROMAnonaggr" if aroma else "preproc",
        **options,
    }
    return select_confounds(confounds, chosen, **options)


def write(folder, columns, metadata=None):
    """A table from its columns; numbers, or texts as they are."""
    path = folder / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    if metadata is not None:
        path.with_suffix(".json").write_text(
            metadata if isinstance(metadata, str) else json.dumps(metadata)
        )
    return path


def toy(n=6, *names, seed=0):
    """Random columns; derivatives begin with n/a as in fMRIPrep's tables."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=n).tolist() for name in names}
    for name, values in columns.items():
        if "derivative1" in name:
            values[0] = "n/a"
    return columns


def loader(shared, folder):
    """Load real tables by version, once: as we read them, and as nilearn does."""

    @functools.cache
    def load(version):
        place = folder / version  # two of them are of one name
        place.mkdir()
        source = shared / "confounds" / REAL[version]
        name = source.name
        if not name.startswith("sub-"):
            name = f"sub-test_{name.partition('_')[2]}"
        for suffix in (".tsv", ".json"):
            target = (place / name).with_suffix(suffix)
            shutil.copy(source.with_suffix(suffix), target)
        stem = name.partition("_desc-")[0]

        def nilearn(image_desc="preproc", **options):
            image = place / f"{stem}_desc-{image_desc}_bold.nii.gz"
            image.touch()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its own deprecations
                from nilearn.interfaces import fmriprep

                if "denoise_strategy" in options:
                    return fmriprep.load_confounds_strategy(str(image), **options)
                return fmriprep.load_confounds(str(image), **options)

        return read_confounds(place / name), nilearn

    return load


def largest(regressors):
    """Of each column; 1 for columns of zeros."""
    scale = np.abs(regressors).max(axis=0)
    return np.where(scale == 0, 1, scale)
