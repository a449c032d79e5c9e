"""The files at the root of the output: the same bytes whoever writes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bids_roi.atlases.templateflow import S3_ROOT
from bids_roi.dataset.query import dataset_around, dataset_description
from bids_roi.errors import OutputError
from bids_roi.files.listing import folders_in, is_absent, real_path
from bids_roi.files.names import format_name
from bids_roi.files.tables import (
    format_json,
    format_table,
    name_temporary,
    remove_leftovers,
    write_file,
)
from bids_roi.outputs.derivatives import describe_regions
from bids_roi.outputs.result import REGION_COLUMNS
from bids_roi.outputs.schema import format_sidecar
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bids_roi.atlases.open import Atlas


BIDS_VERSION = "1.11.1"

# Time series, matrices, reports and group tables have no name in BIDS yet (BEP012,
# BEP017). "figures" without a slash: with one the validator reports the folder. The
# region table of an atlas serves runs in every space, and so cannot hold the one
# SpatialReference that the validator asks of it; its description describes no file
# where every run failed. Runs with cohort- lack the tpl- that BIDS asks for beside it,
# and den- is known in anat only.
BIDSIGNORE = """\
*.html
figures
*_timeseries.tsv
*_timeseries.json
*_relmat.tsv
*_relmat.json
*_outliers.*
group_*
atlas-*_dseg.tsv
atlas-*_dseg.json
atlas-*_description.json
*_cohort-*_dseg.*
*_den-*
*.ptseries.nii
*.pconn.nii
"""

# Entities of pybids and of data/pybids_config.json. A column that a sidecar describes
# is taken for the entity of its name, and where a file name has another value the
# folder is refused; so no column of a table that others inherit from is called so.
_OF_PYBIDS = """
acquisition atlas ceagent chunk cohort datatype den desc direction echo extension flip
fmap from hash hemi inv label modality mode model mt nucleus part proc reconstruction
recording res roi run sample scale scans seg segmentation session space staining stat
subject subset suffix task to tpl tracer tracksys volume
"""
PYBIDS_ENTITIES = frozenset(_OF_PYBIDS.split())

README = """\
# Regional time series

Written by bids_roi from preprocessed BOLD runs: one time series per region of an atlas.

- `sub-*/[ses-*/]func/*_timeseries.tsv`: one row per volume, one column per region, in
  the order of the atlas table; `n/a` where a region could not be measured.
- `sub-*/[ses-*/]func/*_dseg.tsv`: voxels, coverage, status and level of each region.
- `sub-*/[ses-*/]func/*_relmat.tsv`: connectivity matrices, where asked for.
- `sub-*/[ses-*/]func/*_outliers.tsv`: for cleaned series, which volumes were left out.
- `sub-*.html`, `group.html`: reports to look at; their pictures are in `figures`.
- `atlas-*_dseg.tsv`, `atlas-*_description.json`: the regions and where they come from.
- `group_*`: tables over all runs, and HDF5 stacks of them, written by the group level.
- `logs/`: one line per run and atlas: done, skipped or failed, and why.

The names of the time series follow the drafts that XCP-D follows too; BIDS has none for
them yet, hence `.bidsignore`.
"""


def check_output_dir(output_dir: Path, root: Path) -> None:
    """Refuse an output folder in or around the input; make sure it can be written."""
    out, source = real_path(output_dir), real_path(root)
    if out == source or out.is_relative_to(source):
        msg = f"the output folder is inside the input {root}, which is never changed."
        remedy = "Choose a folder beside it, for example ../bids_roi."
        raise OutputError(msg, where=output_dir, remedy=remedy)
    other = dataset_around(out)
    if other == out and not dataset_description(out)[0]:
        where = out / "dataset_description.json"
        msg = (
            "the file is empty or damaged, so that nobody knows whose dataset this is."
        )
        remedy = "If bids_roi made the folder, remove the file; it is written anew."
        raise OutputError(msg, where=where, remedy=remedy)
    if other is not None and (other == out or source.is_relative_to(other)):
        msg = f"the output folder is part of another dataset, {other}."
        remedy = "Choose a folder beside it, or in its derivatives/ folder."
        raise OutputError(msg, where=output_dir, remedy=remedy)
    if output_dir.exists() and not output_dir.is_dir():
        msg = "the output folder is a file."
        raise OutputError(msg, where=output_dir, remedy="Choose a folder.")
    for folder in ("", "logs", "figures"):
        remove_leftovers(output_dir / folder)
    probe = output_dir / name_temporary()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        msg = f"the output folder cannot be written ({error.strerror})."
        remedy = "Check its permissions, or mount it writable into the container."
        if output_dir.is_symlink() and not output_dir.exists():
            remedy = "It is a link to what is not here: mount the disk, or remove it."
        raise OutputError(msg, where=output_dir, remedy=remedy) from error


ROOT_FILES = ("dataset_description.json", ".bidsignore", "README.md")


def keep_valid(output_dir: Path, participant: str) -> None:
    """Make the folder of a participant where a dataset has none at all.

    BIDS asks for one; where every run failed, nothing else makes it.
    """
    there = (output_dir / "dataset_description.json").is_file()
    if there and not any(p.name.startswith("sub-") for p in folders_in(output_dir)):
        (output_dir / f"sub-{participant}").mkdir()


def write_dataset_files(
    output_dir: Path,
    root: Path,
    source: Mapping[str, Any],
    atlas_datasets: Mapping[str, Path],
) -> list[str]:
    """Write ``dataset_description.json``, ``.bidsignore`` and ``README.md``.

    ``source`` is the description of the derivative at ``root``; ``atlas_datasets`` are
    names and folders of further datasets that sidecars refer to. Returns warnings about
    files that are there with other content and stay as they are.
    """
    description = _describe_dataset(output_dir, root, source)
    description["DatasetLinks"] |= {
        name: _link(output_dir, folder, {}) for name, folder in atlas_datasets.items()
    }
    _add_links(output_dir, description)
    texts = (format_json(description), BIDSIGNORE, README)
    return [
        warning
        for name, text in zip(ROOT_FILES, texts, strict=True)
        for warning in _write_once(output_dir, name, text)
    ]


def _add_links(output_dir: Path, description: dict[str, Any]) -> None:
    """Put links beside those that are there, where nothing else differs.

    Sidecars of an earlier call may refer to other datasets than those of this one.
    """
    there = dataset_description(output_dir)[0]
    links, own = there.get("DatasetLinks"), description["DatasetLinks"]
    if not isinstance(links, dict) or there | {"DatasetLinks": own} != description:
        return
    if all(links.get(name, link) == link for name, link in own.items()):
        description["DatasetLinks"] = links | own
        if own.keys() - links.keys():
            write_file(output_dir, ROOT_FILES[0], format_json(description))


def _describe_dataset(
    output_dir: Path, root: Path, source: Mapping[str, Any]
) -> dict[str, Any]:
    own: dict[str, Any] = {"Name": "bids_roi", "Version": __version__}
    own["Description"] = "One time series per atlas region from preprocessed BOLD runs."
    container = os.environ.get("BIDS_ROI_CONTAINER_TAG")
    if container:
        own["Container"] = {"Type": "docker", "Tag": container}
    before = source.get("GeneratedBy")
    before = [b for b in before if b] if isinstance(before, list) else []
    name = source.get("Name") or "the preprocessed dataset"
    content: dict[str, Any] = {
        "Name": f"Regional time series of {name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [own, *before],
        "DatasetLinks": {
            "preprocessed": _link(output_dir, root, source),
            "templateflow": S3_ROOT,
        },
    }
    kept = ("SourceDatasets", "License", "HowToAcknowledge")
    content |= {key: source[key] for key in kept if source.get(key)}
    given = source.get("Authors")
    authors = given if isinstance(given, list) and given else [f"Authors of {name}"]
    content["Authors"] = [*authors, "The bids_roi developers"]
    return content


def _link(output_dir: Path, root: Path, source: Mapping[str, Any]) -> str:
    """Where the input is, in a form that survives a move of both."""
    out, there = real_path(output_dir), real_path(root)
    if len(os.path.commonpath([out, there])) > 1:
        return quote(os.fsencode(os.path.relpath(there, out)))
    doi = source.get("DatasetDOI")
    return doi if isinstance(doi, str) and doi else there.as_uri()


def name_atlas_files(atlas: Atlas) -> tuple[str, str, str]:
    """Names of the description, the region table and its sidecar."""
    stem = format_name(atlas.entities, "dseg", "")
    return f"atlas-{atlas.label}_description.json", f"{stem}.tsv", f"{stem}.json"


def write_atlas_files(output_dir: Path, atlas: Atlas) -> list[str]:
    """Write the region table and description of an atlas.

    Returns warnings, as ``write_dataset_files`` does.
    """
    regions = atlas.regions
    columns: dict[str, Any] = {"index": regions.index, "name": regions.name}
    taken = {*REGION_COLUMNS, "original_name", *PYBIDS_ENTITIES}
    for column, cells in regions.extra:
        key = column.lower()
        columns[f"atlas_{key}" if key in taken else key] = cells
    if regions.original_name != regions.name:
        columns["original_name"] = regions.original_name
    # Nothing that the sidecars of the runs say too, or they would override it.
    texts = {
        column: f"{column}, as in the atlas table."
        for column in columns
        if column not in REGION_COLUMNS
    }
    said = {"Description": describe_regions(atlas)}
    contents = (
        format_json(dict(atlas.description)),
        format_table(columns),
        format_sidecar("regions", said, texts),
    )
    return [
        warning
        for name, text in zip(name_atlas_files(atlas), contents, strict=True)
        for warning in _write_once(output_dir, name, text)
    ]


def _write_once(output_dir: Path, name: str, text: str) -> list[str]:
    """Write a shared file unless it is there; say so where its content differs."""
    try:
        present = (output_dir / name).read_bytes()  # of any encoding
    except OSError as error:
        if not (is_absent(error) or isinstance(error, IsADirectoryError)):
            why = f"cannot be read ({error.strerror})"
            return [f"{name} is there, {why} and stays as it is."]
        write_file(output_dir, name, text)
        return []
    if present == text.encode(errors="replace"):
        return []
    return [f"{name} is there with other content and stays as it is."]
