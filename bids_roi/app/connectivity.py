"""From a series to its connectivity matrices, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.relmat import (
    MINIMUM_VOLUMES,
    covariance,
    fisher_z,
    has_variation,
    partial_correlation,
    pearson_correlation,
    spearman_correlation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.io.outputs.names import RelmatOutput
    from bids_roi.options.record import Options

__all__ = ["relate_regions", "settings_of"]


def settings_of(output: RelmatOutput, options: Options) -> dict[str, Any]:
    """Tell what decides the numbers of a matrix beside its series; plain JSON."""
    settings: dict[str, Any] = {"FisherZ": output.fisher_z}
    if output.measure == "partial":
        settings["PartialEstimator"] = options.partial_estimator
    return settings


def relate_regions(
    kept_signals: NDArray[np.float64], output: RelmatOutput, options: Options
) -> tuple[NDArray[np.float64], list[str]]:
    """Compute a matrix.

    Parameters
    ----------
    kept_signals : (n_kept, R)
        Kept volumes only; NaN columns for lost regions.
    output
        What to compute.
    options
        ``partial_estimator`` is used.

    Returns
    -------
    relmat : (R, R)
        NaN for regions without signal.
    notes
        What the user should know.
    """
    measure = output.measure
    if measure == "pearson":
        relmat = pearson_correlation(kept_signals)
    elif measure == "spearman":
        relmat = spearman_correlation(kept_signals)
    elif measure == "covariance":
        relmat = covariance(kept_signals)
    else:
        relmat = partial_correlation(
            kept_signals,
            estimator=options.partial_estimator,  # type: ignore[arg-type]
        )
    notes = _doubts(kept_signals, relmat, output, options)
    return (fisher_z(relmat) if output.fisher_z else relmat), notes


def _doubts(
    kept_signals: NDArray[np.float64],
    relmat: NDArray[np.float64],
    output: RelmatOutput,
    options: Options,
) -> list[str]:
    n_kept, usable = kept_signals.shape[0], has_variation(kept_signals)
    n_usable = int(usable.sum())
    notes = []
    if n_kept < MINIMUM_VOLUMES:
        notes.append(
            f"{n_kept} volumes are kept, a {output.measure} matrix needs"
            f" {MINIMUM_VOLUMES}: it is n/a throughout."
        )
    elif n_flat := int((np.isfinite(kept_signals).all(axis=0) & ~usable).sum()):
        notes.append(
            f"{n_flat} regions do not vary over the kept volumes: n/a in the"
            f" {output.measure} matrix."
        )
    if output.label is None:
        notes.append(
            "connectivity of signals that were not cleaned: motion and physiology are"
            " in every entry (see --denoise)."
        )
    pseudo = output.measure == "partial" and options.partial_estimator != "ledoit_wolf"
    if pseudo and n_kept <= n_usable:
        notes.append(
            f"partial correlation by pseudo-inverse needs more volumes ({n_kept} kept)"
            f" than regions ({n_usable}): --partial-estimator ledoit_wolf does not."
        )
    if output.fisher_z and n_usable > 1:
        rows, columns = np.triu_indices(relmat.shape[0], 1)
        if n_same := int((np.abs(relmat[rows, columns]) >= 1).sum()):
            notes.append(f"{n_same} pairs of regions are the same: z is n/a there.")
    return notes
