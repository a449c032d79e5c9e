"""From a series to its connectivity matrices, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bids_roi.core.relmat import (
    MINIMUM_VOLUMES,
    are_identical,
    choose_volumes,
    fisher_z,
    freedom_of_some,
    has_variation,
    pool_runs,
    relate,
)
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_measure
from bids_roi.outputs.records import NOT_CLEANED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.relmat import Runs
    from bids_roi.options.record import Options
    from bids_roi.options.words import Estimator
    from bids_roi.outputs.derivatives import RelmatOutput

    FloatArray = NDArray[np.float64]


# Degrees of freedom beyond the regions. With 10 a partial z has a standard deviation of
# 1 / sqrt(10) under independence: of the 4,950 edges of 100 regions 2 exceed |r| 0.8.
_SPARE = 10

# Of edges without correlation, the share with p < 0.05 from which there is a warning.
_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class Related:
    """A matrix, and what is said of it.

    Attributes
    ----------
    relmat : (R, R)
        NaN for regions without signal.
    n_identical
        Pairs of regions with the same series, or one the negative of the other.
    absent
        Why no entry has a value; empty where some have.
    notes
        What the user should know; ``absent`` among it.
    facts
        Sidecar keys that differ from those of the series.
    """

    relmat: FloatArray
    n_identical: int
    absent: str
    notes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """The volumes that a matrix is of.

    Attributes
    ----------
    signals : (n_kept, R)
        Lost regions are NaN.
    sample_mask : (T,)
        Which volumes of the run they are.
    freedom
        Degrees of freedom that cleaning has left; of raw signals, volumes less one.
    effective
        The same after autocorrelation; NaN where it is not known.
    is_even
        Whether the volumes of the run are evenly spaced.
    """

    signals: FloatArray
    sample_mask: NDArray[np.bool_]
    freedom: float
    effective: float = float("nan")
    is_even: bool = True

    def choose(self, n_volumes: int, seed: int) -> Kept:
        """Some of them, as ``core.relmat.choose_volumes`` has it."""
        n_kept = self.signals.shape[0]
        if n_volumes >= n_kept:
            return self
        chosen = choose_volumes(n_kept, n_volumes, seed)
        mask = np.zeros_like(self.sample_mask)
        mask[np.flatnonzero(self.sample_mask)[chosen]] = True
        freedom, effective = (
            freedom_of_some(of_all, n_kept, n_volumes)
            for of_all in (self.freedom, self.effective)
        )
        return Kept(self.signals[chosen], mask, freedom, effective, self.is_even)

    def describe(self) -> dict[str, Any]:
        """Keys of the series that are other of these volumes."""
        effective = "n/a" if math.isnan(self.effective) else round(self.effective, 2)
        return {
            "DegreesOfFreedom": round(self.freedom, 2),
            "EffectiveDegreesOfFreedom": effective,
        }


def settings_of(output: RelmatOutput, options: Options) -> dict[str, Any]:
    """Tell what decides the numbers of a matrix beside its series; plain JSON."""
    settings: dict[str, Any] = {
        "FisherZ": output.fisher_z,
        "MinimumDegreesOfFreedom": options.connectivity.min_degrees_of_freedom,
    }
    rows = {option.name: option.sidecar for option in OPTIONS}
    for _, name in find_measure(output.measure).parameters:
        settings[rows[name]] = getattr(options.connectivity, name)
    if options.connectivity.relmat_volumes is not None:
        settings["RelmatVolumes"] = options.connectivity.relmat_volumes
        settings["RelmatSeed"] = options.connectivity.relmat_seed
    return settings


def relate_regions(kept: Kept, output: RelmatOutput, options: Options) -> Related:
    """Compute a matrix of kept volumes.

    A partial correlation given k others has k fewer degrees of freedom than a plain one
    (Fisher 1924, Metron 3:329), so that z of R regions has a standard deviation of
    1 / sqrt(d - R) under independence with d of them. With R or fewer the covariance
    has no inverse but of what the volumes happen to span.
    """
    n_kept, wanted = kept.signals.shape[0], options.connectivity.relmat_volumes
    facts = {}
    if wanted is not None and wanted < n_kept:
        kept = kept.choose(wanted, options.connectivity.relmat_seed)
        facts = kept.describe()
    signals, measure = kept.signals, find_measure(output.measure)
    n_lost = int((~np.isfinite(signals).all(axis=0)).sum())
    n_usable = int(has_variation(signals).sum())
    absent = _find_absence(n_kept, n_usable, kept.freedom, output, options)
    if absent:
        relmat = np.full((signals.shape[1],) * 2, np.nan)
    else:
        given = {
            word: getattr(options.connectivity, name)
            for word, name in measure.parameters
        }
        if measure.timed:
            given["sample_mask"] = kept.sample_mask
        relmat = relate(output.measure, signals, **given)
    related = _judge(
        *(relmat, absent, n_lost, n_usable, output, options),
        degrees_of_freedom=kept.freedom,
    )
    doubts = _doubt_xdf(kept, output, options) if measure.timed and not absent else []
    return replace(related, notes=(*related.notes, *doubts), facts=facts)


def relate_runs(
    runs: Runs, output: RelmatOutput, options: Options, *, degrees_of_freedom: float
) -> tuple[Related, tuple[int, ...]]:
    """Compute a matrix over several runs, as ``relate_regions`` does over one.

    ``runs`` is called for (n_kept, R) of one run after the other, and
    ``degrees_of_freedom`` are those of all together: each run has lost its own mean.
    Returns how many volumes each has, too.
    """
    estimator = cast("Estimator", options.connectivity.partial_estimator)
    plain = pool_runs("pearson", runs, estimator=estimator)
    n_kept, n_usable = sum(plain.n_volumes), plain.n_usable
    absent = _find_absence(n_kept, n_usable, degrees_of_freedom, output, options)
    relmat = plain.relmat
    if absent:
        relmat = np.full_like(relmat, np.nan)
    elif output.measure != "pearson":
        relmat = pool_runs(output.measure, runs, estimator=estimator).relmat
    related = _judge(
        *(relmat, absent, plain.n_lost, n_usable, output, options),
        degrees_of_freedom=degrees_of_freedom,
    )
    return related, plain.n_volumes


def _judge(
    relmat: FloatArray,
    absent: str,
    n_lost: int,
    n_usable: int,
    output: RelmatOutput,
    options: Options,
    *,
    degrees_of_freedom: float,
) -> Related:
    """Say what the user should know of a matrix, and bring it to its scale."""
    n_flat = len(relmat) - n_lost - n_usable
    notes = [absent] if absent else []
    if n_flat and not absent:
        notes.append(
            f"{n_flat} regions do not vary over the kept volumes, or by rounding errors"
            f" only: n/a in the {output.measure} matrix."
        )
    if output.label is None:
        notes.append(NOT_CLEANED)
    if output.measure == "partial" and not absent:
        notes += _doubt_partial(n_usable, degrees_of_freedom, output, options)
    n_identical = 0
    if find_measure(output.measure).is_correlation:
        above = np.triu_indices(relmat.shape[0], 1)
        n_identical = int(are_identical(relmat[above]).sum())
    if n_identical:
        rest = ": z is n/a there." if output.fisher_z else " (|r| is 1)."
        notes.append(f"{n_identical} pairs of regions have the same series{rest}")
    if output.fisher_z:
        relmat = fisher_z(relmat)
    return Related(relmat, n_identical, absent, tuple(notes))


def _find_absence(
    n_kept: int,
    n_usable: int,
    degrees_of_freedom: float,
    output: RelmatOutput,
    options: Options,
) -> str:
    """Why the matrix can have no value; empty where it can."""
    measure, least = output.measure, options.connectivity.min_degrees_of_freedom
    end = f"desc-{output.label}" if output.label else "the signals as they are"
    end = f"the {measure} matrix of {end} is n/a throughout."
    if n_kept < MINIMUM_VOLUMES:
        return (
            f"{n_kept} volumes are kept, a {measure} matrix needs"
            f" {MINIMUM_VOLUMES}: {end}"
        )
    wanted = options.connectivity.relmat_volumes
    if wanted is not None and n_kept < wanted:
        return f"{n_kept} volumes are kept, --relmat-volumes asks for {wanted}: {end}"
    if degrees_of_freedom < least:
        return (
            f"{degrees_of_freedom:g} degrees of freedom are left,"
            f" --min-degrees-of-freedom asks for {least:g}: {end}"
        )
    if n_usable == 0:
        return f"no region has a signal that varies: {end}"
    pseudo = (
        measure == "partial"
        and options.connectivity.partial_estimator == "pseudo_inverse"
    )
    if pseudo and degrees_of_freedom <= n_usable:
        return (
            "partial correlation by pseudo-inverse needs more degrees of freedom"
            f" ({degrees_of_freedom:g} are left in {n_kept} volumes) than regions"
            f" ({n_usable}): {end} --partial-estimator ledoit_wolf gives one, shrunk;"
            " or take an atlas of fewer regions."
        )
    return ""


def _doubt_partial(
    n_usable: int,
    degrees_of_freedom: float,
    output: RelmatOutput,
    options: Options,
) -> list[str]:
    """Say how far partial correlations can be trusted."""
    spare = degrees_of_freedom - n_usable
    name = f"desc-{output.label}" if output.label else "the signals as they are"
    have = f"{degrees_of_freedom:g} degrees of freedom for {n_usable} regions"
    if options.connectivity.partial_estimator == "ledoit_wolf":
        if spare > 0:
            return []
        return [
            f"partial correlation of {name}: {have}. The matrix exists by its shrinkage"
            " only, and shows little of what is there; take an atlas of fewer regions."
        ]
    if spare >= _SPARE:
        return []
    return [
        f"partial correlation of {name} by pseudo-inverse: {have}. Under independence"
        f" its z has a standard deviation of {spare**-0.5:.2f}:"
        " --partial-estimator ledoit_wolf, or an atlas of fewer regions."
    ]


def _doubt_xdf(kept: Kept, output: RelmatOutput, options: Options) -> list[str]:
    """Say how far p can be trusted: xDF knows nothing of regressors and filters.

    It takes them for what it sees of the autocorrelation. Of edges without correlation
    z then has the standard deviation sqrt(n / d), with n degrees of freedom by xDF and
    d that there are.
    """
    name = f"desc-{output.label}" if output.label else "the signals as they are"
    notes = []
    if not kept.is_even:
        notes.append(
            f"xDF of {name}: volumes are not evenly spaced, and lags are in volumes:"
            " z and p are right only if its autocorrelation is short."
        )
    there = kept.freedom if math.isnan(kept.effective) else kept.effective
    regularisation = options.connectivity.xdf_regularisation
    found = relate(
        "pearsonxdfdof",
        kept.signals,
        sample_mask=kept.sample_mask,
        regularisation=regularisation,
    )
    found = found[np.isfinite(found)]
    if not found.size or there <= 0:
        return notes
    middle = float(np.median(found))
    ratio = math.sqrt(there / middle)
    share = math.erfc(1.959964 * ratio / math.sqrt(2))
    if share < _SHARE:
        return notes
    return [
        *notes,
        f"xDF of {name}: {middle:.0f} effective degrees of freedom (median over edges),"
        f" where {there:.0f} are left after filter, regressors and autocorrelation. z"
        f" and p are too sure: of edges without correlation some {share:.0%} would have"
        f" p < 0.05; z times {ratio:.2f} allows for it.",
    ]
