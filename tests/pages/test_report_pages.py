"""Pages of participants: structure, words, escaping, and that they are put together
from whatever is in the output folder."""

import base64
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from support import datasets, toy_confounds
from support.calls import run as call
from support.datasets import SPACE
from support.pictures import Page, check_page

from bids_roi.atlases.names import format_bibtex
from bids_roi.cli import main
from bids_roi.report.methods import write_methods

NASTY = "<script>alert(1)</script> & \N{GREEK SMALL LETTER ALPHA}"
CLEAN = ["--denoise", "none", "24P", "--fd-threshold", "0.5", "--relmat", "pearson"]


def run(*arguments, code=0):
    assert main([*map(str, arguments), "--executor", "serial", "-q"]) == code


def nasty_atlas(folder):
    """The toy atlas with a region name that is a piece of a page."""
    option = datasets.write_atlas(folder)
    table = folder / f"tpl-{SPACE}_atlas-Toy_dseg.tsv"
    table.write_text(table.read_text().replace("Left V1", NASTY))
    return option


def write_long_dataset(root):
    """One participant with 60 volumes, confounds, and a second run that is damaged."""
    datasets.write_dataset(root, runs=())
    stem = f"sub-01_task-rest_space-{SPACE}"
    datasets.write_run(root, stem, datasets.bold(0, toy_confounds.T))
    toy_confounds.write_confounds(root)
    bad = datasets.write_run(root, f"sub-01_task-rest_run-2_space-{SPACE}")
    bad.write_bytes(bad.read_bytes()[:-2000])
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Outputs of one good and one damaged run, cleaned and raw, two participants."""
    folder = tmp_path_factory.mktemp("reports")
    root = write_long_dataset(folder / "fmriprep")
    out = folder / "out"
    option = nasty_atlas(folder / "atlas")
    # The damaged run has no confounds: it fails before it is read.
    run(root, out, "participant", "--atlas-file", option, *CLEAN, code=1)
    return out


def test_the_page_holds_together(made):
    check_page(Page(made / "sub-01.html"))


def test_the_page_tells_what_happened(made):
    page = Page(made / "sub-01.html")
    words = page.words
    assert "Errors and warnings" in words
    assert "failed 1 run" in words
    assert "check 1 run" in words  # both of its series, and a run is counted once
    # Two series of the good run: 1 + 3 volumes of the cleaned one are left out.
    assert "60 of 60" in words
    assert "56 of 60" in words
    assert "1 of 5 regions n/a" in words
    assert "absent from atlas" in words
    # Mean FD over all volumes, and over the 56 without spikes: two columns.
    assert "Mean FD (mm), all volumes" in words
    assert "Mean FD (mm), kept volumes" in words
    table = (made / "sub-01.html").read_text(encoding="utf-8")
    assert '<td class="n">0.141</td><td class="n">0.100</td>' in table
    kinds = {p["src"].rpartition("/")[2].split("_")[-2] for p in page.all("img")}
    assert kinds >= {
        "desc-24PMotion",
        "desc-24PDesign",
        "desc-contours",
        "desc-coverage",
        "desc-tsnr",
        "desc-24PCarpet",
        "desc-24PRelmat",
        "desc-carpet",
    }


def test_every_word_of_the_verdict_is_a_column(made):
    page = (made / "sub-01.html").read_text(encoding="utf-8")
    table = page[page.index('id="summary-table"') :].partition("</table>")[0]
    names = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table)
    assert names == [
        *("Run", "Time series", "Status", "Volumes kept", "Mean FD (mm), all volumes"),
        *("Mean FD (mm), kept volumes", "Coverage", "Regions lost", "tSNR"),
        *("Degrees of freedom", "Why"),
    ]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[3:]]
    freedom = {
        series: json.loads(next(made.glob(pattern)).read_text())["DegreesOfFreedom"]
        for series, pattern in (
            ("mean, 24P", "sub-01/func/*_desc-24P_timeseries.json"),
            ("mean, as extracted", "sub-01/func/*_stat-mean_timeseries.json"),
        )
    }
    told = {cells[0]: cells[8] for cells in rows if cells[8] != "n/a"}
    assert told == {name: f"{value:g}" for name, value in freedom.items()}


def test_one_run_is_unfolded_and_the_contents_lead_everywhere(made):
    page = Page(made / "sub-01.html")
    folds = page.all("details", **{"class": "run"})
    # The first with a picture that is not good: the damaged one has none.
    assert ["open" in fold for fold in folds] == [False, True]
    text = (made / "sub-01.html").read_text(encoding="utf-8")
    contents = text[text.index("<nav") : text.index("</nav>")]
    key = "sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold"
    for place in ("", "-motion", "-0", "-0-brain", "-0-0", "-0-matrices", "-0-series"):
        assert f'href="#{key}{place}"' in contents
    assert contents.index("#problems") < contents.index("#summary")
    assert text.index('id="problems"') < text.index('id="summary"')


def test_the_picker_is_told_what_the_tables_say(made):
    text = (made / "sub-01.html").read_text(encoding="utf-8")
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    told = json.loads(told)
    (table,) = made.glob("sub-01/func/*_dseg.tsv")
    header, *rows = (line.split("\t") for line in table.read_text().splitlines())
    for name, cells in told["regions"].items():
        assert cells == [row[header.index(name)] for row in rows]
    assert set(told["regions"]) == {*"xyz", "coverage", "network", "status", "tsnr"}
    assert [each["strategy"] for each in told["series"]] == ["none", "24P"]


def test_sizes_of_the_regions_are_those_of_the_atlas(made):
    page = (made / "sub-01.html").read_text(encoding="utf-8")
    (row,) = re.findall(r"<tr><td class=\"n\">3</td>.*?</tr>", page)
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
    labels = datasets.labels()
    volume = abs(np.linalg.det(datasets.oblique()[:3, :3]))
    size = (labels == 3).sum() * volume
    share = (labels == 3).sum() / (labels != 0).sum()
    assert cells[1:3] == ["Right V1", "ok"]
    assert float(cells[4]) == round(size)
    assert float(cells[5]) == round(100 * share, 2)


def test_names_are_never_markup(made):
    text = (made / "sub-01.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \u03b1" in text
    drawn = [p for p in (made / "sub-01/figures").iterdir() if p.suffix != ".json"]
    assert {path.suffix for path in drawn} == {".svg", ".js"}
    for path in drawn:
        assert b"<script>alert" not in path.read_bytes()


def test_the_policy_allows_the_page_and_nothing_else(made):
    text = (made / "sub-01.html").read_text(encoding="utf-8")
    (policy,) = Page(made / "sub-01.html").all(
        "meta", **{"http-equiv": "Content-Security-Policy"}
    )
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = hashlib.sha256(content.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]
    assert "unsafe" not in policy["content"]
    assert "http" not in policy["content"]


def test_methods_say_what_ran(made):
    words = Page(made / "sub-01.html").words
    assert "preprocessed with fMRIPrep 23.2.0 (Esteban et al. 2019)" in words
    assert "Cleaning (24P): 24 confounds" in words
    assert "(Friston et al. 1996)" in words
    assert "framewise displacement above 0.5 mm (Power et al. 2012)" in words
    assert "Pearson correlation coefficient was computed" in words
    assert "@article{Friston1996," in words
    assert "author = {Friston, KJ and Williams, S and" in words
    assert "smoothed" not in words
    assert "Ledoit" not in words


def methods_text(*sidecars, relmats=()):
    series = [("cleaned", sidecar) for sidecar in sidecars]
    return " ".join(write_methods({}, {}, series, relmats, {}).paragraphs)


def test_methods_tell_components_of_the_image_from_confounds_of_the_preprocessing():
    main = [f"high_variance_{n}" for n in range(5)]
    text = methods_text({"ConfoundRegressors": main})
    assert "the 5 main components of the voxels that vary most (Behzadi" in text
    assert "of the preprocessing were" not in text
    text = methods_text({"ConfoundRegressors": [*main, "csf"]})
    assert "1 confound of the preprocessing and the 5 main components" in text


def test_methods_tell_neighbours_rows_and_order():
    filters = {"High-pass cutoff (Hz)": 0.01, "Censored ends": "nearest"}
    text = methods_text(
        {
            "FDThreshold": 0.5,
            "CensorBefore": 1,
            "CensorAfter": 2,
            "DummyScans": 3,
            "Detrend": True,
            "CensoredVolumes": "interpolate",
            "Interpolation": "cubic_spline",
            "SoftwareFilters": {"Butterworth": filters | {"Padding": "odd"}},
        }
    )
    assert "with 1 volume before and 2 volumes after each of them" in text
    assert "those before the steady state cut off), mean and linear trend taken" in text
    assert "between kept ones are filled by cubic splines, those at the ends" in text
    assert "left out" not in text
    # Dummies alone are rows that are not there, too.
    text = methods_text({"DummyScans": 3, "CensoredVolumes": "na"})
    assert "3 volumes before the steady state went" in text
    assert "In the series censored volumes are n/a." in text


def test_methods_tell_filters_that_differ_between_runs():
    fit = {"Pass-band fit": {"Low-pass cutoff (Hz)": 0.1}}
    text = methods_text(
        {"SoftwareFilters": fit}, {"SoftwareFilters": "n/a"}, {"SoftwareFilters": fit}
    )
    assert "In 2 of 3 series: Signals and confounds alike" in text
    assert "In 1 of 3 series: No filter was applied." in text
    assert "of 1 series" not in methods_text({"SoftwareFilters": fit})


def test_methods_tell_of_transforms_where_an_atlas_was_moved():
    moved = {"Atlas": "A", "AtlasTransform": ["bids:preprocessed:x.h5"]}
    told = [("none", moved), ("none", {"Atlas": "B"})]
    methods = write_methods({}, {"A": {}, "B": {}}, told, [], {})
    by = "nearest neighbour, through the transforms of the preprocessing."
    assert [by in text for text in methods.paragraphs if "Regions were" in text] == [
        True,
        False,
    ]


def test_methods_tell_the_pseudo_inverse():
    text = methods_text(
        relmats=[
            {
                "RelationshipMeasure": "partial correlation coefficient",
                "PartialEstimator": "pseudo_inverse",
            }
        ]
    )
    assert "by the pseudo-inverse of the correlation matrix" in text


def test_methods_name_all_statistics_and_that_of_the_matrices():
    note = {"StatisticNote": "each voxel was centred"}
    trimmed = {"Statistic": "trimmed_mean_10", "StatisticParameters": {"share": 0.1}}
    two = ({"Statistic": "eigenvariate"} | note, {"Statistic": "mean"})
    relmat = {
        "RelationshipMeasure": "z score of the Pearson correlation by xDF",
        "Statistic": "mean",
        "XDFRegularisation": "tukey",
        "RelmatVolumes": 60,
        "RelmatSeed": 3,
    }
    text = methods_text(*two, trimmed, relmats=[relmat])
    whats = "the first eigenvariate, the mean, and the mean without the lowest and the"
    assert f"For each region and volume {whats} highest 10 % were taken" in text
    assert "For the eigenvariate each voxel was centred" in text
    assert "the z score of the Pearson correlation by xDF of the mean was" in text
    assert "over 60 of the kept volumes, chosen at random (seed 3)." in text
    assert "Tukey's window" in text
    # One statistic needs no telling apart.
    text = methods_text(two[1], relmats=[relmat])
    assert "the mean was taken" in text
    assert "by xDF was computed" in text
    assert "steady" not in text


def test_methods_name_the_measures_of_regions():
    text = methods_text({"RegionMeasures": ["homogeneity", "voxel_tsnr"]})
    both = "the mean correlation with the regional mean and the mean tSNR of their"
    assert f"{both} voxels over the volumes in a steady state." in text
    text = methods_text({"RegionMeasures": ["voxel_tsnr"]})
    assert "the mean tSNR of their voxels" in text
    assert "correlation" not in text


def test_methods_cite_nothing_that_did_not_run():
    methods = write_methods({}, {}, [], [], {})
    keys = {key for key, _, _ in methods.references}
    assert "Esteban2019" not in keys
    assert keys == set(re.findall(r"@article\{(\w+),", methods.bibtex))


def test_entries_of_bibtex_have_no_bare_ampersand():
    reference = {
        "Key": "Hunter2007",
        "Authors": "Hunter JD",
        "Title": "Matplotlib",
        "Journal": "Computing in Science & Engineering",
        "Year": 2007,
        "DOI": "10.1109/MCSE.2007.55",
    }
    found = format_bibtex(reference)
    assert "journal = {Computing in Science \\& Engineering}" in found


def test_methods_cite_the_atlas():
    from bids_roi.atlases.names import describe_known_atlas

    atlas = describe_known_atlas("HOCPA")
    sidecar = {"Statistic": "mean", "SmoothingFWHM": 6.0, "Mask": "none"}
    methods = write_methods(
        {}, {"HOCPA": atlas}, [("none", sidecar)], [], {"HOCPA": 48}
    )
    text = " ".join(methods.paragraphs)
    assert "Harvard-Oxford cortical structural atlas (HOCPA, 48 regions)" in text
    assert "(Makris et al. 2006; Frazier et al. 2005" in text
    assert "Gaussian kernel of 6 mm" in text
    found = {key: (words, doi) for key, words, doi in methods.references}
    words, doi = found["Makris2006"]
    assert words.startswith("Makris N, Goldstein JM, Kennedy D, et al. (2006). ")
    assert words.endswith(" Schizophrenia Research.")
    assert doi == "10.1016/j.schres.2005.11.020"


def test_pages_are_the_same_however_they_come_about(tmp_path):
    sessions = [f"sub-01_ses-{n}_task-rest" for n in (1, 2)]
    root = datasets.write_dataset(tmp_path / "fmriprep", sessions)
    common = ["participant", "--atlas-file", datasets.write_atlas(tmp_path / "atlas")]
    run(root, tmp_path / "whole", *common)
    for session in (2, 1):
        run(root, tmp_path / "parts", *common, "--session-label", session)
    first = datasets.snapshot(tmp_path / "parts")
    run(root, tmp_path / "parts", *common)  # nothing is left to do
    assert datasets.snapshot(tmp_path / "parts") == first
    for name in ("whole", "parts"):
        check_page(Page(tmp_path / name / "sub-01.html"))
    whole, parts = (
        {
            k: re.sub(
                rb"<h2 id=.command.>.*?</section>", b"", v or b"", flags=re.DOTALL
            )
            for k, v in datasets.snapshot(tmp_path / name).items()
            if not k.startswith("logs")  # and the calls that pages name
        }
        for name in ("whole", "parts")
    )
    assert whole == parts
    assert Page(tmp_path / "parts/sub-01.html").words.count("ses-2") > 2


def test_no_report_and_a_report_later(dataset, atlas, tmp_path):
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    run(*common, "--no-report")
    before = datasets.snapshot(tmp_path / "out")
    assert not [name for name in before if "figures" in name or ".html" in name]
    run(*common)
    after = datasets.snapshot(tmp_path / "out")
    tables = {k: v for k, v in before.items() if v is not None and "logs" not in k}
    assert {k: after[k] for k in tables} == tables
    check_page(Page(tmp_path / "out/sub-02.html"))
    shutil.rmtree(tmp_path / "out/sub-01/figures")
    run(*common)
    assert datasets.snapshot(tmp_path / "out").keys() == after.keys()


def test_a_page_without_its_figures(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    shutil.rmtree(out / "sub-01/figures")
    from bids_roi.report.participant import write_page

    assert write_page(out, "sub-01") is None
    page = Page(out / "sub-01.html")
    check_page(page)
    assert "No figures were drawn" in page.words


def test_figures_that_cannot_be_drawn_cost_a_warning_only(dataset, atlas, tmp_path):
    out = tmp_path / "out"
    (out / "sub-01").mkdir(parents=True)
    (out / "sub-01/figures").write_text("in the way")
    run(dataset, out, "participant", "--atlas-file", atlas)
    assert len(list(out.glob("sub-01/func/*_timeseries.tsv"))) == 1
    assert "figures could not be drawn" in Page(out / "sub-01.html").words


def test_tables_of_thousands_of_regions_are_pages_of_their_own(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    (table,) = out.glob("sub-01/func/*_dseg.tsv")
    header, *rows = table.read_text().splitlines()
    names = header.split("\t")
    cells = rows[1].split("\t")
    many = []
    for n in range(4000):
        cells[names.index("index")], cells[names.index("name")] = str(n), f"R{n}"
        many.append("\t".join(cells))
    table.write_text("\n".join([header, *many]) + "\n")
    from bids_roi.report.participant import write_page

    assert write_page(out, "sub-01") is None
    check_page(Page(out / "sub-01.html"))
    links = [a for a in Page(out / "sub-01.html").all("a") if "#" not in a["href"]]
    (link,) = [a for a in links if "regions" in a["href"]]
    own = Page(out / link["href"])
    check_page(own)
    assert own.words.count(" R3999 ") == 1


def test_atlas_of_weighted_maps_and_no_confounds(dataset, tmp_path):
    from bids_roi.images.nifti import write_image

    rng = np.random.default_rng(0)
    maps = rng.random((*datasets.SHAPE, 3)) * (rng.random((*datasets.SHAPE, 3)) > 0.5)
    path = tmp_path / f"tpl-{SPACE}_atlas-Maps_probseg.nii.gz"
    write_image(path, maps.astype("f4"), datasets.oblique())
    table = tmp_path / f"tpl-{SPACE}_atlas-Maps_probseg.tsv"
    table.write_text("index\tname\n1\ta\n2\tb\n3\tc\n")
    out = tmp_path / "out"
    run(dataset, out, "participant", "--atlas-file", f"{path},{table}")
    page = Page(out / "sub-01.html")
    check_page(page)
    assert "least squares, as extracted" in page.words
    assert len(page.all("img")) == 4  # contours, coverage, tSNR, carpet; no motion


def test_the_group_page(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    run(made.parent / "fmriprep", out, "group")
    page = Page(out / "group.html")
    check_page(page)
    assert "failed" in page.words
    assert "Mean connectivity" in page.words
    text = (out / "group.html").read_text(encoding="utf-8")
    assert "Mean FD, all (mm): median 0.1407" in text
    assert "Mean FD, kept (mm), 24P: median 0.1;" in text
    links = {a["href"] for a in page.all("a")}
    assert any(link.startswith("sub-01.html#sub-01_task-rest_run-2") for link in links)
    first = (out / "group.html").read_bytes()
    run(made.parent / "fmriprep", out, "group")
    assert (out / "group.html").read_bytes() == first


def test_the_group_page_without_any_table(tmp_path):
    from bids_roi.report.group import write_group_page

    (tmp_path / "group_runs.tsv").write_text(
        "participant_id\tstatus\treason\nsub-1\tfailed\t<b>no\n"
    )
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": NASTY}))
    write_group_page(tmp_path)
    page = Page(tmp_path / "group.html")
    check_page(page)
    assert "<b>no" in page.words
    assert NASTY in page.words


def test_a_page_that_says_all_is_left_and_any_other_is_made_again(
    dataset, atlas, tmp_path, capsys
):
    """Where nothing changed; --verify makes it anew whatever it looks like."""
    out = tmp_path / "out"
    asked = (dataset, out, "participant", "--atlas-file", atlas)

    def page_after(*more):
        call(capsys, *asked, *more, report=True)
        return page.read_bytes(), page.stat().st_mtime_ns

    page = out / "sub-01.html"
    whole, first = page_after()
    assert page_after() == (whole, first)
    assert page_after("--verify")[1] > first
    for spoil in (
        lambda: page.write_bytes(whole[:-20]),
        lambda: page.write_bytes(whole.replace(b"bids_roi 0.", b"bids_roi 9.")),
        page.unlink,
        lambda: os.utime(page, ns=(0, 0)),  # as if records had come later
    ):
        spoil()
        made, when = page_after()
        assert made == whole
        assert when > first
