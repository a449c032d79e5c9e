"""The parts of the pages that come from the code, and the check of the built pages."""

import importlib.util
import json
import re

import pytest
from support.datasets import write_atlas, write_dataset
from support.doc_blocks import PAGES, ROOT, read_blocks

from bids_roi.cli import main
from bids_roi.confounds.strategies import list_strategies
from bids_roi.core.quality import STATUS
from bids_roi.options.table import OPTIONS

MARKER = r"(?m)^<!-- generated: ([\w-]+) -->$"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generated, check_pages = load("generated"), load("check_pages")


def page(name):
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    return generated.fill_in(text)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_on_its_page(option):
    """Flag, choices, default, sidecar key and help, in one row."""
    rows = page("options").partition("## Exit codes")[0].split("\n")
    (row,) = (r for r in rows if re.match(rf"\| `{option.flags[0]}[` ]", r))
    plain = row.replace("\\", "").replace("`", "").replace("&#124;", "|")
    assert option.help.replace("`", "") in plain
    for choice in option.choices:
        assert f"`{choice}`" in row or choice in option.metavar
    assert option.sidecar in row
    if option.default not in (None, (), False):
        default = option.default
        shown = " ".join(default) if isinstance(default, tuple) else default
        assert f"| `{shown}` |" in row


def test_groups_of_options_are_headings():
    headings = re.findall(r"^## (.+)$", page("options"), re.MULTILINE)
    groups = [group.capitalize() for group in dict.fromkeys(o.group for o in OPTIONS)]
    assert headings[: len(groups)] == groups


def test_every_strategy_is_on_its_page():
    text = page("strategies")
    for name in list_strategies():
        assert f"| `{name}`<br>desc-" in text


def test_every_marker_is_known_and_every_table_is_used():
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    markers = {name for t in texts for name in re.findall(MARKER, t)}
    assert markers == set(generated.TABLES)


def test_literal_blocks_are_whole():
    """The last line of each, so that nothing is cut."""
    assert generated.TABLES["stack-layout"]().endswith("the run has none\n```")
    assert generated.TABLES["strategy-format"]().endswith("}\n```")
    assert generated.TABLES["events"]().endswith("seconds\n```")


def test_text_is_no_markdown():
    text = generated._escaped("a_b <c> --min-coverage and `d_e` [f]")
    assert text == r"a\_b \<c\> `--min-coverage` and `d_e` \[f\]"


def test_tests_that_the_pages_name_exist():
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\btest_\w+\.py", text):
            assert any((ROOT / "tests").rglob(name)), f"{path.name}: {name}"


def test_pages_of_the_menu_exist():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    names = re.findall(r": ([\w/-]+\.md)$", menu, re.MULTILINE)
    assert len(names) > 10
    assert [name for name in names if not (ROOT / "docs" / name).is_file()] == []


def test_pictures_are_small_and_there():
    """Each that a page shows, with words for those who do not see it."""
    shown = set()
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for words, link in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text):
            assert len(words) > 30
            shown.add((path.parent / link).resolve())
    assert len(shown) >= 4
    assert shown == set((ROOT / "docs" / "assets").glob("*.png"))
    for path in shown:
        assert path.stat().st_size < 150_000, path.name


def test_costs_in_the_readme_are_those_of_the_benchmarks():
    """Row by row, so that a new measurement is told in both."""
    rows = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = rows.partition("<!-- rows of docs/benchmarks.md -->\n")[2].partition("\n\n")[
        0
    ]
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split("\n")
    assert len(rows.split("\n")) > 5
    for row in rows.split("\n"):
        assert row in measured, f"README.md: {row}"


def test_relative_links_lead_somewhere():
    """Those of the sources, as they are read on a code host."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for block in read_blocks(path):
            text = text.replace(block.text, "")
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if not re.match(r"[a-z]+:", link):
                assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Everything that the participant and the group level can write."""
    folder = tmp_path_factory.mktemp("results")
    root = write_dataset(folder / "fmriprep")
    rows = "\n".join(f"{v / 50}\t{1 + v / 50}\t{v % 3}" for v in range(12))
    for run in root.glob("sub-*/func/*_bold.nii.gz"):
        sub = run.name.partition("_")[0]
        table = run.with_name(f"{sub}_task-rest_desc-confounds_timeseries.tsv")
        table.write_text(f"framewise_displacement\tstd_dvars\ttrans_x\n{rows}\n")
    mine = {"name": "mine", "components": [{"columns": ["trans_x"]}]}
    (folder / "mine.json").write_text(json.dumps(mine))
    call = [root, folder / "out"]
    atlas = write_atlas(folder / "atlas")
    more = ["--atlas-file", atlas, "--denoise", "none", folder / "mine.json"]
    more += ["--fd-threshold", "0.2", "--std-dvars-threshold", "1.3", "--fisher-z"]
    more += ["--relmat", "pearson", "partial", "--smoothing-fwhm", "4", "--no-report"]
    for words in ([*call, "participant", *more], [*call, "group"]):
        assert main([*map(str, words), "-q", "--executor", "serial"]) == 0
    return folder / "out"


def test_every_key_of_every_sidecar_is_explained(results):
    text = page("outputs")
    explained = set(re.findall(r"`([A-Z]\w+)`", text))
    for path in results.rglob("sub-*/**/*.json"):
        table = path.with_suffix(".tsv").read_text().partition("\n")[0].split("\t")
        keys = set(json.loads(path.read_text())) - set(table)
        assert keys <= explained, f"{path.name}: {keys - explained}"


def test_every_column_of_every_table_is_explained(results):
    """But for the names of regions, and of the entities that tell a run."""
    text = page("outputs")
    explained = set(re.findall(r"`(\w+)`", text))
    entities = ("participant", "session", "task", "run", "space", "res", "desc")
    entities = {f"{name}_id" for name in entities}
    names = ("_dseg", "_outliers", "group_runs", "group_qcfc", "group_reliability")
    names += ("group_strategies",)
    paths = [p for p in results.rglob("*.tsv") if any(n in p.name for n in names)]
    assert len(paths) > 5
    for path in paths:
        header = set(path.read_text().partition("\n")[0].split("\t"))
        assert header <= explained | entities, f"{path.name}: {header - explained}"


def test_every_kind_of_group_file_is_explained(results):
    text = page("outputs")
    for path in results.glob("group*"):
        kind = path.stem.rpartition("_")[2]
        shown = re.search(rf"group_[^`]*{kind}\.|{kind}\.html", text)
        assert shown, path.name


def test_every_status_is_explained():
    for word in STATUS:
        assert f"| `{word}` |" in page("outputs")


def test_a_good_site_passes(tmp_path):
    (tmp_path / "a.html").write_text(
        '<link rel="stylesheet" href="b.css"><a href="c.html#there">c</a>'
        '<a href="https://bids.neuroimaging.io">a person follows</a>'
    )
    (tmp_path / "b.css").write_text("x { background: url(data:image/svg+xml;utf8,) }")
    (tmp_path / "c.html").write_text('<h2 id="there">There</h2><a href="a.html">a</a>')
    assert check_pages.check_site(tmp_path) == []
    assert check_pages.main([str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('<a href="absent.html">x</a>', "a.html: absent.html leads nowhere."),
        ('<a href="#x">x</a>', "a.html: #x leads to no such place in that page."),
        ('<img src="absent.png">', "a.html: absent.png leads nowhere."),
        ('<script src="https://c.org/x.js"></script>', "fetches https://c.org/x.js"),
        ('<img src="//c.org/x.png">', "fetches //c.org/x.png"),
        ('<link rel="preconnect" href="https://f.org">', "fetches https://f.org"),
        ('<p style="background:url(https://c.org/x)">', "fetches https://c.org/x"),
        ("<style>@import 'https://c.org/x';</style>", "fetches https://c.org/x"),
        ('<pre class="mermaid">', "has a diagram"),
    ],
)
def test_a_bad_page_is_found(content, problem, tmp_path, capsys):
    (tmp_path / "a.html").write_text(content)
    assert check_pages.main([str(tmp_path)]) == 1
    assert problem in capsys.readouterr().err


def test_a_font_in_a_style_sheet_is_found(tmp_path):
    (tmp_path / "a.html").write_text("")
    (tmp_path / "a.css").write_text("@font-face { src: url('https://f.org/x.woff') }")
    assert check_pages.check_site(tmp_path) == ["a.css: fetches https://f.org/x.woff"]


def test_an_empty_site_is_no_site(tmp_path):
    (problem,) = check_pages.check_site(tmp_path)
    assert "no pages" in problem


def test_functions_that_the_pages_name_exist():
    """A difference to another tool, or a fault, is held by the test beside it."""
    pages = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    named = {name for text in pages for name in re.findall(r"`(test_\w+)`", text)}
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {
        n for s in sources for n in re.findall(r"^def (test_\w+)\(", s, re.MULTILINE)
    }
    assert len(named) > 20
    assert named <= there, named - there
