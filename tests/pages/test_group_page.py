"""The group page: what it compares, what its dots say, and where they lead."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from support.calls import run
from support.group_trees import NAMES, Tree, correlation, lose, read_rows
from support.pictures import Page, check_page

from bids_roi.report.group import (
    _list_places,
    _tell_apart,
    find_outliers,
    list_strips,
    tabulate_strategies,
)
from bids_roi.report.group_figures import (
    LEAST_RUNS,
    draw_coverage_table,
    draw_qcfc,
    draw_strategies,
    draw_strips,
)
from bids_roi.report.raster import order_regions

N_PARTICIPANTS = 6
SVG = "{http://www.w3.org/2000/svg}"


def key_of(person, number):
    return f"sub-0{person}_task-rest_run-{number}"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Twelve runs, two strategies; one run has a low tSNR, one moves, one lost some."""
    root = tmp_path_factory.mktemp("group")
    rng, tree = np.random.default_rng(0), Tree(root)
    for person in range(1, N_PARTICIPANTS + 1):
        anchors = []
        for number in (1, 2):
            name, odd = key_of(person, number), (person, number) == (3, 2)
            for desc, freedom in (("", 99), ("36P", 60 + person)):
                matrix = correlation(rng)
                fd = 2.0 if (person, number) == (5, 1) else 0.1 + 0.01 * person
                more = {"DegreesOfFreedom": freedom, "NumberOfVolumesKept": 100}
                more |= {"MeanFramewiseDisplacement": fd}
                tree.run(name, lose(matrix, 2) if odd else matrix, desc=desc, **more)
            if odd:
                tree.regions(name, coverage=[1, 1, 0, 1, 1, 1], tsnr=[9.0] * 6)
            space = "space-MNI152NLin2009cAsym_desc-preproc_bold"
            anchors.append(f'<p id="{name}_{space}">x</p>')
        (root / f"sub-0{person}.html").write_text("".join(anchors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["bids_roi"])
        from bids_roi.cli import main

        assert main(["x", str(root), "group", "-q", "--executor", "serial"]) == 0
    return root


def drawn(path):
    return ET.fromstring(path.read_bytes())


def marks(root):
    """Every dot of a drawing: words, link, place across, and whether a diamond."""
    found = []
    for link in root.iter(f"{SVG}a"):
        (shape,) = link
        (words,) = [t.text for t in shape.iter(f"{SVG}title")]
        diamond = shape.tag == f"{SVG}path"
        x = re.match(r"M([\d.]+)", shape.get("d"))[1] if diamond else shape.get("cx")
        found.append((words, link.get("href"), float(x), diamond))
    return found


def test_the_page_holds_together(out):
    page = Page(out / "group.html")
    check_page(page)
    text = (out / "group.html").read_text()
    # An inline style would be refused by the page's own policy.
    assert ' style="' not in text
    titles = re.findall(r"<h2 id=\"(\w+)\"", text)
    assert titles == [
        *("strategies", "problems", "quality", "outliers", "coverage"),
        *("connectivity", "tables", "participants", "command"),
    ]


def test_strategies_come_first_and_in_full(out):
    rows = read_rows(out / "group_strategies.tsv")
    table = tabulate_strategies(rows)
    heads = [words for words, _ in table["columns"]]
    assert heads[0] == "Strategy"
    assert heads[1] == "QC-FC median |r|"
    assert [cells[0] for cells in table["rows"]] == ["none", "36P"]
    for cells, row in zip(table["rows"], rows, strict=True):
        assert cells[1] == f"{float(row['median_abs_r']):.3f}"
        share = f"{100 * float(row['identification_rate']):.1f} %"
        assert cells[heads.index("Identifi\N{SOFT HYPHEN}cation")] == share
        freedom = cells[heads.index("Degrees of freedom")]
        assert freedom == f"{float(row['degrees_of_freedom_mean']):.1f}"
    same = dict(table["same"])
    assert (same["Participants"], same["Runs"], same["Task"]) == ("6", "12", "rest")
    words = Page(out / "group.html").words
    assert words.index("Strategies") < words.index("Failed, skipped")
    assert "Task rest" in words


def test_what_varies_between_rows_is_a_column(out):
    rows = read_rows(out / "group_strategies.tsv")
    rows = [*rows, {**rows[0], "atlas_id": "Other", "reason": "Too few."}]
    table = tabulate_strategies(rows)
    heads = [words for words, _ in table["columns"]]
    # Beside the strategy: the last of many columns are out of sight.
    assert heads[:3] == ["Strategy", "Atlas", "QC-FC median |r|"]
    assert "Atlas" not in dict(table["same"])
    assert [cells[1] for cells in table["rows"]] == ["Toy", "Toy", "Other"]
    # A sentence among numbers would make rows of ten lines: it stands below.
    assert table["notes"] == [("Too few.", "none Other")]
    rows = [{**row, "reason": "Too few."} for row in rows]
    assert tabulate_strategies(rows)["notes"] == [("Too few.", "")]
    places = [{"space_id": "A", "res_id": "2"}, {"space_id": "B", "den_id": "32k"}]
    rows = [{**rows[0], **place} for place in places]
    table = tabulate_strategies(rows)
    assert table["columns"][1] == ("Space", False)
    assert [cells[1] for cells in table["rows"]] == ["A res-2", "B den-32k"]
    rows = [{**rows[0], "n_runs": n} for n in ("8", "9")]
    table = tabulate_strategies(rows)
    assert table["columns"][-1] == ("Runs", False)
    assert [cells[-1] for cells in table["rows"]] == ["8", "9"]
    rows = read_rows(out / "group_strategies.tsv")
    rows = [*rows, {**rows[0], "atlas_id": "Other"}]
    pictures = list(draw_strategies(rows))
    assert [p.title for p in pictures] == ["Strategies: Toy", "Strategies: Other"]


def test_partial_figures_and_intervals_take_the_place_of_the_others(out):
    rows = read_rows(out / "group_strategies.tsv")
    asked = {"covariates": "age", "distance_rho_partial": "-0.25"}
    asked |= {"median_abs_r_partial": "0.31", "median_abs_r_partial_chance": "0.2"}
    asked |= {"distance_rho_low": "-0.4", "distance_rho_high": "-0.125"}
    asked |= {"median_abs_r_p": "0.004", "n_permutations": "250"}
    asked |= {"share_p05_partial": "0.1"}
    table = tabulate_strategies([{**row, **asked} for row in rows])
    assert ("Covariates", "age") in table["same"]
    assert ("Permutations", "250") in table["same"]
    words = [name for name, _ in table["columns"]]
    shown = dict(zip(words, table["rows"][0], strict=True))
    assert (shown["Partial |r|"], shown["p of |r|"]) == ("0.310", "0.0040")
    assert "QC-FC median |r|" in words
    (picture,) = draw_strategies([{**row, **asked} for row in rows])
    text = re.sub(r"\s+", " ", picture.alt)
    assert "Partial |r| 0.31" in text
    # Titles are whole; only labels of strategies may be cut.
    assert "\N{HORIZONTAL ELLIPSIS}" not in picture.content.decode()
    assert "; QC-FC, median |r|" not in text
    assert "is its 95 % interval" in picture.caption
    (plain,) = draw_strategies(rows)
    assert "interval" not in plain.caption
    assert "Partial" not in plain.alt
    # A bar more in each row.
    bars = [p.content.count(b'stroke-width="5"') for p in (picture, plain)]
    assert bars[0] == bars[1] + len(rows)


def test_the_figure_of_strategies_has_their_values_in_place(out):
    rows = read_rows(out / "group_strategies.tsv")
    (picture,) = draw_strategies(rows)
    root = ET.fromstring(picture.content)
    dots = {
        circle.find(f"{SVG}title").text: float(circle.get("cx"))
        for circle in root.iter(f"{SVG}circle")
    }
    assert len(dots) == 7 * 2
    # After title and direction come the ticks of its axis.
    texts = [
        (t.text, t.get("x"), t.get("text-anchor")) for t in root.iter(f"{SVG}text")
    ]
    names = [words for words, _, _ in texts]
    axis = [float(x) for _, x, _ in texts[names.index("Discriminability") + 2 :][:3]]
    assert names[names.index("Discriminability") + 2 :][:3] == ["0", "0.5", "1"]
    for row, name in zip(rows, ("none", "36P"), strict=True):
        (x,) = [x for told, x in dots.items() if told.startswith(f"{name}: Discrim")]
        place = axis[0] + (axis[2] - axis[0]) * float(row["discriminability"])
        assert x == pytest.approx(place, abs=0.1)
        told = f"{name}: QC-FC, median |r| {float(row['median_abs_r']):.3g}"
        assert told in picture.alt


def test_dots_name_their_run_and_lead_to_its_page(out):
    found = marks(drawn(out / "figures/group_quality.svg"))
    fd = [m for m in found if "Mean FD, all" in m[0]]
    assert len(fd) == 2 * N_PARTICIPANTS
    for words, link, _, _ in fd:
        name = words.partition(":")[0]
        assert link.startswith(f"../{name[:6]}.html#{name}")
        page = (out / "figures" / link.partition("#")[0]).resolve()
        assert f'id="{link.partition("#")[2]}"' in page.read_text()
    (odd,) = [m for m in fd if m[3]]
    assert odd[0].startswith(key_of(5, 1))
    assert "2, outlier" in odd[0]
    # The page holds the same drawing, with links from where it lies.
    links = [a["href"] for a in Page(out / "group.html").all("a", target="_top")]
    assert links == [m[1].removeprefix("../") for m in found]


def test_what_does_not_depend_on_the_strategy_is_shown_once(out):
    runs = read_rows(out / "group_runs.tsv")
    strips = list_strips({k: [row[k] for row in runs] for k in runs[0]})
    labels = {}
    for strip in strips:
        labels.setdefault(strip.measure.column, []).append(strip.label)
        assert strip.values.size == 2 * N_PARTICIPANTS
    for once in ("fd_mean", "n_volumes_kept", "coverage_mean", "tsnr_median"):
        assert labels[once] == [""]
    assert labels["degrees_of_freedom"] == ["none", "36P"]
    # So an outlier is listed once, too.
    words = Page(out / "group.html").words
    section = words[
        words.index("Outliers Runs beyond") : words.index("Connectivity 36P")
    ]
    assert section.count("Median tSNR all 9 ") == 1


def test_atlases_and_strategies_have_strips_where_they_differ():
    runs = {
        "participant_id": ["sub-1"] * 4 + ["sub-2"] * 4,
        "source": ["a"] * 4 + ["b"] * 4,
        "atlas_id": ["A", "A", "B", "B"] * 2,
        "desc_id": ["n/a", "24P"] * 4,
        "coverage_mean": ["1", "1", ".5", ".5", "1", "1", ".4", "n/a"],
        "effective_degrees_of_freedom": list("12345678"),
        "fd_mean": ["n/a"] * 8,
    }
    found = [(s.measure.column, s.label, s.values.tolist()) for s in list_strips(runs)]
    assert found == [
        ("effective_degrees_of_freedom", "A, none", [1, 5]),
        ("effective_degrees_of_freedom", "A, 24P", [2, 6]),
        ("effective_degrees_of_freedom", "B, none", [3, 7]),
        ("effective_degrees_of_freedom", "B, 24P", [4, 8]),
        ("coverage_mean", "A", [1, 1]),
        ("coverage_mean", "B", [0.5, 0.4]),
    ]


def test_strategies_that_do_the_same_share_a_strip():
    names = ["n/a", "24P", "36P", "acompcor", "scrub"]
    runs = {
        "participant_id": ["sub-1"] * 5 + ["sub-2"] * 5,
        "source": ["a"] * 5 + ["b"] * 5,
        "atlas_id": ["A"] * 10,
        "desc_id": names * 2,
        "n_volumes_kept": ["100"] * 4 + ["80"] + ["100"] * 4 + ["70"],
        "degrees_of_freedom": list("87765") * 2,
    }
    found = [(s.label, s.values.tolist()) for s in list_strips(runs)]
    assert found == [
        ("none, 24P and 2 others", [100, 100]),
        ("scrub", [80, 70]),
        ("none", [8, 8]),
        ("24P, 36P", [7, 7]),
        ("acompcor", [6, 6]),
        ("scrub", [5, 5]),
    ]


def strips_of(**columns):
    n = len(next(iter(columns.values())))
    runs = {"participant_id": [f"sub-{i}" for i in range(n)]}
    runs |= {name: [str(v) for v in values] for name, values in columns.items()}
    names = [f"sub-{i}_run" for i in range(n)]
    picture = draw_strips(list_strips(runs), names, [f"../{n}.html" for n in names])
    return picture, ET.fromstring(picture.content)


def test_axes_mean_something_though_all_runs_be_the_same():
    picture, root = strips_of(
        coverage_mean=[1.0] * 5, n_regions_lost=[0] * 5, n_volumes_kept=[119] * 5
    )
    words = [t.text for t in root.iter(f"{SVG}text")]
    assert "1e" not in " ".join(words)
    lost = words[words.index("Regions lost") + 1 :]
    assert lost[:2] == ["0", "1"]
    volumes = words[words.index("Volumes kept") + 1 : words.index("Mean coverage")]
    assert volumes[0] == "0"
    assert all(float(w) == int(w) for w in volumes)
    coverage = words[words.index("Mean coverage") + 1 : words.index("Regions lost")]
    assert (coverage[0], coverage[-1]) == ("0", "1")
    assert "Outliers are marked from 10 runs on." in picture.caption


def test_dots_lie_at_their_values():
    values = np.linspace(0.2, 0.9, 12)
    _, root = strips_of(coverage_mean=values)
    x = np.array([m[2] for m in marks(root)])
    ticks = {t.text: float(t.get("x")) for t in root.iter(f"{SVG}text") if t.get("x")}
    assert_allclose(
        (x - ticks["0"]) / (ticks["1"] - ticks["0"]), np.sort(values), atol=1e-3
    )


def test_pages_of_thousands_of_runs_stay_small():
    values = np.r_[np.random.default_rng(0).normal(50, 2, 6000), 1.0]
    picture, root = strips_of(tsnr_median=values)
    found = marks(root)
    assert len(picture.content) < 200_000
    assert all(m[3] for m in found)
    assert "sub-6000_run: Median tSNR 1, outlier" in [m[0] for m in found]
    assert "diamonds name it" in picture.caption


def test_outliers_are_far_out_on_the_bad_side():
    values = np.array([1, 2, 3, 4, 2, 3, 2, 3, 100, -100, np.nan])
    high, limit = find_outliers(values, high_is_bad=True)
    assert_array_equal(np.flatnonzero(high), [8])
    low, _ = find_outliers(values, high_is_bad=False)
    assert_array_equal(np.flatnonzero(low), [9])
    quartiles = np.percentile(values[:10], [25, 75])
    assert limit == quartiles[1] + 1.5 * (quartiles[1] - quartiles[0])
    few = values[: LEAST_RUNS - 1]
    assert not find_outliers(few, high_is_bad=True)[0].any()
    assert np.isnan(find_outliers(few, high_is_bad=True)[1])
    alike = np.array([120.0] * 11 + [119])
    assert not find_outliers(alike, high_is_bad=False)[0].any()
    alike[11] = 110
    assert find_outliers(alike, high_is_bad=False)[0].sum() == 1


def raster(picture):
    (found,) = re.findall(rb"data:image/png;base64,([^\"]+)\"", picture.content)[:1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGBA"))


def test_coverage_inks_what_is_wrong_and_names_networks(out):
    values = np.ones((3, 6))
    values[1, 4], values[2, 0] = 0, np.nan
    order = order_regions(6, ["V", "M", "V", "M", "D", "D"])
    picture = draw_coverage_table(values, ["a", "b", "c"], order)
    image = raster(picture)
    assert image.shape[:2] == (3, 6)
    # By network: columns 0 2 1 3 4 5 of the table.
    assert_array_equal(image[0, :, :3], np.full((6, 3), 255))
    assert image[1, 4, :3].max() < 110
    assert image[2, 0, 3] == 0  # stripes show through
    words = [t.text for t in ET.fromstring(picture.content).iter(f"{SVG}text")]
    assert words[:3] == ["a", "b", "c"]
    assert [w for w in words if w in ("V", "M", "D")] == ["V", "M", "D"]
    assert "6 regions, by network" in words
    # And on the page, with the networks of the region tables.
    (path,) = out.glob("figures/group_*_coverage.svg")
    text = path.read_text()
    assert all(f">{name}<" in text for name in ("Visual", "Motor", "Default"))
    assert "Least covered on average: Mot 1" in Page(out / "group.html").words
    assert len(NAMES) == 6


def test_a_region_may_be_called_like_a_key(tmp_path, capsys):
    names = ("task_id", "B", "participant_id")
    tree = Tree(tmp_path, names, ("V", "M", "V"), np.zeros((3, 3)))
    for person in (1, 2):
        tree.regions(f"sub-0{person}_task-rest", coverage=[1, 0.25, 1])
    run(capsys, "x", tmp_path, "group", report=True)
    words = Page(tmp_path / "group.html").words
    assert "Least covered on average: B, 25 %." in words
    (path,) = tmp_path.glob("figures/group_*_coverage.svg")
    texts = [t.text for t in drawn(path).iter(f"{SVG}text")]
    assert {"sub-01", "sub-02", "V", "M"} <= {*texts}
    assert "3 regions, by network" in texts


def test_participants_that_could_not_be_planned_are_named():
    table = {
        "participant_id": ["sub-1", "sub-2", "sub-3"],
        "source": ["sub-1", "sub-2/func/sub-2_space-A_bold.nii.gz", "n/a"],
    }
    pages = {"sub-2.html", "sub-30.html"}
    assert _list_places(table, pages) == [
        {"run": "sub-1", "link": ""},
        {"run": "sub-2", "link": "sub-2.html#sub-2_space-A_bold"},
        {"run": "sub-3", "link": ""},
    ]
    table["source"][2] = "sub-2/func/sub-2_space-B_bold.nii.gz"
    names = [place["run"] for place in _list_places(table, pages)]
    assert names == ["sub-1", "sub-2_space-A_bold", "sub-2_space-B_bold"]


def test_matrices_of_one_measure_share_their_scale(tmp_path, capsys):
    rng, tree = np.random.default_rng(2), Tree(tmp_path)
    for person in (1, 2):
        weak = 0.2 * correlation(rng)
        np.fill_diagonal(weak, 1)
        name = f"sub-0{person}_task-rest"
        tree.run(name, weak, desc="weak", fd=0.1)
        tree.run(name, correlation(rng), desc="strong", fd=0.1)
        tree.run(name, 50 * weak, desc="weak", stat="covariance", fd=0.1)
    run(capsys, "x", tmp_path, "group", report=True)
    scales = {}
    for path in tmp_path.glob("figures/group_*_relmat.svg"):
        # The one that is empty tells what lies under the pointer.
        texts = [t.text for t in drawn(path).iter(f"{SVG}text") if t.text]
        stat = re.search(r"stat-(\w+?)_", path.name)[1]
        scales.setdefault(stat, []).append((texts[0], texts[-1]))
    assert len(scales["pearsoncorrelation"]) == 2
    (low, high) = sorted(scales["pearsoncorrelation"])
    assert low[1] == high[1]
    assert "strong" in low[0]
    assert "weak" in high[0]
    (alone,) = scales["covariance"]
    assert alone[1] != low[1]


def test_titles_tell_tables_apart_by_what_differs(tmp_path):
    stem = "group_task-rest_space-X_atlas-A_stat-pearson"
    paths = [tmp_path / f"{stem}{d}_relmat.tsv" for d in ("_desc-36P", "")]
    assert _tell_apart(paths) == ["36P", "none"]
    other = tmp_path / "group_task-rest_space-X_atlas-B_stat-pearson_relmat.tsv"
    assert _tell_apart([*paths, other]) == ["36P, A", "none, A", "none, B"]
    assert _tell_apart(paths[:1]) == ["A"]
    assert _tell_apart([]) == []


def test_both_panels_of_qcfc_have_names_and_axes():
    rng = np.random.default_rng(0)
    r = np.tanh(rng.normal(0, 0.2, (20, 20)))
    r = (r + r.T) / 2
    distances = np.abs(rng.normal(50, 20, (20, 20)))
    root = ET.fromstring(draw_qcfc(r, (distances + distances.T) / 2).content)
    words = [t.text for t in root.iter(f"{SVG}text")]
    assert {"All edges", "By distance", "Edges"} <= {*words}
    assert words.count("QC-FC: r with mean FD") == 2
    assert "Distance between centres (mm)" in words
    alone = ET.fromstring(draw_qcfc(r, None).content)
    assert "By distance" not in [t.text for t in alone.iter(f"{SVG}text")]
    assert draw_qcfc(np.full((3, 3), np.nan), None) is None


@pytest.mark.parametrize("n_regions", [3, 26, 150])
def test_every_edge_is_seen_in_the_figure_by_distance(n_regions):
    """A cell with one edge is as good as grey, however many lie in another."""
    rng = np.random.default_rng(0)
    r = np.tanh(rng.normal(0, 0.2, (n_regions, n_regions)))
    r = (r + r.T) / 2
    places = rng.uniform(-60, 60, (n_regions, 3))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    upper = np.triu_indices(n_regions, 1)
    end = distances[upper].max()
    cells, _, _ = np.histogram2d(
        distances[upper], r[upper], bins=60, range=((0, end), (-1, 1))
    )
    image = raster(draw_qcfc(r, distances)).astype(float)
    grey, opacity = image[..., :3].mean(axis=2), image[..., 3]
    # Up is up, and each cell with an edge is inked, no other.
    assert_array_equal(opacity > 0, (cells > 0).T[::-1])
    assert grey[opacity > 0].max() < 200
    counts = cells.T[::-1][opacity > 0]
    order = np.argsort(counts, kind="stable")
    assert (np.diff(grey[opacity > 0][order]) <= 0).all()
