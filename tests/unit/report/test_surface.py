"""Meshes as rasters, against rays followed one by one, and parcels on the cortex."""

import base64
import io
import json
import re
from itertools import pairwise
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from PIL import Image
from support.gifti_files import array
from support.pictures import parts, rasters

from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.core.frame import Frame, Mesh, Part
from bids_roi.dataset.run import BoldRun
from bids_roi.demo.phantom import geodesic_sphere
from bids_roi.errors import ImageError
from bids_roi.images.surfaces import read_mesh
from bids_roi.options.table import Atlases
from bids_roi.report.raster import order_regions
from bids_roi.report.surface import (
    draw_cortex_tsnr,
    draw_mesh,
    draw_parcels,
    find_meshes,
    view_atlas,
)


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


STRUCTURES = ("CORTEX_LEFT", "CORTEX_RIGHT")
PLACES = ("front", "back", "top", "bottom", "outer", "inner")
INKS = ("#ff0000", "#00ff00", "#0000ff", "#00ffff", "#ff00ff", "#806000")


def half_head(side):
    """A ball of fsaverage's 642 vertices in each half, its parcels called by place."""
    vertices, faces = geodesic_sphere(8)
    outward = -1 if side == "L" else 1
    axis = np.abs(vertices).argmax(axis=1)
    positive = vertices[np.arange(len(vertices)), axis] > 0
    label = np.select(
        [axis == 1, axis == 2],
        [np.where(positive, 1, 2), np.where(positive, 3, 4)],
        np.where(positive == (outward > 0), 5, 6),
    )
    return vertices * 50 + [outward * 55, 0, 0], faces, label


def write_gii(path, arrays, table=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<GIFTI Version="1.0" NumberOfDataArrays="{len(arrays)}">{table}'
        f"{''.join(arrays)}</GIFTI>"
    )


def write_mesh(path, vertices, faces, **more):
    points = array(vertices.astype("f4"), intent="POINTSET", **more)
    corners = array(faces.astype("i4"), intent="TRIANGLE", **more)
    write_gii(path, [points, corners])


@pytest.fixture
def cortex(tmp_path):
    """An atlas of six parcels a side on fsaverage3, and its meshes."""
    meshes = {}
    for side, structure in zip("LR", STRUCTURES, strict=True):
        vertices, faces, label = half_head(side)
        label[-1] = 0
        meshes[structure] = vertices, faces
        rows = "".join(
            f'<Label Key="{key}" Red="0" Green="0" Blue="0" Alpha="1">'
            f"{side}H_{name}</Label>"
            for key, name in enumerate(PLACES, 1 + 10 * (side == "R"))
        )
        label = np.where(label > 0, label + 10 * (side == "R"), 0)
        labels = array(label.astype("i4"), intent="LABEL")
        name = f"atlas-Ball_hemi-{side}_space-fsaverage3_dseg.label.gii"
        write_gii(tmp_path / name, [labels], f"<LabelTable>{rows}</LabelTable>")
    table = tmp_path / "ball.tsv"
    lines = ["index\tname\tnetwork\tcolor"]
    for side, start in (("L", 1), ("R", 11)):
        for n, (place, ink) in enumerate(zip(PLACES, INKS, strict=True)):
            lines.append(f"{start + n}\t{side}H_{place}\t{place}\t{ink}")
    table.write_text("\n".join(lines) + "\n")
    pair = tmp_path / "atlas-Ball_hemi-{L,R}_space-fsaverage3_dseg.label.gii"
    shelf = AtlasShelf(Atlases(atlas_file=(f"{pair},{table}",)))
    frame = Frame(tuple(Part(Mesh("fsaverage", 642), name) for name in STRUCTURES))
    atlas = shelf.find("Ball", "fsaverage3", frame, root=tmp_path, bold=tmp_path)
    return SimpleNamespace(atlas=atlas, meshes=meshes, frame=frame)


def draw(cortex, meshes, lost, hints=()):
    regions = cortex.atlas.regions
    columns = dict(regions.extra)
    order = order_regions(len(regions.name), columns["network"], columns["color"])
    seen = view_atlas(cortex.atlas, meshes, "a ball")
    return seen and draw_parcels(seen, order, lost=lost, hints=hints)


def pixels_of(picture):
    """Views of a picture as RGBA, in the order of the page."""
    found = re.findall(rb"base64,([A-Za-z0-9+/=]+)", picture.content)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))
        for png in found
    ]


def hue(pixel):
    """Which of the inks a pixel is a shade of."""
    levels = pixel[:3] / max(1, pixel[:3].max())
    for ink, place in zip(INKS, PLACES, strict=True):
        full = np.array([int(ink[k : k + 2], 16) for k in (1, 3, 5)])
        if np.abs(levels - full / full.max()).max() < 0.02:
            return place
    return "other"


def test_four_views_show_each_side_as_it_lies(cortex):
    lost = np.zeros(12, bool)
    picture = draw(cortex, cortex.meshes, lost)
    views = pixels_of(picture)
    assert len(views) == 4
    expected = [  # left edge, right edge, middle
        ("front", "back", "outer"),  # left hemisphere from its side
        ("back", "front", "outer"),
        ("back", "front", "inner"),
        ("front", "back", "inner"),
    ]
    for view, (left, right, middle) in zip(views, expected, strict=True):
        high, wide = view.shape[:2]
        row, column = view[high // 2], view[:, wide // 2]
        assert hue(row[wide // 12]) == left
        assert hue(row[-wide // 12]) == right
        assert hue(row[wide // 2]) == middle
        assert hue(column[high // 12]) == "top"
        assert hue(column[-high // 12]) == "bottom"
        assert view[0, 0, 3] == 0  # beside the brain
        assert view[high // 2, wide // 2, 3] == 255
    words = picture.content.decode()
    for name in ("Left, lateral", "Right, medial", *PLACES, "no region"):
        assert f">{name}" in words
    assert "12 regions; 0 of them n/a" in picture.alt
    assert (picture.kind, picture.extension) == ("parcels", ".svg")


def test_lost_regions_are_striped_and_others_are_not(cortex):
    lost = np.zeros(12, bool)
    whole = pixels_of(draw(cortex, cortex.meshes, lost))
    lost[4] = True  # outer side of the left
    picture = draw(cortex, cortex.meshes, lost)
    views = pixels_of(picture)
    high, wide = views[0].shape[:2]
    middle = views[0][high // 2, wide // 3 : -wide // 3, :3].astype(int)
    dark, yellow = middle.max(axis=1) < 40, middle[:, 0] > 120
    assert (dark | yellow).all()
    assert 0.3 < dark.mean() < 0.7
    for k in (1, 2, 3):
        np.testing.assert_array_equal(views[k], whole[k])
    assert "1 of them n/a and striped" in picture.alt
    assert "stripes" in picture.caption


def test_tsnr_is_told_by_colours_of_one_scale_from_0(cortex):
    """Left regions from 10 on, right ones from 70 on; one lost, one without number."""
    tsnr = np.r_[10:70:10, 70:130:10].astype(float)
    lost = np.zeros(12, bool)
    lost[6 + 5] = True  # inner side of the right; "highest" is that of the others
    tsnr[5] = np.nan  # inner side of the left
    seen = view_atlas(cortex.atlas, cortex.meshes, "a ball")
    picture = draw_cortex_tsnr(seen, tsnr, lost=lost)
    assert (picture.kind, picture.extension) == ("tsnr", ".svg")
    assert "lowest 10, median 60, highest 110." in picture.alt
    *views, bar = pixels_of(picture)
    assert len(views) == 4
    scale = bar[::-1, 0, :3].astype(float)  # from 0 to 150 in 40 steps
    lit = scale / scale.max(axis=1, keepdims=True)
    words = picture.content.decode()
    assert ">100</text>" in words
    top = max(map(float, re.findall(r">(\d+)</text>", words)))

    def value(pixel):
        levels = pixel[:3] / pixel[:3].max()
        return (np.abs(lit - levels).sum(axis=1).argmin() + 0.5) / len(lit) * top

    for view, first, middle in ((views[0], 10, 50), (views[1], 70, 110)):
        high, wide = view.shape[:2]
        found = [
            value(view[high // 2, wide // 12 if first == 10 else -wide // 12]),
            value(view[high // 12, wide // 2]),
            value(view[high // 2, wide // 2]),
        ]
        np.testing.assert_allclose(found, [first, first + 20, middle], atol=top / 40)
    high, wide = views[2].shape[:2]
    blank = views[2][high // 2, wide // 2, :3].astype(int)
    assert np.ptp(blank) < 12  # grey
    middle = views[3][high // 2, wide // 3 : -wide // 3, :3].astype(int)
    assert ((middle.max(axis=1) < 40) | (middle[:, 0] > 120)).all()
    assert len(np.unique(middle, axis=0)) > 1
    assert draw_cortex_tsnr(seen, tsnr * np.nan, lost=lost) is None


def test_what_is_no_region_is_grey(cortex):
    vertices, faces = cortex.meshes["CORTEX_LEFT"]
    bare = np.zeros(12, bool)
    cortex.meshes["CORTEX_LEFT"] = np.roll(vertices, 1, axis=0), faces
    views = pixels_of(draw(cortex, cortex.meshes, bare))
    grey = [
        (np.ptp(view[..., :3].astype(int), axis=2) < 12)
        & (view[..., 3] == 255)
        & (view[..., 0] > 100)
        for view in views
    ]
    assert sum(g.sum() for g in grey) > 30


def test_the_region_under_the_pointer_is_the_one_that_is_drawn(cortex):
    lost = np.zeros(12, bool)
    names = cortex.atlas.regions.name
    picture = draw(cortex, cortex.meshes, lost, names)
    views = pixels_of(picture)[:4]
    about = json.loads(parts(picture.content, "metadata")[0]["words"])
    assert about["names"] == list(names)
    drawn = rasters(picture.content)
    for view, panel, (box, _) in zip(views, about["panels"], drawn, strict=True):
        (url,) = panel["regions"]
        png = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        rows = np.asarray(png.convert("RGB"))[..., 0].astype(int) - 1
        assert rows.shape == view.shape[:2] == (panel["rows"], panel["columns"])
        assert tuple(panel["box"]) == pytest.approx(box)
        assert (rows[view[..., 3] == 0] == -1).all()
        seen = 0
        # Pixels of one region and colour are told together: there are a few hundred.
        pixels = np.dstack([rows, view]).reshape(-1, 1 + view.shape[2])
        for (row, *colour), n in zip(
            *np.unique(pixels, axis=0, return_counts=True), strict=True
        ):
            place = hue(np.array(colour, view.dtype))
            if place != "other":
                assert names[row].endswith(place)
                seen += n
        assert seen > 0.5 * (rows >= 0).sum()


def test_more_colours_than_a_palette_holds_come_again():
    told = [f"#{n:02x}{n:02x}ff" for n in range(60)]
    order = order_regions(60, None, told)
    assert order.with_few_colours(60) is order
    few = order.with_few_colours(47)
    assert len(set(few.colours)) <= 47
    assert all(a != b for a, b in pairwise(few.colours))


def test_one_hemisphere_and_an_atlas_that_has_none(cortex):
    lost = np.zeros(12, bool)
    left = {"CORTEX_LEFT": cortex.meshes["CORTEX_LEFT"]}
    picture = draw(cortex, left, lost)
    both = draw(cortex, cortex.meshes, lost)
    assert len(pixels_of(picture)) == 2
    assert "6 regions not on the surface" in picture.caption
    assert "not on the surface" not in both.caption
    assert draw(cortex, {}, lost) is None


def run_of(root, space="fsaverage3", sub="1"):
    path = root / f"sub-{sub}/ses-a/func/sub-{sub}_ses-a_hemi-L_space-{space}_bold"
    entities = (("sub", sub), ("ses", "a"), ("space", space))
    return BoldRun(root, (path.with_suffix(".func.gii"),), entities, None, None, {})


def test_the_participants_inflated_surface_comes_first(tmp_path):
    home, root = tmp_path / "home", tmp_path / "fmriprep"
    frame = Frame(tuple(Part(Mesh("fsaverage", 642), name) for name in STRUCTURES))
    run = run_of(root, "fsaverage")
    assert find_meshes(run, frame, [home]) == ({}, "")

    def write(folder, name, scale, n=8):
        for side in "LR":
            vertices, faces = geodesic_sphere(n)
            write_mesh(folder / name.format(side), vertices * scale, faces)

    template = home / "tpl-fsaverage"
    write(template, "tpl-fsaverage_den-10k_hemi-{}_inflated.surf.gii", 9, n=32)
    write(template, "tpl-fsaverage_hemi-{}_den-3k_midthickness.surf.gii", 1)
    found, words = find_meshes(run, frame, [home])
    assert words == "midthickness surface of fsaverage"
    assert set(found) == set(STRUCTURES)
    anat = root / "sub-1/anat"
    write(anat, "sub-1_hemi-{}_space-fsaverage_midthickness.surf.gii", 2)
    found, words = find_meshes(run, frame, [home])
    assert words == "midthickness surface of the participant"
    np.testing.assert_allclose(np.linalg.norm(found["CORTEX_LEFT"][0], axis=1), 2, 1e-5)
    write(template, "tpl-fsaverage_hemi-{}_den-3k_inflated.surf.gii", 3)
    assert find_meshes(run, frame, [home])[1] == "inflated surface of fsaverage"
    # Neither a native surface, nor one of another template, nor one side alone.
    write(anat, "sub-1_hemi-{}_inflated.surf.gii", 4)
    write(anat, "sub-1_hemi-{}_space-onavg_inflated.surf.gii", 4)
    (anat / "sub-1_hemi-R_space-fsaverage_midthickness.surf.gii").unlink()
    assert find_meshes(run, frame, [home])[1] == "inflated surface of fsaverage"
    native = Frame(
        tuple(Part(Mesh("fsnative:sub-1", 642), name) for name in STRUCTURES)
    )
    found, words = find_meshes(run_of(root, "fsnative"), native, [home])
    assert words == "inflated surface of the participant"
    np.testing.assert_allclose(np.linalg.norm(found["CORTEX_LEFT"][0], axis=1), 4, 1e-5)


@pytest.mark.parametrize("ordering", ["RowMajorOrder", "ColumnMajorOrder"])
@pytest.mark.parametrize("encoding", ["ASCII", "Base64Binary", "GZipBase64Binary"])
def test_meshes_are_read_as_nibabel_reads_them(tmp_path, ordering, encoding):
    vertices, faces = lumpy(3, 1)
    path = tmp_path / "x.surf.gii"
    write_mesh(path, vertices, faces, ordering=ordering, encoding=encoding)
    mine = read_mesh(path, len(vertices))
    for own, other in zip(mine, nb.load(path).darrays, strict=True):
        np.testing.assert_array_equal(own, other.data)


def test_what_is_no_mesh_is_refused(tmp_path):
    vertices, faces = geodesic_sphere(2)
    path = tmp_path / "x.surf.gii"
    write_mesh(path, vertices, faces)
    with pytest.raises(ImageError, match=r"has 42 vertices.*43 are needed"):
        read_mesh(path, 43)
    write_mesh(path, vertices, faces + 1)
    with pytest.raises(ImageError, match="faces join vertices that are not there"):
        read_mesh(path, 42)
    write_mesh(path, vertices, faces - 1)
    with pytest.raises(ImageError, match="faces join vertices that are not there"):
        read_mesh(path, 42)
    write_mesh(path, np.where(vertices > 0.9, np.nan, vertices), faces)
    with pytest.raises(ImageError, match="no place in space"):
        read_mesh(path, 42)
    write_gii(path, [array(np.arange(42, dtype="i4"), intent="LABEL")])
    with pytest.raises(ImageError, match=r"faces between them|not there"):
        read_mesh(path, 42)
