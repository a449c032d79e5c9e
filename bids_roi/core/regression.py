"""Confounds out of signals: projection onto what is orthogonal to the regressors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Of the largest value before: what trend and filter leave of a constant is 1e-15 of it,
# while a table of confounds that is written with nine digits cannot express less than
# 1e-9.
ROUNDING = 1e-12
# nilearn's limit on the diagonal of R, for columns of unit variance.
_DEPENDENT = 100 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Regression:
    """The regressors of one run, ready to be taken out of any signals.

    Attributes
    ----------
    kept : (t,) bool
        Volumes that the weights are fitted to; the others take the same weights.
    regressors : (n_kept, C)
        The confounds as scaled; zero where only rounding errors were left.
    basis : (n_kept, rank)
        Orthonormal basis of ``regressors``.
    others : (t - n_kept, rank)
        The basis, continued into the other volumes.
    dropped
        Positions of the columns that depend on others, or vanished.
    condition
        Largest over smallest diagonal element of R among the independent columns. The
        residuals are as many digits short of the sixteen of float64.
    """

    kept: BoolArray
    regressors: FloatArray
    basis: FloatArray
    others: FloatArray
    dropped: tuple[int, ...]
    condition: float

    @property
    def rank(self) -> int:
        """Independent columns of ``regressors``."""
        return int(self.basis.shape[1])

    def remove(self, series: FloatArray) -> FloatArray:
        """Take the regressors out of each column, (t, R) -> (t, R).

        Parameters
        ----------
        series : (t, R)
            Finite, filtered like the confounds.
        """
        if self.rank == 0:
            return series
        weights = self.basis.T @ series[self.kept]
        residuals = np.empty_like(series)
        residuals[self.kept] = series[self.kept] - self.basis @ weights
        residuals[~self.kept] = series[~self.kept] - self.others @ weights
        return residuals


def fit_regressors(
    confounds: FloatArray, kept: BoolArray, *, largest: FloatArray, standardize: bool
) -> Regression:
    """Find an orthonormal basis of the confounds over the kept volumes.

    Parameters
    ----------
    confounds : (t, C)
        Finite, filtered like the signals.
    kept : (t,) bool
        Volumes to fit.
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

    scaled = _scale(confounds, kept, largest, standardize=standardize)
    design = scaled[kept]
    if design.shape[1] == 0:
        none = np.zeros((design.shape[0], 0))
        return Regression(kept, design, none, none[: int((~kept).sum())], (), 1.0)
    q, r, pivots = linalg.qr(design, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    limit = max(design.shape) * np.finfo(np.float64).eps * diagonal[0]
    rank = int((diagonal > max(limit, _DEPENDENT)).sum())
    q, r = q[:, :rank], r[:rank, :rank]
    # Not for the kept volumes: q is orthogonal to rounding, whatever r is like.
    others = scaled[~kept][:, pivots[:rank]]
    if rank and others.size:
        others = linalg.solve_triangular(r, others.T, trans="T").T
    return Regression(
        kept=kept,
        regressors=design,
        basis=q,
        others=others,
        dropped=tuple(sorted(int(column) for column in pivots[rank:])),
        condition=float(diagonal[0] / diagonal[rank - 1]) if rank else 1.0,
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
