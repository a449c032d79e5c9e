"""The traffic light of each row of the summary, with its reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIGHTS", "RULES", "Verdict", "judge_series"]

# Word to sign: the form tells as much as the colour.
LIGHTS = {
    "good": "\N{BLACK CIRCLE}",
    "check": "\N{BLACK UP-POINTING TRIANGLE}",
    "failed": "\N{BLACK SQUARE}",
    "skipped": "\N{WHITE CIRCLE}",
}

_COVERAGE, _KEPT, _FD, _TSNR = 0.9, 0.5, 0.5, 20.0

RULES = (
    "a region is n/a",
    f"mean coverage is below {100 * _COVERAGE:.0f} %",
    f"less than {100 * _KEPT:.0f} % of the volumes are kept",
    f"mean framewise displacement of the kept volumes is above {_FD:g} mm",
    f"the median tSNR of the regions is below {_TSNR:g}",
    "fewer than one degree of freedom is left",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader should think of a series at first sight.

    Attributes
    ----------
    light
        ``good``, ``check``, ``failed`` or ``skipped``.
    reason
        Why, in words; empty where it is good.
    """

    light: str
    reason: str = ""

    @property
    def sign(self) -> str:
        """Form of the light."""
        return LIGHTS[self.light]


def judge_series(
    sidecar: Mapping[str, Any], *, n_regions: int, n_lost: int, tsnr: float | None
) -> Verdict:
    """Judge a series that was extracted.

    Parameters
    ----------
    sidecar
        Of the series.
    n_regions, n_lost
        Columns, and those of them that are n/a.
    tsnr
        Median over the regions, ``None`` where there is none.
    """
    reasons = []
    if n_lost:
        reasons.append(f"{n_lost} of {n_regions} regions n/a")
    coverage = sidecar.get("MeanCoverage")
    if coverage is not None and coverage < _COVERAGE:
        reasons.append(f"mean coverage {100 * coverage:.0f} %")
    volumes, kept = sidecar.get("NumberOfVolumes"), sidecar.get("NumberOfVolumesKept")
    if volumes and kept is not None and kept / volumes < _KEPT:
        reasons.append(f"only {100 * kept / volumes:.0f} % of the volumes kept")
    fd = sidecar.get(
        "MeanFramewiseDisplacementKept", sidecar.get("MeanFramewiseDisplacement")
    )
    if fd is not None and fd > _FD:
        reasons.append(f"mean framewise displacement {fd:.2f} mm")
    if tsnr is not None and tsnr < _TSNR:
        reasons.append(f"median tSNR {tsnr:.0f}")
    freedom = sidecar.get("DegreesOfFreedom")
    if freedom is not None and freedom < 1:
        reasons.append(f"{freedom:g} degrees of freedom left")
    return Verdict("check" if reasons else "good", "; ".join(reasons))
