"""Heads of pages and runs: what a run is, what moved, and how it was made."""

import itertools
import json
import re

import numpy as np
import pytest
from support import datasets, toy_confounds
from support.calls import read, read_regions
from support.datasets import SPACE
from support.pictures import Page

from bids_roi.cli import main, tell_command
from bids_roi.core.grid import Grid
from bids_roi.report.brain import Ground, choose_slices, draw_contours, draw_tsnr
from bids_roi.report.pages import name_dataset
from bids_roi.report.raster import order_regions

WORDS = ["--strategy", "none", "24P", "--fd-threshold", "0.5", "--relmat", "pearson"]


def run(*arguments, code=0):
    assert main([*map(str, arguments), "--executor", "serial", "-q"]) == code


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run, raw and cleaned, and the table of its confounds."""
    folder = tmp_path_factory.mktemp("heads")
    root = folder / "fmriprep"
    datasets.write_dataset(root, runs=())
    stem = f"sub-01_task-rest_space-{SPACE}"
    datasets.write_run(root, stem, datasets.bold(0, toy_confounds.T))
    toy_confounds.write_confounds(root)
    (table,) = root.glob("sub-01/func/*_desc-confounds_timeseries.tsv")
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    rng = np.random.default_rng(1)
    place = rows[0].index("std_dvars")
    for row in rows[2:]:
        row[place] = f"{rng.uniform(0.8, 1.4):.4f}"
    rmsd = ["rmsd", "n/a", *(f"{0.01 * n:.2f}" for n in range(toy_confounds.T - 1))]
    rows = [[*row, cell] for row, cell in zip(rows, rmsd, strict=True)]
    table.write_text("\n".join("\t".join(row) for row in rows) + "\n")
    atlas = datasets.write_atlas(folder / "atlas")
    call = [root, folder / "out", "participant", "--atlas-file", atlas, *WORDS]
    run(*call)
    return folder / "out", table, call


def column(table, name):
    header, values = read(table)
    return values[:, header.index(name)]


def facts_of(page):
    """What stands at the head of the run, by its words."""
    text = page.read_text(encoding="utf-8")
    head = text[text.index('<details class="run"') :]
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", head.partition("</dl>")[0])
    return dict(found)


def test_a_run_has_its_timing_and_motion_at_its_head(made):
    out, table, _ = made
    fd, rmsd = (column(table, n) for n in ("framewise_displacement", "rmsd"))
    dvars = column(table, "std_dvars")
    both = np.isfinite(fd) & np.isfinite(dvars)
    r = np.corrcoef(fd[both], dvars[both])[0, 1]
    assert facts_of(out / "sub-01.html") == {
        "Repetition time": "2 s",
        "Volumes": f"{fd.size} ({fd.size * 2 / 60:.1f} min)",
        "Mean FD": f"{np.nanmean(fd):.3f} mm",
        "Highest FD": f"{np.nanmax(fd):.2f} mm",
        "FD above 0.2 mm": f"{100 * (fd > 0.2).sum() / fd.size:.0f} %",
        "Mean RMS displacement": f"{np.nanmean(rmsd):.3f} mm",
        "Mean standardised DVARS": f"{np.nanmean(dvars):.2f}",
        "FD\N{EN DASH}DVARS correlation": f"{r:.2f}",
    }


def mean_change(signals, deviation):
    """Over pairs of volumes that both are kept; NaN rows were left out."""
    found = []
    for before, after in itertools.pairwise(signals):
        change = ((after - before) / deviation) ** 2
        if np.isfinite(change).any():
            found.append(np.sqrt(np.nanmean(change)))
    return np.mean(found)


def test_each_time_series_tells_the_motion_that_is_left(made):
    out, _, _ = made
    text = (out / "sub-01.html").read_text(encoding="utf-8")
    body = text[text.index('class="fitted told"') :].partition("</tbody>")[0]
    rows = {
        row[0]: row[1:]
        for row in re.findall(
            r'<th scope="row">(.*?)</th>'
            r'<td class="n">(.*?)</td>' * 1 + r'<td class="n">(.*?)</td>' * 3,
            body,
        )
    }
    stem = f"sub-01_task-rest_space-{SPACE}_atlas-Toy_stat-mean"
    _, raw = read(out / f"sub-01/func/{stem}_timeseries.tsv")
    (table,) = out.glob("sub-01/func/*_desc-24P_outliers.tsv")
    kept = np.array([cell == "0" for cell in read_regions(table)["outlier"]])
    _, clean = read(out / f"sub-01/func/{stem}_desc-24P_timeseries.tsv")
    if len(clean) < len(raw):
        whole = np.full(raw.shape, np.nan)
        whole[kept] = clean
        clean = whole
    clean[~kept] = np.nan
    used = np.isfinite(raw).all(axis=0)
    masked = np.where(kept[:, None], raw, np.nan)[:, used]
    own = raw[:, used].std(axis=0)
    common = raw[kept][:, used].std(axis=0)
    n = len(raw)
    correlations = []
    for d in ("", "_desc-24P"):
        told = json.loads((out / f"sub-01/func/{stem}{d}_timeseries.json").read_text())
        value = told.get("FDRegionalDVARSCorrelation")
        correlations.append("n/a" if value is None else f"{value:.2f}")
    assert correlations[0] != "n/a"
    assert rows == {
        "mean, as extracted": (
            f"{n} ({n / 30:.1f} min)",
            *[f"{mean_change(raw[:, used], own):.3f}"] * 2,
            correlations[0],
        ),
        "mean, 24P": (
            f"{kept.sum()} ({kept.sum() / 30:.1f} min)",
            f"{mean_change(masked, common):.3f}",
            f"{mean_change(clean[:, used], common):.3f}",
            correlations[1],
        ),
    }


def test_the_call_is_on_the_pages_without_what_changes_nothing(made, tmp_path):
    out, _, call = made
    typed = "bids_roi " + " ".join(map(str, call))
    page = Page(out / "sub-01.html")
    assert typed in page.words
    assert "serial" not in page.words.partition("Command")[2]
    before = (out / "sub-01.html").read_bytes()
    run(*call, "--overwrite", "--n-procs", "1")  # says the same, and makes the same
    assert (out / "sub-01.html").read_bytes() == before
    run(out, out, "group")
    assert f"bids_roi {out} {out} group" in Page(out / "group.html").words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "in out participant --n-procs 4 --task rest",
            "in out participant --task rest",
        ),
        ("in --n_procs=4 out participant -vv", "in out participant"),
        ("in out group --verify -q --quiet --mem-mb 800", "in out group"),
        ("in out participant --work-dir /tmp/x --no-report", "in out participant"),
    ],
)
def test_options_of_running_are_not_in_the_command(words, told):
    assert tell_command(words.split()) == f"bids_roi {told}"
    assert tell_command(["a b", "out", "group"]) == "bids_roi 'a b' out group"


FMRIPREP = {"Name": "fMRIPrep", "Version": "23"}


@pytest.mark.parametrize(
    ("name", "link", "expected"),
    [
        ("Study X", "../fmriprep", "Study X"),
        (
            "fMRIPrep - fMRI PREProcessing workflow",
            "../ds1/derivatives/fmriprep",
            "ds1",
        ),
        ("fMRIPrep", "/data/ds1/derivatives/fmriprep/23.1", "ds1"),
        ("fMRIPrep", "../fmriprep", ""),
        ("fMRIPrep", "../derivatives/fmriprep", ""),
    ],
)
def test_a_page_is_of_a_dataset_and_not_of_a_program(name, link, expected):
    dataset = {
        "Name": f"Regional time series of {name}",
        "GeneratedBy": [{"Name": "bids_roi"}, FMRIPREP],
        "DatasetLinks": {"preprocessed": link},
    }
    assert name_dataset(dataset) == (expected, link)
    assert name_dataset({}) == ("", "")


def test_raw_signals_beside_cleaned_ones_are_no_warning(made, tmp_path):
    out, _, call = made
    assert "connectivity of signals that" not in Page(out / "sub-01.html").words
    alone = [word for word in call if word not in ("24P", "--fd-threshold", "0.5")]
    alone[1] = tmp_path / "alone"
    run(*alone)
    assert "connectivity of signals that" in Page(tmp_path / "alone/sub-01.html").words


@pytest.fixture
def slices():
    """Six slabs of a cube, and the slices through them."""
    shape = (12, 12, 12)
    grid = Grid.of(shape, np.diag([3.0, 3, 3, 1]))
    x = np.unravel_index(np.arange(12**3), shape, order="F")[0]
    rows = (x // 2).astype(np.int32)
    planes = choose_slices(grid, np.ones(12**3, dtype=bool))
    ground = Ground(planes, np.full(12**3, 7.0), None, "image")
    return ground, [plane.show(rows, -1) for plane in planes]


def test_the_brain_shows_tsnr_on_a_scale_from_0(slices):
    from support.pictures import rasters

    ground, labels = slices
    tsnr = np.array([0.0, 20, 40, 60, 79, np.nan])
    picture = draw_tsnr(ground, labels, tsnr, lost=np.isnan(tsnr))
    layer = rasters(picture.content)[5][1]
    (tall, wide), plane = ground.planes[2].finer, labels[2]
    middle = plane.shape[0] // 2
    inks = []
    for region in range(5):
        place = np.flatnonzero(plane[middle] == region)[1]
        inks.append(layer[middle * tall + 1, place * wide].astype(int).tolist())
    assert inks[0] == [0x44, 0x01, 0x54, 255]
    assert [ink[1] for ink in inks] == sorted(ink[1] for ink in inks)  # green grows
    assert inks[4][:2] > [230, 220]  # 79 of 80 is nearly the lightest
    assert "lowest 0, median 40, highest 79." in picture.alt
    assert ">80<" in picture.content.decode()
    nothing = np.full(6, np.nan)
    assert draw_tsnr(ground, labels, nothing, lost=np.isnan(nothing)) is None


def test_the_key_of_lost_regions_has_their_stripes(slices):
    from support.pictures import rasters

    ground, labels = slices
    lost = np.array([False, True, False, False, False, False])
    plain = order_regions(6, None)
    picture = draw_contours(ground, labels, plain, lost=lost)
    keys = [
        layer for _, layer in rasters(picture.content) if layer.shape[:2] == (18, 28)
    ]
    (key,) = keys
    colours = {tuple(c) for c in key.reshape(-1, 4).tolist()}
    assert colours == {(240, 228, 66, 255), (20, 20, 20, 255)}
    # Without networks a colour has no meaning, and none is told.
    assert "lines: edges of the regions;" in picture.caption
    networks = order_regions(6, ["A", "A", "A", "B", "B", "B"])
    named = draw_contours(ground, labels, networks, lost=lost)
    assert "edges of the regions, in the colours of their networks;" in named.caption
