"""The command ``bids_roi_tools``: demo, atlases, lists of inputs, completion."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from bids_roi import cli
from bids_roi.atlases.names import SHORT_NAMES
from bids_roi.confounds.strategies import list_strategies
from bids_roi.errors import (
    AtlasError,
    BidsRoiError,
    OutputError,
    UsageError,
    give_up_on,
    say,
)
from bids_roi.options.record import Options
from bids_roi.options.row import Input, list_options, local_path
from bids_roi.options.table import LEVELS, OPTIONS, Atlases
from bids_roi.version import __version__

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What decides which files are read.
_INPUT_OPTIONS = (
    *list_options(Input),
    *list_options(Atlases),
    *(option for option in OPTIONS if option.name == "mask"),
)

_EPILOG = """\
environment: TEMPLATEFLOW_HOME and BIDS_ROI_TEMPLATEFLOW name folders to look for
atlases in, after --templateflow-home; BIDS_ROI_TEMPLATEFLOW_URL a mirror to download
from instead of TemplateFlow's archive.
"""

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


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the tools."""
    parser = cli.Parser(
        prog="bids_roi_tools",
        description="Tools around the BIDS App bids_roi.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    demo = tools.add_parser(
        "demo",
        help="make a small dataset, run both levels on it, and say where to look",
    )
    demo.add_argument("output_dir", type=local_path, help="a new or empty folder")
    _add_atlas_tools(tools)
    _add_inputs(tools)
    completion = tools.add_parser(
        "completion",
        help="print what makes a shell complete options, atlases and strategies",
        description='bash, in ~/.bashrc: eval "$(bids_roi_tools completion bash)";'
        " zsh, in ~/.zshrc, the same with zsh; fish: bids_roi_tools completion fish"
        " > ~/.config/fish/completions/bids_roi.fish",
    )
    completion.add_argument("shell", choices=SHELLS)
    return parser


def _add_inputs(tools: argparse._SubParsersAction[cli.Parser]) -> None:
    inputs = tools.add_parser(
        "inputs",
        help="list the files that a run needs, for git-annex, rclone or aws to fetch",
        description="List the files that `bids_roi BIDS_DIR OUT participant` reads with"
        " the same options, one path a line, relative to BIDS_DIR (or to --derivatives,"
        " where that lies elsewhere). Names are enough: content may be elsewhere.",
    )
    inputs.add_argument("bids_dir", type=local_path, metavar="BIDS_DIR")
    for option in _INPUT_OPTIONS:
        cli.add_option(inputs, option)
    inputs.add_argument(
        "--atlas-files",
        action="store_true",
        help="list the files of the atlases instead, as absolute paths",
    )
    inputs.add_argument(
        "-z", "--null", action="store_true", help="end each path with NUL, not newline"
    )


def _add_atlas_tools(
    tools: argparse._SubParsersAction[cli.Parser],
) -> None:
    listing = tools.add_parser(
        "atlases", help="list every atlas that TemplateFlow holds; needs no network"
    )
    listing.add_argument("--space", metavar="LABEL", help="only in this template")
    _add_home(listing)
    fetch = tools.add_parser(
        "fetch", help="fill a folder with atlases, where there is a network"
    )
    fetch.add_argument("atlas", nargs="+", help="names, as for bids_roi --atlas")
    fetch.add_argument(
        "--space", nargs="+", default=[], metavar="LABEL", help="only these templates"
    )
    fetch.add_argument(
        "--res", nargs="+", default=[], metavar="LABEL", help="only these resolutions"
    )
    fetch.add_argument(
        "--dest",
        "--templateflow-home",
        type=local_path,
        metavar="DIR",
        help="the folder to fill; by default the one that bids_roi downloads to",
    )
    check = tools.add_parser(
        "check-atlas", help="say what is wrong with an atlas, without any data"
    )
    check.add_argument(
        "atlas", nargs="+", metavar="ATLAS", help="IMAGE[,TABLE], or names"
    )
    check.add_argument("--space", metavar="LABEL", help="template it is in")
    _add_home(check)
    check.add_argument(
        "--full", action="store_true", help="tell of empty and negative maps, too"
    )


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--templateflow-home",
        type=local_path,
        metavar="DIR",
        help="folder in TemplateFlow's layout to look at first",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a tool; the exit codes are those of ``bids_roi``."""
    runners = {
        "demo": lambda given: _run_demo(given.output_dir),
        "atlases": _list_atlases,
        "fetch": _fetch,
        "check-atlas": _check_atlas,
        "inputs": _list_inputs,
        "completion": _print_completion,
    }
    try:
        cli.open_streams()
        given = build_parser().parse_args(argv)
        return runners[given.tool](given)
    except BidsRoiError as error:
        say(f": {error}", "bids_roi_tools")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen what it wanted
        give_up_on(sys.stdout)
        return 0


def _print_completion(given: argparse.Namespace) -> int:
    text = format_completion(given.shell, cli.build_parser(), build_parser())
    cli.write_out(text)
    return 0


def _list_atlases(given: argparse.Namespace) -> int:
    from bids_roi.atlases.templateflow import list_atlases

    for line in list_atlases(given.space, given.templateflow_home):
        cli.write_out(f"{line}\n")
    return 0


def _fetch(given: argparse.Namespace) -> int:
    from bids_roi.atlases.templateflow import fetch_atlases

    lines = fetch_atlases(
        given.atlas, spaces=given.space, res=given.res, dest=given.dest
    )
    for line in lines:
        cli.write_out(f"{line}\n")
    return 0


def _check_atlas(given: argparse.Namespace) -> int:
    from bids_roi.atlases.checks import check_atlas

    code = 0
    for text in given.atlas:
        lines, good = check_atlas(
            text, space=given.space, home=given.templateflow_home, full=given.full
        )
        cli.write_out("\n".join(lines) + "\n")
        code = code if good else AtlasError.exit_code
    return code


def _list_inputs(given: argparse.Namespace) -> int:
    """Print the files that are needed; what cannot be told goes to standard error."""
    from bids_roi.participant.description import list_inputs

    values = {option.name: getattr(given, option.name) for option in _INPUT_OPTIONS}
    options, code = Options.from_values(values), 0
    end = b"\0" if given.null else b"\n"
    for found in list_inputs(given.bids_dir, options, atlases=given.atlas_files):
        if isinstance(found, BidsRoiError):
            say(f": {found}", "bids_roi_tools")
            code = BidsRoiError.exit_code
        elif "\n" in found and not given.null:
            msg = "the name of a file holds a line break."
            raise UsageError(msg, where=found, remedy="Give --null (-z).")
        else:
            # Bytes, as names need not be text.
            cli.write_out(os.fsencode(found) + end)
    return code


def _run_demo(output_dir: Path) -> int:
    """Make the demo dataset and run the app on it, as a user would."""
    from bids_roi.demo.dataset import write_demo_dataset

    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        msg = "the folder is there and not empty."
        raise OutputError(msg, where=output_dir, remedy="Name a new folder.")
    cli.write_out("making a dataset that looks like fMRIPrep's output ...\n")
    try:
        data = write_demo_dataset(output_dir / "dataset")
    except OSError as error:
        msg = f"the folder cannot be written ({error.strerror})."
        raise OutputError(msg, where=output_dir, remedy="Name another.") from error
    results = output_dir / "derivatives"
    common = [str(data.derivative), str(results)]
    cleaning = ["--strategy", "none", "36P", "--fd-threshold", "0.5"]
    atlas = ["--atlas-dataset", f"demo={data.templateflow_home}"]
    for arguments in (
        [*common, "participant", *atlas, *cleaning, "--relmat", "pearson"],
        [*common, "group"],
    ):
        cli.write_out(f"\n$ bids_roi {' '.join(arguments)}\n")
        code = cli.main(arguments)
        if code:
            return code
    example = min(results.glob("sub-*/ses-*/func/*_stat-mean_timeseries.tsv"))
    regions = f"{example.name.partition('_stat-')[0]}_dseg.tsv"
    relmat = min(results.glob("sub-*/ses-*/func/*_desc-36P_relmat.tsv"))
    cli.write_out(
        "\nLook at:\n"
        f"  the report             {results / 'sub-01.html'}\n"
        f"  that of the group      {results / 'group.html'}\n"
        f"  a time series          {example}\n"
        f"  its regions            {example.with_name(regions)}\n"
        f"  its connectivity       {relmat}\n"
        f"  all runs               {results / 'group_runs.tsv'}\n"
    )
    return 0


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
