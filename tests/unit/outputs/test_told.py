"""Numbers of a sidecar come back as they were, and many sidecars share their names."""

import hashlib
import math

import numpy as np

from bids_roi.outputs.told import (
    Told,
    pack_digest,
    pack_numbers,
    tell,
    unpack_digest,
    unpack_number,
)


def test_numbers_come_back_with_value_and_type():
    rng = np.random.default_rng(0)
    odd = [0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1, 1 / 3]
    whole = [0, 1, -1, 2**53 + 1, 10**18 - 1, -(10**17)]
    for _ in range(50):
        values = [*odd, *whole, *rng.normal(size=4).tolist()]
        rng.shuffle(order := list(range(len(values))))
        numbers = {f"Key{n}": values[n] for n in order[: rng.integers(len(order) + 1)]}
        packed = pack_numbers(numbers)
        for key in (f"Key{n}" for n in range(len(values) + 1)):
            found, true = unpack_number(key, *packed), numbers.get(key)
            assert (type(found), found) == (type(true), true)
            if true == 0:
                assert math.copysign(1, found) == math.copysign(1, true)


def test_where_numbers_lie_is_kept_once_for_sidecars_that_tell_the_same():
    here, one = pack_numbers({"A": 1, "B": 0.5})
    there, other = pack_numbers({"A": 7, "B": 2.5})
    assert here is there
    assert len(one) == len(other) == 16
    assert pack_numbers({"A": 1.0, "B": 0.5})[0] != here  # 1.0 is not written as 1
    assert unpack_number("A", {}, b"") is None


def test_digests_come_back_as_they_were_told():
    sound = hashlib.sha256(b"table").hexdigest()
    assert len(pack_digest(sound)) == 32
    # What a sidecar tells may be anything: nothing of it may come back as another.
    odd = [
        sound.upper(),
        sound[:-1],
        f" {sound}",
        f"{sound[:4]} {sound[4:]}",
        "new",
        "",
    ]
    for digest in (sound, *odd):
        assert unpack_digest(pack_digest(digest)) == digest


def test_what_many_sidecars_tell_is_kept_once():
    one = tell(False, "".join(["A", "1"]), "d", None, "", "", False)
    assert one is tell(False, "".join(["A", "1"]), "d", None, "", "", False)
    assert one == Told(atlas="A1", digest="d") != tell(True, "A1", "d", None, "", "")
