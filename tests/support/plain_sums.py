"""The sums of a group, edge by edge and unit by unit, in Python's floats.

These are IEEE doubles and their operations are in the order of the formulas: sums of
the package have the same bits.
"""

import math
from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    values: np.ndarray
    fd: float | None
    weight: float = 0.0


def moments_of(values):
    """Count, mean, sum of squares, of those that are there."""
    n, mean, squares = 0, 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            n += 1
            change = value - mean
            mean += change / n
            squares += change * (value - mean)
    return n, mean, squares


def comoments_of(numbers, values):
    n, mean_x, mean_y, xx, yy, xy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for number, value in zip(numbers, values, strict=True):
        if number is None or not math.isfinite(value):
            continue
        n += 1
        share = 1 / n
        change_x, change_y = number - mean_x, value - mean_y
        mean_x += change_x * share
        mean_y += change_y * share
        xx += change_x * (number - mean_x)
        xy += change_y * (number - mean_x)
        yy += change_y * (value - mean_y)
    return n, mean_x, mean_y, xx, yy, xy


def one_way_of(participants):
    """Of participants, each the moments over his runs."""
    n, n_runs, runs_squared, grand, within, between = 0, 0, 0, 0.0, 0.0, 0.0
    for k, mean, squares in participants:
        if not k:
            continue
        n, n_runs, runs_squared = n + 1, n_runs + k, runs_squared + k * k
        within += squares
        change = mean - grand
        grand += change * k / n_runs
        between += k * change * (mean - grand)
    return n, n_runs, runs_squared, grand, within, between


def weighted_of(values, weights):
    total, squared, mean, squares = 0.0, 0.0, 0.0, 0.0
    for value, weight in zip(values, weights, strict=True):
        if not math.isfinite(value):
            continue
        total += weight
        squared += weight * weight
        change = value - mean
        share = weight / (total if total > 0 else 1)
        squares += weight * (change * change) * (1 - share)
        mean += change * share
    return total, squared, mean, squares


def block_means(blocks, values):
    """Mean of each block, edge after edge."""
    total, n = [0.0] * len(blocks.pairs), [0] * len(blocks.pairs)
    for value, block in zip(values, blocks.block_of_edge, strict=True):
        if math.isfinite(value) and 0 <= block < len(total):
            total[block] += value
            n[block] += 1
    return [a / b if b else math.nan for a, b in zip(total, n, strict=True)]


def merge_moments(one, other):
    (n, mean, squares), (n_2, mean_2, squares_2) = one, other
    change, share = mean_2 - mean, n_2 / max(n + n_2, 1)
    added = change * change * n * share
    return n + n_2, mean + change * share, squares + (squares_2 + added)


def merge_comoments(one, other):
    (n, x, y, xx, yy, xy), (n_2, x_2, y_2, xx_2, yy_2, xy_2) = one, other
    change_x, change_y, share = x_2 - x, y_2 - y, n_2 / max(n + n_2, 1)
    weight = n * share
    return (
        *(n + n_2, x + change_x * share, y + change_y * share),
        xx + (xx_2 + change_x * change_x * weight),
        yy + (yy_2 + change_y * change_y * weight),
        xy + (xy_2 + change_x * change_y * weight),
    )


def merge_one_way(one, other):
    (n, runs, squared, grand, within, between) = one
    (n_2, runs_2, squared_2, grand_2, within_2, between_2) = other
    change, share = grand_2 - grand, runs_2 / max(runs + runs_2, 1)
    added = change * change * runs * share
    return (
        *(n + n_2, runs + runs_2, squared + squared_2, grand + change * share),
        *(within + within_2, between + (between_2 + added)),
    )


def merge_weighted(one, other):
    (total, squared, mean, squares) = one
    (total_2, squared_2, mean_2, squares_2) = other
    both = total + total_2
    change, share = mean_2 - mean, total_2 / (both if both > 0 else 1)
    added = change * change * total * share
    return (
        *(both, squared + squared_2, mean + change * share),
        squares + (squares_2 + added),
    )


_MERGE = {
    "units": merge_moments,
    "networks": merge_moments,
    "motion": merge_comoments,
    "runs": merge_one_way,
    "weighted": merge_weighted,
}
_NAMES = {
    "units": ("n", "_mean", "squares"),
    "networks": ("n", "_mean", "squares"),
    "motion": ("n", "_mean_x", "_mean_y", "_xx", "_yy", "_xy"),
    "runs": (
        *("n_participants", "n_runs", "_runs_squared"),
        *("_grand", "_within", "_between"),
    ),
    "weighted": ("total", "_squared", "_mean", "_squares"),
}


def sums_of(participants, *, by_run=False, weighted=False, blocks=None):
    """What a group holds of participants, each a list of runs, edge by edge."""
    size = participants[0][0].values.size
    units = [[run] for own in participants for run in own] if by_run else participants
    fds = [mean_fd(runs) for runs in units]
    found, table = {"units": [], "motion": [], "runs": [], "weighted": []}, []
    for edge in range(size):
        own = [moments_of(float(r.values[edge]) for r in runs) for runs in participants]
        values = [
            mean if n else math.nan
            for n, mean, _ in (
                moments_of(float(run.values[edge]) for run in runs) for runs in units
            )
        ]
        table.append(values)
        found["units"].append(moments_of(values))
        found["motion"].append(comoments_of(fds, values))
        found["runs"].append(one_way_of(own))
        if weighted:
            heavy = [
                weighted_of(
                    [run.values[edge] for run in runs], [r.weight for r in runs]
                )
                for runs in units
            ]
            found["weighted"].append(
                weighted_of(
                    [mean if total > 0 else math.nan for total, _, mean, _ in heavy],
                    [total for total, *_ in heavy],
                )
            )
    if not weighted:
        del found["weighted"]
    if blocks is not None:
        means = [block_means(blocks, unit) for unit in zip(*table, strict=True)]
        found["networks"] = [moments_of(block) for block in zip(*means, strict=True)]
    return found


def mean_fd(runs):
    known = [run.fd for run in runs if run.fd is not None]
    return sum(known) / len(known) if known else None


def merge(one, other):
    return {
        part: [_MERGE[part](a, b) for a, b in zip(edges, other[part], strict=True)]
        for part, edges in one.items()
    }


def arrays_of(sums):
    """The same as arrays, by the names that they have in the package."""
    return {
        f"{part}.{name}": np.array(column)
        for part, edges in sums.items()
        for name, column in zip(_NAMES[part], zip(*edges, strict=True), strict=True)
    }
