"""ITK transform files without ITK, and what they do to a point, by plain arithmetic."""

import math

import h5py
import numpy as np


def write_h5(path, transforms, *, composite=True, legacy=False, compression=None):
    """Write [(type, parameters, fixed)] as ITK lays them out in HDF5."""
    word = "Tranform" if legacy else "Transform"
    nodes = [("CompositeTransform_double_3_3", None, None)] if composite else []
    with h5py.File(path, "w") as file:
        for n, (kind, values, fixed) in enumerate([*nodes, *transforms]):
            node = file.create_group(f"TransformGroup/{n}")
            node.create_dataset(
                "TransformType", data=[kind.encode()], dtype=h5py.string_dtype("ascii")
            )
            if values is not None:
                values = np.asarray(values)
                if values.dtype != np.float32:
                    values = values.astype(float)
                chunks = (min(2**20, values.size),) if compression else None
                node.create_dataset(
                    f"{word}Parameters",
                    data=values,
                    compression=compression,
                    chunks=chunks,
                )
                node[f"{word}FixedParameters"] = np.asarray(fixed, dtype=float)
    return path


def write_text(path, transforms):
    """Write [(type, parameters, fixed)] as ITK's text."""
    lines = ["#Insight Transform File V1.0"]
    for n, (kind, values, fixed) in enumerate(transforms):
        lines += [f"#Transform {n}", f"Transform: {kind}"]
        if values is not None:
            lines.append("Parameters: " + " ".join(map(repr, map(float, values))))
            lines.append("FixedParameters: " + " ".join(map(repr, map(float, fixed))))
    path.write_text("\n".join(lines) + "\n")
    return path


def place_field(vectors, origin, zooms, direction=None):
    """(type, parameters, fixed) of (x, y, z, 3) vectors, in LPS."""
    direction = np.eye(3) if direction is None else direction
    fixed = [*vectors.shape[:3], *origin, *zooms, *np.ravel(direction)]
    kind = "float" if vectors.dtype == np.float32 else "double"
    flat = vectors.transpose(2, 1, 0, 3).ravel()
    return f"DisplacementFieldTransform_{kind}_3_3", flat, fixed


def smooth_field(rng, shape, size):
    """Vectors that vary slowly; at most ``size`` mm along an axis."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    vectors = np.zeros((*shape, 3))
    for axis in range(3):
        for _ in range(4):
            a, b, c = rng.uniform(-2.5, 2.5, 3)
            wave = np.sin(2 * math.pi * (a * x + b * y + c * z) + rng.uniform(0, 6))
            vectors[..., axis] += size / 4 * wave
    return vectors


def displace(point, vectors, origin, zooms, direction):
    """One LPS point through a field: eight neighbours, one after the other."""
    index = np.linalg.solve(direction * np.asarray(zooms), point - np.asarray(origin))
    shape = vectors.shape[:3]
    if any(not -0.5 <= i < n - 0.5 for i, n in zip(index, shape, strict=True)):
        return point
    moved = np.array(point, dtype=float)
    low = [math.floor(i) for i in index]
    for corner in np.ndindex(2, 2, 2):
        weight, where = 1.0, []
        for i, a, c, n in zip(index, low, corner, shape, strict=True):
            weight *= (i - a) if c else 1 - (i - a)
            where.append(min(max(a + c, 0), n - 1))
        moved += weight * vectors[tuple(where)]
    return moved


def random_affine(rng, spread=0.1):
    """Parameters and centre of an affine that is not far from none."""
    matrix = np.eye(3) + rng.uniform(-spread, spread, (3, 3))
    return [*matrix.ravel(), *rng.uniform(-20, 20, 3)], rng.uniform(-30, 30, 3)
