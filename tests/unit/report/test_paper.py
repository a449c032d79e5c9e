"""Paper: marks where the values say, words as they were given."""

import re
import xml.etree.ElementTree as ET
from math import log10

import numpy as np
import pytest

from bids_roi.report.paper import (
    Panel,
    Sheet,
    find_ticks,
    fit_words,
    measure_words,
    scale_ticks,
    spell,
    trace,
)
from bids_roi.report.raster import BLUE_RED, GREYS, Scale

SVG = "{http://www.w3.org/2000/svg}"
NASTY = [
    "plain",
    "a & b < c > d",
    "\"double\" and 'single'",
    "]]><script>alert(1)</script>",
    "\N{GREEK SMALL LETTER ALPHA} \u8996\u899a\u91ce \u05d0\u05d1 e\u0301 \U0001f9e0",
    "tab\tline\nend",
    "x" * 200,
    "&amp; &#0; %s {0} $y$ \\n",
    "",
]
FORBIDDEN = "nul \0 bell \x07 half \ud800 none \uffff"


@pytest.mark.parametrize("low", [0, -1, -0.37, 12.5, -1e6, 1e-9])
@pytest.mark.parametrize("span", [1e-6, 0.3, 1, 7, 299.5, 1e5])
@pytest.mark.parametrize("most", [2, 3, 5, 8])
def test_ticks_are_round_few_and_within(low, span, most):
    high = low + span
    ticks = find_ticks(low, high, most)
    assert len(ticks) <= most
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in ticks)
    if len(ticks) > 1:
        steps = np.diff(ticks)
        assert np.ptp(steps) < 1e-6 * span
        assert 10 ** (log10(steps[0]) % 1) == pytest.approx(1, rel=1e-3) or any(
            10 ** (log10(steps[0]) % 1) == pytest.approx(m, rel=1e-3)
            for m in (2, 5, 10)
        )
    # The next finer step would have been too much.
    if most >= 5:
        assert len(ticks) >= 2


def test_ticks_of_usual_axes():
    assert find_ticks(0, 598, 8) == [0, 100, 200, 300, 400, 500]
    assert find_ticks(-1, 299, 8) == [0, 50, 100, 150, 200, 250]
    assert [spell(t) for t in find_ticks(0, 0.7, 4)] == ["0", "0.2", "0.4", "0.6"]
    assert find_ticks(3, 3) == find_ticks(0, np.nan) == find_ticks(0, np.inf) == []
    assert scale_ticks(-1, 1, 5) == [-1, -0.5, 0, 0.5, 1]
    assert scale_ticks(0, 1, 5) == [0, 0.5, 1]
    assert scale_ticks(-0.37, 0.37, 5) == [-0.37, -0.2, 0, 0.2, 0.37]


def test_traces_have_gaps_where_there_is_no_number():
    y = [1, 2, np.nan, 4, np.nan, np.nan, 7, 8]
    assert trace(range(8), y) == ("M0.0 1.0 1.0 2.0M3.0 4.0h.01M6.0 7.0 7.0 8.0")
    assert trace([], []) == trace([1], [np.nan]) == ""


def drawn(sheet):
    return ET.fromstring(sheet.finish())


def test_values_lie_between_the_ticks_of_their_axes():
    sheet = Sheet(400, 300)
    panel = Panel(sheet, (60, 20, 300, 200), (0, 30), (-1, 3))
    panel.line([0, 15, 30], [-1, 1, 3])
    panel.axis_below("Time (s)")
    panel.axis_left("mm")
    root = drawn(sheet)
    line = root.findall(f"{SVG}path")[0].get("d")
    assert line == "M60.0 220.0 210.0 120.0 360.0 20.0"
    places = {
        each.text: (float(each.get("x")), float(each.get("y")))
        for each in root.findall(f"{SVG}text")
    }
    assert places["0"][0] in (60, 53)
    assert places["10"][0] == 160
    assert places["20"][0] == 260
    assert places["3"][1] == pytest.approx(20 + 3.5)
    assert places["\N{MINUS SIGN}1"][1] == pytest.approx(220 + 3.5)
    assert {"Time (s)", "mm"} <= places.keys()
    upside_down = Panel(sheet, (0, 0, 10, 100), (0, 1), (50, 0))
    assert upside_down.y([0, 50]).tolist() == [0, 100]


def test_bars_name_their_ends_and_zero_where_these_are():
    sheet = Sheet(100, 200)
    sheet.bar((10, 20, 8, 150), Scale.of(BLUE_RED, -0.37, 0.37, 201), title="r")
    root = drawn(sheet)
    places = {t.text: float(t.get("y")) - 3.5 for t in root.findall(f"{SVG}text")}
    assert places["0.37"] == 20
    assert places["0"] == 95
    assert places["\N{MINUS SIGN}0.37"] == 170
    assert "r" in places
    assert len(places) >= 6


@pytest.mark.parametrize("words", NASTY)
def test_words_arrive_as_they_were_given(words):
    sheet = Sheet(100, 50, title=words, description=words)
    sheet.text(5, 5, words, hint=words)
    sheet.rect((0, 0, 5, 5), "#fff", hint=words)
    sheet.mark(1, 1, hint=words, link=words)
    sheet.mark(1, 1, hint=words, diamond=True)
    sheet.legend(90, 20, [("patch", "#fff", words), ("dash", "#000", words)])
    root = drawn(sheet)
    found = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert found == [words] * 3
    tips = [each.text for each in root.iter(f"{SVG}title")]
    assert tips == [words] * (5 if words else 0)
    if words:
        assert root.find(f"{SVG}desc").text == words
        links = [each.get("href") for each in root.iter(f"{SVG}a")]
        assert links == [re.sub("[\t\n]", " ", words)]
    tags = {each.tag.removeprefix(SVG) for each in root.iter()}
    assert tags <= {"svg", "title", "desc", "rect", "text", "circle", "path", "a"}


def test_what_no_xml_may_hold_is_replaced():
    sheet = Sheet(10, 10, title=FORBIDDEN)
    sheet.text(0, 0, FORBIDDEN)
    root = drawn(sheet)
    shown = "nul \ufffd bell \ufffd half \ufffd none \ufffd"
    assert [each.text for each in (root[0], root[-1])] == [shown, shown]


@pytest.mark.parametrize("width", [3, 40, 100, 300])
@pytest.mark.parametrize("words", NASTY)
def test_words_are_cut_to_fit(words, width):
    found = fit_words(words, width)
    assert measure_words(found) <= width or found == "\N{HORIZONTAL ELLIPSIS}"
    assert (found == words) == (measure_words(words) <= width)
    long = ["global_signal_derivative1", "global_signal_derivative1_power2"]
    cut = [fit_words(each, 110) for each in long]
    assert len(set(cut)) == 2


def test_legends_stay_on_the_sheet():
    sheet = Sheet(300, 100)
    entries = [("line", "#000000", f"network {n}") for n in range(7)]
    entries.append(("stripes", "", "n/a"))
    last = sheet.legend(290, 20, entries, left=10)
    root = drawn(sheet)
    places = [
        (float(t.get("x")), float(t.get("y")), t.text) for t in root.iter(f"{SVG}text")
    ]
    assert len(places) == 8
    assert all(x >= 10 and x + measure_words(w, 10.5) <= 300 for x, _, w in places)
    assert len({(x, y) for x, y, _ in places}) == 8
    assert max(y for _, y, _ in places) == last > 20
    assert b"url(#na)" in sheet.finish()
    assert b'id="na"' in sheet.finish()


def test_nothing_is_drawn_of_nothing():
    sheet = Sheet(10, 10)
    sheet.raster((0, 0, 5, 5), np.empty((0, 3), np.uint8), np.zeros((1, 4), np.uint8))
    sheet.path("")
    assert len(drawn(sheet)) == 1  # the ground


def test_a_crowded_raster_is_averaged_and_another_keeps_its_edges():
    scale = Scale.of(GREYS, 0, 1, 2)
    few, many = np.zeros((4, 4), np.uint8), np.zeros((4, 40), np.uint8)
    found = []
    for codes in (few, many):
        sheet = Sheet(10, 10)
        sheet.raster((0, 0, 10, 10), codes, scale.palette)
        found.append(b"pixelated" in sheet.finish())
    assert found == [True, False]
