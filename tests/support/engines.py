"""The scripts of .ci, for the tests that need a container engine or a cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from support.tf_server import Server, write_image_of

ROOT = Path(__file__).parents[2]
SKIPPED = 77  # what the scripts return where something is not to be had


def run_script(name, *arguments, ok=True, **settings):
    """Run a script of .ci; its output, or all of it where it need not succeed.

    Skips with the script's own reason where it says that it cannot be run here.
    """
    argv = [ROOT / ".ci" / name, *map(str, arguments)]
    environment = {**os.environ, **settings}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if not ok:
        return done
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.splitlines()[-1].removeprefix("skipped: "))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_with_atlas(folder, tag, *archive, atlases="schaefer100"):
    """Build the image with atlases from a mirror that holds the Schaefer atlas of 100.

    Parameters
    ----------
    folder
        What the mirror serves.
    tag
        Of the image.
    archive
        File to save it in.
    atlases
        What to ask the mirror for.

    Returns
    -------
    str
        Name of the image.
    """
    stem = "tpl-{0}/tpl-{0}_res-{1}_atlas-Schaefer2018_desc-100Parcels7Networks_dseg"
    for space in ("MNI152NLin2009cAsym", "MNI152NLin6Asym"):
        for res in ("01", "02"):
            write_image_of(folder / f"{stem.format(space, res)}.nii.gz")
    with Server(folder) as mirror:
        settings = {"TAG": tag, "TEMPLATEFLOW_URL": mirror.url, "ATLASES": atlases}
        run_script("build-image", *archive, **settings)
    return f"bids_roi:{tag}"


def documented_command(name, places=(), file="docs/containers.md"):
    """Command of a page of the documentation, with other paths and names in it.

    Parameters
    ----------
    name
        Of the block, as in ``<!-- command: NAME -->``.
    places
        Pairs of a text and what to put for it; each must be there.
    file
        The page.
    """
    command = run_script("readme-command", name, ROOT / file)
    for text, value in places:
        assert text in command, f"the command '{name}' does not name {text}"
        command = command.replace(text, str(value))
    return command
