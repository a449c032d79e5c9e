"""Dask's scheduler and worker without their web servers, which no setting turns off.

Imported by Dask's own processes, and by ``cluster.py`` when Dask is asked for.
"""

from __future__ import annotations

import distributed


class Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """A scheduler that serves no HTTP."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Start nothing."""


class Worker(distributed.Worker):  # type: ignore[misc]
    """A worker that serves no HTTP."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Start nothing."""
