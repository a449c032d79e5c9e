"""How to cite the atlases that are found by name, and tables written for bids_roi."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parents[1] / "data"


@functools.cache
def _citations() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_DATA / "citations.json").read_text("utf-8"))
    return content


def describe_known_atlas(label: str) -> dict[str, Any]:
    """Describe an atlas for ``atlas-<label>_description.json``; empty if not known."""
    known = _citations().get(label)
    if known is None:
        return {}
    references = known["References"]
    content = {
        "Name": known["Name"],
        "License": known["License"],
        "Authors": known["Authors"],
        "ReferencesAndLinks": [f"https://doi.org/{r['DOI']}" for r in references],
        "BibTeX": "\n".join(map(format_bibtex, references)),
    }
    if "RegionTable" in known:
        content["RegionTable"] = known["RegionTable"]
    return content


def format_bibtex(reference: dict[str, Any]) -> str:
    """Entry of BibTeX for a reference with Key, Authors, Title, Journal, Year, DOI."""
    authors = reference["Authors"].replace(", et al.", ", others").split(", ")
    # Family name first, with a comma, or BibTeX takes the initials for it.
    authors = [", ".join(name.rsplit(" ", 1)) for name in authors]
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{reference['Title']}}}",
        "journal": reference["Journal"].replace("&", "\\&"),
        "year": reference["Year"],
        "doi": reference["DOI"],
    }
    body = ", ".join(f"{key} = {{{value}}}" for key, value in fields.items())
    return f"@article{{{reference['Key']}, {body}}}"


def cite_briefly(label: str) -> str:
    """First reference of an atlas as ``Schaefer2018, doi:10.1093/...``, or blank."""
    known = _citations().get(label)
    if known is None:
        return ""
    first = known["References"][0]
    return f"{first['Key']}, doi:{first['DOI']}"


def own_table(label: str) -> Path | None:
    """Region table written for bids_roi, where TemplateFlow's is missing or wrong."""
    path = _DATA / f"atlas-{label}_dseg.tsv"
    return path if path.is_file() else None
