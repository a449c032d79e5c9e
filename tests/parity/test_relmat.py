"""Matrices against NumPy: where nilearn or scikit-learn has the same."""

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import ledoit_wolf
from support.relmat_cases import mixed

from bids_roi.core.relmat import partial_correlation, shrink_covariance


@pytest.mark.parametrize(("n_volumes", "n_regions"), [(200, 10), (40, 90), (5, 3)])
def test_ledoit_wolf_is_scikit_learns(n_volumes, n_regions):
    signals = mixed(n_volumes, n_regions)
    expected, share = ledoit_wolf(signals)
    found, shrinkage = shrink_covariance(signals)
    assert shrinkage == pytest.approx(share, abs=1e-10)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parity
def test_partial_is_nilearns():
    from nilearn.connectome import ConnectivityMeasure

    signals = mixed(80, 30)
    # nilearn shrinks in the units that it is given; its users standardize before.
    scaled = stats.zscore(signals, ddof=1)
    measure = ConnectivityMeasure(kind="partial correlation")
    expected = measure.fit_transform([scaled])[0]
    np.fill_diagonal(expected, 1)
    found = partial_correlation(signals, estimator="ledoit_wolf")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_partial_does_not_depend_on_units_as_nilearns_does():
    """Ledoit-Wolf shrinks towards equal variances: of what, is the question."""
    from nilearn.connectome import ConnectivityMeasure

    signals = mixed(80, 30)
    other = signals * np.geomspace(1, 100, 30)
    ours = [
        partial_correlation(each, estimator="ledoit_wolf") for each in (signals, other)
    ]
    np.testing.assert_allclose(ours[0], ours[1], rtol=0, atol=1e-10)
    measure = ConnectivityMeasure(kind="partial correlation", standardize=None)
    theirs = [measure.fit_transform([each])[0] for each in (signals, other)]
    assert np.abs(theirs[0] - theirs[1]).max() > 0.05
