"""Which columns are the CompCor components of which mask.

The table alone does not tell: from 1.4 to 20.2, fMRIPrep numbers the components of
three masks through as ``a_comp_cor``, and the JSON beside the table has the ``Mask`` of
each; from 21 on, those of white matter and csf are ``w_comp_cor`` and ``c_comp_cor``,
and ``a_comp_cor`` is the combined mask only.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from bids_roi.errors import ConfoundsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_roi.confounds.strategies import Component
    from bids_roi.confounds.table import Confounds


# Mask in the JSON, and the prefix that stands for it since fMRIPrep 21.
_COMBINED, _WM, _CSF, _TEMPORAL = (
    ("combined", ""),
    ("WM", "w"),
    ("CSF", "c"),
    ("", "t"),
)
_MASKS = {
    "anat_combined": (_COMBINED,),
    "anat_separated": (_WM, _CSF),
    "temporal": (_TEMPORAL,),
    "temporal_anat_combined": (_TEMPORAL, _COMBINED),
    "temporal_anat_separated": (_TEMPORAL, _WM, _CSF),
}


def find_compcor(
    confounds: Confounds, component: Component
) -> tuple[list[str], list[str]]:
    """Names of the components that are asked for.

    Returns
    -------
    names
        Best first within a mask; those that the JSON has and the table lacks included,
        so that they can be reported.
    notes
        Where a mask has fewer components than asked for.
    """
    names: list[str] = []
    notes: list[str] = []
    for mask, prefix in _MASKS[component.model]:
        ranked = _of_mask(confounds, mask, prefix)
        what = mask or "temporal"
        if component.variance_explained is not None:
            share = component.variance_explained
            kept, reached = _explaining(confounds, ranked, share)
            if ranked and not reached:
                notes.append(
                    f"All {len(ranked)} CompCor components of {what} explain less than"
                    f" the {share:g} asked for."
                )
        else:
            count = component.n_components
            kept = ranked if count is None else ranked[:count]
            if ranked and count is not None and len(ranked) < count:
                notes.append(
                    f"{count} CompCor components of {what} were asked for, the table"
                    f" has {len(ranked)}."
                )
        if not ranked:
            # A name that no table has stands for the mask that is missing.
            kept = [f"{prefix or 'a'}_comp_cor ({what})"]
        names += kept
    return names, notes


def _of_mask(confounds: Confounds, mask: str, prefix: str) -> list[str]:
    own = _numbered(confounds, prefix) if prefix else []
    if own or not mask:
        return own
    mixed = _numbered(confounds, "a")
    if not mixed:
        return []
    unknown = [name for name in mixed if "Mask" not in _entry(confounds, name)]
    if unknown:
        _raise_json(confounds, unknown, "Mask", "which mask it comes from")
    return [name for name in mixed if confounds.metadata[name]["Mask"] == mask]


def _entry(confounds: Confounds, name: str) -> dict[str, Any]:
    return dict(confounds.metadata.get(name, {}))


def _numbered(confounds: Confounds, prefix: str) -> list[str]:
    """Components of a prefix in table and JSON, by number, without dropped ones."""
    pattern = re.compile(rf"{prefix}_comp_cor_(\d+)")
    ranked = {
        int(match[1]): name
        for name in (*confounds.metadata, *confounds.names)
        if (match := pattern.fullmatch(name)) is not None
        and _entry(confounds, name).get("Retained") is not False
    }
    return [ranked[number] for number in sorted(ranked)]


def _explaining(
    confounds: Confounds, ranked: Sequence[str], share: float
) -> tuple[list[str], bool]:
    """Fewest of the best components that explain the share, and whether they do."""
    total = 0.0
    for count, name in enumerate(ranked, start=1):
        explained = _entry(confounds, name).get("VarianceExplained")
        if not isinstance(explained, int | float):
            _raise_json(confounds, [name], "VarianceExplained", "how much it explains")
        else:
            total += explained
        if total >= share - 1e-9:  # the JSON has ten digits
            return list(ranked[:count]), True
    return list(ranked), False


def _raise_json(
    confounds: Confounds, names: Sequence[str], key: str, what: str
) -> None:
    masks = Counter(
        str(entry["Mask"])
        for name, entry in confounds.metadata.items()
        if "comp_cor" in name and "Mask" in entry
    )
    known = ", ".join(f"{count} {mask}" for mask, count in masks.items())
    reason = confounds.metadata_problem or f"it has no {key} of {names[0]}"
    known = f" (of others: {known})" if known else ""
    msg = (
        f"only the JSON beside the table says of {names[0]} {what} ({key}), and"
        f" {reason}{known}."
    )
    remedy = (
        "Put the JSON of fMRIPrep (1.4 or later) beside the table, or name the columns"
        " in a strategy of your own."
    )
    raise ConfoundsError(msg, where=confounds.where, remedy=remedy)
