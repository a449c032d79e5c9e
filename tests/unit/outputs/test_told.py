"""Numbers of a sidecar come back as they were, and many sidecars share their names."""

import math

import numpy as np

from bids_roi.outputs.told import Told, pack_numbers


def test_numbers_come_back_with_value_and_type():
    rng = np.random.default_rng(0)
    odd = [0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1, 1 / 3]
    whole = [0, 1, -1, 2**53 + 1, 10**18 - 1, -(10**17)]
    for _ in range(50):
        values = [*odd, *whole, *rng.normal(size=4).tolist()]
        rng.shuffle(order := list(range(len(values))))
        numbers = {f"Key{n}": values[n] for n in order[: rng.integers(len(order) + 1)]}
        told = Told(None, False, "", "", *pack_numbers(numbers))
        for key in (f"Key{n}" for n in range(len(values) + 1)):
            found, true = told.number(key), numbers.get(key)
            assert (type(found), found) == (type(true), true)
            if true == 0:
                assert math.copysign(1, found) == math.copysign(1, true)


def test_where_numbers_lie_is_kept_once_for_sidecars_that_tell_the_same():
    here, one = pack_numbers({"A": 1, "B": 0.5})
    there, other = pack_numbers({"A": 7, "B": 2.5})
    assert here is there
    assert len(one) == len(other) == 16
    assert pack_numbers({"A": 1.0, "B": 0.5})[0] != here  # 1.0 is not written as 1
    assert Told().number("A") is None
