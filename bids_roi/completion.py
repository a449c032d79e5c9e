"""Completion of the command line in bash, zsh and fish: a script for each shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bids_roi.atlases.names import SHORT_NAMES
from bids_roi.confounds.strategies import list_strategies
from bids_roi.options.table import LEVELS, OPTIONS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")

# What is known without a look at any file; numbers as TemplateFlow's archive has them.
_WORDS = {option.name: option.choices for option in OPTIONS if option.choices} | {
    "atlas": (
        *SHORT_NAMES,
        *(f"schaefer{n}00{more}" for n in range(1, 11) for more in ("", "x17")),
        *(f"difumo{2**n}" for n in range(6, 11)),
    ),
    "strategy": ("none", *list_strategies()),
    "mask": ("auto", "none"),
    "analysis_level": LEVELS,
    "shell": SHELLS,
}

_BASH = """\
{name}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} flag= words= i
    for ((i = COMP_CWORD - 1; i > 0; i--)); do
        case ${{COMP_WORDS[i]}} in
            -*) flag=${{COMP_WORDS[i]}}; break ;;
        esac
    done
{body}
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F {name} {command}
"""
_FOR_ZSH = """\
autoload -U +X compinit && compinit -u
autoload -U +X bashcompinit && bashcompinit
"""


class _Flag(NamedTuple):
    spellings: tuple[str, ...]
    words: tuple[str, ...]
    many: bool
    takes: bool
    help: str


def format_completion(
    shell: str, app: argparse.ArgumentParser, tools: argparse.ArgumentParser
) -> str:
    """Script that a shell reads, made from the parsers."""
    if shell == "fish":
        return "".join(f"{line}\n" for line in (*_fish(app), *_fish_tools(tools)))
    text = "".join(
        _BASH.format(name=f"_{parser.prog}", command=parser.prog, body="\n".join(body))
        for parser, body in ((app, _bash(app, 3)), (tools, _bash_tools(tools)))
    )
    return _FOR_ZSH + text if shell == "zsh" else text


def _flags(parser: argparse.ArgumentParser) -> list[_Flag]:
    """Options with all spellings, the one of --help first among the long ones."""
    return [
        _Flag(
            tuple(action.option_strings),
            _WORDS.get(action.dest, ()),
            action.nargs == "+",
            action.nargs != 0,
            str(action.help or "").partition(". ")[0].rstrip("."),
        )
        for action in parser._actions
        if action.option_strings
    ]


def _shown(flag: _Flag) -> str:
    return next(f for f in flag.spellings if f.startswith("--"))


def _words_of_place(parser: argparse.ArgumentParser, place: int | None) -> str:
    """Words for what is no option: of one place, or of all behind the first."""
    for action in parser._actions:
        if not action.option_strings and action.dest in _WORDS:
            words = f"words='{' '.join(_WORDS[action.dest])}'"
            return f"((COMP_CWORD == {place})) && {words}" if place else words
    return ":"


def _bash(parser: argparse.ArgumentParser, place: int | None) -> Iterator[str]:
    yield "    case $flag in"
    yield f"        '') {_words_of_place(parser, place)} ;;"
    for flag in _flags(parser):
        if flag.words:
            near = "" if flag.many else "((COMP_CWORD - i == 1)) && "
            spelt = "|".join(flag.spellings)
            yield f"        {spelt}) {near}words='{' '.join(flag.words)}' ;;"
    yield "    esac"
    shown = " ".join(_shown(flag) for flag in _flags(parser))
    yield f"    [[ $word == -* ]] && words='{shown}'"


def _tools_in(
    parser: argparse.ArgumentParser,
) -> dict[str, argparse.ArgumentParser]:
    (found,) = parser._subparsers._group_actions  # type: ignore[union-attr]
    return dict(found.choices or {})


def _bash_tools(parser: argparse.ArgumentParser) -> Iterator[str]:
    tools = _tools_in(parser)
    yield "    case $COMP_CWORD,${COMP_WORDS[1]} in"
    yield f"    1,*) words='{' '.join(tools)}' ;;"
    for name, tool in tools.items():
        yield f"    *,{name})"
        yield from _bash(tool, None)
        yield "    ;;"
    yield "    esac"


def _fish(parser: argparse.ArgumentParser, when: str = "") -> Iterator[str]:
    head = f"complete -c {parser.prog.partition(' ')[0]}{when}"
    if not when:
        third = "test (count (commandline -opc)) -eq 3"
        yield f"{head} -n '{third}' -f -a '{' '.join(LEVELS)}'"
    for flag in _flags(parser):
        takes = f" -x -a '{' '.join(flag.words)}'" if flag.words else " -r -F"
        said = flag.help.replace("\\", "\\\\").replace("'", "\\'").replace("%%", "%")
        name = _shown(flag).removeprefix("--")
        yield f"{head} -l {name}{takes if flag.takes else ''} -d '{said}'"


def _fish_tools(parser: argparse.ArgumentParser) -> Iterator[str]:
    for name, tool in _tools_in(parser).items():
        first = f"complete -c {parser.prog} -n __fish_use_subcommand -f"
        yield f"{first} -a {name}"
        when = f" -n '__fish_seen_subcommand_from {name}'"
        for action in tool._actions:
            if not action.option_strings and action.dest in _WORDS:
                words = " ".join(_WORDS[action.dest])
                yield f"complete -c {parser.prog}{when} -a '{words}'"
        yield from _fish(tool, when)
