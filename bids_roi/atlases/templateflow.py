"""TemplateFlow: what it holds, the folders with copies of it, and downloads.

What it holds is told by the list inside its wheel: importing ``templateflow`` unpacks
2,500 files into the user's home where there are none, so that the zip is read without
executing any of it. Files that it lists with content (tables, JSON) are whole; images
are listed with 0 bytes.

Its client writes into the final name as the bytes arrive, takes any file that is not
empty for good, and unpacks thousands of placeholders where its home is empty. So it
works in a private folder here that holds nothing but placeholders of the files wanted;
what it brings is read to the end, compared with what it says of itself, and moved into
the home by one rename. Any number of jobs may do so at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import logging
import math
import os
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bids_roi.atlases.names import (
    AtlasKey,
    cite_briefly,
    key_of_file,
    nearest_atlases,
    own_table,
    parse_atlas_name,
    short_names,
    space_of,
)
from bids_roi.atlases.regions import parse_table, without_wall
from bids_roi.errors import BidsRoiError, MissingInput, OutputError, UsageError
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


# Set in container images that bring atlases along.
_IMAGE_COPY = "BIDS_ROI_TEMPLATEFLOW"
_KINDS = ("dseg", "probseg")
_FORMS = {"dseg": "labels", "probseg": "maps", "surface": "surface", "dlabel": "dlabel"}
_KIND_OF = {".label.gii": "surface", ".dlabel.nii": "dlabel"}
# Tables of TemplateFlow whose names do not match their images'.
_MISSPELT = {"CerebA": "CerebrA"}
S3_ROOT = "https://templateflow.s3.amazonaws.com"
# A mirror of the archive, for institutes that have one and for tests.
_MIRROR = "BIDS_ROI_TEMPLATEFLOW_URL"
_TIMEOUT_S = 10
_ATTEMPTS = 3
_LONGEST = 200  # of a reason; -vv gives all
# What urllib3 and the systems below it say.
_SIGNS = {
    **dict.fromkeys(("resolve", "unreachable", "Name or service"), "no network"),
    "timed out": "no answer",
    "refused": "connection refused",
}
log = logging.getLogger("bids_roi")
# From the keys of the archive's git-annex.
KNOWN_MD5 = {
    "tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-02_atlas-Schaefer2018"
    "_desc-400Parcels7Networks_dseg.nii.gz": "c6d141b06b9ce0627eb197aa4657cfe0",
}


@dataclass(frozen=True, slots=True)
class TemplateGrid:
    """Grid of one resolution of a template."""

    shape: tuple[int, ...]  # voxels along x, y, z
    zooms: tuple[float, ...]  # millimetres
    origin: tuple[float, ...]  # centre of the left-posterior-inferior corner voxel, mm

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return math.prod(self.zooms)


@functools.cache
def _zip_path() -> Path:
    # Looking for a top-level package does not execute it.
    spec = importlib.util.find_spec("templateflow")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "conf" / "templateflow-skel.zip"
        if path.is_file():
            return path
    msg = "the package templateflow, which holds the list of atlases, is not there."
    raise MissingInput(msg, remedy="Install it: pip install templateflow.")


@functools.cache
def _archive() -> zipfile.ZipFile:
    # In memory, 1.3 MB: an open file would share its position with forked workers.
    return zipfile.ZipFile(io.BytesIO(_zip_path().read_bytes()))


@functools.cache
def list_skeleton() -> dict[str, int]:
    """List every file of TemplateFlow's archive, with the size that the list has.

    By relative path (``tpl-X/tpl-X_res-01_T1w.nii.gz``); 0 for what must be downloaded.
    Empty where templateflow is not installed.
    """
    try:
        items = _archive().infolist()
    except MissingInput:
        return {}
    return {item.filename: item.file_size for item in items if not item.is_dir()}


def read_skeleton(name: str) -> bytes:
    """Read a table or JSON out of the list; a ``KeyError`` if it has no such file."""
    return _archive().read(name)


@functools.cache
def template_grids() -> dict[str, dict[str, TemplateGrid]]:
    """Collect the grids of every template: template to ``res-`` label to grid.

    A cohort's own grids stand under ``X+1``.
    """
    found: dict[str, dict[str, TemplateGrid]] = {}
    for name in list_skeleton():
        folder, _, file = name.partition("/")
        if file != "template_description.json":
            continue
        template = folder.removeprefix("tpl-")
        content = json.loads(read_skeleton(name))
        content = content if isinstance(content, dict) else {}
        places = {template: content.get("res")}
        cohorts = content.get("cohort")
        if isinstance(cohorts, dict):
            for label, cohort in cohorts.items():
                own = cohort.get("res") if isinstance(cohort, dict) else None
                places[f"{template}+{label}"] = own or content.get("res")
        for place, listed in places.items():
            if isinstance(listed, dict):
                grids = {res: _grid(entry) for res, entry in listed.items()}
                found[place] = {res: g for res, g in grids.items() if g is not None}
    return found


def _grid(entry: object) -> TemplateGrid | None:
    try:
        shape = tuple(int(n) for n in entry["shape"])  # type: ignore[index]
        zooms = tuple(float(z) for z in entry["zooms"])  # type: ignore[index]
        origin = tuple(float(x) for x in entry["origin"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return TemplateGrid(shape, zooms, origin) if len(zooms) == 3 else None


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An atlas image of the archive, present or not."""

    key: AtlasKey  # the atlas
    space: str  # template, with its cohort (UNCInfant+1)
    # dseg or probseg of volumes, as the name says; dlabel; surface of a hemisphere or
    # two
    kind: str
    res: str  # label of res-, blank where there is none; an index, not millimetres
    path: str  # relative to the home; of the left hemisphere where there are two
    right: str = ""  # of the right hemisphere; blank where there is none
    den: str = ""  # label of den- (10k), blank where there is none

    @property
    def is_volume(self) -> bool:
        """Whether it is an image of voxels alone."""
        return self.kind in _KINDS

    @property
    def is_usable(self) -> bool:
        """Whether it is more than one hemisphere or a flat map."""
        return self.is_volume or self.kind == "dlabel" or bool(self.right)

    @property
    def layout(self) -> str:
        """Template, density and form, for messages."""
        if self.is_volume:
            return f"a volume in {self.space}"
        form = "a dlabel" if self.kind == "dlabel" else "surfaces"
        return f"{form} in {self.space}" + (f" den-{self.den}" if self.den else "")

    @property
    def paths(self) -> tuple[str, ...]:
        """Its image, or those of left and right."""
        return (self.path, self.right) if self.right else (self.path,)


def search_path(
    given: Path | None, environ: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Folders to look for atlases in, in order; none is created or written.

    ``--templateflow-home``, ``TEMPLATEFLOW_HOME``, the copy in the container image,
    TemplateFlow's own default, and the folder that ``download_home`` falls back to.
    """
    environ = os.environ if environ is None else environ
    caches = _caches(environ)
    named = [given, environ.get("TEMPLATEFLOW_HOME"), environ.get(_IMAGE_COPY)]
    folders = [Path(folder) for folder in named if folder]
    folders += [cache / "templateflow" for cache in caches]
    folders += [cache / "bids_roi" / "templateflow" for cache in caches]
    return tuple(dict.fromkeys(folder.absolute() for folder in folders))


def download_home(given: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Choose the folder that downloads go to.

    The folder given by the user, else a home that is in use. An empty home is left
    alone: with a few files in it, TemplateFlow's client would take it for complete, and
    every other tool of the user would find nothing else.
    """
    environ = os.environ if environ is None else environ
    caches = _caches(environ)
    tried = []
    if given is not None:
        tried.append(given.absolute())
    else:
        homes = [Path(h) for h in [environ.get("TEMPLATEFLOW_HOME")] if h]
        homes += [cache / "templateflow" for cache in caches]
        tried += [home.absolute() for home in homes if any(home.glob("tpl-*"))]
        tried += [cache / "bids_roi" / "templateflow" for cache in caches]
    for folder in tried:
        if _can_write(folder):
            return folder
    where = ", ".join(map(str, tried)) or "no home folder"
    msg = f"there is no folder that downloads can be written to ({where})."
    raise MissingInput(msg, remedy="Name one with --templateflow-home.")


def _caches(environ: Mapping[str, str]) -> list[Path]:
    cache, home = environ.get("XDG_CACHE_HOME"), environ.get("HOME")
    if cache:
        return [Path(cache).absolute()]
    return [Path(home).absolute() / ".cache"] if home else []


def _can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def list_folder(home: Path) -> dict[str, int]:
    """List images, tables and JSON of a home or dataset: relative path to size.

    Only names that begin with ``tpl-`` or ``atlas-``, in folders that do, and one
    ``anat`` or ``cohort`` folder down.
    """
    found: dict[str, int] = {}
    patterns = ("tpl-*", "tpl-*/tpl-*", "tpl-*/*/tpl-*", "tpl-*/*/*/tpl-*")
    for pattern in (*patterns, "atlas-*", "tpl-*/atlas-*", "tpl-*/*/atlas-*"):
        for path in home.glob(pattern):
            if re.search(r"\.(nii|nii\.gz|tsv|json|gii)$", path.name):
                try:
                    size = path.stat().st_size
                except OSError:  # a link to annexed content that is not here
                    size = 0
                found[path.relative_to(home).as_posix()] = size
    return dict(sorted(found.items()))


def scan_names(names: Iterable[str]) -> list[HeldImage]:
    """Find the atlas images among file names, sorted; left and right are one."""
    held, everything = [], set(names)
    for path in everything:
        name = parse_name(path)
        entities = dict(name.entities)
        space = space_of(path)
        if name.suffix not in _KINDS or "atlas" not in entities or space is None:
            continue
        if {"label", "stat"} & set(entities):  # one region's surface; confidence
            continue
        kind = _KIND_OF.get(name.extension, name.suffix)
        right = ""
        if kind == "surface":
            other = path.replace("_hemi-L_", "_hemi-R_")
            if (
                "_hemi-R_" in path
                and path.replace("_hemi-R_", "_hemi-L_") in everything
            ):
                continue
            right = other if other != path and other in everything else ""
        elif kind == name.suffix and name.extension not in (".nii", ".nii.gz"):
            continue
        held.append(
            HeldImage(
                key=key_of_file(path),
                space=space,
                kind=kind,
                res=entities.get("res", ""),
                path=path,
                right=right,
                den=entities.get("den", ""),
            )
        )
    return sorted(
        held, key=lambda h: (h.space, h.key.name, h.kind, h.res, len(h.den), h.path)
    )


def choose_table(image: str, names: Iterable[str]) -> str | None:
    """Choose the table of an image: the one that says most, and nothing else.

    Every entity of a table must be the image's too; in the image's folder or above it.
    TemplateFlow has tables without ``res-`` and ``desc-``, a dseg table for a probseg
    image, and one that is misspelt (CerebA).
    """
    own = parse_name(image)
    entities, folders = dict(own.entities), set(PurePosixPath(image).parents)
    ranked = []
    for name in names:
        if not name.endswith(".tsv"):
            continue
        table = parse_name(name)
        said = dict(table.entities)
        said["atlas"] = _MISSPELT.get(said.get("atlas", ""), said.get("atlas", ""))
        fits = said.items() <= entities.items()
        if fits and table.suffix in _KINDS and PurePosixPath(name).parent in folders:
            ranked.append((table.suffix == own.suffix, len(said), name))
    return max(ranked)[2] if ranked else None


def download(
    names: Sequence[str],
    home: Path,
    *,
    s3_root: str | None = None,
    timeout: int = _TIMEOUT_S,
) -> list[Path]:
    """Bring files of the archive into a home, those in the package without a network.

    What is there under these names is replaced; of a file that cannot be had, nothing
    is left. ``s3_root`` is ``BIDS_ROI_TEMPLATEFLOW_URL`` by default, else
    TemplateFlow's own; ``timeout`` counts seconds without an answer.
    """
    root = s3_root or os.environ.get(_MIRROR) or S3_ROOT
    known = list_skeleton()
    with _private_folder(home) as private:
        for name in names:
            if known.get(name):
                _write(private / name, read_skeleton(name))
            else:
                _fetch_one(private, name, root.rstrip("/"), timeout)
        for name in names:
            _move(private / name, home / name)
    return [home / name for name in names]


@contextlib.contextmanager
def _private_folder(home: Path) -> Iterator[Path]:
    """Make a folder inside the home, so that a rename suffices; no tool reads it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".bids_roi-", dir=home))
    except OSError as error:
        msg = f"downloads cannot be written ({error.strerror})."
        remedy = "Name another folder with --templateflow-home (or --dest)."
        raise OutputError(msg, where=home, remedy=remedy) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.chmod(0o644)
        source.replace(target)
    except OSError as error:
        msg = f"the file cannot be written ({error.strerror})."
        remedy = "Name another folder with --templateflow-home (or --dest)."
        raise OutputError(msg, where=target, remedy=remedy) from error


def _fetch_one(private: Path, name: str, root: str, timeout: int) -> None:
    """Let the client fetch one file; what breaks off in the middle is tried again."""
    from bids_roi.images.header import check_complete

    for attempt in range(1, _ATTEMPTS + 1):
        single = private / f".try{attempt}"
        path = single / name
        _write(path, b"")
        problem = ""
        try:
            _ask_client(single, name, root, timeout)
            check_complete(path, md5=KNOWN_MD5.get(name))
        except BidsRoiError as error:
            problem = error.problem
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            problem = " ".join(str(error).split()) or type(error).__name__
        if not problem:
            (private / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(private / name)
            return
        if path.stat().st_size == 0:  # refused or no answer: no use in asking again
            break
    log.debug("%s/%s: %s", root, name, problem)
    times = f", tried {attempt} times" if attempt > 1 else ""
    msg = f"cannot be downloaded ({_why(problem)}{times})."
    remedy = (
        "Where there is no network, fill a folder elsewhere (`bids_roi_tools fetch"
        " ATLAS --dest DIR`) and give it with --templateflow-home."
    )
    raise MissingInput(msg, where=f"{root}/{name}", remedy=remedy)


def _why(problem: str) -> str:
    """What stopped a download, without the chain of libraries that met it."""
    for sign, word in _SIGNS.items():
        if sign in problem:
            return word
    problem = problem.partition(" for url")[0]
    return problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."


def _ask_client(home: Path, name: str, root: str, timeout: int) -> None:
    """Call the client while its home is one that it takes for filled."""
    before = os.environ.get("TEMPLATEFLOW_HOME")
    os.environ["TEMPLATEFLOW_HOME"] = str(home)
    say = io.StringIO()
    try:
        from templateflow.client import TemplateFlowClient

        with contextlib.redirect_stderr(say), contextlib.redirect_stdout(say):
            TemplateFlowClient(
                root=home,
                s3_root=root,
                timeout=timeout,
                use_datalad=False,
                autoupdate=False,
            ).get(name.partition("/")[0].removeprefix("tpl-"))
    finally:
        if before is None:
            del os.environ["TEMPLATEFLOW_HOME"]
        else:
            os.environ["TEMPLATEFLOW_HOME"] = before


def list_atlases(space: str | None, home: Path | None) -> Iterator[str]:
    """List all atlases of TemplateFlow, and of the homes, as lines of text."""
    present: set[str] = set()
    names = set(list_skeleton())
    for folder in search_path(home):
        files = list_folder(folder) if folder.is_dir() else {}
        present |= {name for name, size in files.items() if size}
        names |= set(files)
    held = [h for h in scan_names(sorted(names)) if space in (None, h.space)]
    if not held:
        spaces = sorted({h.space for h in scan_names(sorted(names))})
        msg = f"TemplateFlow holds no atlas in {space}."
        raise UsageError(msg, remedy=f"There are some in {', '.join(spaces)}.")
    width = max(len(h.key.name) for h in held)
    for template, group in groupby(held, key=lambda h: h.space):
        yield template
        variants = groupby(group, key=lambda h: (h.key, h.kind, h.is_usable))
        for (key, kind, usable), images in variants:
            named = kind if usable else "flat"
            yield _describe_images(key.name.ljust(width), named, list(images), present)
        yield ""
    yield (
        "Choose one with --atlas NAME, or the short name behind the number of regions;"
        " what lies as a run does is taken. Flat: a map to"
        " draw on, from which nothing is extracted."
    )


def _describe_images(
    name: str, kind: str, images: Sequence[HeldImage], present: set[str]
) -> str:
    grids = template_grids().get(images[0].space, {})
    sizes = []
    for image in images:
        grid = grids.get(image.res)
        zoom = f"{grid.zooms[0]:g} mm" if grid else ""
        label = f"res-{image.res}" if image.res else ""
        label = f"den-{image.den}" if image.den else label
        size = f"{label} ({zoom})" if label and zoom else label or zoom
        here = set(image.paths) <= present
        sizes.append(size + (" [cached]" if here else ""))
    regions = _count_regions(images[0])
    where = ", ".join(dict.fromkeys(filter(None, map(str.strip, sizes))))
    cite = cite_briefly(images[0].key.label)
    kind = _FORMS.get(kind, kind)
    short = ", ".join(short_names(images[0].key))
    return f"  {name}  {kind:7}  {regions:>5}  {short:20}  {where:40}  {cite}".rstrip()


def _count_regions(image: HeldImage) -> str:
    """Regions of an atlas from the table in TemplateFlow's package."""
    own = own_table(image.key.label)
    if own is not None:
        return str(own.read_text("utf-8").count("\n") - 1)
    table = choose_table(image.path, list_skeleton())
    if table is None:
        return "?"
    try:
        raw = parse_table(read_skeleton(table).decode("utf-8-sig"), Path(table))
    except BidsRoiError:
        return "?"
    raw = raw if image.is_volume else without_wall(raw)
    return str(sum(index != 0 for index in raw.index))


def fetch_atlases(
    names: Sequence[str],
    *,
    spaces: Sequence[str],
    res: Sequence[str],
    dest: Path | None,
) -> Iterator[str]:
    """Fetch atlases into a folder, for jobs without a network; a line per file."""
    from bids_roi.images.header import check_complete  # the list needs no NumPy

    wanted = [name for text in names for name in _files_of(text, spaces, res)]
    home = download_home(dest)
    for name in dict.fromkeys(wanted):
        path = home / name
        state = "present"
        try:
            check_complete(path)
        except (BidsRoiError, OSError):
            download([name], home)
            state = "fetched"
        yield f"{state}  {path.stat().st_size:>9}  {path}"
    yield f"Give it to jobs with --templateflow-home {home}"


def _files_of(text: str, spaces: Sequence[str], res: Sequence[str]) -> list[str]:
    key = parse_atlas_name(text)
    held = [h for h in scan_names(list_skeleton()) if h.is_usable]
    same = [h for h in held if h.key.name.casefold() == key.name.casefold()]
    if not same:
        near = nearest_atlases(text, dict.fromkeys(h.key for h in held))
        msg = f"TemplateFlow holds no atlas '{text}'."
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        remedy = f"{hint}`bids_roi_tools atlases` lists all."
        raise UsageError(msg, remedy=remedy)
    padded = {label.lstrip("0") for label in res}
    chosen = [
        h
        for h in same
        if (not spaces or h.space in spaces or h.space.partition("+")[0] in spaces)
        and (not padded or h.res.lstrip("0") in padded or h.den in padded)
    ]
    if not chosen:
        there = ", ".join(
            f"{h.space} den-{h.den}" if h.den else f"{h.space} res-{h.res or 'none'}"
            for h in same
        )
        msg = f"atlas {key.name} is not there in this space and resolution."
        raise UsageError(msg, remedy=f"It is in {there}.")
    files = []
    for image in chosen:
        table = choose_table(image.path, list_skeleton())
        files += [*image.paths, *([table] if table else [])]
    return files
