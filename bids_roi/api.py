"""The app's extraction for notebooks: runs in, pandas objects out."""

from __future__ import annotations

import dataclasses
import html
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_roi.arguments import (
    check_options,
    in_python,
    pop_strategy,
    python_words,
    read_strategies,
)
from bids_roi.asked import Call, Desk, list_given, share
from bids_roi.core.relmat import POOLED, pool_runs
from bids_roi.errors import AtlasError, BidsRoiError, UsageError, count_of
from bids_roi.options.words import find_statistic
from bids_roi.outputs.derivatives import join_facts
from bids_roi.outputs.records import RAW
from bids_roi.participant.cleaning import clean_atlases
from bids_roi.participant.confounds import prepare_cleaning, read_motion
from bids_roi.participant.extraction import extract as extract_signals
from bids_roi.participant.extraction import place_atlases
from bids_roi.participant.plan import plan_run
from bids_roi.participant.results import (
    describe_atlas,
    describe_series,
    region_columns,
    relate_series,
)
from bids_roi.participant.run import open_job
from bids_roi.report.courses import draw_regions

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from bids_roi.asked import Work
    from bids_roi.atlases.shelf import AtlasShelf
    from bids_roi.options.words import Estimator
    from bids_roi.outputs.derivatives import SeriesOutput
    from bids_roi.outputs.result import AtlasResult, Motion
    from bids_roi.participant.run import Job
    from bids_roi.report.courses import Picture

    Key = tuple[Any, str, str]

__all__ = ["Extraction", "Extractions", "extract"]


@dataclass(frozen=True, slots=True, repr=False)
class Extraction:
    """Signals of one run, atlas and strategy: what ``extract`` returns.

    Attributes
    ----------
    signals : DataFrame, (n_kept, R)
        One row per volume, one column per region, in the units of the image or those
        of ``standardize``; NaN for lost regions. The index is the number of the volume
        in the run, from 0: censored volumes are missing.
    regions : DataFrame, (R, ...)
        The region table: label value, name, volume, voxels, coverage, status ...
    relmats : dict of DataFrame, (R, R)
        One table per measure asked for.
    sidecar : dict
        What the app would write beside the signals; ``Warnings`` among it.
    """

    signals: pd.DataFrame
    regions: pd.DataFrame
    relmats: dict[str, pd.DataFrame]
    sidecar: dict[str, Any]

    def __repr__(self) -> str:
        n_volumes, n_regions = self.signals.shape
        lost = int(self.signals.isna().all().sum())
        parts = [
            f"{count_of(n_volumes, 'volume')} x {count_of(n_regions, 'region')}"
            + (f" ({lost} lost)" if lost else ""),
            str(self.sidecar.get("Atlas", "")),
            str(self.sidecar.get("DenoisingStrategy", RAW)),
            ", ".join(self.relmats),
            count_of(len(w), "warning") if (w := self.sidecar.get("Warnings")) else "",
        ]
        text = "; ".join(" ".join(part.split())[:100] for part in parts if part)
        return f"<Extraction: {text}>"

    def plot(self, *names: str) -> Picture:
        """Draw the series of some regions.

        Parameters
        ----------
        *names
            Columns of ``signals``.

        Returns
        -------
        Picture
            SVG that a notebook shows; ``save(path)`` writes it.

        Raises
        ------
        UsageError
            If there is no such region; with the nearest names.
        """
        told = self.sidecar
        step = told.get("RepetitionTime", told.get("SourceRepetitionTime"))
        units = str(told.get("Units", "arbitrary"))
        step = step if isinstance(step, int | float) else None
        return draw_regions(self.signals, names, step=step, units=units)

    def _repr_html_(self) -> str:
        """Show the beginning of both tables in a notebook."""
        shown = ["index", "name", "n_voxels_used", "coverage", "status"]
        columns = [name for name in shown if name in self.regions]
        return "".join(
            (
                f"<p>{html.escape(repr(self))}</p>",
                self.signals.to_html(max_rows=6, max_cols=8),
                self.regions[columns].to_html(max_rows=6, index=False),
            )
        )


@dataclass(frozen=True, slots=True, repr=False)
class Extractions(Mapping["Key", Extraction]):
    """Extractions of several runs, atlases or strategies.

    They go by ``(run, atlas, strategy)``. ``run`` is the position in the list, from 0,
    or the key of the dict that was given; ``atlas`` and ``strategy`` are the words that
    were given, ``"none"`` for raw signals. An image goes by its name in the outputs,
    which any atlas answers to, too.

    Attributes
    ----------
    found : dict of Extraction
        What there is, by key, in the order that was asked for.
    failed : dict of BidsRoiError
        Why the others are missing. Asking for one of them raises its error.
    """

    found: dict[Key, Extraction]
    failed: dict[Key, BidsRoiError] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, key: Any) -> Extraction:  # noqa: ANN401 - KeyError tells
        if key in self.failed:
            raise self.failed[key]
        if key not in self.found and isinstance(key, tuple) and len(key) == 3:
            for word, name in self.names.items():
                if key[1] == name != word:
                    return self[key[0], word, key[2]]
        return self.found[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def combine(
        self,
        measure: str = "pearson",
        *,
        atlas: str | None = None,
        strategy: str | None = None,
        partial_estimator: Estimator = "ledoit_wolf",
    ) -> pd.DataFrame:
        """Relate regions over the kept volumes of all runs, as ``--combine-runs`` does.

        Parameters
        ----------
        measure : {"pearson", "partial"}
            What relates them.
        atlas, strategy
            Of which runs, where there are several; as in the keys.
        partial_estimator
            Of partial correlations, as in ``extract``.

        Returns
        -------
        DataFrame, (R, R)
            Each run is z-scored (ddof 1) first; NaN for regions that one lacks.

        Raises
        ------
        BidsRoiError
            Runs of other settings, regions or repetition time; a measure that cannot be
            combined; or why a run is missing.
        """
        keys = [
            key
            for key in (*self.found, *self.failed)
            if atlas in (None, key[1], self.names.get(key[1]))
            and strategy in (None, key[2])
        ]
        if len({key[1:] for key in keys}) != 1 or measure not in POOLED:
            there = ", ".join(dict.fromkeys(f"{a}, {s}" for _, a, s in self))
            msg = f"combine is of one atlas and strategy ({there}), and of"
            raise UsageError(f"{msg} {' or '.join(POOLED)}, not {measure}.")
        runs = [self[key] for key in keys]  # raises for one that failed
        first = runs[0]
        for key, run in zip(keys[1:], runs[1:], strict=True):
            for word in ("SettingsDigest", "RepetitionTime", "SourceRepetitionTime"):
                if run.sidecar.get(word) != first.sidecar.get(word):
                    msg = (
                        f"{keys[0]} and {key} differ in {word}: they are not combined."
                    )
                    raise UsageError(msg)
            if list(run.signals) != list(first.signals):
                msg = f"{keys[0]} and {key} do not have the same regions."
                raise UsageError(msg)
        kept = [run.signals.dropna(how="all") for run in runs]
        for key, run, values in zip(keys, runs, kept, strict=True):
            if len(values) != run.sidecar["NumberOfVolumesKept"]:
                msg = f"{key} has rows that were interpolated."
                raise UsageError(msg, remedy="Extract with censored='drop'.")
        pool = pool_runs(
            measure,
            lambda: (values.to_numpy(dtype=float) for values in kept),
            estimator=partial_estimator,
        )
        names = list(first.signals)
        return pd.DataFrame(pool.relmat, index=names, columns=names)

    def table(self) -> pd.DataFrame:
        """List what there is and what failed, one row each."""
        rows = []
        for key, each in self.found.items():
            shape = each.signals.shape
            lost = int(each.signals.isna().all().sum())
            rows.append((*key, *shape, lost, "ok"))
        blank = (pd.NA, pd.NA, pd.NA)
        rows += [(*key, *blank, str(error)) for key, error in self.failed.items()]
        keys = ["run", "atlas", "strategy"]
        counts = ["n_volumes", "n_regions", "n_lost"]
        table = pd.DataFrame(rows, columns=[*keys, *counts, "status"])
        return table.astype(dict.fromkeys(counts, "Int64"))

    def __repr__(self) -> str:
        text = self.table().drop(columns="status").to_string(max_rows=10, index=False)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"<{count_of(len(self.found), 'extraction')}{failed}>\n{text}"

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return str(self.table().to_html(max_rows=10, index=False))


def extract(
    bold: Any = None,  # noqa: ANN401 - a path, a nibabel image, or several
    atlas: Any = None,  # noqa: ANN401 - a name, a path, a nibabel image, or several
    *,
    atlas_table: str | PathLike[str] | pd.DataFrame | Any | None = None,  # noqa: ANN401
    space: str | None = None,
    mask: str | PathLike[str] | Any | None = None,  # noqa: ANN401 - a nibabel image
    confounds: str | PathLike[str] | pd.DataFrame | Any | None = None,  # noqa: ANN401
    strategy: str | PathLike[str] | list[str] | tuple[str, ...] | None = None,
    **options: Any,  # noqa: ANN401 - as the flags of the command line
) -> Extraction | Extractions:
    """Extract regional signals, as ``bids_roi ... participant`` does.

    Parameters
    ----------
    bold : path, nibabel image, or list or dict of these
        4D series. For a file in an fMRIPrep derivative, and for an image that was
        loaded from one, brain mask, confounds and sidecars are found beside it; an
        image that was changed since is taken as it is now.
    atlas : name, path, nibabel image, or list or dict of these
        A name (``"schaefer400"``), or a label image (or 4D maps); a table of
        coordinates (``"seeds.tsv"``, with ``seed_radius``); or names of several that
        are made one (``"whole=schaefer400,HOSPA_seg-th25"``).
    atlas_table : path or DataFrame, or a list or dict of these
        Region table of an atlas that is no name: a file, or columns ``index`` and
        ``name``. For several atlases, ``None`` for those without one.
    space : str
        Template of the runs, where their names do not tell it; needed for atlases by
        name. A file of a derivative without ``space-`` is native; of other files and
        images, an atlas image given with them is taken to lie in their space.
    mask : {"auto", "none"}, path or nibabel image, or a list or dict with one per run
        ``"auto"``, the default, is the run's own; ``"none"`` takes all voxels.
    confounds : path, DataFrame or array (T, C), or a list or dict with one per run
        A table of confounds in place of the one beside the run. ``strategy`` says which
        of its columns are regressed out. A table in memory is regressed out as a whole
        where no strategy is given, without the columns that a threshold or
        ``dummy_scans`` reads; the strategy is then called ``"confounds"``.
    strategy : str, path, or list of these
        How signals are cleaned: ``"36P"``, ``"none"`` ...; see docs/strategies.md.
    **options
        The flags of the command line with underscores: ``statistic``,
        ``min_coverage``, ``smoothing_fwhm``, ``high_pass``, ``fd_threshold``,
        ``standardize``, ``relmat``, ``templateflow_home`` ...; see docs/options.md.

    Returns
    -------
    Extraction or Extractions
        An ``Extraction``; or, where runs, atlases or strategies are given as a list or
        dict, of whatever length, a mapping from ``(run, atlas, strategy)`` to one.
        Each file is read once for all atlases and strategies.

    Raises
    ------
    BidsRoiError
        As the app would report it, in the words of this function. Of several
        extractions those that fail are in ``failed``, with a warning; an error is
        raised if all do, or if the call itself is wrong.

    Notes
    -----
    An image in memory is written to a temporary folder and read from there. A run in
    T1w space, or a native one (``space="native"``), gets an atlas of a template through
    the transforms of its derivative.

    Examples
    --------
    >>> import nibabel as nb, numpy as np
    >>> labels = np.zeros((4, 4, 4), np.int16)
    >>> labels[:2] = 1
    >>> labels[2:] = 2
    >>> values = np.arange(5.0) * labels[..., None]
    >>> bold = nb.Nifti1Image(values, np.eye(4))
    >>> atlas = nb.Nifti1Image(labels, np.eye(4))
    >>> names = pd.DataFrame({"index": [1, 2], "name": ["left", "right"]})
    >>> found = extract(bold, atlas, atlas_table=names, mask="none")
    >>> found.signals
           left  right
    volume
    0       0.0    0.0
    1       1.0    2.0
    2       2.0    4.0
    3       3.0    6.0
    4       4.0    8.0
    >>> found.regions[["name", "n_voxels_used", "status"]]
        name  n_voxels_used status
    0   left             32     ok
    1  right             32     ok

    Several at once, keyed by run, atlas and strategy:

    >>> several = extract([bold, bold], {"mine": atlas}, mask="none", detrend=True)
    >>> list(several)
    [(0, 'mine', 'cleaned'), (1, 'mine', 'cleaned')]
    """
    strategy = pop_strategy(options, strategy)
    given = check_options(options)
    asked = () if strategy is None else read_strategies(strategy)
    with tempfile.TemporaryDirectory(prefix="bids_roi-") as name:
        call = Call(Desk(Path(name)), given, space)
        with python_words(call.desk.places):
            # The call as a whole, before the first run is read.
            runs = list_given(bold, "bold")
            call.add_atlases(list_given(atlas, "atlas"), atlas_table)
            masks = share(mask, runs, "mask")
            tables = share(confounds, runs, "confounds", each=True)
            work = [
                call.prepare(
                    *(key, item),
                    mask=masks[key],
                    confounds=tables[key],
                    strategies=asked,
                )
                for key, item in runs.items()
            ]
        found = _extract_all(call, work)
    if any(isinstance(each, list | tuple | dict) for each in (bold, atlas, strategy)):
        return found
    (only,) = found.values()
    return only


def _extract_all(call: Call, work: list[Work]) -> Extractions:
    """Extract all runs; those that fail do not keep the others from it."""
    found: dict[Key, Extraction] = {}
    failed: dict[Key, BidsRoiError] = {}
    for each in work:
        labels = tuple(None if s is None else s.label for s in each.strategies)
        made: Mapping[tuple[str, str | None], Extraction | BidsRoiError] = {}
        error: BidsRoiError | None = None
        try:
            made = extract_run(each, call.shelf(each), labels)
        except BidsRoiError as problem:
            error = problem
        for word, atlas in call.atlases.items():
            for name, label in zip(each.words, labels, strict=True):
                outcome = made.get((atlas, label), error or _no_fit(atlas, each))
                key = (each.key, word, name)
                if isinstance(outcome, Extraction):
                    found[key] = outcome
                else:
                    failed[key] = in_python(outcome, call.desk.places)
    if not found:
        raise next(iter(failed.values()))
    if failed:
        key, why = next(iter(failed.items()))
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        msg = f"{key} could not be extracted{more}; .failed says why: {why}"
        warnings.warn(msg, stacklevel=3)
    return Extractions(found, failed, dict(call.atlases))


def _no_fit(atlas: str, work: Work) -> BidsRoiError:
    surface = work.run is not None and work.run.kind != "volume"
    kind = "of surfaces" if surface else "a volume"
    msg = f"the run is {kind}, and atlas {atlas} is not for such runs."
    return AtlasError(msg, remedy="Choose an atlas that lies as the run does.")


def extract_run(
    work: Work,
    shelf: AtlasShelf,
    labels: tuple[str | None, ...],
    keep: NDArray[Any] | None = None,
) -> dict[tuple[str, str | None], Extraction | BidsRoiError]:
    """All atlases and strategies of a run in one pass; why some are missing.

    ``keep`` are volumes, by number or one boolean each; all others are left out.
    """
    if work.run is None:
        assert work.error is not None  # noqa: S101 - one of the two is there
        raise work.error
    run, options, strategies = work.run, work.asking(), work.strategies
    planned = plan_run(run, options, shelf, labels)
    if planned.error is not None:
        raise planned.error
    made: dict[tuple[str, str | None], Extraction | BidsRoiError] = {
        (name, label): why for name, why in planned.refused for label in labels
    }
    job = open_job(planned, options, strategies, run.root)
    motion = read_motion(job.confounds)
    job = prepare_cleaning(dataclasses.replace(job, work=planned.atlases))
    if keep is not None:
        job = _keep_volumes(job, keep)
    for atlas, _ in planned.atlases:
        made |= {(atlas.name, label): why for label, why in job.failed.items()}
    job, misplaced = place_atlases(job)
    for atlas, names, why in misplaced:
        made |= {(atlas.name, label): why for label in names.labels}
    if not job.work:
        return made
    for result in clean_atlases(job, extract_signals(job, motion.steady)):
        name = result.atlas.name
        made |= {(name, label): why for label, why in result.failed.items()}
        for series in result.names.timeseries:
            one = _collect(job, result, series, motion)
            if keep is not None and series.label is None:
                rows = one.signals.loc[_as_mask(keep, len(one.signals))]
                one = dataclasses.replace(one, signals=rows)
            made[name, series.label] = one
    return made


def _keep_volumes(job: Job, keep: NDArray[Any]) -> Job:
    """Leave out what is not to be kept, in all strategies."""
    kept = _as_mask(keep, job.image.source.n_volumes)
    preparations = {}
    for label, each in job.preparations.items():
        left_out = each.censoring.short_segment | ~kept
        censoring = dataclasses.replace(each.censoring, short_segment=left_out)
        preparations[label] = dataclasses.replace(each, censoring=censoring)
    return dataclasses.replace(job, preparations=preparations)


def _as_mask(keep: NDArray[Any], n_volumes: int) -> NDArray[np.bool_]:
    """Whether each volume is kept, from that or from the numbers of those that are."""
    if keep.dtype == bool:
        if keep.size != n_volumes:
            msg = f"sample_mask has {keep.size} values, the run {n_volumes} volumes."
            raise UsageError(msg)
        return keep
    if keep.min() < 0 or keep.max() >= n_volumes or (np.diff(keep) <= 0).any():
        msg = f"sample_mask is not of the volumes 0 to {n_volumes - 1}, in order."
        raise UsageError(msg)
    kept = np.zeros(n_volumes, dtype=bool)
    kept[keep] = True
    return kept


def _collect(
    job: Job, result: AtlasResult, series: SeriesOutput, motion: Motion
) -> Extraction:
    """What is told of one series, with its matrices."""
    common = describe_atlas(job, result, motion)
    facts = describe_series(job, result, series, motion, common=common)
    names = list(result.atlas.regions.name)
    relmats = {}
    notes = list(facts.get("Warnings", common.get("Warnings", ())))
    for output in result.names.relmats:
        if output.source != series.path:
            continue
        told = join_facts(common, facts)
        related = relate_series(result, series, output, job.options, motion, facts=told)
        relmats[output.measure] = pd.DataFrame(
            related.relmat, index=names, columns=names
        )
        notes += [note for note in related.notes if note not in notes]
    sidecar = find_statistic(series.statistic).describe()
    sidecar |= join_facts(common, facts)
    if notes:
        sidecar["Warnings"] = notes
    return Extraction(
        signals=_frame(result, series, names),
        regions=pd.DataFrame(region_columns(result, motion)),
        relmats=relmats,
        sidecar=sidecar,
    )


def _frame(result: AtlasResult, series: SeriesOutput, names: list[str]) -> pd.DataFrame:
    clean = result.cleaned.get(series)
    values = result.signals[series.statistic] if clean is None else clean.signals
    volumes = np.arange(len(values))
    if clean is not None and len(values) < clean.cleaned.sample_mask.size:
        volumes = np.flatnonzero(clean.cleaned.sample_mask)
    index = pd.Index(volumes, name="volume")
    return pd.DataFrame(values, index=index, columns=names)
