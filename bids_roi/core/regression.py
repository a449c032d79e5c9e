"""Confounds out of signals: projection onto what is orthogonal to the regressors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

__all__ = ["ROUNDING", "Regression", "regress"]

# Of the largest value before: what trend and filter leave of a constant is 1e-15 of it,
# while a table of confounds that is written with nine digits cannot express less than
# 1e-9.
ROUNDING = 1e-12
# nilearn's limit on the diagonal of R, for columns of unit variance.
_DEPENDENT = 100 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Regression:
    """Signals without confounds, and what it took.

    Attributes
    ----------
    residuals : (t, R)
        All volumes, with the weights of the kept ones.
    means : (R,)
        Of the kept volumes, before.
    regressors : (n_kept, C)
        The confounds as scaled; zero where only rounding errors were left.
    rank
        Independent columns of ``regressors``.
    dropped
        Positions of the others.
    condition
        Largest over smallest diagonal element of R among the independent columns. The
        residuals are as many digits short of the sixteen of float64.
    holds_mean
        Whether a constant is a combination of the regressors.
    """

    residuals: FloatArray
    means: FloatArray
    regressors: FloatArray
    rank: int
    dropped: tuple[int, ...]
    condition: float
    holds_mean: bool


def regress(
    series: FloatArray,
    confounds: FloatArray,
    kept: BoolArray,
    *,
    largest: FloatArray,
    standardize: bool,
) -> Regression:
    """Take the confounds out of the signals.

    Parameters
    ----------
    series : (t, R)
        Finite.
    confounds : (t, C)
        Finite, filtered like the signals.
    kept : (t,) bool
        Volumes to fit; the others take the same weights.
    largest : (C,)
        Largest absolute value of each confound before trend and filter.
    standardize
        Give each confound mean 0 and standard deviation 1, or else a maximum of 1.

    Returns
    -------
    Regression

    Notes
    -----
    QR with column pivoting, Golub & Van Loan (2013), Matrix Computations, section
    5.5.6. A column is independent if its diagonal element exceeds nilearn's limit and
    that of ``numpy.linalg.matrix_rank``, max(n, C) eps times the largest.
    """
    from scipy import linalg

    means = series[kept].mean(axis=0)
    scaled = _scale(confounds, kept, largest, standardize=standardize)
    design = scaled[kept]
    if design.shape[1] == 0:
        return Regression(series, means, design, 0, (), 1.0, holds_mean=False)
    q, r, pivots = linalg.qr(design, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    limit = max(design.shape) * np.finfo(np.float64).eps * diagonal[0]
    rank = int((diagonal > max(limit, _DEPENDENT)).sum())
    q, r = q[:, :rank], r[:rank, :rank]
    weights = q.T @ series[kept]
    residuals = np.empty_like(series)
    residuals[kept] = series[kept] - q @ weights
    if not kept.all():
        # Not for the kept volumes: q is orthogonal to rounding, whatever r is like.
        betas = linalg.solve_triangular(r, weights) if rank else weights
        residuals[~kept] = series[~kept] - scaled[~kept][:, pivots[:rank]] @ betas
    constant = np.full(q.shape[0], q.shape[0] ** -0.5)
    unexplained = constant - q @ (q.T @ constant)
    return Regression(
        residuals=residuals,
        means=means,
        regressors=design,
        rank=rank,
        dropped=tuple(sorted(int(column) for column in pivots[rank:])),
        condition=float(diagonal[0] / diagonal[rank - 1]) if rank else 1.0,
        holds_mean=bool(np.linalg.norm(unexplained) < np.sqrt(ROUNDING)),
    )


def _scale(
    confounds: FloatArray, kept: BoolArray, largest: FloatArray, *, standardize: bool
) -> FloatArray:
    """Bring confounds to one scale, by the kept volumes."""
    if standardize:
        confounds = confounds - confounds[kept].mean(axis=0)
        scale = confounds[kept].std(axis=0, ddof=min(1, int(kept.sum()) - 1))
    else:
        scale = np.abs(confounds[kept]).max(axis=0, initial=0.0)
    scale[scale <= ROUNDING * largest] = np.inf
    return np.asarray(confounds / scale)
