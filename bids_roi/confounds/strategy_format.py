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
        {"pattern": "edge_comp_0[0-4]"},     a regular expression for the whole name
        {"table": "physio",                  a table of your own for each run, from
         "columns": ["heart", "breath"]}     --confounds-dataset physio=DIR; or "all"
      ],
      "settings": {                          each may be left out, or be null: off
        SETTINGS
      }
    }

Columns have the names of today's fMRIPrep; those of fMRIPrep 1.0 and 1.1 are renamed
when the table is read. What is left out is off, and so is what is ``null``: other than
in nilearn (and so in giga_connectome), where ``null`` means the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.options.settings import format_example, list_told

if TYPE_CHECKING:
    from bids_roi.options.settings import Settings


# The settings tell themselves what to write of them.
__doc__ = (__doc__ or "").replace("        SETTINGS\n", format_example())


@dataclass(frozen=True, slots=True)
class Component:
    """One group of columns.

    Attributes
    ----------
    kind
        ``motion``, ``wm_csf``, ``compcor``, ..., ``columns``, ``pattern`` or ``table``.
    model
        Which of the group, ``full`` for example; the expression of a ``pattern``; the
        name of a ``table``.
    columns
        Names, for ``columns`` and ``table`` only; none for all columns of the table.
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

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables beside fMRIPrep's that it takes columns from."""
        named = (part.model for part in self.components if part.kind == "table")
        return tuple(dict.fromkeys(named))

    @property
    def takes_aroma(self) -> bool:
        """Whether columns of fMRIPost-AROMA's table may be among its regressors."""
        named = {part.kind for part in self.components if part.model != "full"}
        return not named.isdisjoint({"ica_aroma", "columns", "pattern"})


def describe_strategy(strategy: Strategy) -> dict[str, Any]:
    """JSON content that reads back to the same strategy.

    >>> from bids_roi.options.settings import Settings
    >>> settings = Settings(fd_threshold=0.5)
    >>> mine = Strategy("m", "m", "", (Component("motion", "full"),), settings)
    >>> describe_strategy(mine)["components"]
    [{'motion': 'full'}]
    """
    components = []
    for part in strategy.components:
        item: dict[str, Any] = {part.kind: part.model or list(part.columns)}
        if part.kind == "table":
            item["columns"] = list(part.columns) or "all"
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
        "settings": list_told(strategy.settings),
    }
