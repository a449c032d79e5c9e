"""One row of the table of options, and what no value of one may be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from bids_roi.errors import UsageError

_URL = re.compile(r"(?:^|[,=])([A-Za-z][A-Za-z0-9+.-]*)://")


def refuse_url(text: str) -> None:
    """Refuse a URL where a file or folder of this machine is needed.

    On the text as it was given: a ``Path`` makes ``s3:/lab`` of ``s3://lab``, which is
    a folder that can be written.

    Raises
    ------
    UsageError
        With how to have the data here.
    """
    if match := _URL.search(text):
        msg = f"a URL ({match[1]}://) cannot be read or written."
        remedy = (
            "Mount it (rclone mount, s3fs) or copy it here (rclone copy, aws s3 sync,"
            " datalad get), and give the path; copy the outputs away afterwards."
        )
        raise UsageError(msg, remedy=remedy)  # without it: it may hold a password


def check_there(*paths: Path | None) -> None:
    """Refuse files and folders that are not there."""
    for path in paths:
        if path is not None and not path.exists():
            msg = "there is no such file or folder."
            raise UsageError(msg, where=path, remedy="Check the spelling.")


def local_path(text: str | Path) -> Path:
    """Path of a file or folder of this machine, which no URL is, and no blank."""
    refuse_url(str(text))
    if not str(text).strip():
        # pathlib takes it for the current folder, as of a variable that is not set.
        raise UsageError("a path is blank.", remedy="Is a variable not set?")
    return Path(text)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes
    ----------
    name
        Field of ``Options``; the flag is the same word with hyphens.
    group
        Heading it stands under in ``--help`` and docs/options.md.
    help
        One sentence, or two.
    kind
        ``str``, ``int``, ``float``, ``Path`` or ``bool`` (a switch).
    many
        Whether the flag takes several values.
    default
        What holds when the flag is absent.
    choices
        The allowed values, or empty.
    metavar
        What stands for the value in the help.
    unit
        Unit of the value, or empty.
    sidecar
        Key under which outputs record it, or empty where it changes no number.
    of
        What it decides: every output of a ``run``, what is in a ``series`` or
        ``relmat`` alone, or the ``atlas``. The digest of a run has the first.
    aliases
        Further flags with the same meaning.
    """

    name: str
    group: str
    help: str
    kind: type = str
    many: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    unit: str = ""
    sidecar: str = ""
    of: Literal["run", "series", "relmat", "atlas"] = "run"
    aliases: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings, the documented one first, hyphens and underscores."""
        spellings = []
        for flag in (f"--{self.name.replace('_', '-')}", *self.aliases):
            spellings.append(flag)
            if flag.startswith("--"):
                spellings.append("--" + flag[2:].replace("-", "_"))
        return tuple(dict.fromkeys(spellings))


def option(text: str, *, default: Any = None, **more: Any) -> Any:  # noqa: ANN401 - of any field
    """Field of a slice of the options, with its row.

    Parameters
    ----------
    text
        The row's ``help``.
    default
        What holds when the flag is absent.
    **more
        Further attributes of ``Option``; ``kind`` and ``many`` follow from the type.
    """
    return field(default=default, metadata={"row": {"help": text, **more}})


def list_options(record: Any) -> tuple[Option, ...]:  # noqa: ANN401 - a class
    """Rows of a slice of the options, in the order of its fields."""
    hints = get_type_hints(record)
    rows = []
    for item in fields(record):
        if "row" in item.metadata:
            # tuple[str, ...], str | None and str are all of kind str.
            hint = hints[item.name]
            kind = next(iter(get_args(hint)), hint)
            rows.append(
                Option(
                    item.name,
                    record.heading,
                    kind=kind,
                    many=isinstance(item.default, tuple),
                    default=item.default,
                    **item.metadata["row"],
                )
            )
    return tuple(rows)
