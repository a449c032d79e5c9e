"""Pages from templates: the one place that knows jinja2.

A page holds its style and its script; a policy inside it forbids everything from
elsewhere, and scripts that it does not bring along but for the data beside it. Figures
lie in frames once somebody points at them, without any right to the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Environment


log = logging.getLogger("bids_roi")

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _shared() -> dict[str, Any]:
    """Style, script and the policy that allows no others."""
    from markupsafe import Markup

    style = (_TEMPLATES / "style.css").read_text("utf-8")
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    policy = (
        "default-src 'none'; img-src 'self' file: data:; frame-src 'self' file:;"
        f" style-src '{_hash(style)}'; script-src 'self' file: '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    return {
        "style": Markup(style),  # noqa: S704 - a file of ours
        "script": Markup(script),  # noqa: S704 - a file of ours
        "policy": policy,
        "software": f"bids_roi {__version__}",
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def mark_safe(drawing: str) -> str:
    """Say that a drawing of ours is markup already, with its words escaped."""
    from markupsafe import Markup

    return Markup(drawing)  # noqa: S704 - made by paper.Sheet


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Render a template with its variables, all of which are escaped."""
    return _environment().get_template(template).render(**_shared(), **content)


def attempt(name: str, write: Callable[[], None]) -> str | None:
    """Write a page; return what went wrong, as a page is never worth the tables."""
    try:
        write()
    except Exception as error:
        log.debug("page", exc_info=True)
        kind = type(error).__name__
        return f"{name} could not be written ({kind}: {error})."
    return None
