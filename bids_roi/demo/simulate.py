"""The runs of the demo dataset, and the confounds as fMRIPrep would measure them.

A run is a baseline image times ``1 + courses @ maps``: one spatial map and one time
course per region, source of noise, drift and motion parameter. Volumes come first;
voxels run in the order of the file (x fastest). The confounds are then computed from
the stored values and the movements, so that they say of the images what is true.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.demo.phantom import (
    BOLD_GRID,
    CSF,
    GREY,
    REGIONS,
    WHITE,
    Head,
    voxel_centres,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    Float32Array = NDArray[np.float32]


REPETITION_TIME = 2.0  # s
N_VOLUMES = 120

_NOISE = {GREY: 1.5, WHITE: 1.5, CSF: 4.0}  # standard deviation in percent
_RIM_NOISE = 2.0
_SPECKS = 0.02  # share of voxels in air that are not 0
_BAND = (0.01, 0.1)  # Hz; where resting-state fluctuations live
_HEAD_RADIUS = 50.0  # mm; Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018
_JENKINSON_RADIUS = 80.0  # mm; Jenkinson 1999, FMRIB technical report TR99MJ1
_LONGEST_PERIOD = 128.0  # s; fMRIPrep's cosine columns
_FD_LIMIT, _STD_DVARS_LIMIT = 0.5, 1.5  # fMRIPrep's defaults for motion outliers


@dataclass(frozen=True, slots=True)
class Profile:
    """How one participant differs."""

    coupling: float  # share of variance that regions of the network Default share
    restlessness: float  # size of the movements, 1 for a calm participant
    top: float  # height in mm above which there is no data
    step: float  # value of one unit of the stored integers


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated BOLD run."""

    stored: NDArray[np.int16]  # (T, z, y, x), in units of the profile's step
    mask: NDArray[np.bool_]  # (z, y, x), the brain inside the field of view
    motion: FloatArray  # (T, 6), mm and rad, about x, y and z
    signals: FloatArray  # (T, R), before any noise, in percent of the baseline


def _fluctuations(
    n: int, rng: np.random.Generator, band: tuple[float, float] = _BAND
) -> FloatArray:
    """Noise of unit variance within a band of frequencies, (T, n)."""
    frequencies = np.fft.rfftfreq(N_VOLUMES, REPETITION_TIME)
    parts = rng.standard_normal((2, frequencies.size, n))
    keep = (frequencies >= band[0]) & (frequencies <= band[1])
    spectrum = (parts[0] + 1j * parts[1]) * keep[:, None]
    courses = np.fft.irfft(spectrum, N_VOLUMES, axis=0)
    return np.asarray(courses / courses.std(axis=0))


def _regional_signals(profile: Profile, rng: np.random.Generator) -> FloatArray:
    """Network + pair of homologues + own course of every region, (T, R) percent."""
    names = list(dict.fromkeys(region.network for region in REGIONS))
    network = _fluctuations(len(names), rng)
    # Default goes down where Attention goes up, as it does in people.
    default, attention = names.index("Default"), names.index("Attention")
    opposed = 0.9 * network[:, default] - 0.44 * network[:, attention]
    network[:, default] = opposed / opposed.std()
    pair = np.repeat(_fluctuations(len(REGIONS) // 2, rng), 2, axis=1)
    own = _fluctuations(len(REGIONS), rng)
    common = np.full(len(REGIONS), 0.5)
    common[[region.network == "Default" for region in REGIONS]] = profile.coupling
    index = [names.index(region.network) for region in REGIONS]
    rest = np.sqrt((1 - common) / 2)
    mixed = np.sqrt(common) * network[:, index] + rest * (pair + own)
    return np.asarray(1.2 * mixed)


def _motion(profile: Profile, rng: np.random.Generator) -> FloatArray:
    """Slow wandering, jitter and a few jerks, (T, 6) in mm and rad."""
    units = np.array([1, 1, 1, 1 / 50, 1 / 50, 1 / 50])
    walk = np.cumsum(rng.standard_normal((N_VOLUMES, 6)), axis=0) * 0.012
    jitter = rng.standard_normal((N_VOLUMES, 6)) * 0.012
    motion = (walk + jitter) * profile.restlessness
    n_jerks = int(rng.integers(2, 4) * profile.restlessness)
    slots = np.linspace(8, N_VOLUMES - 8, n_jerks + 1).astype(int)
    for first, last in itertools.pairwise(slots.tolist()):
        start = int(rng.integers(first, last))
        shares = rng.dirichlet(np.ones(6)) * rng.choice([-1, 1], 6)
        jerk = shares * rng.uniform(0.8, 2.4)
        stop = start + 1 if rng.random() < 0.6 else N_VOLUMES
        motion[start:stop] += jerk
    return np.asarray(np.round((motion - motion[0]) * units, 7))


def _jerkiness(motion: FloatArray) -> FloatArray:
    """Onsets of large movements with a short after-effect, (T,) mm."""
    fd, _ = _displacement(motion)
    size = np.where(fd > _FD_LIMIT, fd, 0)
    size[1:][size[:-1] > 0] = 0  # the way back, after a volume, repairs the signal
    return np.asarray(size + 0.3 * np.roll(size, 1))


def _motion_maps(head: Head) -> Float32Array:
    """Relative change of intensity per mm and rad of movement, (6, z, y, x)."""
    z, y, x = np.gradient(head.baseline, BOLD_GRID.zooms[0])
    px, py, pz = voxel_centres(BOLD_GRID)
    turns = (py * z - pz * y, pz * x - px * z, px * y - py * x)
    maps = np.stack([x, y, z, *turns]) / np.maximum(head.baseline, 400)
    return np.asarray(maps, dtype=np.float32)


def _sources(
    head: Head, motion: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, Float32Array]:
    """Everything unwanted: time courses (T, S) and maps in percent (S, z, y, x)."""
    grey, white, fluid = (head.tissue == kind for kind in (GREY, WHITE, CSF))
    x, y, z = voxel_centres(BOLD_GRID)
    patchy = 1 + 0.4 * np.sin(x / 17 + 1) * np.cos(y / 23) + 0.3 * np.sin(z / 19)
    bands = ((0.01, 0.06), (0.02, 0.2), (0.01, 0.15))  # breath, pulse, vessels
    ramp = np.linspace(-1, 1, N_VOLUMES)
    jerks = _jerkiness(motion)
    odd = np.arange(BOLD_GRID.shape[2])[:, None, None] % 2
    maps = [
        patchy * (0.6 * grey + 0.35 * white + 0.3 * fluid),
        patchy[::-1] * (0.4 * grey + 0.15 * white + 2.0 * fluid),
        patchy[:, ::-1] * (0.35 * grey + 0.6 * white),
        0.6 + x / 100 + y / 150 + 0 * z,
        0.4 - z / 100 + 0 * patchy,
        -0.9 * patchy,
        -2.2 * odd + 0 * patchy,
    ]
    courses = [_fluctuations(1, rng, band)[:, 0] for band in bands]
    courses += [ramp, ramp**2 - 1 / 3, jerks, jerks]
    # What is left of a movement after realignment: a tenth.
    moved = np.clip(10 * _motion_maps(head), -300, 300)
    stacked = np.concatenate([np.stack(maps).astype(np.float32), moved])
    return np.column_stack([*courses, motion]), stacked


def make_run(
    head: Head, profile: Profile, rng: np.random.Generator, *, n_unsteady: int = 0
) -> Run:
    """Simulate one run.

    ``n_unsteady`` volumes at the start are brighter: the magnetisation has to settle.
    """
    motion = _motion(profile, rng)
    signals = _regional_signals(profile, rng)
    nuisance, nuisance_maps = _sources(head, motion, rng)
    top = voxel_centres(BOLD_GRID)[2] > profile.top
    mask = head.brain & ~top
    inside = np.flatnonzero(mask)
    of_region = np.array([[region.value] for region in REGIONS], dtype=np.uint8)
    regional_maps = (head.labels.ravel()[inside] == of_region).astype(np.float32)
    maps = np.concatenate(
        [regional_maps, nuisance_maps.reshape(len(nuisance_maps), -1)[:, inside]]
    )
    courses = np.column_stack([signals, nuisance]).astype(np.float32)
    noise_map = np.full(head.tissue.shape, _RIM_NOISE, dtype=np.float32)
    for kind, size in _NOISE.items():
        noise_map[head.tissue == kind] = size
    change = courses @ maps
    change += (
        rng.standard_normal((N_VOLUMES, inside.size), dtype=np.float32)
        * noise_map.ravel()[inside]
    )
    series = (1 + change / 100) * head.baseline.ravel()[inside]
    series[:n_unsteady] *= 1.15
    # Air holds a little noise; the rest of the volume has no data at all.
    stored = np.zeros((N_VOLUMES, mask.size), dtype=np.int16)
    air = np.flatnonzero(~(head.brain | top))
    stored[:, air] = rng.random((N_VOLUMES, air.size), dtype=np.float32) < _SPECKS
    stored[:, inside] = np.rint(series / profile.step)
    shape = (N_VOLUMES, *mask.shape)
    return Run(stored.reshape(shape), mask, motion, signals)


@dataclass(frozen=True, slots=True)
class Confounds:
    """A confounds table and what its sidecar says."""

    columns: dict[str, FloatArray]  # each (T,); NaN where fMRIPrep writes n/a
    components: dict[str, dict[str, Any]]  # sidecar entries of the CompCor columns


def measure_confounds(
    head: Head, run: Run, step: float, *, n_unsteady: int = 0
) -> Confounds:
    """Compute fMRIPrep's confounds from the stored values and the movements.

    ``step`` is the value of one stored unit. Framewise displacement follows Power
    (2012), DVARS Nichols (2013, arXiv:1704.01469), CompCor Behzadi (2007,
    doi:10.1016/j.neuroimage.2007.04.042).
    """
    inside = np.flatnonzero(run.mask)
    stored = run.stored.reshape(N_VOLUMES, -1)[:, inside]
    series = stored.astype(np.float64) * step
    tissue = head.tissue.ravel()[inside]
    parts = {
        "global_signal": series,
        "csf": series[:, tissue == CSF],
        "white_matter": series[:, tissue == WHITE],
    }
    columns: dict[str, FloatArray] = {}
    for name, part in parts.items():
        columns |= _expand(name, part.mean(axis=1))
    columns["std_dvars"], columns["dvars"] = _dvars(series)
    columns["framewise_displacement"], columns["rmsd"] = _displacement(run.motion)
    masks = {
        "CSF": parts["csf"][n_unsteady:],
        "WM": parts["white_matter"][n_unsteady:],
        "combined": series[n_unsteady:, (tissue == CSF) | (tissue == WHITE)],
    }
    steady, components = _components(masks)
    columns |= {name: np.pad(c, (n_unsteady, 0)) for name, c in steady.items()}
    for k in range(n_unsteady):
        columns[f"non_steady_state_outlier{k:02d}"] = np.eye(N_VOLUMES)[k]
    axes = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    for name, course in zip(axes, run.motion.T, strict=True):
        columns |= _expand(name, course)
    moved = columns["framewise_displacement"] > _FD_LIMIT
    moved |= columns["std_dvars"] > _STD_DVARS_LIMIT
    for k, volume in enumerate(np.flatnonzero(moved)):
        columns[f"motion_outlier{k:02d}"] = np.eye(N_VOLUMES)[volume]
    return Confounds(columns, components)


def _expand(name: str, course: FloatArray) -> dict[str, FloatArray]:
    """A course with its derivative and the squares of both."""
    slope = np.concatenate([[np.nan], np.diff(course)])
    return {
        name: course,
        f"{name}_derivative1": slope,
        f"{name}_power2": course**2,
        f"{name}_derivative1_power2": slope**2,
    }


def _displacement(motion: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Framewise displacement and relative root mean square displacement in mm."""
    shift, turn = np.hsplit(np.diff(motion, axis=0), 2)
    fd = np.abs(shift).sum(axis=1) + _HEAD_RADIUS * np.abs(turn).sum(axis=1)
    spin = 0.4 * _JENKINSON_RADIUS**2 * (turn**2).sum(axis=1)  # small angles
    rmsd = np.sqrt(spin + (shift**2).sum(axis=1))
    nothing = [np.nan]
    return np.concatenate([nothing, fd]), np.concatenate([nothing, rmsd.round(6)])


def _dvars(series: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardised and plain DVARS as nipype's ComputeDVARS has them."""
    scaled = (series * (1000 / np.median(series))).astype(np.float32)
    ordered = np.sort(scaled, axis=0)
    quarter = N_VOLUMES // 4
    spread = (ordered[-quarter - 1] - ordered[quarter]) / 1.349
    scaled -= scaled.mean(axis=0)
    lagged = (scaled[1:] * scaled[:-1]).sum(axis=0) / (scaled**2).sum(axis=0)
    expected = float(np.mean(np.sqrt((1 - lagged) * 2) * spread))
    dvars = np.sqrt((np.diff(scaled, axis=0) ** 2).mean(axis=1, dtype=np.float64))
    plain = np.concatenate([[np.nan], dvars])
    return (plain / expected).round(6), plain.round(6)


def _cosines(n: int) -> FloatArray:
    """Discrete cosines slower than 128 s, (n, k), as nipype's cosine filter."""
    order = max(int(2 * n * REPETITION_TIME / _LONGEST_PERIOD), 1)
    time = (np.arange(n)[:, None] + 0.5) * np.pi / n
    return np.asarray(np.sqrt(2 / n) * np.cos(time * np.arange(1, order)))


def _components(
    masks: dict[str, FloatArray],
) -> tuple[dict[str, FloatArray], dict[str, dict[str, Any]]]:
    """CompCor columns of every mask, the cosines they go with, and sidecar entries."""
    n = len(masks["CSF"])
    cosines = _cosines(n)
    slow = np.column_stack([np.full(n, n**-0.5), cosines])
    columns: dict[str, FloatArray] = {}
    entries: dict[str, dict[str, Any]] = {}
    for mask, series in masks.items():
        clean = series - slow @ (slow.T @ series)
        found, described = _compcor(clean / clean.std(axis=0), mask)
        columns |= found
        entries |= described
    columns |= {f"cosine{k:02d}": cosine for k, cosine in enumerate(cosines.T)}
    return columns, dict(sorted(entries.items()))


def _compcor(
    series: FloatArray, mask: str
) -> tuple[dict[str, FloatArray], dict[str, dict[str, Any]]]:
    """Components that make up half the variance, and their sidecar entries."""
    power, vectors = np.linalg.eigh(series @ series.T)
    power, vectors = np.maximum(power[::-1], 0), vectors[:, ::-1]
    share = power / power.sum()
    total = np.cumsum(share)
    letter = {"CSF": "c", "WM": "w", "combined": "a"}[mask]
    columns, entries = {}, {}
    for k in range(int(np.searchsorted(total, 0.5)) + 1):
        vector = vectors[:, k]
        name = f"{letter}_comp_cor_{k:02d}"
        # The sign of an eigenvector is arbitrary; the largest entry is positive here.
        columns[name] = vector * np.sign(vector[np.argmax(np.abs(vector))])
        entries[name] = {
            "CumulativeVarianceExplained": round(float(total[k]), 10),
            "Mask": mask,
            "Method": "aCompCor",
            "Retained": True,
            "SingularValue": round(float(np.sqrt(power[k])), 10),
            "VarianceExplained": round(float(share[k]), 10),
        }
    return columns, entries
