"""When the volumes of a run were acquired: evenly, or at times of their own.

BIDS has ``VolumeTiming`` for sparse and irregular acquisitions: the time of each
volume, in s, in place of ``RepetitionTime`` (which only evenly spaced volumes have).
A filter in Hz needs even spacing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

# Scanners note times in steps of 2.5 ms, and files in ms: what differs by less is even.
_EVEN_S = 5e-3
_MOST_S = 1e9
REMEDY = "Give one time in s for each volume, or RepetitionTime in its place."


@dataclass(frozen=True, slots=True)
class Timing:
    """What ``VolumeTiming`` says of a run."""

    # Seconds between volumes, where they are evenly spaced; else None
    step: float | None = None
    uneven: bool = False  # whether they are not evenly spaced
    # Why there is no step; blank where there is one, or no VolumeTiming
    problem: str = ""
    # Seconds, where they increase and there is one for each volume
    times: tuple[float, ...] = ()


def read_timing(metadata: object, n_volumes: int | None) -> Timing:
    """Read ``VolumeTiming``.

    Volumes are evenly spaced where each step is within 5 ms of their mean.
    ``n_volumes`` is ``None`` where it is not known.
    """
    times = metadata.get("VolumeTiming") if isinstance(metadata, Mapping) else None
    if times is None:
        return Timing()
    if not isinstance(times, list | tuple) or not all(map(_is_number, times)):
        return Timing(problem="VolumeTiming is no list of numbers.")
    steps = [b - a for a, b in itertools.pairwise(times)]
    if not steps:
        problem = f"VolumeTiming has {len(times)} times."
        return Timing(problem=problem)
    if min(steps) <= 0:
        at = next(number for number, step in enumerate(steps) if step <= 0)
        problem = (
            f"VolumeTiming does not increase: {times[at]:g} s is followed by"
            f" {times[at + 1]:g} s (volumes {at + 1} and {at + 2})."
        )
        return Timing(problem=problem)
    complete = tuple(times) if n_volumes in (None, len(times)) else ()
    mean = (times[-1] - times[0]) / len(steps)
    if max(abs(step - mean) for step in steps) > _EVEN_S:
        problem = (
            "the volumes are not evenly spaced, the steps between them are"
            f" {min(steps):g} to {max(steps):g} s (VolumeTiming)."
        )
        return Timing(uneven=True, problem=problem, times=complete)
    if not complete:
        problem = (
            f"VolumeTiming has {len(times)} times, the series {n_volumes} volumes."
        )
        return Timing(problem=problem)
    return Timing(step=round(mean, 6), times=complete)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < _MOST_S  # which NaN is not


def explain_untimed(metadata: object, n_volumes: int) -> tuple[str, str]:
    """Say why a run has no repetition time, and how it gets one.

    The remedy is blank where there can be no repetition time.
    """
    timing = read_timing(metadata, n_volumes)
    if timing.uneven:
        return timing.problem, ""
    reason = timing.problem or "nothing tells it."
    return reason, "Give it with --repetition-time, in seconds."
