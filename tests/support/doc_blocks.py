"""The fenced blocks of README.md and docs/, and what is said of how they are tested.

A block of bash, Python or R is run where it stands. A comment on the line above it says
otherwise::

    <!-- command: NAME -->      the suite of the container, of Apptainer or of SLURM
                                runs it, and .ci/readme-command prints it
    <!-- not run: REASON -->    it cannot be run here; its options are checked
"""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *(\S*)")
_MARKER = re.compile(r"^<!-- (command|not run): (.+) -->$")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    section: str
    language: str
    text: str
    kind: str = ""  # "command" or "not run"
    said: str = ""  # name of the command, or the reason

    @property
    def where(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page):
    """All fenced blocks of a page; the section is its last heading of level 2."""
    lines = page.read_text(encoding="utf-8").split("\n")
    blocks, section, marker, at = [], "", ("", ""), 0
    while at < len(lines):
        line, number = lines[at], at + 1
        fence = _FENCE.match(line)
        if fence:
            _, ticks, language = fence.groups()
            inside = []
            at += 1
            while lines[at].strip() != ticks:
                inside.append(lines[at])
                at += 1
            text = textwrap.dedent("\n".join(inside)) + "\n"
            blocks.append(Block(page, number, section, language, text, *marker))
            marker = ("", "")
        elif found := _MARKER.match(line.strip()):
            marker = found.groups()
        elif line.strip():
            if marker != ("", ""):
                raise ValueError(f"{page}:{number}: nothing to mark")
            if line.startswith("## "):
                section = line.removeprefix("## ").strip()
        at += 1
    return blocks


def all_blocks():
    return [block for page in PAGES for block in read_blocks(page)]


def flags_in(script):
    """Long flags that a script gives to ``bids_roi``, whatever runs it."""
    flags = []
    joined = re.sub(r"\\\n\s*", " ", script)
    for line in joined.split("\n"):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a line of a here-document
            words = line.split()
        names = [n for n, word in enumerate(words) if _is_command(word)]
        if names and words[0] not in ("nipoppy", "babs"):
            after = words[names[-1] + 1 :]
            flags += [w.partition("=")[0] for w in after if w.startswith("--")]
    return flags


def _is_command(word):
    """``bids_roi``, an image of it, or its file."""
    name = word.rpartition("/")[2].partition(":")[0]
    return name in ("bids_roi", "bids_roi.sif", "bids_roi_tools")
