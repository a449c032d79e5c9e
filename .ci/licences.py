"""Print the table of what bids_roi is installed with, and under which licences.

Read from the metadata of the installed packages, by ``.ci/generate``.
"""

import re
import sys
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

HEAD = """\
# Licences of the dependencies

What `pip install bids_roi` brings along, and so what the container image holds besides
Python and Debian. bids_roi itself is under the BSD 3-Clause licence (`LICENSE`). The
atlases of the image are those of Schaefer et al. 2018, under the MIT licence.

Made by `.ci/generate` from the metadata of the packages; do not edit.

| package | licence | why |
|---|---|---|
"""


def find_closure(name: str) -> dict[str, set[str]]:
    """Every package that an installation of one needs, with those that ask for it."""
    asked: dict[str, set[str]] = {}
    waiting = [(name, set[str]())]
    seen = set()
    while waiting:
        parent, extras = waiting.pop()
        if (parent, frozenset(extras)) in seen:
            continue
        seen.add((parent, frozenset(extras)))
        for text in distribution(parent).requires or []:
            needed = Requirement(text)
            wanted = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            )
            if wanted:
                child = normalise(needed.name)
                asked.setdefault(child, set()).add(normalise(parent))
                waiting.append((child, set(needed.extras)))
    return asked


def normalise(name: str) -> str:
    """Write a name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_licence(package: Distribution) -> str:
    """Say under which licence a package is, in the shortest form that it gives."""
    expression = package.metadata.get("License-Expression")
    if expression:
        return expression
    said = [
        line.rpartition(" :: ")[2]
        for line in package.metadata.get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    text = (package.metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) < 60:
        return text
    return ", ".join(said) or text.partition("\n")[0] or "not said; see the package"


def main() -> None:
    """Print the page."""
    lines = []
    for name, parents in sorted(find_closure("bids_roi").items()):
        why = ", ".join(sorted(parents)).replace("bids-roi", "bids_roi")
        lines.append(f"| {name} | {name_licence(distribution(name))} | {why} |\n")
    sys.stdout.write(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
