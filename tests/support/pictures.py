"""Pictures of runs that were never scanned, and pages taken to pieces."""

import io
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
from PIL import Image

from bids_roi.core.grid import Grid
from bids_roi.report.draw import (
    AtlasPictures,
    MotionPictures,
    RunPictures,
    SeriesPictures,
)

HEADINGS = {"h1", "h2", "h3", "h4"}
VOID = {"meta", "img", "br", "input", "link", "hr"}


def make_run(n_volumes=40, n_regions=6, *, lost=(), shape=(9, 11, 8), clean=True):
    """One run, one atlas of slabs, one series with everything that can be drawn."""
    rng = np.random.default_rng(0)
    affine = np.diag([3.0, 3, 4, 1])
    affine[:3, 3] = -15
    n_voxels = int(np.prod(shape))
    rows = (np.arange(n_voxels) * n_regions // n_voxels).astype(np.int32)
    gone = np.isin(np.arange(n_regions), lost)
    before = rng.normal(1000, 10, (n_volumes, n_regions))
    before[:, gone] = np.nan
    kept = np.ones(n_volumes, dtype=bool)
    if n_volumes > 10:
        kept[[0, 7, 8]] = False
    dummy = np.zeros(n_volumes, dtype=bool)
    dummy[0] = n_volumes > 10
    after = before[kept] - 1000
    fd = np.abs(rng.normal(0.1, 0.1, n_volumes))
    fd[0] = np.nan
    relmat = np.ma.corrcoef(np.ma.masked_invalid(after).T)
    relmat = np.atleast_2d(np.ma.filled(relmat, np.nan))
    series = SeriesPictures(
        "sub-1/func/sub-1_atlas-A_stat-mean_desc-X_timeseries.tsv",
        "X",
        before,
        after if clean else None,
        kept,
        dummy,
        same_unit=True,
        relmats=(("sub-1/func/sub-1_desc-X_relmat.tsv", "Pearson", relmat),),
    )
    atlas = AtlasPictures(
        "A",
        "sub-1/func/sub-1_atlas-A_dseg.tsv",
        rows,
        tuple(f"r<{i}> & \N{GREEK SMALL LETTER ALPHA}" for i in range(n_regions)),
        tuple("$xy<b>"[i % 3 :] for i in range(n_regions)),
        np.where(gone, 0.1, 0.95),
        gone,
        (series,),
    )
    motion = MotionPictures(
        "sub-1/func/sub-1_desc-X_outliers.tsv",
        "X",
        fd,
        1 + fd,
        kept,
        dummy,
        0.3,
        None,
        rng.normal(size=(int(kept.sum()), 3)),
        ("a", "$b", "<c>"),
    )
    return RunPictures(
        "sub-1/func/sub-1_bold.nii.gz",
        Grid.of(shape, affine),
        rng.uniform(500, 1000, n_voxels).astype("f4"),
        "mean image",
        np.arange(n_voxels) < n_voxels // 2,
        2.0,
        0.5,
        (motion,),
        (atlas,),
    )


def pixels(content):
    """A PNG as (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


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
    for picker in page.all("figure"):
        if "data-source" in picker:
            assert (page.path.parent / picker["data-source"]).is_file()
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
