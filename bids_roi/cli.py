"""The command ``bids_roi``: arguments, messages, exit code.

Only the standard library is imported until the arguments are understood, so that
``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bids_roi.errors import (
    BidsRoiError,
    LevelError,
    MissingInput,
    OutputError,
    UsageError,
    give_up_on,
    nearest_words,
    say,
    say_time,
)
from bids_roi.options.record import Options
from bids_roi.options.row import Running, local_path
from bids_roi.options.table import LEVELS, OPTIONS
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from bids_roi.options.row import Option


log = logging.getLogger("bids_roi")

_WARNINGS = 50  # shown of a call
_TALK = re.compile(r"-q|-v+|--quiet|--verbose")
# What argparse says; it names an option by all its spellings.
_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")
_ALIASES = re.compile(r"(?<=argument )(--[\w-]+)(?:/-[\w/-]+)?")

_EPILOG = """\
Flags may be written with underscores; docs/options.md has their other spellings.

exit codes: 0 all runs done; 1 some failed, or cannot be read by the group level; 17
unknown level; 18 no file passes the filters; 64 usage; 65 unusable data; 66 missing
input; 73 output cannot be written; 74 input or output error;
130 interrupted (Ctrl-C); 143 terminated (SIGTERM, as at a job's walltime).
"""


class _Terminated(KeyboardInterrupt):
    """SIGTERM: everything stops as cleanly as for Ctrl-C."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that shows one spelling of each option."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        short = [flag for flag in action.option_strings if flag not in long]
        flags = ", ".join((*short, *long[:1]))
        if action.nargs == 0:
            return flags
        default = self._get_default_metavar_for_optional(action)
        return f"{flags} {self._format_args(action, default)}"

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        shown = super()._format_args(action, default_metavar)
        if action.nargs == "+":  # LABEL ..., not LABEL [LABEL ...]
            return f"{shown.partition(' [')[0]} ..."
        return shown


class Parser(argparse.ArgumentParser):
    """argparse with the exit codes of BIDS Apps, and words that help.

    What is wrong with the order of options, or is no option at all, is said as such:
    argparse would tell of its consequences.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of argparse
        super().__init__(**settings, formatter_class=HelpFormatter, allow_abbrev=False)
        self._words: list[str] = []

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Refuse what is no option before anything else is understood."""
        self._words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:
            self._check_flags()
        return super().parse_known_args(self._words, namespace)

    def _check_flags(self) -> None:
        known = self._option_string_actions
        for word in self._words:
            flag = word.partition("=")[0]
            if flag == "--":
                return
            if flag.startswith("--") and flag not in known:
                shown = {
                    name: next(f for f in action.option_strings if f.startswith("--"))
                    for name, action in known.items()
                    if name.startswith("--")
                }
                near = dict.fromkeys(shown[f] for f in nearest_words(flag, shown))
                remedy = f"Nearest: {', '.join(near)}. " if near else ""
                msg = f"there is no option {flag}."
                raise UsageError(msg, remedy=f"{remedy}See {self.prog} --help.")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line."""
        message = _ALIASES.sub(r"\1", message)
        if found := _CHOICE.search(message):
            near = ", ".join(nearest_words(found[1], re.findall(r"[\w-]+", found[2])))
            message += f"; nearest: {near}" if near else ""
        missing = message.partition(" are required: ")[2]
        if missing:
            message += self._find_taker(missing.count(", ") + 1)
        usage = self.format_usage().strip()
        usage = f"{usage[0].upper()}{usage[1:]}\n" if missing else ""
        raise UsageError(f"{message}.", remedy=f"{usage}See {self.prog} --help.")

    def _find_taker(self, n_missing: int) -> str:
        """Tell which option of many values took the words that are missing."""
        flag, values = "", [""]
        taken = {}
        for word in self._words:
            if word.startswith("-"):
                flag, values = word, []
                taken[flag] = values
            else:
                values.append(word)
        for flag, values in taken.items():
            action = self._option_string_actions.get(flag)
            if action is not None and action.nargs == "+" and len(values) >= n_missing:
                own = " ".join(values[-n_missing:])
                return f"; {flag} before them took {own}: put options last"
        return ""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the table of options."""
    level = f"{{{','.join(LEVELS)}}}"
    parser = Parser(
        prog="bids_roi",
        usage=f"%(prog)s BIDS_DIR OUTPUT_DIR {level} [options]",
        description="One time series per atlas region from preprocessed BOLD runs.",
        epilog=_EPILOG,
    )
    for name, metavar, text in (
        ("bids_dir", "BIDS_DIR", "fMRIPrep derivative or raw dataset"),
        ("output_dir", "OUTPUT_DIR", "folder for the outputs"),
    ):
        parser.add_argument(name, metavar=metavar, type=local_path, help=text)
    text = "participant: series of each run; group: tables over what is in OUTPUT_DIR"
    parser.add_argument("analysis_level", metavar=level, help=text)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        add_option(groups[option.group], option)
    running = groups[OPTIONS[-1].group]
    running.add_argument(
        *("-v", "--verbose"),
        action="count",
        default=0,
        help="Say what is found and chosen for each run, and why; -vv also what it"
        " makes, with times.",
    )
    running.add_argument(
        "-q", "--quiet", action="store_true", help="Only errors, no summary."
    )
    running.add_argument("--version", action="version", version=__version__)
    running.add_argument(
        "--bids-exec-spec",
        action=_PrintDescriptor,
        help="Print the Boutiques descriptor and exit.",
    )
    return parser


class _PrintDescriptor(argparse.Action):
    """Print the descriptor as soon as the flag is met, like ``--version``."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's word
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from bids_roi.descriptor import descriptor_text

        write_out(descriptor_text())
        parser.exit()


def add_option(group: argparse._ActionsContainer, option: Option) -> None:
    """Add a row of the table of options to a parser."""
    text, default = option.help, option.default
    if default not in (None, (), False):
        shown = " ".join(default) if isinstance(default, tuple) else default
        text += f" Default: {shown}."
    settings: dict[str, Any] = {"dest": option.name, "help": text.replace("%", "%%")}
    if option.kind is bool:
        settings |= {"action": "store_true", "default": None}
    else:
        settings["type"] = _reader_of(option)
        choices = f"{{{','.join(option.choices)}}}" if option.choices else None
        settings["metavar"] = option.metavar or choices
        if option.many:
            settings |= {"nargs": "+", "action": "extend"}
    group.add_argument(*option.flags, **settings)


def _reader_of(option: Option) -> Callable[[str], object]:
    """What makes a value of a word; choices are known in any case of letters."""
    lower = {choice.casefold(): choice for choice in option.choices}

    def read(text: str) -> object:
        listed = option.many and "," in text and "," not in option.metavar
        if listed and not os.path.exists(text):  # noqa: PTH110 - of any length
            words = text.replace(",", " ")
            msg = f"its values are separated by blanks: {option.flags[0]} {words}"
            raise argparse.ArgumentTypeError(msg)
        if lower and text.casefold() not in lower:
            near = ", ".join(nearest_words(text, option.choices))
            there = f"there are {', '.join(option.choices)}"
            msg = f"invalid choice '{text}'; {f'nearest: {near}' if near else there}"
            raise argparse.ArgumentTypeError(msg)
        if lower:
            return lower[text.casefold()]
        return local_path(text) if option.kind is Path else option.kind(text)

    read.__name__ = option.kind.__name__  # argparse tells it of a wrong value
    return read


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, Options]:
    """Understand the command line."""
    given = build_parser().parse_args(argv)
    if given.analysis_level not in LEVELS:
        msg = f"unknown analysis level '{given.analysis_level}'."
        remedy = f"Choose {' or '.join(LEVELS)}."
        raise LevelError(msg, remedy=remedy)
    values = {option.name: getattr(given, option.name) for option in OPTIONS}
    return given, Options.from_values(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App; the exit codes are those of its specification."""
    try:
        open_streams()
        given, options = parse_arguments(sys.argv[1:] if argv is None else argv)
        _check_current_folder(given)
        _set_up_logging(given)
        _set_up_signals()
        from bids_roi.schedule.outcome import pin_threads

        pin_threads()  # before anything loads numpy
        with _temporary_files_in(options.running.work_dir):
            command = tell_command(sys.argv[1:] if argv is None else argv)
            if given.analysis_level == "group":
                return _run_group(given, options, command)
            return _run_participant(given, options, command)
    except BidsRoiError as error:
        say(f": {error}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, _Terminated)
        word = "terminated (SIGTERM)" if terminated else "interrupted"
        say(f": {word}; run the same command to go on.")
        return 143 if terminated else 130
    except BrokenPipeError:
        give_up_on(sys.stdout)
        return 74
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        return _explain(error)


def tell_command(words: Sequence[str]) -> str:
    """Command line as it was typed, without what changes no output.

    So that a call that goes on after another, or with more processes, is the same.
    """
    idle = {
        flag: option
        for option in OPTIONS
        if option.group == Running.heading
        for flag in option.flags
    }
    told, skipped = ["bids_roi"], 0
    for word in words:
        flag, equals, _ = word.partition("=")
        flag = flag.replace("_", "-")
        if skipped:
            skipped -= 1
        elif (option := idle.get(flag)) is not None:
            skipped = int(option.kind is not bool and not equals)
        elif not _TALK.fullmatch(word):
            told.append(word)
    return shlex.join(told)


def open_streams() -> None:
    """Put the null device in place of closed streams; write what they cannot encode.

    No file that is opened later may get the number of one of them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null != number:
                os.close(null)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a notebook's, or a test's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _check_current_folder(given: argparse.Namespace) -> None:
    if given.bids_dir.is_absolute() and given.output_dir.is_absolute():
        return
    try:
        Path.cwd()
    except OSError as error:
        msg = f"the current folder is not there any more ({error.strerror})."
        remedy = "Change to a folder that is, or give absolute paths."
        raise MissingInput(msg, remedy=remedy) from error


def _say(text: str, out: TextIO) -> None:
    """Write to a stream; one that is full costs what is said, and nothing else."""
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        log.error("standard output cannot be written (%s).", error.strerror)
        give_up_on(out)


def write_out(content: str | bytes) -> None:
    """Write what was asked for to standard output; where it is full, nothing is done.

    ``content`` may be the names of files, which need not be text.
    """
    try:
        if isinstance(content, str):
            sys.stdout.write(content)
            sys.stdout.flush()
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_on(sys.stdout)
        msg = f"standard output cannot be written ({error.strerror})."
        raise OutputError(msg, remedy="Free space, or write it elsewhere.") from error


def _explain(error: Exception) -> int:
    """Say what no one foresaw; the traceback is there with ``-vv``."""
    log.debug("traceback of the failure", exc_info=error)
    if isinstance(error, OSError) and error.filename is not None:
        what, code = f"{error.filename}: {error.strerror}.", 74
        remedy = "Check the disk and the permissions, and run the same command again."
    else:
        what, code = f"unexpected {type(error).__name__}: {error}.", 1
        remedy = (
            "This is a fault of bids_roi: please report it, with the output of -vv."
        )
    say(f": {BidsRoiError(what, remedy=remedy)}")
    return code


def _set_up_logging(given: argparse.Namespace) -> None:
    level = logging.ERROR if given.quiet else logging.WARNING - 10 * given.verbose
    handler = logging.StreamHandler(sys.stderr)
    when = "%(asctime)s " if given.verbose > 1 else ""
    text = f"bids_roi: {when}%(levelname)s %(message)s"
    handler.setFormatter(logging.Formatter(text))
    log.handlers[:] = [handler]
    log.setLevel(max(level, logging.DEBUG))
    log.propagate = False


def _set_up_signals() -> None:
    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


@contextlib.contextmanager
def _temporary_files_in(work_dir: Path | None) -> Iterator[None]:
    """Name the folder for temporary files to this process and its children."""
    if work_dir is None:
        yield
        return
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the folder cannot be made ({error.strerror})."
        remedy = "Give another --work-dir, or leave it out."
        raise OutputError(msg, where=work_dir, remedy=remedy) from error
    before = {"TMPDIR": os.environ.get("TMPDIR"), "tempdir": tempfile.tempdir}
    os.environ["TMPDIR"] = tempfile.tempdir = str(work_dir.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before["tempdir"]
        if before["TMPDIR"] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before["TMPDIR"]


def _run_participant(given: argparse.Namespace, options: Options, command: str) -> int:
    from bids_roi.participant.level import open_level, run_level
    from bids_roi.participant.outcomes import Outcomes

    level = open_level(given.bids_dir, given.output_dir, options)
    outcomes = Outcomes(level, command)
    if options.running.dry_run:
        from bids_roi.participant.description import describe_plan

        try:
            for line in describe_plan(level, outcomes):
                write_out(f"{line}\n")
        except BrokenPipeError:  # `| head` has seen what it wanted
            give_up_on(sys.stdout)
        return outcomes.exit_code
    try:
        run_level(level, outcomes)
    finally:
        _say_warnings(outcomes.warnings)
        if outcomes.tally.n_runs and not given.quiet:
            # Standard output may be taken by the stream of events.
            out = sys.stderr if options.running.events == "-" else sys.stdout
            _say(f"{outcomes.summary()}\n", out)
    return outcomes.exit_code


def _say_warnings(warnings: Mapping[str, int]) -> None:
    """Say each kind of warning once; of very many the most frequent ones."""
    from bids_roi.outputs.records import leave_out_numbers

    kinds: dict[str, list[tuple[str, int]]] = {}
    for warning, count in sorted(warnings.items()):
        kinds.setdefault(leave_out_numbers(warning), []).append((warning, count))
    told = [(like[0][0], sum(n for _, n in like), len(like)) for like in kinds.values()]
    frequent = sorted(told, key=lambda kind: (-kind[1], kind[0]))
    for warning, count, n_texts in sorted(frequent[:_WARNINGS]):
        others = ", others with other numbers: see logs/" if n_texts > 1 else ""
        times = f" ({count} times{others})" if count > 1 else ""
        log.warning("%s%s", warning, times)
    if len(frequent) > _WARNINGS:
        log.warning("and %d other warnings: see logs/", len(frequent) - _WARNINGS)


def _run_group(given: argparse.Namespace, options: Options, command: str) -> int:
    from bids_roi.group.level import run_group_level

    began = time.monotonic()
    summary, whole = run_group_level(given.output_dir, options, given.bids_dir)
    if not options.running.no_report:
        from bids_roi.report.group import write_group

        if note := write_group(given.output_dir, command):
            log.warning("%s", note)
        page = given.output_dir / "group.html"
        summary += f"\n  report {page}" if page.is_file() else ""
    summary += f"\n  took {say_time(time.monotonic() - began)}"
    if not given.quiet:
        _say(f"{summary}\n", sys.stdout)
    return 0 if whole else 1
