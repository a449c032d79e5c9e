"""Pictures of runs that were never scanned, and pages taken to pieces."""

import base64
import io
import json
import re
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from bids_roi.atlases.open import Atlas
from bids_roi.atlases.regions import RegionTable
from bids_roi.confounds.strategies import Strategy
from bids_roi.confounds.table import Selected
from bids_roi.core.clean import prepare_cleaner
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels, strongest_map
from bids_roi.core.motion import censor
from bids_roi.core.quality import assess_regions
from bids_roi.dataset.run import BoldRun
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image, write_image
from bids_roi.options.settings import Settings
from bids_roi.outputs.derivatives import RelmatOutput, RunOutputs, SeriesOutput
from bids_roi.outputs.result import AtlasResult, CleanedSeries, Motion, Preparation
from bids_roi.report.draw import RunFigures

VOID = {"meta", "img", "br", "input", "link", "hr"}


@dataclass
class Run:
    """What ``RunFigures`` is given of one run."""

    grid: Grid
    mean: np.ndarray
    brain: np.ndarray | None
    repetition_time: float | None
    motion: Motion
    preparation: Preparation
    result: AtlasResult


def draw_run(run, folder):
    """Draw all figures of a run; none may fail."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        path = root / "sub-1/func/sub-1_bold.nii"
        path.parent.mkdir(parents=True)
        write_image(path, np.zeros((*run.grid.shape, 2), np.uint8), run.grid.matrix)
        figures = RunFigures(
            BoldRun(root, (path,), (("sub", "1"),), None, None, {}),
            open_image(path, BOLD),
            folder,
            repetition_time=run.repetition_time,
            minimum_coverage=0.5,
        )
    figures.mean.update(0, run.mean[None])
    figures.brain, figures.motion = run.brain, run.motion
    figures.voxels = np.flatnonzero(strongest_map(run.result.mapped.weights) >= 0)
    figures.draw_motion(
        run.motion, [("sub-1/func/sub-1_desc-X_outliers.tsv", run.preparation)]
    )
    figures.draw_atlas(run.result)
    assert not figures.notes


def make_run(n_volumes=40, n_regions=6, *, lost=(), shape=(9, 11, 8), clean=True):
    """One run, one atlas of slabs, one series with everything that can be drawn."""
    rng = np.random.default_rng(0)
    affine = np.diag([3.0, 3, 4, 1])
    affine[:3, 3] = -15
    grid = Grid.of(shape, affine)
    n_voxels = int(np.prod(shape))
    gone = np.isin(np.arange(n_regions), lost)
    before = rng.normal(1000, 10, (n_volumes, n_regions))
    before[:, gone] = np.nan
    fd = np.abs(rng.normal(0.1, 0.1, n_volumes))
    fd[0] = np.nan
    moved = rng.normal(0, 0.1, (n_volumes, 6))
    motion = Motion(fd, 1 + fd, parameters=moved)
    early = np.zeros(n_volumes, dtype=bool)
    early[0] = n_volumes > 10
    moved = np.zeros(n_volumes)
    moved[7:9] = 1
    censoring = censor(
        moved, None, early, n_volumes=n_volumes, fd_threshold=0.3,
        std_dvars_threshold=None, scrub=0, before=0, after=0, n_dummy=0,
    )  # fmt: skip
    preparation = Preparation(
        Strategy("X", "X", "", (), Settings(fd_threshold=0.3)),
        Selected(("a", "$b", "<c>"), rng.normal(size=(n_volumes, 3))),
        censoring,
        fd,
        1 + fd,
    )
    series = SeriesOutput("mean", "X", f"{STEM}_stat-mean_desc-X_timeseries.tsv")
    relmat = RelmatOutput(
        "pearson", False, "X", "mean", series.path, "sub-1/func/sub-1_desc-X_relmat.tsv"
    )
    cleaned = {}
    if clean:
        cleaner = prepare_cleaner(
            n_volumes=n_volumes, confounds=None, sample_mask=censoring.sample_mask,
            times=None, n_dummy=0, detrend=False, high_pass=None, low_pass=None,
            filter="passband", filter_order=2, interpolation="linear",
            filter_padding="odd", filter_ends="cut", standardize=None,
            standardize_confounds=True, repetition_time=2.0,
        )  # fmt: skip
        found = cleaner.clean(before)
        cleaned[series] = CleanedSeries(found.signals, found, {}, (), preparation)
    after = before[censoring.sample_mask]
    values = np.ma.corrcoef(np.ma.masked_invalid(after).T)
    values = np.atleast_2d(np.ma.filled(values, np.nan))
    return Run(
        grid,
        rng.uniform(500, 1000, n_voxels).astype("f4"),
        np.arange(n_voxels) < n_voxels // 2,
        2.0,
        motion,
        preparation,
        AtlasResult(
            _atlas(n_regions),
            RunOutputs((series,), f"{STEM}_dseg.tsv", (), (relmat,)),
            slabs(grid, n_regions),
            _quality(gone),
            {"mean": before},
            cleaned,
            {},
            relmats={relmat.path: values},
        ),
    )


STEM = "sub-1/func/sub-1_atlas-A"


def slabs(grid, n_regions, first=1):
    """Regions of as many voxels each, one after the other, on the grid of the run."""
    labels = first + np.arange(grid.n_voxels) * n_regions // grid.n_voxels
    labels = labels.reshape(grid.shape, order="F")
    return map_labels(labels, np.arange(1, n_regions + 1), grid, grid)


def _atlas(n_regions):
    names = tuple(f"r<{i}> & \N{GREEK SMALL LETTER ALPHA}" for i in range(n_regions))
    networks = tuple("$xy<b>"[i % 3 :] for i in range(n_regions))
    table = RegionTable(
        tuple(range(1, n_regions + 1)), names, names, (("network", networks),)
    )
    place = Path("atlas.nii.gz")
    return Atlas("A", None, None, "X", "dseg", place, None, "", "", table, "", {})


def _quality(gone):
    ones = np.ones(gone.size, dtype=int)
    return assess_regions(
        n_voxels_atlas=100 * ones, n_voxels_grid=100 * ones, n_voxels_mask=100 * ones,
        n_voxels_finite=100 * ones, n_voxels_dropout=0 * ones,
        n_voxels_used=np.where(gone, 10, 95), coverage=np.where(gone, 0.1, 0.95),
        min_coverage=0.5,
    )  # fmt: skip


def parts(content, tag):
    """Elements of a kind in a figure, as dictionaries; words are under ``words``."""
    return [
        {**each.attrib, "words": each.text or ""}
        for each in ET.fromstring(content).iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    ]


def rasters(content):
    """Rasters in a figure: where each lies, and (rows, columns, 4) of its pixels."""
    found = []
    for image in parts(content, "image"):
        box = tuple(float(image[key]) for key in ("x", "y", "width", "height"))
        png = base64.b64decode(image["href"].partition(",")[2])
        found.append((box, np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))))
    return found


class Page(HTMLParser):
    """A page that is read strictly: every element closed, in order."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.open, self.elements, self.text = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        """Everything that a reader reads."""
        return " ".join(" ".join(self.text).split())

    def all(self, tag, **wanted):
        """Attributes of the elements of a kind."""
        return [
            found
            for name, found in self.elements
            if name == tag and wanted.items() <= found.items()
        ]


def check_page(page):
    """What holds of every page: links lead somewhere, nothing is from elsewhere."""
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"
    for image in page.all("img"):
        assert len(image["alt"]) > 20
        assert (page.path.parent / image["src"]).is_file()
    for link in page.all("a"):
        target, _, anchor = link["href"].partition("#")
        if target.startswith("https://doi.org/"):
            continue
        if target:
            assert (page.path.parent / target).is_file(), target
        else:
            assert anchor in ids
    text = page.path.read_text(encoding="utf-8")
    for told in re.findall(r'<script type="application/json">(.*?)</script>', text):
        for series in json.loads(told)["series"]:
            assert (page.path.parent / series["source"]).is_file()
    tables = len(page.all("table"))
    assert len(page.all("caption")) == tables
    assert all("scope" in cell for cell in page.all("th"))
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    levels = [
        int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")
    ]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), levels
    assert page.path.stat().st_size < 2_000_000
