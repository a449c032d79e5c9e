"""The built pages in a real browser, opened from disk: search, and their pictures.

As slow as test_browser.py, and under the same conditions.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.doc_blocks import ROOT

from bids_roi.tools import main

if os.environ.get("BIDS_ROI_TEST_BROWSER") != "1":
    pytest.skip("BIDS_ROI_TEST_BROWSER is not 1", allow_module_level=True)
if shutil.which(os.environ.get("BIDS_ROI_BROWSER", "chromium")) is None:
    pytest.skip("there is no browser", allow_module_level=True)

pytestmark = pytest.mark.browser

_spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pictures)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, by the mkdocs of this environment or of .ci/docs."""
    folder = tmp_path_factory.mktemp("site")
    programs = [Path(sys.executable), ROOT / "build/venv-docs/bin/python"]
    asked = "import material, mkdocs, mkdocstrings"
    for program in filter(Path.exists, programs):
        call = [program, "-c", asked]
        if subprocess.run(call, capture_output=True).returncode == 0:
            build = [program, "-m", "mkdocs", "build", "-q", "-d", folder]
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
            subprocess.run(build, check=True, cwd=ROOT, env=environment)
            return folder
    pytest.skip("there is no mkdocs: .ci/docs makes it")


def search(site, words):
    """Titles that Material's search lists, and what the console says."""
    address = f"{(site / 'index.html').as_uri()}?q={words}"
    done = pictures.open_page(address, "--dump-dom")
    titles = re.findall(
        r'<a href="([^"?#]+)[^"]*" class="md-search-result__link', done.stdout
    )
    (count,) = re.findall(r'md-search-result__meta">\s*([^<]*?)\s*<', done.stdout)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return [Path(title).name for title in titles], count, console


def test_search_works_from_disk(site):
    """Without a server and a network: pages that have the words, and none for none."""
    found, count, console = search(site, "Satterthwaite")
    assert console == []
    assert found[0] == "numbers.html"
    assert count == "2 matching documents"
    found, count, console = search(site, "xyzzyplugh")
    assert (found, console) == ([], [])
    assert count == "No matching documents"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", str(folder / "demo")]) == 0
    return folder / "demo" / "derivatives"


def test_pictures_are_made_anew(demo, tmp_path):
    """Of what they name, at the size of the committed ones, with their colours."""
    made = pictures.take_pictures(demo, tmp_path)
    assert {path.stem for path in made} == set(pictures.PICTURES)
    for path in made:
        with (
            Image.open(path) as new,
            Image.open(ROOT / "docs/assets" / path.name) as old,
        ):
            assert new.width == old.width == 1200
            assert 300 < new.height < 2300  # nothing is cut off at the window's end
            paper = new.convert("RGB").getpixel((2, new.height - 3))
            assert min(paper) > 240
            assert max(paper) - min(paper) < 3, "the paper is tinted"
            inked = np.asarray(new.convert("L")) < 200
            assert 0.005 < inked.mean() < 0.6, path.name
            assert inked[:, 700:].mean() > 0.005, f"{path.name}: one column only"
    assert sorted(p.name for p in demo.glob("picture*")) == []


def test_what_is_not_on_the_page_is_told(demo, tmp_path, monkeypatch):
    absent = {"absent": ("group.html", ["header", "#nothing-of-this-name"])}
    monkeypatch.setattr(pictures, "PICTURES", absent)
    with pytest.raises(SystemExit, match=r"group.html: what absent.png shows"):
        pictures.take_pictures(demo, tmp_path)
