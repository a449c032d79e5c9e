"""Whether the built pages hang together, and load nothing from elsewhere.

    python docs/check_pages.py build/site

Every link to another page leads to a file, and to an id in it; nothing that a browser
fetches by itself (scripts, styles, fonts, images) has another machine's address.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["check_site", "main"]

# Links that are followed by people only; all others are fetched by the browser.
_FOLLOWED = {("a", "href"), ("form", "action"), ("link canonical", "href")}
_FETCHING = {"href", "src", "srcset", "data", "poster", "action", "content"}
_CSS_ADDRESS = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")
# What Material's script fetches, and only for pages that have such an element.
_DIAGRAM = "mermaid"


class _Page(HTMLParser):
    """Ids and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.followed: list[str] = []
        self.fetched: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        self.classes |= set(given.get("class", "").split())
        self._style = tag == "style"
        kind = f"link {given.get('rel', '')}" if tag == "link" else tag
        for key in _FETCHING & set(given):
            if key == "content" and given.get("http-equiv", "").lower() != "refresh":
                continue
            followed = (kind, key) in _FOLLOWED
            (self.followed if followed else self.fetched).append(given[key])
        self.fetched += _addresses(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.fetched += _addresses(data)


def _addresses(style: str) -> list[str]:
    return [one or other for one, other in _CSS_ADDRESS.findall(style)]


def check_site(site: Path) -> list[str]:
    """List what is wrong with a built site.

    Parameters
    ----------
    site
        Its folder.
    """
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    problems = [] if pages else [f"{site}: there are no pages."]
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        problems += [f"{name}: fetches {url}" for url in page.fetched if _foreign(url)]
        if _DIAGRAM in page.classes:
            problems.append(f"{name}: has a diagram, whose script is fetched.")
        # The page of a missing page is shown below any address: its links are absolute.
        if name.name == "404.html":
            continue
        for url in (*page.followed, *page.fetched):
            problem = _follow(url, path, pages)
            problems += [f"{name}: {url} {problem}"] if problem else []
    for path in sorted(site.rglob("*.css")):
        for url in _addresses(path.read_text(encoding="utf-8")):
            if _foreign(url):
                problems.append(f"{path.relative_to(site)}: fetches {url}")
    return problems


def _foreign(url: str) -> bool:
    parts = urlsplit(url.strip())
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def _follow(url: str, source: Path, pages: dict[Path, _Page]) -> str:
    """Say what is wrong with a link within the site."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return ""
    target = source
    if parts.path:
        target = (source.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target /= "index.html"
        if not target.is_file():
            return "leads nowhere."
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids:
        return "leads to no such place in that page."
    return ""


def main(argv: list[str]) -> int:
    """Check a site; the exit status is 1 if anything is wrong."""
    (folder,) = argv
    problems = check_site(Path(folder))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
