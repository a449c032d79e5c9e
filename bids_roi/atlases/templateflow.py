"""Downloads from TemplateFlow: whole and verified, or not at all; its client's home.

The client writes into the final name as the bytes arrive, takes any file that is not
empty for good, and unpacks thousands of placeholders where its home is empty. So it
works in a private folder here that holds nothing but placeholders of the files wanted;
what it brings is read to the end, compared with what it says of itself, and moved into
the home by one rename. Any number of jobs may do so at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.atlases.integrity import check_complete
from bids_roi.atlases.skeleton import list_skeleton, read_skeleton
from bids_roi.errors import BidsRoiError, MissingInput, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


S3_ROOT = "https://templateflow.s3.amazonaws.com"
# A mirror of the archive, for institutes that have one and for tests.
_MIRROR = "BIDS_ROI_TEMPLATEFLOW_URL"
_TIMEOUT_S = 10
_ATTEMPTS = 3
_LONGEST = 200  # of a reason; -vv gives all
# What urllib3 and the systems below it say.
_SIGNS = {
    **dict.fromkeys(("resolve", "unreachable", "Name or service"), "no network"),
    "timed out": "no answer",
    "refused": "connection refused",
}

log = logging.getLogger("bids_roi")

# From the keys of the archive's git-annex.
KNOWN_MD5 = {
    "tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-02_atlas-Schaefer2018"
    "_desc-400Parcels7Networks_dseg.nii.gz": "c6d141b06b9ce0627eb197aa4657cfe0",
}


def download(
    names: Sequence[str],
    home: Path,
    *,
    s3_root: str | None = None,
    timeout: int = _TIMEOUT_S,
) -> list[Path]:
    """Bring files of the archive into a home, those in the package without a network.

    What is there under these names is replaced; of a file that cannot be had, nothing
    is left. ``s3_root`` is ``BIDS_ROI_TEMPLATEFLOW_URL`` by default, else
    TemplateFlow's own; ``timeout`` counts seconds without an answer.
    """
    root = s3_root or os.environ.get(_MIRROR) or S3_ROOT
    known = list_skeleton()
    with _private_folder(home) as private:
        for name in names:
            if known.get(name):
                _write(private / name, read_skeleton(name))
            else:
                _fetch_one(private, name, root.rstrip("/"), timeout)
        for name in names:
            _move(private / name, home / name)
    return [home / name for name in names]


@contextlib.contextmanager
def _private_folder(home: Path) -> Iterator[Path]:
    """Make a folder inside the home, so that a rename suffices; no tool reads it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".bids_roi-", dir=home))
    except OSError as error:
        msg = f"downloads cannot be written ({error.strerror})."
        remedy = "Name another folder with --templateflow-home (or --dest)."
        raise OutputError(msg, where=home, remedy=remedy) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _move(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.chmod(0o644)
        source.replace(target)
    except OSError as error:
        msg = f"the file cannot be written ({error.strerror})."
        remedy = "Name another folder with --templateflow-home (or --dest)."
        raise OutputError(msg, where=target, remedy=remedy) from error


def _fetch_one(private: Path, name: str, root: str, timeout: int) -> None:
    """Let the client fetch one file; what breaks off in the middle is tried again."""
    for attempt in range(1, _ATTEMPTS + 1):
        single = private / f".try{attempt}"
        path = single / name
        _write(path, b"")
        problem = ""
        try:
            _ask_client(single, name, root, timeout)
            check_complete(path, md5=KNOWN_MD5.get(name))
        except BidsRoiError as error:
            problem = error.problem
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            problem = " ".join(str(error).split()) or type(error).__name__
        if not problem:
            (private / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(private / name)
            return
        if path.stat().st_size == 0:  # refused or no answer: no use in asking again
            break
    log.debug("%s/%s: %s", root, name, problem)
    times = f", tried {attempt} times" if attempt > 1 else ""
    msg = f"cannot be downloaded ({_why(problem)}{times})."
    remedy = (
        "Where there is no network, fill a folder elsewhere (`bids_roi_tools fetch"
        " ATLAS --dest DIR`) and give it with --templateflow-home."
    )
    raise MissingInput(msg, where=f"{root}/{name}", remedy=remedy)


def _why(problem: str) -> str:
    """What stopped a download, without the chain of libraries that met it."""
    for sign, word in _SIGNS.items():
        if sign in problem:
            return word
    problem = problem.partition(" for url")[0]
    return problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."


def _ask_client(home: Path, name: str, root: str, timeout: int) -> None:
    with _import_client(home) as (client, say):
        template = name.partition("/")[0].removeprefix("tpl-")
        with contextlib.redirect_stderr(say), contextlib.redirect_stdout(say):
            client(
                root=home,
                s3_root=root,
                timeout=timeout,
                use_datalad=False,
                autoupdate=False,
            ).get(template)


@contextlib.contextmanager
def _import_client(home: Path) -> Iterator[tuple[type, io.StringIO]]:
    """Import the client while its home is one that it takes for filled."""
    before = os.environ.get("TEMPLATEFLOW_HOME")
    os.environ["TEMPLATEFLOW_HOME"] = str(home)
    try:
        from templateflow.client import TemplateFlowClient

        yield TemplateFlowClient, io.StringIO()
    finally:
        if before is None:
            del os.environ["TEMPLATEFLOW_HOME"]
        else:
            os.environ["TEMPLATEFLOW_HOME"] = before
