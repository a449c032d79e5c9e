"""Runs whose input is not here any more, planned from what their outputs say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.open import Atlas
from bids_roi.atlases.regions import RegionTable
from bids_roi.atlases.transforms import Route
from bids_roi.errors import BidsRoiError
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json, read_table
from bids_roi.options.words import find_statistic
from bids_roi.outputs.names import name_outputs, sidecar_of
from bids_roi.outputs.records import read_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bids_roi.atlases.surfaces import Areas
    from bids_roi.options.record import Options
    from bids_roi.outputs.records import Record
    from bids_roi.participant.plan import PlannedRun


def recall_plan(
    planned: PlannedRun,
    options: Options,
    labels: tuple[str | None, ...],
    output_dir: Path,
) -> PlannedRun | None:
    """Plan of a run of which series or mask are links to what is not here.

    Grid and atlases are those that its outputs were made with, but for atlases that are
    given as files and hold something else now. ``None`` where it lacks nothing, or one
    of the atlases has no outputs.
    """
    run = planned.run
    if not any(path and _is_dropped(path) for path in (*run.files, run.mask_path)):
        return None
    records = read_records(output_dir, run.relative_path)
    done = {record.atlas: record for record in records if record.status == "done"}
    if not planned.asked or not done.keys() >= set(planned.asked):
        return None
    try:
        atlases = [
            _hold_against(
                planned.given, _recall_atlas(done[a], options, output_dir, run.root)
            )
            for a in planned.asked
        ]
    except (BidsRoiError, LookupError, TypeError, ValueError):
        return None  # its outputs are no use: the run fails, as the input is gone
    extraction, connectivity = options.extraction, options.connectivity
    masks = {"auto": run.mask_path, "none": None}
    return replace(
        planned,
        error=None,
        mask_path=masks.get(extraction.mask, Path(extraction.mask)),
        atlases=tuple(
            (
                atlas,
                name_outputs(
                    run,
                    atlas,
                    extraction.statistic if atlas.hard else extraction.map_statistic,
                    labels,
                    relmats=connectivity.relmat,
                    fisher_z=connectivity.fisher_z,
                ),
            )
            for atlas in atlases
        ),
    )


def _is_dropped(path: Path) -> bool:
    try:
        return path.is_symlink() and not path.exists()
    except OSError:  # of the disk, which says nothing of the content
        return False


def _recall_route(sidecar: Mapping[str, Any], root: Path) -> Route | None:
    """Transforms that the atlas came by, with the digest that they had."""
    told = sidecar.get("AtlasTransform")
    if not isinstance(told, list):
        return None
    steps = []
    for uri in map(str, told):
        name = uri.removesuffix(" (inverse)")
        steps.append((root / name.removeprefix("bids:preprocessed:"), name != uri))
    return Route(tuple(steps), _digest(sidecar.get("AtlasTransformDigest")))


def _recall_areas(sidecar: Mapping[str, Any]) -> Areas | None:
    """Whose areas vertices weighed by, with the digest that they had."""
    from bids_roi.atlases.surfaces import Areas  # loads the readers of surfaces

    weights = sidecar.get("VertexWeights")
    if not isinstance(weights, str):
        return None
    digest = _digest(sidecar.get("VertexAreasDigest"))
    return Areas((), (), digest, weights.endswith("of the participant"))


def _recall_atlas(
    record: Record, options: Options, output_dir: Path, root: Path
) -> Atlas:
    """The atlas of outputs, as far as names and digests need it."""
    (table,) = [path for path in record.outputs if path.endswith("_dseg.tsv")]
    sidecar, cells = (
        read_json(output_dir / sidecar_of(table)),
        read_table(output_dir / table),
    )
    name = parse_name(table)
    names = tuple(cells["name"])
    stats = {parse_name(p).get("stat") for p in record.outputs if "_timeseries" in p}
    of_labels = {find_statistic(s).stat for s in options.extraction.statistic}
    return Atlas(
        label=name.get("atlas") or "",
        seg=name.get("seg"),
        scale=name.get("scale"),
        space=name.get("space") or "",
        kind="dseg" if stats & of_labels else "probseg",
        files=(output_dir / table,),
        table_path=None,
        image_digest=_digest(sidecar.get("AtlasImageDigest")),
        table_digest=_digest(sidecar.get("AtlasTableDigest")),
        regions=RegionTable(tuple(int(i) for i in cells["index"]), names, names),
        source="",
        description={},
        route=_recall_route(sidecar, root),
        areas=_recall_areas(sidecar),
    )


def _hold_against(given: tuple[Atlas, ...], recalled: Atlas) -> Atlas:
    """An atlas with the content that its files have now, where it is another."""
    now = [atlas for atlas in given if atlas.name == recalled.name]
    # Of a run that transforms led to, outputs do not tell in which space the atlas was.
    now = [atlas for atlas in now if atlas.space == recalled.space] or now
    for atlas in now:
        same = atlas.image_digest == recalled.image_digest
        if same and atlas.table_digest == recalled.table_digest:
            return recalled
    return (
        recalled
        if not now
        else replace(
            recalled,
            image_digest=now[0].image_digest,
            table_digest=now[0].table_digest,
            regions=now[0].regions,
        )
    )


def _digest(told: object) -> str:
    return str(told or "").removeprefix("sha256:")
