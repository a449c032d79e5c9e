"""Degrees of freedom: what is said, and what the spread of correlations shows.

    python benchmarks/degrees_of_freedom.py [--rounds N] [--quick] [--method NAME ...]
                                            [--table FILE.tsv]
    python benchmarks/degrees_of_freedom.py --markdown --table FILE.tsv

Series that have nothing in common are cleaned with every method, over run lengths,
repetition times, patterns of censoring, with and without 24 motion regressors. Their
correlations r have a mean of 0, and 1 / mean(r^2) is held against
``DegreesOfFreedom``. (From 4 degrees of freedom on it is also 1 / var(artanh r) + 2,
which is what Fisher's z is made for.) White noise, as the figure supposes; the
regressors are six random walks with their derivatives and squares.

``--markdown`` makes the tables of docs/numbers.md of a file that was written before.
What the methods find of a signal that is there: ``--recovery``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from bids_roi.core.clean import prepare_cleaner

BAND = (0.01, 0.1)
LENGTHS = (150, 300, 500, 1200)
REPETITION_TIMES = (0.4, 0.8, 2.0, 3.0)
CENSORING = ("none", "scattered 30 %", "bursts of 5", "gap of 20", "gap of 60")
METHODS = {
    "passband": {"filter": "passband"},
    "butterworth": {"filter": "butterworth"},
    "butterworth, odd": {"filter": "butterworth", "filter_padding": "odd"},
    "nilearn": {
        "filter": "butterworth",
        "interpolation": "cubic_spline",
        "filter_padding": "odd",
    },
    "XCP-D": {
        "filter": "butterworth",
        "filter_order": 2,
        "interpolation": "cubic_spline",
        "filter_ends": "nearest",
        "standardize_confounds": False,
    },
    "high-pass": {"filter": "passband", "low_pass": None},
    "cosine": {"filter": "cosine", "low_pass": None},
}
_PLAIN = {
    "detrend": True,
    "high_pass": BAND[0],
    "low_pass": BAND[1],
    "filter_order": 5,
    "interpolation": "linear",
    "filter_padding": "constant",
    "filter_ends": "cut",
    "standardize": None,
    "standardize_confounds": True,
}
_N_SERIES = 40


def clean_signals(signals, **steps):
    """Signals of one run, evenly spaced and without dummies, after a method."""
    cleaner = prepare_cleaner(n_volumes=len(signals), times=None, n_dummy=0, **steps)
    return cleaner.clean(signals)


def censor_volumes(pattern, n_volumes, rng):
    """Volumes to keep, (T,) bool."""
    mask = np.ones(n_volumes, dtype=bool)
    if pattern == "scattered 30 %":
        mask[rng.choice(n_volumes, int(0.3 * n_volumes), replace=False)] = False
    elif pattern == "bursts of 5":
        for start in rng.choice(n_volumes - 6, n_volumes // 20, replace=False):
            mask[start : start + 5] = False
    elif pattern.startswith("gap of "):
        length = int(pattern.split()[-1])
        mask[n_volumes // 3 : n_volumes // 3 + length] = False
    return mask


def motion_regressors(n_volumes, rng):
    """24 columns like those of fMRIPrep, (T, 24)."""
    six = np.cumsum(rng.standard_normal((n_volumes, 6)), axis=0)
    six += rng.standard_normal((n_volumes, 6))
    change = np.diff(six, axis=0, prepend=six[:1])
    both = np.hstack([six, change])
    return np.hstack([both, both**2])


def measure(method, n_volumes, repetition_time, pattern, *, with_24p, rounds):
    """Said and empirical degrees of freedom; a text where the method refuses."""
    rng = np.random.default_rng([n_volumes, int(10 * repetition_time), with_24p])
    mask = censor_volumes(pattern, n_volumes, rng)
    confounds = motion_regressors(n_volumes, rng) if with_24p else None
    noise = rng.standard_normal((n_volumes, rounds * _N_SERIES))
    try:
        cleaned = clean_signals(
            noise,
            confounds=confounds,
            sample_mask=mask,
            repetition_time=repetition_time,
            **(_PLAIN | METHODS[method]),
        )
    except ValueError as error:
        return None, None, str(error)
    correlations = np.corrcoef(cleaned.signals.T)
    pairs = correlations[np.triu_indices(rounds * _N_SERIES, 1)]
    return cleaned.degrees_of_freedom, 1 / float((pairs**2).mean()), ""


def list_cells(methods, *, quick):
    """Yield every combination."""
    lengths = (150, 300) if quick else LENGTHS
    times = (0.8, 2.0) if quick else REPETITION_TIMES
    yield from itertools.product(methods, (False, True), lengths, times, CENSORING)


def recover(rounds):
    """What each method finds of a correlation that is there, and what passes."""
    rng = np.random.default_rng(0)
    for (n_volumes, tr), pattern in itertools.product(
        ((150, 2.0), (300, 2.0), (500, 0.8)), CENSORING
    ):
        found = {name: [] for name in METHODS}
        for _ in range(rounds):
            mask = censor_volumes(pattern, n_volumes, rng)
            numbers = np.arange(1, n_volumes // 2)
            inside = numbers[
                (numbers >= BAND[0] * n_volumes * tr)
                & (numbers <= BAND[1] * n_volumes * tr)
            ]
            angles = np.outer(np.arange(n_volumes), inside) * 2 * np.pi / n_volumes
            waves = np.hstack([np.cos(angles), np.sin(angles)])
            truth = waves @ rng.standard_normal((waves.shape[1], _N_SERIES))
            truth /= truth.std(axis=0)
            drift = np.cumsum(rng.standard_normal((n_volumes, _N_SERIES)), axis=0)
            drift *= 3 / drift.std(axis=0)
            noisy = truth + drift + rng.standard_normal(truth.shape)
            for name, settings in METHODS.items():
                cleaned = clean_signals(
                    noisy,
                    confounds=None,
                    sample_mask=mask,
                    repetition_time=tr,
                    **(_PLAIN | settings),
                ).signals
                both = np.corrcoef(cleaned.T, truth[mask].T)
                found[name] += np.diagonal(both, _N_SERIES).tolist()
        for name, values in found.items():
            row = (n_volumes, tr, pattern, name, f"{np.mean(values):.3f}")
            sys.stdout.write("\t".join(map(str, row)) + "\n")


def show_tables(path):
    """Tables of the pass-band fit, and the other methods beside it."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split("\t"), x.split("\t"), strict=True)) for x in lines]
    where = ("24P", "T", "TR", "censoring")
    cells = {(r["method"], *(r[key] for key in where)): r for r in rows}
    write = sys.stdout.write
    for with_24p, words in (("0", "No confounds"), ("1", "With 24 regressors")):
        write(f"\n{words}: said / found.\n\n| T, TR (s) | {' | '.join(CENSORING)} |\n")
        write("|---" * (len(CENSORING) + 1) + "|\n")
        for length, tr in itertools.product(LENGTHS, REPETITION_TIMES):
            found = [
                cells["passband", with_24p, str(length), str(tr), pattern]
                for pattern in CENSORING
            ]
            texts = [
                "refused"
                if r["refused"]
                else f"{float(r['said']):.0f} / {float(r['empirical']):.0f}"
                for r in found
            ]
            write(f"| {length}, {tr:g} | {' | '.join(texts)} |\n")
    write(f"\n| method | {' | '.join(CENSORING)} | said / found |\n")
    write("|---" * (len(CENSORING) + 2) + "|\n")
    for method in METHODS:
        shares = []
        for pattern in CENSORING:
            own = [r for k, r in cells.items() if (k[0], k[4]) == (method, pattern)]
            base = [cells["passband", *(r[key] for key in where)] for r in own]
            both = [(r, b) for r, b in zip(own, base, strict=True) if b["said"]]
            ratios = [float(r["empirical"]) / float(b["empirical"]) for r, b in both]
            shares.append(f"{np.median(ratios):.2f}")
        ratio = [float(r["ratio"]) for r in rows if r["method"] == method and r["said"]]
        said = f"{min(ratio):.2f} to {max(ratio):.2f}"
        write(f"| {method} | {' | '.join(shares)} | {said} |\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds",
        type=int,
        default=12,
        help="40 series each; 12 know a figure to 1 or 2 %",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recovery", action="store_true")
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    if given.markdown:
        show_tables(given.table)
        return
    if given.recovery:
        recover(given.rounds)
        return
    lines = ["method\t24P\tT\tTR\tcensoring\tsaid\tempirical\tratio\trefused"]
    for method, with_24p, length, tr, pattern in list_cells(
        given.method, quick=given.quick
    ):
        said, empirical, refused = measure(
            method, length, tr, pattern, with_24p=with_24p, rounds=given.rounds
        )
        numbers = ["", "", ""]
        if said is not None:
            numbers = [f"{said:.1f}", f"{empirical:.1f}", f"{said / empirical:.2f}"]
        row = (method, int(with_24p), length, tr, pattern, *numbers, refused)
        lines.append("\t".join(map(str, row)))
        sys.stdout.write(lines[-1] + "\n")
    if given.table:
        given.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
