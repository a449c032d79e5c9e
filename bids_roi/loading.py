"""Outputs as pandas objects, for notebooks."""

from __future__ import annotations

import contextlib
import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_roi.atlases.names import key_of_file, name_map, name_of_word, without_side
from bids_roi.confounds.strategies import load_strategy
from bids_roi.errors import (
    BidsRoiError,
    DataError,
    MissingInput,
    NothingFound,
    UsageError,
    nearest_words,
)
from bids_roi.files.listing import is_there, list_folder
from bids_roi.files.matrices import read_matrix
from bids_roi.files.names import format_name
from bids_roi.files.tables import MISSING, read_json, read_table
from bids_roi.matrices import Matrices
from bids_roi.options.words import measure_of_word, stat_of_name
from bids_roi.outputs.columns import RUN_COLUMNS, SPACE_KEYS, identify
from bids_roi.outputs.find import (
    COMBINED,
    KINDS,
    REMEDY,
    Output,
    check_combined,
    choose_combined,
    explain_stale,
    find_outputs,
    find_stale,
)
from bids_roi.outputs.records import (
    RAW,
    check_table,
    read_all_records,
    told_digest,
)
from bids_roi.outputs.result import OUTLIER_COLUMNS, REGION_COLUMNS
from bids_roi.outputs.schema import FACTS, describe_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Choice = str | int | Iterable[str | int] | None

__all__ = ["Outputs", "load"]

# What a table can be chosen by, and the entity that it is in the name.
_ENTITIES = {
    "participant_label": "sub",
    "session_label": "ses",
    "task_label": "task",
    "run_label": "run",
    "echo_label": "echo",
    **{key: key for key in SPACE_KEYS},
    "atlas": "atlas",
    "statistic": "stat",
    "relmat": "stat",
    "strategy": "desc",
}
# Kinds of tables that some choices are about; the other kinds stay whole.
_CONCERNS = {
    "atlas": ("timeseries", "relmat", COMBINED, "regions"),
    "statistic": ("timeseries",),
    "relmat": ("relmat", COMBINED),
    "strategy": ("timeseries", "relmat", COMBINED, "outliers"),
}
# The columns of what is read, and the word that other pipelines have.
_OTHER_WORDS = {
    **{f"{name.removesuffix('_label')}_id": name for name in _ENTITIES},
    "denoise": "strategy",
}
# The choice that takes the matrices over runs in place of those of the runs.
_OVER_RUNS = "combine_runs"
# How what a name lacks is shown, and asked for.
_ABSENT = {"strategy": RAW, "space": "native", "hemi": "both"}
_TEXT_COLUMNS = {
    name
    for name, column in (REGION_COLUMNS | OUTLIER_COLUMNS).items()
    if not column.unit
}
_SHOWN = 8


@dataclass(frozen=True, slots=True, repr=False)
class Outputs:
    """What an output folder holds; tables are read when they are asked for.

    Every method takes the choices of ``load`` to narrow them further.

    Attributes
    ----------
    output_dir
        The folder.
    tables
        The files that were chosen, sorted by path.
    """

    output_dir: Path
    tables: tuple[Output, ...]

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{sum(table.kind == kind for table in self.tables)} {kind}"
            for kind in dict.fromkeys(table.kind for table in self.tables)
        )
        n_runs = len({t.run_name for t in self.tables if t.kind != "combined"})
        return f"<bids_roi outputs of {n_runs} runs in {self.output_dir}: {counts}>"

    def _repr_html_(self) -> str:
        """Show in a notebook what there is to choose from."""
        rows = [
            (_shown(t, "atlas"), _shown(t, "space"), _shown(t, "strategy"), t.kind)
            for t in self.tables
        ]
        frame = pd.DataFrame(rows, columns=["atlas", "space", "strategy", "tables"])
        counted = frame.value_counts(sort=False).rename("files").reset_index()
        table = counted.to_html(max_rows=12, index=False)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    def runs(self, **choice: Choice) -> pd.DataFrame:
        """List the time series: one row each, with what their sidecars say.

        Returns
        -------
        DataFrame
            Entities, as ``run_id`` (text: "01" stays "01"), ``n_volumes``,
            ``n_volumes_kept``, ``repetition_time`` and ``seconds_kept`` (s), ``fd_*``
            (mm), ``coverage_mean`` (0 to 1), and ``path``, relative to the folder.
            NaN where not told. ``strategy`` is ``"none"`` for raw signals.
        """
        tables = self._choose("timeseries", choice)
        _check_making(tables)
        rows = []
        for table in tables:
            labels = dict(table.name.entities)
            row: dict[str, object] = {**identify(table.name)}
            row |= {"atlas_id": table.atlas, "strategy": labels.get("desc", RAW)}
            row |= {"statistic": labels["stat"]}
            row |= describe_series(table.read_sidecar())
            rows.append(row | {"path": table.path})
        frame = pd.DataFrame(rows)
        facts = {key.column for key in FACTS}
        frame = frame.astype(dict.fromkeys(facts, float))
        always = {
            "participant_id",
            "session_id",
            "task_id",
            "run_id",
            "space_id",
            *facts,
        }
        empty = [c for c in frame if c not in always and frame[c].isna().all()]
        return frame.drop(columns=empty)

    def timeseries(self, **choice: Choice) -> pd.DataFrame:
        """Read time series of one atlas, space, statistic and strategy.

        Returns
        -------
        DataFrame
            One column per region, NaN for lost ones; one row per volume. The index
            tells the run, as in ``runs``, and ``volume``: its number in the BOLD file,
            from 0. Volumes that were censored away have no row, and leave a gap.
        """
        found = self._choose("timeseries", choice)

        def read(table: Output) -> tuple[pd.Index, pd.DataFrame]:
            _check(table.file)
            names, values = read_matrix(table.file)
            volumes = pd.Index(self._volumes_of(table, len(values)), name="volume")
            return volumes, pd.DataFrame(values, columns=names)

        return _join(found, read)

    def relmats(self, **choice: Choice) -> pd.DataFrame:
        """Read connectivity matrices of one atlas, space, measure and strategy.

        Returns
        -------
        DataFrame
            One column per region. The index tells the run, as in ``runs``, and
            ``region``; NaN for no value.
        """
        found = self._choose("relmat", choice)

        def read(table: Output) -> tuple[pd.Index, pd.DataFrame]:
            _check(table.file)
            names, values = read_matrix(table.file, nodes=True)
            return pd.Index(names, name="region"), pd.DataFrame(values, columns=names)

        return _join(found, read)

    def matrices(self, **choice: Choice) -> Matrices:
        """Read connectivity matrices as one array, (runs, R, R).

        Parameters
        ----------
        **choice
            As those of ``load``.

        Returns
        -------
        Matrices
            Its rows and columns are the same regions in all runs.

        Raises
        ------
        DataError
            If the runs have other regions, as each participant's own segmentation may;
            and as ``relmats``.
        """
        found = self._choose("relmat", choice)
        frame = self.relmats(**choice)
        names, size = list(frame.columns), len(frame.columns)
        rows = frame.index.get_level_values("region")
        if len(rows) != len(found) * size or list(rows) != names * len(found):
            msg = "the runs do not have the same regions, or not in one order."
            remedy = "Choose runs that do, or read them one by one with relmats()."
            raise DataError(msg, where=self.output_dir, remedy=remedy)
        runs = frame.index.droplevel("region")[::size].to_frame(index=False)
        runs["path"] = [table.path for table in found]
        return Matrices(
            values=frame.to_numpy(dtype=float).reshape(len(found), size, size),
            names=tuple(names),
            runs=runs,
        )

    def regions(self, **choice: Choice) -> pd.DataFrame:
        """Read the quality of each region: voxels, coverage, status, level, tSNR.

        Returns
        -------
        DataFrame
            One row per run and region, with the columns of the region tables. The index
            tells the run, as in ``runs``, and ``region``.
        """
        found = self._choose("regions", choice)

        def read(table: Output) -> tuple[pd.Index, pd.DataFrame]:
            frame = _read_frame(table.file)
            return pd.Index(frame.pop("name"), name="region"), frame

        return _join(found, read)

    def outliers(self, **choice: Choice) -> pd.DataFrame:
        """Read which volumes a strategy left out, and why.

        Returns
        -------
        DataFrame
            One row per run and volume of the BOLD file, with the columns of the tables
            of outliers.
        """
        found = self._choose("outliers", choice)

        def read(table: Output) -> tuple[pd.Index, pd.DataFrame]:
            frame = _read_frame(table.file)
            return pd.RangeIndex(len(frame), name="volume"), frame

        return _join(found, read)

    def _choose(self, kind: str, choice: Mapping[str, Choice]) -> list[Output]:
        """Tables of a kind; raise where none is left."""
        kinds = (kind, COMBINED) if kind == "relmat" else (kind,)
        there = [table for table in self.tables if table.kind in kinds]
        if not there:
            msg = f"there is no table of {kind}."
            remedy = {
                "relmat": "They are written with --relmat.",
                "outliers": "They are written with --strategy.",
            }.get(kind, "Load the folder without choices to see what it holds.")
            raise NothingFound(msg, where=self.output_dir, remedy=remedy)
        chosen = _select(there, choice, self.output_dir)
        return [table for table in chosen if table.kind == kind]

    def _volumes_of(self, table: Output, n_rows: int) -> range | np.ndarray:
        """Numbers of the volumes that are the rows of a series."""
        left_out = ("atlas", "seg", "scale", "stat")
        kept = [entity for entity in table.name.entities if entity[0] not in left_out]
        path = table.file.with_name(format_name(kept, "outliers", ".tsv"))
        if table.name.get("desc") and is_there(path):
            table_of_volumes = _read_frame(path)
            if "outlier" not in table_of_volumes:
                msg = "there is no column outlier: an earlier release made the table."
                raise DataError(msg, where=path, remedy=REMEDY)
            volumes = np.flatnonzero(table_of_volumes["outlier"].to_numpy() == 0)
            if len(volumes) == n_rows:
                return volumes
        return range(n_rows)


def load(output_dir: str | Path, **choice: Choice) -> Outputs:
    r"""Load what the participant level wrote.

    Parameters
    ----------
    output_dir
        The output folder of ``bids_roi``.
    **choice
        As the options of the command line: ``participant_label``, ``session_label``,
        ``task_label``, ``run_label``, ``echo_label``, ``space``, ``res``, ``atlas``
        (any word that made the folder: ``"schaefer400"``, ``"subject:aparc"``, the
        path of an image; or ``"Schaefer2018"`` for all of them), ``statistic``,
        ``relmat`` (``"pearson"``) and ``strategy`` (``"none"`` for raw signals); also
        ``cohort``, ``den`` and ``hemi``. ``combine_runs=True`` takes the matrices
        that ``--combine-runs`` has made over the runs of a task in place of those of
        the runs, and the only run's where there is but one. ``space="native"`` is for
        runs whose names have no space, ``hemi="both"`` for those of two hemispheres,
        and for volumes. Each is one value or several; all by default. The names of the
        columns (``participant_id``) will do, too, and ``denoise`` for ``strategy``.
        What a table does not know, a region table no statistic for example, does not
        leave it out.

    Returns
    -------
    Outputs
        With ``runs()``, ``timeseries()``, ``regions()``, ``relmats()``,
        ``matrices()`` and ``outliers()``, which read tables as they are asked for.

    Raises
    ------
    MissingInput
        If the folder is absent or holds no outputs.
    NothingFound
        If nothing fits the choice; with what there is.
    UsageError
        If a choice is unknown; or, when reading, if several atlases, spaces, statistics
        or strategies are left, which one table cannot hold.
    DataError
        When reading, if a file is damaged, or was made of another input than the region
        table of its run.

    Notes
    -----
    pybids tells the outputs apart with the configuration that comes along::

        ours = importlib.resources.files("bids_roi") / "data" / "pybids_config.json"
        layout = BIDSLayout(
            folder, validate=False, config=["bids", "derivatives", str(ours)]
        )
        layout.get(suffix="timeseries", extension=".tsv", scale="400", stat="mean")

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> folder = TemporaryDirectory()
    >>> stem = Path(folder.name, "sub-01/func/sub-01_task-rest_space-T1w_atlas-Toy")
    >>> stem.parent.mkdir(parents=True)
    >>> series = stem.with_name(stem.name + "_stat-mean_timeseries.tsv")
    >>> _ = series.write_text("V1\tV2\n1.5\tn/a\n2.25\tn/a\n")
    >>> _ = series.with_suffix(".json").write_text('{"RepetitionTime": 2.0}')

    >>> outputs = load(folder.name, task_label="rest")
    >>> outputs.runs()[["participant_id", "task_id", "atlas_id", "repetition_time"]]
      participant_id task_id atlas_id  repetition_time
    0         sub-01    rest      Toy              2.0
    >>> outputs.timeseries(participant_label="01")
                                  V1  V2
    participant_id task_id volume
    sub-01         rest    0       1.50 NaN
                           1       2.25 NaN
    >>> load(folder.name, task_label="nback")
    Traceback (most recent call last):
    ...
    bids_roi.errors.NothingFound: ...: no output has task_label nback. There is: rest.
    >>> folder.cleanup()
    """
    folder = Path(output_dir)
    return Outputs(folder, tuple(_select(_find(folder), choice, folder)))


def _find(output_dir: Path) -> list[Output]:
    """Find the tables of all runs, sorted by path."""
    if not output_dir.is_dir():
        list_folder(output_dir)  # an error where it is a link to what is not here
        msg = "there is no such folder."
        raise MissingInput(msg, where=output_dir, remedy="Check the spelling.")
    found = sorted(find_outputs(output_dir), key=lambda table: table.path)
    if not found:
        msg = "the folder holds no participant outputs (sub-*/[ses-*/]func/*.tsv)."
        remedy = "Give the output folder of bids_roi, after the participant level."
        raise MissingInput(msg, where=output_dir, remedy=remedy)
    return found


def _select(
    tables: Iterable[Output], choice: Mapping[str, Choice], output_dir: Path
) -> list[Output]:
    """Narrow tables down, one choice after the other."""
    left = list(tables)
    if choice.get(_OVER_RUNS):
        chosen, lacking = choose_combined(left)
        if lacking:
            msg = f"there is no matrix over the runs of {lacking[0].path}."
            remedy = "Make it: the participant level with --combine-runs."
            raise NothingFound(msg, where=output_dir, remedy=remedy)
        left = [t for t in left if t.kind not in ("relmat", COMBINED)] + chosen
    for word, given in choice.items():
        name = _OTHER_WORDS.get(word, word)
        if word == _OVER_RUNS:
            continue
        if name not in _ENTITIES:
            near = ", ".join(nearest_words(word, _ENTITIES))
            hint = f"Nearest: {near}. " if near else ""
            msg = f"there is no choice {word}."
            raise UsageError(msg, remedy=f"{hint}There are {', '.join(_ENTITIES)}.")
        if given is None:
            continue
        values = [given] if isinstance(given, str | int) else list(given)
        wanted = {word for value in values for word in _words(name, value)}
        kinds = _CONCERNS.get(name, (*KINDS.values(), COMBINED))
        asked = [table for table in left if table.kind in kinds]
        fits = {table for table in asked if _labels(table, name) & wanted}
        if asked and not fits:
            there = sorted({_shown(table, name) for table in asked} - {""})
            more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
            shown = " ".join(sorted(map(str, values)))
            msg = f"no output has {name} {shown}."
            remedy = f"There is: {', '.join(there[:_SHOWN]) or 'none'}{more}."
            raise NothingFound(msg, where=output_dir, remedy=remedy)
        left = [table for table in left if table in fits or table.kind not in kinds]
    return left


def _words(name: str, value: str | int) -> set[str]:
    """Spellings in the outputs of a wanted value, or word that made the folder."""
    text = str(value).removeprefix(f"{_ENTITIES[name]}-")
    if name == "statistic":
        return {stat_of_name(text)}
    # What is no such word is looked for as it stands, and told if nothing has it.
    with contextlib.suppress(BidsRoiError):
        if name == "atlas":
            return {text, _atlas_of_word(text)}
        if name == "strategy" and text != RAW:
            return {text, load_strategy(text).label}
    return {text}


def _atlas_of_word(text: str) -> str:
    """Canonical name of what ``--atlas`` or ``--atlas-file`` asked for."""
    text, _, chosen = text.partition(",")[0].partition("#")
    if not text.endswith((".nii", ".nii.gz", ".gii", ".annot")):
        return name_of_word(f"{text}#{chosen}" if chosen else text)
    path = Path(re.sub("^[LR]=", "", text))
    key = key_of_file(path if path == Path(text) else without_side(path))
    return (name_map(key, chosen) if chosen else key).name


def _shown(table: Output, name: str) -> str:
    if name == "atlas":
        return table.atlas
    return table.name.get(_ENTITIES[name]) or _ABSENT.get(name, "")


def _labels(table: Output, name: str) -> set[str]:
    """What a table answers to."""
    shown = _shown(table, name)
    if name == "atlas":
        return {shown, table.name.get("atlas") or ""}
    if name == "relmat":
        return {shown, measure_of_word(shown)}
    return {shown}


def _join(
    tables: list[Output],
    read: Callable[[Output], tuple[pd.Index, pd.DataFrame]],
) -> pd.DataFrame:
    """Put tables below one another; their runs go into the index."""
    kind = tables[0].kind
    for name in (*SPACE_KEYS, *_CONCERNS):
        if kind not in _CONCERNS.get(name, (kind,)):
            continue
        there = sorted({_shown(table, name) for table in tables} - {""})
        if len(there) > 1:
            msg = f"several are left to choose from: {', '.join(there[:_SHOWN])}."
            raise UsageError(msg, remedy=f"Say which with {name}={there[0]!r}.")
    identities = [identify(table.name) for table in tables]
    keys = [
        column
        for column in RUN_COLUMNS.values()
        if any(identity[column] is not None for identity in identities)
    ]
    of_run: dict[tuple[str | None, ...], Output] = {}
    for table, identity in zip(tables, identities, strict=True):
        other = of_run.setdefault(tuple(identity[key] for key in keys), table)
        if other is not table:
            msg = f"no column would tell its rows from those of {other.path}."
            remedy = "Choose more narrowly, or keep the two in folders of their own."
            raise UsageError(msg, where=table.path, remedy=remedy)
    _check_making(tables)
    frames, levels = [], []
    for table, identity in zip(tables, identities, strict=True):
        index, frame = read(table)
        frames.append(frame)
        level = pd.DataFrame({key: identity[key] for key in keys}, index=index)
        levels.append(level.reset_index()[[*keys, index.name]])
    joined = pd.concat(frames, ignore_index=True)
    joined.index = pd.MultiIndex.from_frame(pd.concat(levels, ignore_index=True))
    return joined


def _check_making(tables: list[Output]) -> None:
    """Refuse what was made of another input than the region table beside it."""
    people: dict[tuple[Path, str], list[Output]] = {}
    for table in tables:
        people.setdefault((table.folder, table.participant), []).append(table)
    for (folder, person), own in people.items():
        there = find_outputs(folder, person)
        stale = find_stale(there, read_all_records(folder, person))
        for table in own:
            if table.path in stale:
                raise explain_stale(table)
            made_later = table.kind == "relmat" and table.told.of_tables
            if made_later and (error := check_combined(table, stale)) is not None:
                raise error


def _check(path: Path) -> None:
    """Refuse a table that is not the one that its sidecar was written with."""
    sidecar = path.with_suffix(".json")
    if is_there(sidecar):
        check_table(path, told_digest(read_json(sidecar)))


def _read_frame(path: Path) -> pd.DataFrame:
    """Read a table of mixed columns; ``n/a`` becomes NaN."""
    _check(path)
    return pd.DataFrame(
        {name: _convert(name, cells) for name, cells in read_table(path).items()}
    )


def _convert(name: str, cells: list[str]) -> list[Any]:
    if name == "name":
        return cells
    if name not in _TEXT_COLUMNS:
        try:
            numbers = [np.nan if cell == MISSING else float(cell) for cell in cells]
        except ValueError:
            pass
        else:
            whole = all(cell.removeprefix("-").isdecimal() for cell in cells)
            return [int(cell) for cell in cells] if whole else numbers
    return [None if cell == MISSING else cell for cell in cells]
