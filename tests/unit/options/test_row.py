"""URLs and blanks where paths are needed: ``Path`` would make a folder of them."""

from pathlib import Path

import pytest

from bids_roi.api import extract
from bids_roi.cli import main
from bids_roi.errors import UsageError
from bids_roi.options.record import Options
from bids_roi.options.table import OPTIONS
from bids_roi.tools import main as tools

URL = "s3://user:secret@lab/x"


@pytest.mark.parametrize("url", [URL, "https://x.org/a", "gs://b", "file:///data"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_url_as_input_or_output(url, place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [str(tmp_path), "out", "participant"]
    arguments[place] = url
    assert main(arguments) == 64
    told = capsys.readouterr().err
    assert "cannot be read or written" in told
    assert "Mount it" in told
    assert "secret" not in told
    assert list(tmp_path.iterdir()) == []


PATHS = [option.flags[0] for option in OPTIONS if option.kind is Path]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *((flag, URL) for flag in PATHS),
        ("--atlas-file", f"{URL}.nii.gz"),
        ("--atlas-file", f"a.nii.gz,{URL}.tsv"),
        ("--atlas-dataset", f"mine={URL}"),
        ("--mask", URL),
        ("--denoise", f"{URL}.json"),
        ("--events", URL),
    ],
)
def test_a_url_as_any_path(flag, value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([".", "out", "participant", flag, value]) == 64
    assert "a URL (s3://) cannot be read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("place", [0, 1, *PATHS])
def test_a_variable_that_is_not_set(blank, place, tmp_path, capsys, monkeypatch):
    """``bids_roi "$IN" "$OUT" participant``: not the current folder."""
    monkeypatch.chdir(tmp_path)
    arguments = [".", "out", "participant"]
    if isinstance(place, int):
        arguments[place] = blank
    else:
        arguments += [place, blank]
    assert main(arguments) == 64
    assert "a path is blank. Is a variable not set?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_has_an_address_of_its_own():
    options = Options.of(executor="dask", dask_scheduler="tcp://127.0.0.1:8786")
    assert options.running.dask_scheduler == "tcp://127.0.0.1:8786"


def test_a_url_in_notebooks_and_tools(capsys):
    for bold, more in ((URL, {}), ("bold.nii", {"mask": URL})):
        with pytest.raises(UsageError, match="URL"):
            extract(bold, "schaefer400", space="MNI", **more)
    assert tools(["fetch", "schaefer400", "--dest", URL]) == 64
    assert tools(["demo", URL]) == 64
    assert capsys.readouterr().err.count("Mount it") == 2
