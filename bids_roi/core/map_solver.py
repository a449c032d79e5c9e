"""Least squares over weighted maps, without the squared condition.

The normal equations need only the products of maps and volumes, which one pass over
the run adds up, but they lose twice the digits that the maps' condition costs: for maps
that nearly depend on one another, all of them. Such maps get a better basis, and the
run a second pass: maps that are told apart well stay as they are; each of the others is
replaced by what the former cannot explain of it, brought to length 1. That remainder is
taken on the voxels, map by map, so that it has all the digits there are, and stays
sparse where the maps are: there is never a dense matrix of voxels x maps, as a
QR decomposition would need (1.6 GB for 1,024 maps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.options.words import hold_names, name_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    FloatArray = NDArray[np.float64]


# Condition number from which on maps are said to depend on one another: the noise of
# the voxels comes out a thousand times larger.
NEARLY_DEPENDENT = 1e3
# Up to here the normal equations keep twelve digits. Real atlases of weights lie far
# below (DiFuMo and CanICA: 1.2).
_NORMAL = 30.0
# Least norm of what the other maps cannot explain of a map of norm 1, for it to stay
# in the basis as it is.
_DISTINCT = 0.03
# Below this nothing is left but rounding errors of 1e-16 or a few of them.
_DEPENDENT = 1e-13
# Share of a dependence from which on a map is named.
_NAMED = 0.1


class MapSolver:
    """Solves ``data = signals @ weights`` for the signals, over the usable voxels.

    Parameters
    ----------
    weights : (R, N) sparse
        Of an atlas.
    usable : (N,)
        Voxels that count.

    Attributes
    ----------
    present : (R,)
        Maps with weight in a usable voxel.
    rank
        Independent maps among them.
    condition
        Largest over smallest singular value of the independent maps, each of norm 1.
    dependent : (R,)
        Maps that depend on others, or nearly do: condition above ``NEARLY_DEPENDENT``.
    extra : (k, N) sparse or None
        Further rows to multiply volumes with; ``None`` where the maps will do.

    Notes
    -----
    Dual regression's first step (Beckmann et al. 2009,
    doi:10.1016/S1053-8119(09)71511-3), as in nilearn's NiftiMapsMasker. Normal
    equations, and orthogonalisation done twice: Björck (1996), Numerical Methods for
    Least Squares Problems, sections 2.2 and 2.4, doi:10.1137/1.9781611971484.
    """

    def __init__(self, weights: csr_array, usable: NDArray[np.bool_]) -> None:
        columns = np.flatnonzero(usable)
        maps = weights[:, columns]
        norms = _row_norms(maps)
        self.present = norms > 0
        self.dependent = np.zeros(norms.size, dtype=bool)
        # Scaled to norm 1: the rank must not depend on the maps' sizes.
        self._scale = 1 / norms[self.present]
        maps = _scale_rows(maps[self.present], self._scale)
        n = maps.shape[0]
        gram = (maps @ maps.T).toarray()
        self.rank, self.condition = n, 1.0
        self.extra: csr_array | None = None
        self._gram = gram  # of the basis
        self._kept = np.arange(n)  # maps that are in the basis as they are
        self._loadings = np.eye(n)  # maps = loadings @ basis
        self._order = np.arange(n)  # of the maps, so that loadings are triangular
        if n == 0:
            return
        squares = np.linalg.eigvalsh(gram)
        if squares[0] * _NORMAL**2 >= squares[-1]:
            self.condition = float(np.sqrt(squares[-1] / squares[0]))
            return
        basis = self._find_basis(maps)
        self._gram = (basis @ basis.T).toarray()
        self._tell_dependence()
        if self.rank > self._kept.size:
            extra = basis[self._kept.size :]
            self.extra = _spread(extra, columns, usable.size)

    def _find_basis(self, maps: csr_array) -> csr_array:
        """Replace maps that others nearly explain by what is left of them."""
        from scipy.sparse import vstack

        n = maps.shape[0]
        self._kept, left = _choose(self._gram)
        loadings = np.zeros((n, n))
        loadings[self._kept, np.arange(self._kept.size)] = 1
        order, basis, rows = [self._kept], maps[self._kept], maps[left]
        length = np.ones(left.size)
        while left.size:
            known = basis.shape[0]
            shares, rows, norms = _explain(rows, basis, length)
            loadings[left, :known] += length[:, None] * shares
            length = length * norms
            alive = np.flatnonzero(length > _DEPENDENT)
            if alive.size == 0:
                break
            left, length = left[alive], length[alive]
            rows = _scale_rows(rows[alive], 1 / norms[alive])
            chosen, others = _choose((rows @ rows.T).toarray())
            basis = vstack([basis, rows[chosen]], format="csr")
            new = np.arange(known, basis.shape[0])
            loadings[left[chosen], new] = length[chosen]
            order.append(left[chosen])
            left, length, rows = left[others], length[others], rows[others]
        self.rank = int(basis.shape[0])
        self._loadings = loadings[:, : self.rank]
        self._order = np.concatenate(order)
        return basis

    def _tell_dependence(self) -> None:
        """Condition of the maps, and which of them are hard to tell apart."""
        spread = self._loadings @ np.linalg.cholesky(self._gram)
        vectors, values, _ = np.linalg.svd(spread)
        self.condition = float(values[0] / values[self.rank - 1])
        weak = np.ones(len(vectors), dtype=bool)
        weak[: self.rank] = values[: self.rank] * NEARLY_DEPENDENT < values[0]
        named = (np.abs(vectors[:, weak]) > _NAMED).any(axis=1)
        self.dependent[np.flatnonzero(self.present)[named]] = True

    def solve(self, products: FloatArray, more: FloatArray | None) -> FloatArray:
        """Signals that, spread by the maps, come nearest to the data.

        Parameters
        ----------
        products : (T, R)
            ``data @ weights.T`` over the usable voxels.
        more : (T, k) or None
            ``data @ extra.T`` over the same.

        Returns
        -------
        (T, R)
            NaN for maps without weight in any usable voxel; of solutions that fit
            equally well, where maps depend on one another, the smallest.
        """
        from scipy import linalg

        signals = np.full_like(products, np.nan)
        if not self.present.any():
            return signals
        onto = (products[:, self.present] * self._scale)[:, self._kept]
        if more is not None:
            onto = np.hstack([onto, more])
        # What the basis explains: data = fit @ basis.
        fit = linalg.cho_solve(linalg.cho_factor(self._gram), onto.T)
        n, rank = self._loadings.shape
        if rank == n:
            found = np.empty_like(fit)
            triangle = self._loadings[self._order]
            found[self._order] = linalg.solve_triangular(triangle, fit, 1, lower=True)
            found *= self._scale[:, None]
        else:
            # loadings' diag(1 / scale) found = fit has many solutions.
            q, r = np.linalg.qr(self._loadings / self._scale[:, None])
            found = q @ linalg.solve_triangular(r, fit, 1)
        signals[:, self.present] = found.T
        return signals


def _choose(gram: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that are told apart well, by Cholesky with pivoting; and the others."""
    from scipy.linalg import lapack

    _, pivots, rank, _ = lapack.dpstrf(gram, tol=_DISTINCT**2)
    pivots = np.asarray(pivots, dtype=np.intp) - 1
    return np.sort(pivots[:rank]), np.sort(pivots[rank:])


def _explain(
    rows: csr_array, basis: csr_array, length: FloatArray
) -> tuple[FloatArray, csr_array, FloatArray]:
    """Shares of the basis in some rows, what they leave, and the norm of that.

    A few rows at a time, and what is but rounding errors goes at once: their remainders
    are not as sparse as they are.
    """
    from scipy import linalg
    from scipy.sparse import csr_array, vstack

    factor = linalg.cho_factor((basis @ basis.T).toarray())
    shares = np.zeros((rows.shape[0], basis.shape[0]))
    remainders, norms = [], np.zeros(rows.shape[0])
    for first in range(0, rows.shape[0], 16):
        some = slice(first, min(first + 16, rows.shape[0]))
        part = rows[some]
        for _ in range(2):
            share = linalg.cho_solve(factor, (basis @ part.T).toarray()).T
            tiny = np.finfo(np.float64).eps * _row_norms(part)
            share[np.abs(share) <= tiny[:, None]] = 0
            part = csr_array(part - csr_array(share) @ basis)
            shares[some] += share
        norms[some] = _row_norms(part)
        gone = length[some] * norms[some] <= _DEPENDENT
        part = _scale_rows(part, np.where(gone, 0.0, 1.0))
        part.eliminate_zeros()
        remainders.append(part)
    return shares, vstack(remainders, format="csr"), norms


def _row_norms(rows: csr_array) -> FloatArray:
    squares = np.asarray((rows * rows).sum(axis=1), dtype=np.float64)
    return np.asarray(np.sqrt(squares.ravel()))


def _scale_rows(rows: csr_array, scale: FloatArray) -> csr_array:
    from scipy.sparse import csr_array

    data = rows.data * np.repeat(scale, np.diff(rows.indptr))
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def _spread(rows: csr_array, columns: NDArray[np.intp], n: int) -> csr_array:
    """Rows over some columns as rows over all of them."""
    from scipy.sparse import csr_array

    return csr_array(
        (rows.data, columns[rows.indices].astype(np.int32), rows.indptr),
        shape=(rows.shape[0], n),
    )


hold_names(
    {"least_squares": MapSolver}, name_statistics(family="joint"), "core/map_solver.py"
)
