"""Trees of empty files in fMRIPrep's layout, and what is found in them."""

import json
import tarfile
from pathlib import Path

import pytest

from bids_roi.dataset.layout import find_runs
from bids_roi.options.row import Input

# Not in this project's repository: real trees with empty images, see its README.
SHARED = Path(__file__).parents[3] / "shared" / "data" / "trees"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")


def unpack(name, folder):
    """A real tree, unpacked; returns its root."""
    # The trees are our own, and to look at each member takes as long again.
    with tarfile.open(SHARED / name) as tar:
        tar.extractall(folder, filter="fully_trusted")
    (root,) = folder.iterdir()
    return root


def plant(root, *paths):
    """Create empty files; a bare name goes to the func folder that it belongs to."""
    for path in paths:
        if "/" not in path:
            parts = path.split("_")
            folders = [p for p in parts if p.startswith(("sub-", "ses-"))]
            path = "/".join([*folders, "func", path])
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def found(root, participant="01", **options):
    """Names of the runs that are found, without what they have in common."""
    runs = find_runs(root, participant, Input(**options))
    return [run.path.name.removeprefix("sub-01_").split("_desc-")[0] for run in runs]


def filters(tmp_path, **sections):
    path = tmp_path / "filters.json"
    path.write_text(json.dumps(sections))
    return path


SERIES = [
    "ses-1_task-nback_run-1",
    "ses-1_task-rest_run-01",
    "ses-1_task-rest_run-02",
    "ses-1_task-rest_run-02_space-MNI_res-2",
    "ses-1_task-rest_run-02_space-MNI_res-02",
    "ses-1_task-rest_run-02_space-MNI_res-native",
    "ses-2_task-rest_space-T1w",
    "ses-2_task-rest_part-mag",
    "ses-2_task-rest_part-phase",
    "ses-2_task-rest_echo-1",
    "ses-2_task-rest_echo-2",
    "ses-2_task-tone_space-MNIPediatricAsym_cohort-1",
    "ses-2_task-tone_space-MNIPediatricAsym_cohort-2",
]


def pick(*words, without=("part-phase", "echo-")):
    return sorted(
        s
        for s in SERIES
        if all(w in s for w in words) and not any(w in s for w in without)
    )
