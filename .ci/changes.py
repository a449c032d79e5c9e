"""Join the fragments of changes/ to a section of CHANGELOG.md (``.ci/changes``)."""

import datetime as dt
import re
import sys
from pathlib import Path

KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")
UNRELEASED = "## [Unreleased]\n"
_NAME = re.compile(rf"(\d+)\.({'|'.join(KINDS)})\.md")


def find_fragments(folder: Path) -> list[Path]:
    """Find the fragments, by number; nothing else but the README may be there."""
    fragments = [path for path in folder.iterdir() if path.name != "README.md"]
    problems = []
    for path in fragments:
        if not _NAME.fullmatch(path.name):
            problems.append(
                f"{path}: the name is to be NUMBER.KIND.md; {', '.join(KINDS)}"
            )
        elif not path.read_text(encoding="utf-8").strip():
            problems.append(f"{path}: the fragment is empty")
        elif path.read_text(encoding="utf-8").lstrip().startswith(("-", "*", "#")):
            problems.append(f"{path}: sentences only; bullets and headings are added")
    if problems:
        raise SystemExit("\n".join(problems))
    return sorted(fragments, key=lambda path: (int(path.name.split(".")[0]), path.name))


def join(text: str, fragments: list[tuple[str, str]], version: str, date: str) -> str:
    """Put fragments, as ``(kind, sentences)``, and what is unreleased under a version.

    Parameters
    ----------
    text
        Of the changelog; ``## [Unreleased]`` stays, with nothing below it.
    fragments
        In the order in which they shall stand below their kind.
    version, date
        Of the release.
    """
    if text.count(UNRELEASED) != 1:
        raise SystemExit("CHANGELOG.md: one line '## [Unreleased]' is needed")
    if f"## [{version}]" in text:
        raise SystemExit(f"CHANGELOG.md: {version} has a section already")
    head, _, rest = text.partition(UNRELEASED)
    waiting, mark, earlier = rest.partition("\n## [")
    before, *parts = re.split(r"^### (\w+)\n", waiting, flags=re.MULTILINE)
    sections = dict(
        zip((word.lower() for word in parts[::2]), parts[1::2], strict=True)
    )
    if unknown := set(sections) - set(KINDS):
        raise SystemExit(f"CHANGELOG.md: '### {unknown.pop()}' is none of {KINDS}")
    for kind, sentences in fragments:
        bullet = "- " + "\n  ".join(sentences.strip().splitlines())
        sections[kind] = f"{sections.get(kind, '').strip()}\n{bullet}"
    blocks = [before.strip()] if before.strip() else []
    blocks += [
        f"### {kind.capitalize()}\n\n{sections[kind].strip()}"
        for kind in KINDS
        if sections.get(kind, "").strip()
    ]
    if not blocks:
        raise SystemExit("changes/ holds no fragment: there is nothing to release")
    body = "\n\n".join(blocks)
    new = f"{head}{UNRELEASED}\n## [{version}] - {date}\n\n{body}\n"
    return f"{new}{mark}{earlier}" if mark else new


def main(argv: list[str]) -> None:
    """Check the fragments, or join them and remove their files."""
    fragments = find_fragments(Path("changes"))
    if argv == ["--check"]:
        return
    if not 1 <= len(argv) <= 2 or not re.fullmatch(r"\d+(\.\d+)+(rc\d+)?", argv[0]):
        raise SystemExit("usage: .ci/changes VERSION [DATE]    or .ci/changes --check")
    date = argv[1] if argv[1:] else dt.datetime.now(dt.UTC).date().isoformat()
    read = [
        (path.name.split(".")[1], path.read_text(encoding="utf-8"))
        for path in fragments
    ]
    changelog = Path("CHANGELOG.md")
    new = join(changelog.read_text(encoding="utf-8"), read, argv[0], date)
    changelog.write_text(new, encoding="utf-8")
    for path in fragments:
        path.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
