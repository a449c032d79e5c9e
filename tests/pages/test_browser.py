"""Pages in a real browser: scripts run, tables sort, pictures show, nothing goes out.

Slow, so only where ``BIDS_ROI_TEST_BROWSER=1``; ``BIDS_ROI_BROWSER`` names the program
(``chromium``). The pages are those of the demo, opened from disk. A script beside a
copy of the page uses it as a reader would and writes down what it finds.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import datasets, toy_confounds

from bids_roi.cli import main
from bids_roi.demo.dataset import write_demo_dataset

if os.environ.get("BIDS_ROI_TEST_BROWSER") != "1":
    pytest.skip("BIDS_ROI_TEST_BROWSER is not 1", allow_module_level=True)

pytestmark = pytest.mark.browser

PROBE = Path(__file__).with_name("probe.js").read_text()


@pytest.fixture(scope="module")
def browser():
    """Run Chromium without a window, a profile or a way out."""
    program = os.environ.get("BIDS_ROI_BROWSER", "chromium")
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")

    def call(folder, url, *arguments, size=(1280, 2000), wait="virtual"):
        # Frames without rights are processes of their own, which know no virtual time.
        budget = {"virtual": "virtual-time-budget=120000", "real": "timeout=10000"}
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={size[0]},{size[1]}",
            f"--{budget[wait]}",
        ]
        return subprocess.run(
            [program, *flags, *arguments, url],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )

    return call


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's outputs with reports of participants and group."""
    folder = tmp_path_factory.mktemp("browser")
    made = write_demo_dataset(folder / "demo")
    out = folder / "out"
    options = [
        "--denoise",
        "none",
        "36P",
        "--fd-threshold",
        "0.5",
        "--relmat",
        "pearson",
    ]
    atlas = f"{made.atlas_image},{made.atlas_table}"
    call = [made.derivative, out, "participant", "--atlas-file", atlas, *options]
    assert main([*map(str, call), "--participant-label", "02", "-q"]) == 0
    return out


def use(
    browser, page, tmp_path, table, columns=(), words="", size=(1280, 2000), flags=()
):
    """Open a page with the probe; return what it found and what the console said."""
    probe = PROBE.replace("USE_TABLE", json.dumps(table))
    probe = probe.replace("USE_COLUMNS", json.dumps(list(columns)))
    probe = probe.replace("USE_WORDS", json.dumps(words))
    copy = page.with_name(f"probe-{page.name}")
    script = page.with_name("probe.js")
    script.write_text(probe)
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", '<script src="probe.js"></script></body>'))
    try:
        done = browser(tmp_path, copy.as_uri(), "--dump-dom", *flags, size=size)
    finally:
        copy.unlink()
        script.unlink()
    match = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])), console


def check_quiet(found, console):
    assert console == []
    assert found["errors"] == found["violations"] == []
    assert found["images"]
    assert all(width > 50 for _, width in found["images"]), found["images"]
    assert all(name.startswith("file://") for name in found["resources"])


def test_the_participant_page(browser, demo, tmp_path):
    found, console = use(
        browser,
        demo / "sub-02.html",
        tmp_path,
        "table[id^=regions]",
        ["Value", "Name", "Coverage", "tSNR"],
        "vertex n/a",
    )
    check_quiet(found, console)
    for name in ("Value", "Coverage", "tSNR"):
        up, word_up, down, word_down = found["sorted"][name]
        assert (word_up, word_down) == ("ascending", "descending")
        for cells, turned in ((up, 1), (down, -1)):
            numbers = [float(c) * turned for c in cells if c != "n/a"]
            assert numbers == sorted(numbers)
            # What is not there is at the end either way.
            assert cells[len(numbers) :] == ["n/a"] * (len(cells) - len(numbers))
    up, _, down, _ = found["sorted"]["Name"]
    assert up == sorted(up) == down[::-1]
    assert len(up) == 32
    assert sorted(found["filtered"]) == ["LH_Vertex", "RH_Vertex"]
    assert found["said"] == "2 of 32 rows"
    assert found["unfiltered"] == 32


def test_the_picker_draws_the_region_that_is_chosen(browser, demo, tmp_path):
    found, _ = use(browser, demo / "sub-02.html", tmp_path, "#summary-table")
    assert len(found["choices"]) == 32
    assert found["choices"].count("LH_Vertex (n/a)") == 1
    first, second, said = found["picker"]
    assert found["chosen"] == 1
    assert said.startswith(f"Series of {found['choices'][1]}. mean, as extracted: ")
    # Axis and series, as extracted and after cleaning, where the censored volumes have
    # bands and leave gaps; then the ticks of time.
    assert len(first) == len(second) == 6
    for place, same in enumerate((True, False, True, True, False, True)):
        assert (first[place] == second[place]) is same
    assert first[1].count("L") == 119
    assert first[1].count("M") == 1
    assert first[4].count("M") > 1
    kept = first[4].count("L") + first[4].count("M")
    assert first[2].count("M") == 120 - kept > 0
    # The field finds networks, too, and says all of the region that is there.
    said, facts = found["searched"]
    assert re.fullmatch(r"\d of 32", said)
    assert re.fullmatch(
        r"LH_\w+ · network Visual · x \S+, y \S+, z \S+ mm · coverage [01]\.\d{3}"
        r" · tSNR \d+\.\d · status: ok",
        facts,
    )
    # Each figure of the atlas answers once a region is to be marked in it.
    assert found["ready"] == found["asked"] > 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_used_without_eyes_or_mouse(browser, demo, tmp_path, scheme):
    setting = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    page, table = demo / "sub-02.html", "#summary-table"
    found, console = use(browser, page, tmp_path, table, flags=[setting])
    check_quiet(found, console)
    assert found["faults"] == []


@pytest.mark.parametrize("wide", [1200, 1400])
def test_nothing_is_cut_off(browser, demo, tmp_path, wide):
    page, table = demo / "sub-02.html", "#summary-table"
    found, _ = use(browser, page, tmp_path, table, size=(wide, 2000))
    inside, frame = found["frames"][0]  # the summary
    assert inside <= frame
    assert found["width"][0] <= found["width"][1]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One run with matrices of three strategies."""
    folder = tmp_path_factory.mktemp("compared")
    root = folder / "fmriprep"
    stem = f"sub-01_task-rest_space-{datasets.SPACE}"
    datasets.write_run(root, stem, datasets.bold(0, toy_confounds.T))
    toy_confounds.write_confounds(root)
    atlas = datasets.write_atlas(folder / "atlas")
    call = [root, folder / "out", "participant", "--atlas-file", atlas, "-q"]
    words = ["--strategy", "none", "simple", "24P", "--relmat", "pearson"]
    assert main([*map(str, call), *words]) == 0
    return folder / "out" / "sub-01.html"


@pytest.mark.parametrize("wide", [1200, 1400])
def test_three_matrices_fill_one_row(browser, compared, tmp_path, wide):
    page = compared.with_name("row.html")
    script = (
        'const row = document.querySelector(".beside:not(.carpets)");'
        "const box = (e) => { const r = e.getBoundingClientRect();"
        " return [r.left, r.top, r.right]; };"
        "document.title = JSON.stringify([row, ...row.children].map(box));"
    )
    text = compared.read_text(encoding="utf-8")
    page.with_name("row.js").write_text(script)
    page.write_text(text.replace("</body>", '<script src="row.js"></script></body>'))
    done = browser(tmp_path, page.as_uri(), "--dump-dom", size=(wide, 2000))
    row, *figures = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    lefts, tops, rights = zip(*figures, strict=True)
    assert len(figures) == 3
    assert len(set(tops)) == 1
    assert min(lefts) == pytest.approx(row[0], abs=1)
    assert max(rights) == pytest.approx(row[2], abs=1)
    widths = np.subtract(rights, lefts)
    assert widths.min() > 300
    assert widths.max() - widths.min() < 1


def test_a_region_is_marked_in_the_figures(browser, demo, tmp_path):
    """The page is looked at, with a region chosen that is on the slices."""
    page = demo / "mark.html"
    (demo / "mark.js").write_text(
        'const picker = document.querySelector(".picker");'
        "document.querySelectorAll('.columns > nav, main > :not(.run), .run > "
        ":not(.atlas)').forEach((e) => e.remove());"
        'picker.dispatchEvent(new PointerEvent("pointerenter"));'
        "const timer = setInterval(() => {"
        ' if (picker.querySelector("select").disabled) return;'
        ' clearInterval(timer); picker.querySelectorAll("button")[1].click();'
        "}, 50);"
    )
    text = (demo / "sub-02.html").read_text(encoding="utf-8")
    shown = {}
    # A frame without rights is a process of its own, which a screenshot does not wait
    # for: several are taken, and one is enough. Without a mark there is none on any.
    for marked, n_shots in ((False, 1), (True, 6)):
        script = '<script src="mark.js"></script>' if marked else ""
        page.write_text(text.replace("</body>", f"{script}</body>"))
        for number in range(n_shots):
            shot = tmp_path / f"{marked}{number}.png"
            size = {"size": (1280, 5000), "wait": "real"}
            browser(tmp_path, page.as_uri(), f"--screenshot={shot}", **size)
            image = np.asarray(Image.open(shot).convert("RGB")).astype(int)
            # The ink of marks, half over what lies below: red and blue without green.
            ink = (image[..., 0] > 140) & (image[..., 2] > 110) & (image[..., 1] < 60)
            shown[marked] = int((ink & (image[..., 2] > 0.6 * image[..., 0])).sum())
            if marked and shown[True] > shown[False] + 200:
                break
    page.unlink()
    (demo / "mark.js").unlink()
    assert shown[True] > shown[False] + 200, shown


def test_the_group_page(browser, demo, tmp_path):
    assert main([str(demo), str(demo), "group", "-q"]) == 0
    columns = ["Strategy", "Degrees of freedom"]
    found, console = use(
        browser, demo / "group.html", tmp_path, "#strategy-table", columns,
        size=(1400, 2000),
    )  # fmt: skip
    check_quiet(found, console)
    up, word_up, down, word_down = found["sorted"]["Degrees of freedom"]
    assert (word_up, word_down) == ("ascending", "descending")
    assert [float(c) for c in up] == sorted(map(float, up)) == [*map(float, down)][::-1]
    assert len(set(up)) == 2
    # Nothing is cut off: no table is wider than its frame, nor the page than all.
    assert all(inside <= frame for inside, frame in found["frames"]), found["frames"]
    assert found["width"][0] <= found["width"][1]
    # One stop of the tab key for all dots; arrows go on, and each says its run.
    first, second = found["dots"]
    assert found["stops"] == 1
    assert re.match(r"sub-02_ses-\d_task-rest_run-\d: Mean FD, all \(mm\) ", first)
    assert first.partition(":")[0] != second.partition(":")[0]
    assert found["led"].startswith("sub-02.html#sub-02_ses-")


def test_the_page_fits_a_telephone(browser, demo, tmp_path):
    # Windows of Chromium are 500 pixels wide at least: a frame is narrower.
    frame = demo / "frame.html"
    frame.write_text(
        '<body style="margin:0"><iframe src="sub-02.html" style="width:360px;'
        'height:1500px;border:0"></iframe><script>setTimeout(() => {'
        'const d = document.querySelector("iframe").contentDocument;'
        "document.title = d ? String(d.documentElement.scrollWidth) : 'none';"
        "}, 2000)</script>"
    )
    allow = "--allow-file-access-from-files"
    done = browser(tmp_path, frame.as_uri(), "--dump-dom", allow)
    frame.unlink()
    assert re.search(r"<title>(.*?)</title>", done.stdout)[1] == "360"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_not_blank(browser, demo, tmp_path, scheme):
    shot = tmp_path / "page.png"
    # 0 is dark, 1 is light.
    setting = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    page = (demo / "sub-02.html").as_uri()
    browser(tmp_path, page, f"--screenshot={shot}", setting, size=(1280, 5000))
    image = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert image.shape == (5000, 1280, 3)
    corner = image[3, 3].mean()
    assert corner > 230 if scheme == "light" else corner < 40
    # Stretches of 500 rows from the first figure on: none is one colour.
    for top in range(1000, 4000, 500):
        part = image[top : top + 500]
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 100, top
        assert part.std() > 20, top


def test_the_page_prints(browser, demo, tmp_path):
    printed = tmp_path / "page.pdf"
    page = (demo / "sub-02.html").as_uri()
    browser(tmp_path, page, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    n_pages = max(int(n) for n in re.findall(rb"/Count (\d+)", content))
    assert n_pages > 8
