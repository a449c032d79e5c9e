"""Completion in real shells: the word under the cursor gets what could be meant."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bids_roi.options.table import OPTIONS

BIN = Path(sys.executable).parent

# What is typed, the words among the answers, and words that are not.
TYPED = {
    "bids_roi in out p": ({"participant"}, {"group"}),
    "bids_roi in out ": ({"participant", "group"}, {"auto"}),
    "bids_roi in out participant --partic": ({"--participant-label"}, {"--space"}),
    "bids_roi in out participant --atlas schaefer4": (
        {"schaefer400", "schaefer400x17"},
        {"schaefer100"},
    ),
    "bids_roi in out participant --atlas schaefer400 difumo6": ({"difumo64"}, set()),
    "bids_roi in out participant --strategy none 3": ({"36P"}, {"24P"}),
    "bids_roi in out participant --denoise none 3": ({"36P"}, {"24P"}),
    "bids_roi in out participant --relmat pearson s": ({"spearman"}, {"pearson"}),
    "bids_roi in out participant --executor ": ({"slurm", "dask"}, {"pearson"}),
    "bids_roi in out participant --executor slurm d": (set(), {"dask"}),
    "bids_roi_tools comp": ({"completion"}, {"atlases"}),
    "bids_roi_tools completion b": ({"bash"}, {"zsh"}),
    "bids_roi_tools fetch schaefer1": ({"schaefer100", "schaefer1000"}, {"fetch"}),
    "bids_roi_tools atlases --sp": ({"--space"}, {"--atlas"}),
    "bids_roi_tools inputs in --atl": ({"--atlas", "--atlas-files"}, {"--space"}),
}


def script(shell):
    argv = [BIN / "bids_roi_tools", "completion", shell]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def in_bash(folder, typed):
    """Answers of a real bash, as it would ask for them when Tab is pressed."""
    words = typed.split(" ")
    function = f"_{words[0]}"
    (folder / "loaded.sh").write_text(script("bash"))
    code = (
        'set -u; source loaded.sh; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        f' complete -p {words[0]} >&2; {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"-F {function} {words[0]}" in done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("typed", TYPED)
def test_bash_completes(typed, tmp_path):
    wanted, unwanted = TYPED[typed]
    found = in_bash(tmp_path, typed)
    assert wanted <= found
    assert not unwanted & found
    assert all(word.startswith(typed.split(" ")[-1]) for word in found)


def test_bash_knows_every_option(tmp_path):
    found = in_bash(tmp_path, "bids_roi in out participant --")
    assert {option.flags[0] for option in OPTIONS} <= found
    assert not any("_" in flag for flag in found)


# Behind the first value of several, fish completes files.
OF_FISH = [
    *("bids_roi in out p", "bids_roi in out participant --partic"),
    "bids_roi in out participant --atlas schaefer4",
    *("bids_roi in out participant --executor ", "bids_roi_tools comp"),
    *("bids_roi_tools completion b", "bids_roi_tools fetch schaefer1"),
    "bids_roi_tools atlases --sp",
]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize("typed", OF_FISH)
def test_fish_completes(typed, tmp_path):
    (tmp_path / "loaded.fish").write_text(script("fish"))
    code = f"source loaded.fish; complete -C '{typed}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert TYPED[typed][0] <= found


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_loads_it(tmp_path):
    (tmp_path / "loaded.zsh").write_text(script("zsh"))
    code = "source ./loaded.zsh && print ${_comps[bids_roi]} ${_comps[bids_roi_tools]}"
    done = subprocess.run(
        ["zsh", "-f", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "_bids_roi" in done.stdout
    assert "_bids_roi_tools" in done.stdout
