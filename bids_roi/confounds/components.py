"""Components of CompCor and ICA-AROMA: which columns they are, and what they need.

The table alone does not tell the masks of CompCor: from 1.4 to 20.2, fMRIPrep numbers
the components of three through as ``a_comp_cor``, and the JSON beside the table has the
``Mask`` of each; from 21 on, those of white matter and csf are ``w_comp_cor`` and
``c_comp_cor``, and ``a_comp_cor`` is the combined mask only.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import ConfoundsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bids_roi.confounds.strategies import Component, Strategy
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
# fMRIPrep with --use-aroma (to 23), fMRIPost-AROMA.
_AROMA_SERIES = ("smoothAROMAnonaggr", "nonaggrDenoised")
_MAX_NAMED = 5


def find_compcor(
    confounds: Confounds, component: Component
) -> tuple[list[str], list[str]]:
    """Names of the components of CompCor that are asked for.

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


def merge_confounds(first: Confounds, second: Confounds) -> Confounds:
    """Put two tables of one run side by side, those of fMRIPost-AROMA for example.

    Columns that both have must have the same values.
    """
    if first.n_volumes != second.n_volumes:
        msg = (
            f"the table has {second.n_volumes} rows, but {first.where} has"
            f" {first.n_volumes}; both must have one row per volume."
        )
        remedy = "Check that they belong to one run, with all volumes."
        raise ConfoundsError(msg, where=second.where, remedy=remedy)
    both = [name for name in second.names if name in first.names]
    differ = [
        name
        for name in both
        if not np.array_equal(first.column(name), second.column(name), equal_nan=True)
    ]
    if differ:
        listed = ", ".join(differ[:_MAX_NAMED])
        msg = f"columns differ from those of the same name in {first.where}: {listed}."
        remedy = "Rename them in one of the tables, or give one table only."
        raise ConfoundsError(msg, where=second.where, remedy=remedy)
    new = [index for index, name in enumerate(second.names) if name not in both]
    problems = (first.metadata_problem, second.metadata_problem)
    return replace(
        first,
        names=(*first.names, *(second.names[index] for index in new)),
        values=np.hstack([first.values, second.values[:, new]]),
        metadata={**second.metadata, **first.metadata},
        paths=(*first.paths, *second.paths),
        renamed=(*first.renamed, *second.renamed),
        metadata_problem="; ".join(filter(None, problems)),
    )


def check_series(
    confounds: Confounds, strategy: Strategy, image_desc: str | None
) -> None:
    """Refuse another series than a strategy on ICA-AROMA's output is for."""
    wanted = any(
        part.kind == "ica_aroma" and part.model == "full"
        for part in strategy.components
    )
    if wanted and image_desc not in _AROMA_SERIES:
        found = f"desc-{image_desc}" if image_desc else "no desc-"
        needed = " or ".join(f"desc-{desc}" for desc in _AROMA_SERIES)
        msg = (
            f"{strategy.name} is for a series that ICA-AROMA has denoised, {needed};"
            f" the BOLD series has {found}."
        )
        remedy = f"Give --desc {_AROMA_SERIES[0]}, or a strategy with aroma columns."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)


def say_filters(strategy: Strategy, names: tuple[str, ...]) -> Iterable[str]:
    """Doubt two high-passes, and CompCor without the one that it was made after."""
    kinds = {part.kind for part in strategy.components}
    cosines = [name for name in names if re.fullmatch(r"cosine_?\d+", name)]
    high_pass = strategy.settings.high_pass
    if cosines and high_pass is not None:
        yield (
            f"{strategy.name}: two high-passes, {len(cosines)} cosine columns and a"
            f" {strategy.settings.filter} filter at {high_pass:g} Hz; one is enough."
        )
    if "compcor" in kinds and not cosines:
        yield (
            "fMRIPrep computes CompCor after a high-pass by its cosine columns, which"
            " this strategy does not regress out."
        )
