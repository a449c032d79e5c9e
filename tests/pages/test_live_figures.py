"""Figures opened by themselves in a browser: what they tell under the pointer is true.

Slow, so only where ``BIDS_ROI_TEST_BROWSER=1``, as ``test_browser.py``.
"""

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from support.pictures import draw_run, make_run, parts

from bids_roi.report.matrix import draw_relmat
from bids_roi.report.raster import order_regions

if os.environ.get("BIDS_ROI_TEST_BROWSER") != "1":
    pytest.skip("BIDS_ROI_TEST_BROWSER is not 1", allow_module_level=True)

pytestmark = pytest.mark.browser

PROBE = """<script><![CDATA[(async () => {
  const root = document.documentElement, found = [];
  for (let i = 0; i < 400 && !("ready" in root.dataset); i++)
    await new Promise((done) => setTimeout(done, 20));
  const said = () => root.querySelector("#said").textContent;
  for (const [x, y] of USE_POINTS) {
    const at = new DOMPoint(x, y).matrixTransform(root.getScreenCTM());
    root.dispatchEvent(new PointerEvent("pointermove", {clientX: at.x, clientY: at.y}));
    found.push(said());
  }
  for (const key of USE_KEYS) {
    root.dispatchEvent(new KeyboardEvent("keydown", {key}));
    found.push(said());
  }
  for (const mark of USE_MARKS) {
    window.postMessage({mark}, "*");
    await new Promise((done) => setTimeout(done, 50));
    found.push(root.querySelector("#mark").getAttribute("d"));
  }
  root.setAttribute("found", JSON.stringify(found));
})();]]></script></svg>"""


def ask(content, points, folder, keys=(), marks=()):
    """What a figure says at some places, after some keys, and how it marks regions."""
    program = os.environ.get("BIDS_ROI_BROWSER", "chromium")
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    probe = PROBE.replace("USE_POINTS", json.dumps(points))
    probe = probe.replace("USE_KEYS", json.dumps(keys))
    probe = probe.replace("USE_MARKS", json.dumps(marks))
    path = folder / "figure.svg"
    path.write_text(content.decode().replace("</svg>", probe))
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1300,1000",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000",
    ]  # fmt: skip
    done = subprocess.run(
        [program, *flags, "--dump-dom", path.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return json.loads(html.unescape(re.search(r' found="(.*?)"', done.stdout)[1]))


def test_a_region_that_the_page_has_chosen_is_marked(tmp_path):
    """By its row and its column, in whichever order these are."""
    n = 12
    order = order_regions(n, ["b", "a", "c"] * 4)
    names = [str(row) for row in range(n)]
    values = np.random.default_rng(0).uniform(-1, 1, (n, n))
    picture = draw_relmat(values, order, measure="r", names=names, limit=1.0)
    box = parts(picture.content, "image")[0]
    left, top, side = (float(box[key]) for key in ("x", "y", "width"))
    found = ask(picture.content, [], tmp_path, marks=[0, 7, n])
    for region, drawn in zip((0, 7), found, strict=False):
        place = order.order.tolist().index(region)
        row, column = re.findall(r"M([\d.]+),([\d.]+)", drawn)
        assert float(row[1]) == pytest.approx(top + place * side / n, abs=0.01)
        assert float(column[0]) == pytest.approx(left + place * side / n, abs=0.01)
    assert found[2] == ""  # no such region


def test_a_matrix_tells_the_pair_and_its_value(tmp_path):
    rng = np.random.default_rng(0)
    n = 60
    values = np.corrcoef(rng.normal(size=(n, 20)) + rng.normal(size=20))
    values[4], values[:, 4] = np.nan, np.nan
    names = [f'<r> & "{row}"' for row in range(n)]
    order = order_regions(n, ["b", "a", "c"] * 20)
    picture = draw_relmat(values, order, measure="r", names=names, limit=1.0)
    left, top, side = (
        float(parts(picture.content, "image")[0][key]) for key in ("x", "y", "width")
    )
    cells = [(0, 1), (7, 50), (59, 59), (30, 2), (59, 0)]
    lost = order.order.tolist().index(4)
    cells.append((lost, 3))
    points = [
        (left + (column + 0.5) * side / n, top + (row + 0.5) * side / n)
        for row, column in cells
    ]
    keys = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]
    found = ask(picture.content, [*points, (2, 2)], tmp_path, keys)
    for (row, column), text in zip(cells, found, strict=False):
        a, b = order.order[row], order.order[column]
        assert text.startswith(f"{names[a]} \N{EN DASH} {names[b]}: ")
        said = text.rpartition(": ")[2]
        if row == lost:
            assert said == "n/a"
        elif row == column:
            assert said == "itself"
        else:
            told = float(said.replace("\N{MINUS SIGN}", "-"))
            assert abs(told - values[a, b]) <= 1 / 201 + 0.0051
    assert found[len(cells)] == ""
    assert found[-1] == found[len(cells) - 1]  # once round, back to where it was
    assert len(set(found[-4:])) == 4


@pytest.mark.parametrize("n_regions", [6, 300])
def test_slices_name_the_region_under_the_pointer(tmp_path, n_regions):
    draw_run(make_run(n_regions=n_regions, lost=(2,), shape=(12, 14, 30)), tmp_path)
    content = (
        tmp_path / "sub-1/figures/sub-1_atlas-A_desc-contours_dseg.svg"
    ).read_bytes()
    about = json.loads(parts(content, "metadata")[0]["words"])
    (left, top, wide, high), rows, columns = (
        about["panels"][0][key] for key in ("box", "rows", "columns")
    )
    # Regions lie one above the other: the slabs of the grid, from below.
    x = left + wide * 5.5 / columns
    points = [(x, top + (row + 0.5) * high / rows) for row in range(rows)]
    found = ask(content, points, tmp_path)
    # The first slice across x is the second voxel from the left; j is 5, k goes up.
    flat = [1 + 12 * (5 + 14 * (29 - row)) for row in range(rows)]
    expected = [place * n_regions // (12 * 14 * 30) for place in flat]
    numbers = [int(re.match(r"r<(\d+)> & \u03b1", text)[1]) for text in found]
    assert numbers == expected
    for number, text in zip(numbers, found, strict=True):
        ending = "coverage 0.10, n/a" if number == 2 else "coverage 0.95"
        assert text.endswith(ending)
    if n_regions == 6:
        assert 2 in numbers
