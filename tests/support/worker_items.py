"""What workers do in tests of executors.

In a module of its own that imports little: to get hold of a function, each worker
imports all that its module does, and a test file takes longer than the test.
"""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

from bids_roi.schedule import outcome


def double(x):
    return 2 * x


def double_all_but_three(x):
    if x == 3:
        msg = "three"
        raise ValueError(msg)
    return 2 * x


def die_at_four(x):
    if x == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return x


def die_once(path):
    """Be killed the first time; the file remembers."""
    if path is not None and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return path


def wait_and_fail(path):
    """Take note of the beginning; fail, or die, at items that are called so."""
    path.with_suffix(".begun").touch()
    wait_for(path)
    if path.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "bad":
        raise ValueError(path)


def die_once_beside(path):
    """Die at ``deadly``, once and while ``other`` waits for its second attempt."""
    folder, name = path.parent, path.name
    if name == "deadly":
        if not (folder / "again").exists():
            wait_for(folder / "at_work")
            (folder / "again").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / "tried").touch()
    if name == "other":
        (folder / "at_work").touch()
        wait_for(folder / "again")
        limit = time.monotonic() + 3
        while time.monotonic() < limit:
            if (folder / "tried").exists():
                return "not alone"
            time.sleep(0.01)
    return name


def end_by(number):
    if number:
        os.kill(os.getpid(), number)
    return number


def hang_at_one(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


def sleep_at_one(x):
    if x == 1:
        time.sleep(60)
    return x


def take_an_hour_at_one(x):
    """By the clock of the process that works at it."""
    if x == 1:
        outcome.time = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
    return x


class OddError(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, number, word):
        super().__init__(f"{number} {word}")


def raise_oddly(x):
    raise OddError(x, "odd")


def die_in_a_worker(x):
    """Double it here."""
    if x == 3 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * x


def retry_is_first(executor, folder):
    """Not eager: who lost its worker is tried again before any other begins."""
    deadly, other = items = [folder / name for name in ("deadly", "other")]
    deadly.touch()
    outcomes = executor.map(wait_and_fail, iter(items), eager=False)
    found = next(outcomes)
    outcomes.close()
    assert found.item == deadly
    assert "2 attempts" in str(found.error)
    assert not other.with_suffix(".begun").exists()


def retry_is_alone(executor, folder):
    """What was short, such as memory, would be short beside the others again."""
    items = [folder / name for name in ("deadly", "other", "one", "more")]
    outcomes = executor.map(die_once_beside, iter(items), eager=False)
    found = [(outcome.value, outcome.error) for outcome in outcomes]
    assert found[:2] == [("other", None), ("deadly", None)]
    assert sorted(found[2:]) == [("more", None), ("one", None)]
