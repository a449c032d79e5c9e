"""QC-FC: how much of connectivity goes with head motion across participants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.moments import CONSTANT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.group.edges import Edges

    FloatArray = NDArray[np.float64]


# With three the correlation has one degree of freedom: |r| is 0.7 by chance.
LEAST_UNITS = 4

# Centres of gravity of curved regions lie up to 3.4 mm outside of them (Schaefer, AAL,
# Desikan-Killiany), of regions with both sides tens of mm.
_OUTSIDE_MM = 3.5


@dataclass(frozen=True, slots=True)
class MotionSummary:
    """QC-FC over all edges of a group; ``None`` for what cannot be told.

    Attributes
    ----------
    n_edges
        Edges with a correlation.
    median_abs_r
        Median over the edges of the absolute correlation with mean FD.
    chance
        What that median is when connectivity has nothing to do with motion.
    share_p05, share_fdr
        Shares of edges (0 to 1) with p < 0.05 uncorrected, and after Benjamini and
        Hochberg.
    n_edges_distance
        Edges of which both centres are known and lie in their regions.
    distance_rho
        Spearman's correlation of the distance between the centres with QC-FC.
    """

    n_edges: int
    median_abs_r: float | None
    chance: float | None
    share_p05: float | None
    share_fdr: float | None
    n_edges_distance: int
    distance_rho: float | None


def summarise_motion(
    r: FloatArray, n: NDArray[np.int64], distances: FloatArray
) -> MotionSummary:
    """Sum up QC-FC in the figures by which denoising strategies are compared.

    Parameters
    ----------
    r : (E,)
        Correlation of mean FD with each edge; NaN for missing.
    n : (E,)
        Participants that each rests on.
    distances : (E,)
        Between the centres of the regions, mm; NaN for missing.

    Notes
    -----
    Ciric et al. (2017, doi:10.1016/j.neuroimage.2017.03.020); Parkes et al. (2018,
    doi:10.1016/j.neuroimage.2017.12.073), who take Jenkinson's FD, where it is here
    what the table of confounds holds: Power's. FDR: Benjamini and Hochberg (1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x).
    """
    there = np.isfinite(r)
    rho, n_distance = distance_dependence(distances, r)
    if not there.any():
        return MotionSummary(0, None, None, None, None, n_distance, rho)
    p = correlation_p_values(r[there], n[there])
    return MotionSummary(
        n_edges=int(there.sum()),
        median_abs_r=float(np.median(np.abs(r[there]))),
        chance=chance_correlation(int(np.median(n[there]))),
        share_p05=float(np.mean(p < 0.05)),
        share_fdr=float(np.mean(adjust_for_many(p) < 0.05)),
        n_edges_distance=n_distance,
        distance_rho=rho,
    )


def correlation_p_values(r: FloatArray, n: NDArray[np.int64]) -> FloatArray:
    """Two-sided p of Pearson correlations, from t with n - 2 degrees of freedom.

    Parameters
    ----------
    r : (E,)
        -1 to 1.
    n : (E,)
        Pairs each rests on, at least 3.
    """
    from scipy import special

    with np.errstate(divide="ignore"):  # r = 1: t is infinite and p 0
        t = np.abs(r) * np.sqrt((n - 2) / (1 - r**2))
    return np.asarray(2 * special.stdtr(n - 2, -t))


def correlation_intervals(
    r: FloatArray, n: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """95 % confidence intervals of correlations, by Fisher's z.

    Parameters
    ----------
    r : (E,)
        -1 to 1; NaN for missing.
    n : (E,)
        Pairs each rests on, less one for each covariate of a partial correlation.

    Notes
    -----
    Fisher (1915, doi:10.2307/2331838; 1924, Metron 3:329): z has a standard error of
    1 / sqrt(n - 3).
    """
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    reach = 1.959963984540054 / np.sqrt(np.where(n > 3, n - 3, np.nan))
    return np.tanh(z - reach), np.tanh(z + reach)


def adjust_for_many(p: FloatArray) -> FloatArray:
    """Adjust p values to the false discovery rate of Benjamini and Hochberg.

    Parameters
    ----------
    p : (E,)
        0 to 1, no NaN.

    Examples
    --------
    >>> adjust_for_many(np.array([0.01, 0.04, 0.03, 0.5]))
    array([0.04      , 0.05333333, 0.05333333, 0.5       ])
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    smallest = np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(smallest, 1)
    return adjusted


def chance_correlation(n: int) -> float:
    """Median of the absolute correlation of independent normal values.

    Parameters
    ----------
    n
        Pairs, at least 3.

    Notes
    -----
    r^2 is then distributed as Beta(1/2, (n - 2) / 2).

    Examples
    --------
    >>> round(chance_correlation(4), 3)
    0.5
    >>> round(chance_correlation(400), 4)
    0.0338
    """
    from scipy import special

    return float(np.sqrt(special.betaincinv(0.5, (n - 2) / 2, 0.5)))


def usable_centres(centres: FloatArray, offsets: FloatArray) -> FloatArray:
    """Leave out the centres that say little of where a region is.

    Parameters
    ----------
    centres : (R, 3)
        mm; NaN for unknown.
    offsets : (R,)
        How far each lies outside of its region, mm; NaN for unknown.

    Returns
    -------
    (R, 3)
        NaN where a centre is not known to be within 3.5 mm of its region: that of one
        with parts on both sides lies between them, and its distance from another is
        the distance of neither part.
    """
    inside = np.nan_to_num(offsets, nan=np.inf) <= _OUTSIDE_MM
    return np.where(inside[:, None], centres, np.nan)


def edge_lengths(centres: FloatArray, edges: Edges) -> FloatArray:
    """Straight distance between the centres of the two regions of each edge.

    Parameters
    ----------
    centres : (R, 3)
        mm; NaN for unknown.
    edges
        Of the R regions.

    Returns
    -------
    (E,)
        mm; NaN where a centre is unknown.
    """
    step = centres[edges.rows] - centres[edges.columns]
    return np.asarray(np.sqrt((step**2).sum(axis=1)))


def distance_dependence(
    distances: FloatArray, r: FloatArray
) -> tuple[float | None, int]:
    """Spearman's correlation of edge length with QC-FC.

    After Parkes et al. (2018), doi:10.1016/j.neuroimage.2017.12.073.

    Returns
    -------
    rho
        ``None`` where there are fewer than three edges or either is constant.
    n
        Edges that have both.
    """
    both = np.isfinite(distances) & np.isfinite(r)
    n = int(both.sum())
    if n < 3:
        return None, n
    ranks = [_rank(values[both]) for values in (distances, r)]
    x, y = (rank - rank.mean() for rank in ranks)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    if scale <= CONSTANT * n**3:
        return None, n
    return float(np.clip(x @ y / scale, -1, 1)), n


def _rank(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs, (E,) -> (E,)."""
    # In place of scipy.stats, which takes 0.6 s and 45 MB to import.
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])
