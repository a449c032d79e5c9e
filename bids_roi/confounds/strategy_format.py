"""Denoising strategies: which columns to regress out, and with which settings.

A strategy is data. The presets are the JSON files in ``bids_roi/data/denoise``; a
user's own file has the same form, and any preset can be copied as a beginning::

    {
      "name": "mine",                        how people call it
      "label": "mine",                       desc- of the outputs: letters and digits;
                                             default: those of the name
      "description": "What it is good for.", may be left out
      "components": [                        what is regressed out, in any order
        {"motion": "full"},                  basic 6, power2 12, derivatives 12, full 24
        {"wm_csf": "basic"},                 same four models, on csf and white_matter
        {"csf": "basic"},                    the same on one of them
        {"white_matter": "basic"},
        {"global_signal": "basic"},
        {"cosine": "all"},                   fMRIPrep's high-pass regressors
        {"compcor": "anat_combined",         or anat_separated, temporal,
                                             temporal_anat_combined, _separated
         "n_components": 5},                 per mask; "all" (default) or a number, or
                                             instead "variance_explained": 0 to 1
        {"ica_aroma": "basic"},              aroma_motion_*; "orthogonal":
                                             aroma_orth_motion_*; "full": no column,
                                             but a BOLD series already denoised
        {"columns": ["rmsd", "csf_wm"]},     by name
        {"pattern": "edge_comp_0[0-4]"}      a regular expression for the whole name
      ],
      "settings": {                          each may be left out, or be null: off
        "detrend": true,                     mean and straight line
        "high_pass": 0.01, "low_pass": 0.08, Hz
        "filter": "passband",                or "butterworth", "cosine"
        "filter_order": 5,                   of a Butterworth filter,
        "filter_padding": "constant",        or "odd": how it goes on beyond the ends
        "filter_ends": "cut",                or "nearest": censored volumes there
        "interpolation": "linear",           or "cubic_spline", where gaps are filled
        "standardize_confounds": true,       or false: they keep their means
        "standardize": "zscore_sample",      or "psc", "none"
        "fd_threshold": 0.5,                 mm; volumes above it are censored
        "std_dvars_threshold": 1.5,
        "scrub": 5,                          shorter stretches are censored too
        "censor_before": 0,                  neighbours of a censored volume
        "censor_after": 0,
        "dummy_scans": "auto"                as flagged in the confounds, or a number
      }
    }

Columns have the names of today's fMRIPrep; those of fMRIPrep 1.0 and 1.1 are renamed
when the table is read. What is left out is off, and so is what is ``null``: other than
in nilearn (and so in giga_connectome), where ``null`` means the default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Component",
    "Settings",
    "Strategy",
    "describe_strategy",
]


@dataclass(frozen=True, slots=True)
class Component:
    """One group of columns.

    Attributes
    ----------
    kind
        ``motion``, ``wm_csf``, ``compcor``, ..., ``columns`` or ``pattern``.
    model
        Which of the group, ``full`` for example; the expression of a ``pattern``.
    columns
        Names, for ``columns`` only.
    n_components
        At most so many CompCor components per mask; ``None`` for all.
    variance_explained
        As many CompCor components per mask as explain this share, 0 to 1.
    """

    kind: str
    model: str = ""
    columns: tuple[str, ...] = ()
    n_components: int | None = None
    variance_explained: float | None = None

    def __str__(self) -> str:
        """Say it in short: ``compcor anat_combined``."""
        return f"{self.kind} {self.model or ', '.join(self.columns)}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How signals are cleaned beside the regression; by default nothing is done.

    Attributes
    ----------
    detrend
        Whether mean and straight line are taken out.
    high_pass, low_pass
        Cut-offs in Hz; ``None`` for off.
    filter
        Kind of the filter, where there is a cut-off.
    filter_order, filter_padding, filter_ends
        Of the Butterworth filter.
    interpolation
        How gaps are filled, for a Butterworth filter or ``--censored interpolate``.
    standardize_confounds
        Whether confounds get mean 0 before they are regressed out.
    standardize
        Scale of the cleaned signals.
    fd_threshold
        Framewise displacement in mm above which a volume is censored; ``None`` for off.
    std_dvars_threshold
        Standardised DVARS above which a volume is censored; ``None`` for off.
    scrub
        Stretches of kept volumes shorter than this are censored; 0 for off.
    censor_before, censor_after
        How many neighbours of a censored volume go with it.
    dummy_scans
        Volumes at the start to leave out; ``auto`` for those flagged in the confounds.
    """

    detrend: bool = False
    high_pass: float | None = None
    low_pass: float | None = None
    filter: Literal["passband", "butterworth", "cosine"] = "passband"
    filter_order: int = 5
    filter_padding: Literal["odd", "constant"] = "constant"
    filter_ends: Literal["cut", "nearest"] = "cut"
    interpolation: Literal["linear", "cubic_spline"] = "linear"
    standardize_confounds: bool = True
    standardize: Literal["none", "zscore_sample", "psc"] = "none"
    fd_threshold: float | None = None
    std_dvars_threshold: float | None = None
    scrub: int = 0
    censor_before: int = 0
    censor_after: int = 0
    dummy_scans: int | Literal["auto"] = 0


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named choice of columns and settings.

    Attributes
    ----------
    name
        As asked for on the command line, or as its file says.
    label
        For ``desc-`` in file names: letters and digits.
    description
        What it is, in a sentence or more.
    components
        What is regressed out.
    settings
        What else is done.
    """

    name: str
    label: str
    description: str
    components: tuple[Component, ...]
    settings: Settings


def describe_strategy(strategy: Strategy) -> dict[str, Any]:
    """JSON content that reads back to the same strategy; every setting is written.

    >>> settings = Settings(fd_threshold=0.5)
    >>> mine = Strategy("m", "m", "", (Component("motion", "full"),), settings)
    >>> describe_strategy(mine)["components"]
    [{'motion': 'full'}]
    """
    components = []
    for part in strategy.components:
        item: dict[str, Any] = {part.kind: part.model or list(part.columns)}
        if part.n_components is not None:
            item["n_components"] = part.n_components
        if part.variance_explained is not None:
            item["variance_explained"] = part.variance_explained
        components.append(item)
    return {
        "name": strategy.name,
        "label": strategy.label,
        "description": strategy.description,
        "components": components,
        "settings": dataclasses.asdict(strategy.settings),
    }
