"""What it costs to move an atlas to a run through a composite transform.

    python benchmarks/transforms.py                 fields of 2 and of 1 mm
    python benchmarks/transforms.py --quick         of 12 mm, to see that it runs

The file is as ANTs writes it: an affine and a displacement field, compressed in chunks
of 2**20 numbers. Moved are the centres of all voxels of a run in T1w space, and the
labels of a 1 mm atlas are looked up there. Seconds are of processor time: other work on
the machine then counts less. Memory is the peak above what the process has after its
imports, with the points and the labels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FIELDS = {"97x115x97": 2.0, "193x229x193": 1.0}
RUNS = {"80x96x80": 2.4, "97x115x97": 2.0}
QUICK = {"17x20x17": 12.0}


def lengths(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("x"))


def write_composite(path: Path, shape: tuple[int, ...], zoom: float, kind: str) -> None:
    import h5py

    rng = np.random.default_rng(0)
    places = np.meshgrid(*(np.linspace(0, 6, n) for n in shape[::-1]), indexing="ij")
    vectors = 5 * np.stack([np.sin(p + k) for k, p in enumerate(places)], axis=-1)
    vectors += rng.normal(0, 1e-3, vectors.shape)  # mantissas of real fields are noise
    affine = [1.1, 0.05, 0, -0.05, 1.1, 0, 0, 0, 1.15, 2, 3, 4]
    fixed = [*shape, 96, 132, -78, *[zoom] * 3, -1, 0, 0, 0, -1, 0, 0, 0, 1]
    values = vectors.astype(kind).ravel()
    word = {"f4": "float", "f8": "double"}[kind]
    with h5py.File(path, "w") as file:
        for n, (name, numbers, constants) in enumerate(
            [
                ("CompositeTransform_double_3_3", None, None),
                (f"DisplacementFieldTransform_{word}_3_3", values, fixed),
                ("AffineTransform_double_3_3", np.array(affine), [0, 18, 8]),
            ]
        ):
            node = file.create_group(f"TransformGroup/{n}")
            text = h5py.string_dtype("ascii")
            node.create_dataset("TransformType", data=[name], dtype=text)
            if numbers is not None:
                node.create_dataset(
                    "TransformParameters",
                    data=numbers,
                    chunks=(min(2**20, numbers.size),),
                    compression="gzip",
                    compression_opts=5,
                )
                node["TransformFixedParameters"] = np.array(constants, dtype=float)


def peak() -> float:
    """Most memory that this process had, MB; that of the parent counts elsewhere."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return float("nan")


def measure(path: Path, shape: tuple[int, ...], zoom: float) -> str:
    """Run in a process of its own, so that the peak is that of one case."""
    import h5py  # noqa: F401  the imports are no part of the cost
    import scipy.ndimage  # noqa: F401

    from bids_roi.core.frame import Frame
    from bids_roi.core.grid import Grid, resample_labels
    from bids_roi.images.transforms import read_transform

    affine = np.diag([zoom, zoom, zoom, 1])
    affine[:3, 3] = -96, -115, -96
    run = Grid.of(shape, affine)
    affine = np.eye(4)
    affine[:3, 3] = -96, -132, -78
    atlas = Grid.of((193, 229, 193), affine)
    labels = np.ones(atlas.shape, dtype=np.int32)
    before = peak()
    start = time.process_time()
    points = read_transform(path).apply(Frame.of_grid(run).millimetres())
    moved = time.process_time()
    found = resample_labels(labels, atlas, points)
    done = time.process_time()
    rise = peak() - before
    share = (found > 0).mean()
    return f"{moved - start:6.2f} {done - moved:6.2f} {rise:6.0f} {share:6.2f}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        path, shape, zoom = options.one
        say(measure(Path(path), lengths(shape), float(zoom)))
        return
    say("field         type  MB    run          points labels  peak MB  inside")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "from-T_to-T1w_mode-image_xfm.h5"
        for field, zoom in (QUICK if options.quick else FIELDS).items():
            for kind in ("f4", "f8"):
                write_composite(path, lengths(field), zoom, kind)
                size = path.stat().st_size / 1e6
                for run, step in (QUICK if options.quick else RUNS).items():
                    call = [sys.executable, __file__, "--one", path, run, str(step)]
                    done = subprocess.run(
                        call, capture_output=True, text=True, check=True
                    )
                    row = f"{field:13} {kind}  {size:5.0f}  {run:11}"
                    say(f"{row} {done.stdout.rstrip()}")


if __name__ == "__main__":
    main()
