"""Sidecar keys of a series: those of its run, and where it differs from the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def join_facts(common: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Join keys of a run with those of one series, which win; ``None`` takes one out.

    >>> join_facts({"Units": "arbitrary", "StartTime": 0}, {"StartTime": None})
    {'Units': 'arbitrary'}
    """
    joined = {**common, **facts}
    return {key: value for key, value in joined.items() if value is not None}


def describe_kept_rows(
    common: Mapping[str, Any], kept: NDArray[np.bool_]
) -> dict[str, Any]:
    """Sidecar keys of a series that has rows for some volumes of its run only.

    Its rows are not evenly spaced, so that ``VolumeTiming`` tells the time of each, and
    keys that exclude it in BIDS go; ``SourceRepetitionTime`` keeps that of the run.

    Parameters
    ----------
    common
        Keys from ``describe_run``.
    kept : (T,) bool
        Volumes that have a row.

    Returns
    -------
    dict
        For ``join_facts``.
    """
    volumes = np.flatnonzero(kept)
    own, step = common.get("VolumeTiming"), common.get("RepetitionTime")
    facts: dict[str, Any] = {"SamplingFrequency": None}
    if isinstance(own, list) and len(own) == kept.size:
        facts["VolumeTiming"] = [own[volume] for volume in volumes]
    elif step is not None:
        # The digits of the repetition time, without what multiplying adds to them.
        facts["VolumeTiming"] = [float(f"{volume * step:.12g}") for volume in volumes]
        facts |= {"RepetitionTime": None, "SourceRepetitionTime": step}
        facts["DelayTime"], pause = None, common.get("DelayTime", 0)
        if "AcquisitionDuration" not in common:
            known = isinstance(pause, int | float) and 0 <= pause < step
            spent = step - pause if known else step
            facts["AcquisitionDuration"] = float(f"{spent:.12g}")
    return facts
