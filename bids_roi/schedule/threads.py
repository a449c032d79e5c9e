"""What processes inherit: one thread of linear algebra, no Ctrl-C of their own.

Knows the standard library only, so that it can be called before numpy is loaded.
"""

from __future__ import annotations

import contextlib
import os
import signal
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def pin_threads() -> None:
    """Let linear algebra use one thread, here and in workers yet to be started.

    A run is one thread of arithmetic beside one of decompression: libraries that
    start a thread per processor in every worker would only get in each other's way.
    Sums over several threads also round differently. To be called before numpy loads.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


@contextlib.contextmanager
def block_interrupts() -> Iterator[None]:
    """Start threads and processes in the body that never hear of Ctrl-C.

    It reaches every process of a terminal, also those that still import; a blocked
    signal is inherited, and kept for the end of the body in this thread.
    """
    # It starts with the first process, and ends the block when it does (Python 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
