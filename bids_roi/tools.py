"""``bids_roi_tools``: everything that is not the BIDS App's contract."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi import __version__, cli
from bids_roi.errors import BidsRoiError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the tools."""
    parser = argparse.ArgumentParser(
        prog="bids_roi_tools", description="Tools around the BIDS App bids_roi."
    )
    parser.add_argument("--version", action="version", version=__version__)
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    demo = tools.add_parser(
        "demo",
        help="make a small dataset, run both levels on it, and say where to look",
    )
    demo.add_argument("output_dir", type=Path, help="a new or empty folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a tool.

    Parameters
    ----------
    argv
        Arguments without the program's name; ``sys.argv`` by default.

    Returns
    -------
    int
        As for ``bids_roi``.
    """
    given = build_parser().parse_args(argv)
    try:
        return _run_demo(given.output_dir)
    except BidsRoiError as error:
        sys.stderr.write(f"bids_roi_tools: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run_demo(output_dir: Path) -> int:
    """Make the demo dataset and run the app on it, as a user would."""
    from bids_roi.app.demo import write_demo_dataset

    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        msg = "the folder is there and not empty."
        raise OutputError(msg, where=output_dir, remedy="Name a new folder.")
    sys.stdout.write("making a dataset that looks like fMRIPrep's output ...\n")
    sys.stdout.flush()
    try:
        data = write_demo_dataset(output_dir / "dataset")
    except OSError as error:
        msg = f"the folder cannot be written ({error.strerror})."
        raise OutputError(msg, where=output_dir, remedy="Name another.") from error
    results = output_dir / "derivatives"
    atlas = f"{data.atlas_image},{data.atlas_table}"
    common = [str(data.derivative), str(results)]
    for arguments in (
        [*common, "participant", "--atlas-file", atlas],
        [*common, "group"],
    ):
        sys.stdout.write(f"\n$ bids_roi {' '.join(arguments)}\n")
        sys.stdout.flush()
        code = cli.main(arguments)
        if code:
            return code
    example = min(results.glob("sub-*/ses-*/func/*_timeseries.tsv"))
    sys.stdout.write(
        "\nLook at:\n"
        f"  a time series          {example}\n"
        f"  its regions            {_regions_of(example)}\n"
        f"  all runs               {results / 'group_runs.tsv'}\n"
    )
    return 0


def _regions_of(timeseries: Path) -> Path:
    stem, _, _ = timeseries.name.partition("_stat-")
    return timeseries.with_name(f"{stem}_dseg.tsv")
