"""Meshes as rasters, against rays that are followed one by one."""

import numpy as np
import pytest

from bids_roi.demo.surfaces import geodesic_sphere
from bids_roi.report.surface import draw_mesh


def follow_rays(vertices, faces, pixels, extent):
    """Nearest hit of the ray through each pixel, by Moeller and Trumbore (1997)."""
    high, wide = pixels
    left, right, low, top = extent
    found = np.full(pixels, -1)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    ray = np.array([0.0, 0.0, -1.0])
    p = np.cross(ray, c - a)
    det = ((b - a) * p).sum(axis=1)
    for i, j in np.ndindex(pixels):
        x = left + (j + 0.5) * (right - left) / wide
        y = top - (i + 0.5) * (top - low) / high
        from_a = np.array([x, y, 1e3]) - a
        q = np.cross(from_a, b - a)
        u, v = (from_a * p).sum(axis=1) / det, q @ ray / det
        distance = ((c - a) * q).sum(axis=1) / det
        hit = np.minimum(np.minimum(u, v), 1 - u - v) >= 0
        if hit.any():
            best = np.argmin(np.where(hit, distance, np.inf))
            weights = [1 - u[best] - v[best], u[best], v[best]]
            found[i, j] = faces[best, np.argmax(weights)]
    return found


def turn(seed):
    """A rotation without symmetry, so that no ray meets an edge."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def lumpy(n, seed):
    """A sphere with bays and hills, so that faces hide one another."""
    vertices, faces = geodesic_sphere(n)
    waves = np.sin(4 * vertices @ turn(seed)).prod(axis=1)
    return vertices * (1 + 0.6 * waves)[:, None] @ turn(seed + 1), faces


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["closed", "mirrored", "open", "unordered"])
def test_every_pixel_is_what_its_ray_meets_first(seed, kind):
    vertices, faces = lumpy(4, seed)
    if kind == "mirrored":
        vertices = vertices * [-1, 1, 1]
    elif kind == "open":
        faces = faces[faces.min(axis=1) > 20]
    elif kind == "unordered":
        faces = faces.copy()
        faces[::3] = faces[::3, ::-1]
    extent = (-1.7, 1.5, -1.4, 1.6)
    raster = draw_mesh(vertices, faces, (21, 27), extent)
    expected = follow_rays(vertices, faces, (21, 27), extent)
    np.testing.assert_array_equal(raster.vertices, expected)
    assert (raster.vertices >= 0).sum() > 100
    assert (raster.vertices < 0).any()


def test_pairs_in_portions_are_the_same(monkeypatch):
    vertices, faces = lumpy(6, 5)
    extent = (-1.7, 1.7, -1.7, 1.7)
    whole = draw_mesh(vertices, faces, (60, 60), extent)
    monkeypatch.setattr("bids_roi.report.surface._MOST_PAIRS", 7)
    pieces = draw_mesh(vertices, faces, (60, 60), extent)
    np.testing.assert_array_equal(whole.vertices, pieces.vertices)
    np.testing.assert_array_equal(whole.facing, pieces.facing)


def test_a_sphere_of_known_labels_and_light():
    """On a sphere that is fine enough, the place of a pixel tells all of it."""
    vertices, faces = geodesic_sphere(40)
    n = 50
    raster = draw_mesh(vertices, faces, (n, n), (-1.25, 1.25, -1.25, 1.25))
    centre = (np.arange(n) + 0.5) / n * 2.5 - 1.25
    x, y = np.meshgrid(centre, -centre)
    radius = np.hypot(x, y)
    inside, outside = radius < 0.95, radius > 1
    assert (raster.vertices[outside] == -1).all()
    assert (raster.facing[outside] == 0).all()
    where = vertices[raster.vertices]
    z = np.sqrt(1 - radius[inside] ** 2)
    expected = np.column_stack([x[inside], y[inside], z])
    apart = np.linalg.norm(where[inside] - expected, axis=1)
    assert apart.max() < 1.5 * 1.2 / 40  # an edge is 1.1 / 40 long, at most 1.25
    np.testing.assert_allclose(raster.facing[inside], z, atol=0.06)
    # Octants are told apart by signs alone, away from where they meet.
    far = inside & (np.abs(x) > 0.05) & (np.abs(y) > 0.05)
    label = (where[..., 0] > 0) * 1 + (where[..., 1] > 0) * 2
    np.testing.assert_array_equal(label[far], ((x > 0) * 1 + (y > 0) * 2)[far])


def test_faces_without_area_and_points_outside_of_the_picture():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [9, 9, 0], [1, 1, 5.0]])
    faces = np.array([[0, 1, 2], [0, 0, 1], [0, 1, 1], [3, 3, 3], [1, 2, 4]])
    raster = draw_mesh(vertices, faces, (4, 4), (-0.1, 1.9, -0.1, 1.9))
    assert set(np.unique(raster.vertices)) == {-1, 0, 1, 2}
    assert raster.vertices[3, 0] == 0
