"""One name for an atlas as a volume, on grayordinates and on surfaces."""

import csv
import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel import gifti
from support.tf_server import Server

from bids_roi.atlases.open import load_atlas_labels
from bids_roi.atlases.regions import RegionTable, extend_table, unite_tables
from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.atlases.templateflow import read_skeleton
from bids_roi.core.frame import Frame, Mesh, Part
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels
from bids_roi.errors import AtlasError, MissingInput, SpaceMismatch
from bids_roi.images.cifti import read_dense_labels
from bids_roi.images.nifti import write_image
from bids_roi.options.table import Atlases

SIX = "MNI152NLin6Asym"
TWO_MM = Grid.of(
    (91, 109, 91),
    np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]),
)
STRUCTURES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}


@pytest.fixture(autouse=True)
def no_caches(monkeypatch, tmp_path):
    """No atlas of the machine that runs the tests, and no network."""
    for name in ("TEMPLATEFLOW_HOME", "BIDS_ROI_TEMPLATEFLOW", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", "http://127.0.0.1:9")


def surface(template="fsaverage", n_vertices=10242, sides="LR"):
    parts = [Part(Mesh(template, n_vertices), STRUCTURES[side]) for side in sides]
    return Frame(tuple(parts))


def shelf(**values):
    return AtlasShelf(Atlases(**values))


def find(own, where, space="", name=None, root=None, bold=None):
    return own.find(name or own.names[0], space, where, root=root, bold=bold)


def write_rows(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([columns, *rows])


def write_label_gii(path, keys, table, structure=""):
    """As mris_convert writes them: keys of 32 bits and a table."""
    image = gifti.GiftiImage()
    for key, name in table:
        label = gifti.GiftiLabel(key, 0.5, 0.5, 0.5, 1)
        label.label = name
        image.labeltable.labels.append(label)
    data = np.asarray(keys, np.int32)
    meta = {"AnatomicalStructurePrimary": structure} if structure else {}
    array = gifti.GiftiDataArray(
        data, "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32", meta=meta
    )
    image.add_gifti_data_array(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def convert_annot(annot, path, structure=""):
    """An annot as label.gii; keys are FreeSurfer's packed colours."""
    keys, colours, names = nib.freesurfer.read_annot(annot, orig_ids=True)
    packed = colours[:, 0] + 256 * colours[:, 1] + 65536 * colours[:, 2]
    table = list(zip(packed.tolist(), [n.decode() for n in names], strict=True))
    write_label_gii(path, keys, table, structure)
    return keys, dict(table)


# One dataset, several layouts


def write_volume(path, names):
    """Labels 1..n where their names say they are."""
    labels = np.zeros((91, 109, 91), np.int16)
    for value, name in enumerate(names, 1):
        x = 60 if "RH_" in name or "RH-" in name else 20
        back = any(word in name for word in ("Vis", "ExStr"))
        y = 20 if back else 80 if "PFC" in name or "OFC" in name else 60
        z = 25 if "OFC" in name else 45
        labels[x + value % 8, y + value // 8 % 8, z + value // 64] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, labels, TWO_MM.matrix)


@pytest.fixture
def four_s(shared, tmp_path):
    """AtlasPack's 4S: the real dlabel and table, and a volume of the same regions."""
    root, stem = tmp_path / "4S", "tpl-fsLR_atlas-4S_scale-156_den-91k_dseg"
    folder = root / "tpl-fsLR"
    folder.mkdir(parents=True)
    for ending in (".dlabel.nii", ".tsv", ".json"):
        shutil.copy(shared / f"atlases/cifti/{stem}{ending}", folder)
    with (folder / f"{stem}.tsv").open() as file:
        names = [row["name"] for row in csv.DictReader(file, delimiter="\t")]
    volume = f"tpl-{SIX}/tpl-{SIX}_atlas-4S_scale-156_res-01_dseg"
    write_volume(root / f"{volume}.nii.gz", names)
    shutil.copy(folder / f"{stem}.tsv", root / f"{volume}.tsv")
    return root


def test_four_s_is_one_name_for_volumes_and_grayordinates(four_s):
    own = shelf(atlas_dataset=(f"4S={four_s}",), offline=True)
    assert own.names == ("4S_scale-156",)
    path = four_s / "tpl-fsLR/tpl-fsLR_atlas-4S_scale-156_den-91k_dseg.dlabel.nii"
    frame, points = read_dense_labels(path, "fsLR")
    dense = find(own, frame)
    volume = find(own, TWO_MM, SIX)
    assert dense.files == (path,)
    assert volume.space == SIX
    assert dense.regions == volume.regions
    assert dense.regions.name[:2] == ("LH_Vis_1", "LH_Vis_2")
    assert dense.source == f"bids:4S:{path.relative_to(four_s).as_posix()}"
    labels, where = load_atlas_labels(dense.image)
    assert (labels == points.keys).all()
    assert where.same(frame)
    # nibabel's word
    stored = np.asarray(nib.load(path).dataobj)[0]
    assert (labels == stored).all()


def test_a_dlabel_serves_surfaces_of_its_meshes_and_no_others(four_s):
    own = shelf(atlas_dataset=(f"4S={four_s}",), offline=True)
    found = find(own, surface("fsLR", 32492))
    assert found.files[0].name.endswith(".dlabel.nii")
    for other in (surface("fsLR", 59292), surface("fsaverage", 10242)):
        with pytest.raises(SpaceMismatch) as told:
            find(own, other)
        assert "a volume in MNI152NLin6Asym; a dlabel in fsLR den-91k;" in str(
            told.value
        )
        assert str(other.parts[0].support) in str(told.value)


def test_the_default_atlas_brings_in_no_surfaces_and_a_named_one_does(four_s):
    def kinds(own):
        (name,) = own.names
        return tuple(own.is_for(name, surface=surface) for surface in (False, True))

    assert kinds(shelf(offline=True)) == (True, False)
    named = shelf(atlas_dataset=(f"4S={four_s}",), offline=True)
    assert kinds(named) == (True, True)
    assert kinds(shelf(atlas=("Desikan2006_seg-aparc",))) == (False, True)
    assert kinds(shelf(atlas=("subject:aparc",))) == (False, True)
    assert kinds(shelf(atlas=("subject:aparcaseg",))) == (True, False)


@pytest.fixture
def mixed(tmp_path):
    """A cortex on surfaces, with the thalamus in the volume alone."""
    root = tmp_path / "mixed"
    for value, side in ((1, "L"), (2, "R")):
        keys = np.zeros(10242, np.int32)
        keys[100:200] = value
        name = f"tpl-fsaverage_hemi-{side}_den-10k_atlas-Toy_dseg.label.gii"
        path = root / "tpl-fsaverage" / name
        write_label_gii(path, keys, [(0, "???"), (value, "V1")])
    table = root / "tpl-fsaverage/tpl-fsaverage_atlas-Toy_dseg.tsv"
    write_rows(table, ["index", "name", "hemi"], [(1, "V1", "L"), (2, "V1", "R")])
    labels = np.zeros((91, 109, 91), np.int16)
    labels[20, 60, 45], labels[70, 60, 45], labels[40, 60, 45] = 1, 2, 11
    path = root / f"tpl-{SIX}/tpl-{SIX}_atlas-Toy_dseg.nii.gz"
    path.parent.mkdir()
    write_image(path, labels, TWO_MM.matrix)
    rows = [(11, "Thalamus", "L", "x"), (1, "V1", "L", "y"), (2, "V1", "R", "z")]
    columns = ["index", "name", "hemi", "note"]
    write_rows(path.with_name(path.name.replace(".nii.gz", ".tsv")), columns, rows)
    return root


def test_layouts_share_the_columns_of_all(mixed):
    own = shelf(atlas_dataset=(f"M={mixed}",), offline=True)
    volume, gii = find(own, TWO_MM, SIX), find(own, surface())
    assert volume.regions.name == gii.regions.name == ("Thalamus", "V1_L", "V1_R")
    assert volume.regions.extra == gii.regions.extra
    assert dict(gii.regions.extra)["note"] == ("x", "y", "z")
    labels, frame = load_atlas_labels(gii.image)
    mapped = map_labels(labels, gii.regions.values, frame, surface())
    assert mapped.n_voxels_atlas.tolist() == [0, 100, 100]
    assert gii.elsewhere == {gii.regions.index[0]}
    assert volume.elsewhere == frozenset()
    assert np.diff(mapped.weights.indptr).tolist() == [0, 100, 100]


def test_a_bad_table_of_one_layout_is_no_matter_of_the_other(mixed):
    table = mixed / "tpl-fsaverage/tpl-fsaverage_atlas-Toy_dseg.tsv"
    table.write_text("nothing of use\nat all\n")
    own = shelf(atlas_dataset=(f"M={mixed}",), offline=True)
    assert find(own, TWO_MM, SIX).regions.name == ("Thalamus", "V1_L", "V1_R")
    with pytest.raises(AtlasError, match="index and name are needed") as told:
        find(own, surface())
    assert str(told.value.where).endswith(table.name)


def test_a_surface_that_lacks_a_hemisphere_is_no_layout(mixed):
    right = "tpl-fsaverage_hemi-R_den-10k_atlas-Toy_dseg.label.gii"
    (mixed / "tpl-fsaverage" / right).unlink()
    own = shelf(atlas_dataset=(f"M={mixed}",), offline=True)
    with pytest.raises(SpaceMismatch, match=f"is there as a volume in {SIX};"):
        find(own, surface())


def test_a_name_is_not_matched_by_the_number_of_vertices(mixed):
    own = shelf(atlas_dataset=(f"M={mixed}",), offline=True)
    with pytest.raises(SpaceMismatch) as told:
        find(own, surface("onavg", 10242))
    text = str(told.value)
    assert "surfaces in fsaverage den-10k" in text
    assert "the run is on onavg with 10,242 vertices" in text
    with pytest.raises(SpaceMismatch, match="fsaverage with 40,962 vertices"):
        find(own, surface("fsaverage", 40962))


def test_a_file_that_is_not_of_the_density_in_its_name(mixed):
    for path in (mixed / "tpl-fsaverage").glob("*den-10k*"):
        path.rename(path.with_name(path.name.replace("den-10k", "den-41k")))
    own = shelf(atlas_dataset=(f"M={mixed}",), offline=True)
    with pytest.raises(SpaceMismatch, match=r"10,242 vertices, the run on .*40,962"):
        find(own, surface("fsaverage", 40962))


# Columns of several tables


def table(names, index=None, **extra):
    index = tuple(index or range(1, len(names) + 1))
    columns = tuple((name, tuple(cells)) for name, cells in extra.items())
    return RegionTable(index, tuple(names), tuple(names), columns)


def test_a_union_keeps_each_layouts_own_values():
    long = table("ABC", index=(5, 6, 7))
    short = table("CAX", index=(1, 7, 5))
    union, apart = unite_tables([short, long], ["d", "d"])
    # equally long: the first one gives the order
    assert (union.name, apart) == (("C", "A", "X", "B"), {})
    mine = extend_table(long, union)
    assert mine.name == union.name
    held = dict(zip(mine.name, mine.index, strict=True))
    assert {name: held[name] for name in "ABC"} == {"A": 5, "B": 6, "C": 7}
    assert held["X"] not in (5, 6, 7)
    assert len(set(mine.index)) == 4


def test_tables_of_two_sources_join_where_one_holds_the_other():
    whole, cortex, other = table("ABC"), table("BA"), table("BZ")
    union, apart = unite_tables([cortex, whole, other], ["x", "y", "z"])
    assert union.name == ("A", "B", "C")
    assert list(apart) == [2]
    assert "1 of its names are not there: Z" in apart[2]


def test_one_name_in_two_colours_is_two_regions():
    one = table("AB", color=("#010203", "#ff0000"))
    same = table("AB", color=("#010203ff", "#FF0000FF"))
    other = table("AB", color=("#010203", "#00ff00"))
    assert unite_tables([one, same], ["d", "d"])[1] == {}
    assert unite_tables([one, other], ["d", "d"])[1] == {
        1: "B is another region there, by its colour"
    }


# TemplateFlow


def name_of(atlas, side, density="10k"):
    return (
        f"tpl-fsaverage/tpl-fsaverage_hemi-{side}_den-{density}_{atlas}_dseg.label.gii"
    )


def write_templateflow(shared, root, atlas, annot, density="10k"):
    """Real fsaverage5 annots as TemplateFlow has them; what nibabel reads in them."""
    read = {}
    for side, short in (("L", "lh"), ("R", "rh")):
        path = shared / "atlases/surface" / annot.format(short)
        read[side] = convert_annot(path, root / name_of(atlas, side, density))
    return read


REAL = [
    ("atlas-Desikan2006_seg-aparc", "fsa5_{}_aparc.annot", 68),
    ("atlas-Yeo2011_seg-7n", "fsaverage5_{}.Yeo2011_7Networks_N1000.annot", 14),
]


@pytest.mark.parametrize(("atlas", "annot", "n_regions"), REAL)
def test_templateflows_hemispheres_and_packed_colours(
    shared, tmp_path, atlas, annot, n_regions
):
    home = tmp_path / "home"
    read = write_templateflow(shared, home, atlas, annot)
    own = shelf(atlas=(atlas,), templateflow_home=home, offline=True)
    found = find(own, surface())
    assert found.files == tuple(home / name_of(atlas, side) for side in "LR")
    assert found.source == f"bids:templateflow:{name_of(atlas, 'L')}"
    assert len(found.regions.name) == n_regions
    sides = dict(found.regions.extra)["hemi"]
    labels, _ = load_atlas_labels(found.image)
    # Vertex by vertex: the name and the side of the region are those of the annot.
    rows = {value: n for n, value in enumerate(found.regions.index)}
    for number, side in enumerate("LR"):
        keys, names = read[side]
        mine = labels[number * 10242 : (number + 1) * 10242]
        for label, key in zip(mine.tolist(), keys.tolist(), strict=True):
            name = names[key]
            if label == 0:
                assert name in ("unknown", "corpuscallosum") or "Wall" in name
            else:
                assert found.regions.original_name[rows[label]] == name
                assert sides[rows[label]] == side


def test_both_hemispheres_and_their_table_are_fetched(shared, tmp_path, monkeypatch):
    atlas, annot, n_regions = REAL[0]
    write_templateflow(shared, tmp_path / "served", atlas, annot)
    with Server(tmp_path / "served") as server:
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
        home = tmp_path / "home"
        own = shelf(atlas=(atlas,), templateflow_home=home)
        assert len(find(own, surface()).regions.index) == n_regions
        assert sorted(server.asked) == [name_of(atlas, side) for side in "LR"]
        find(shelf(atlas=(atlas,), templateflow_home=home), surface())
        assert len(server.asked) == 2
    name = "tpl-fsaverage/tpl-fsaverage_atlas-Desikan2006_dseg.tsv"
    assert (home / name).read_bytes() == read_skeleton(name)


@pytest.mark.parametrize("fault", ["truncated", "error page", "404"])
def test_a_surface_that_comes_broken_is_not_kept(shared, tmp_path, monkeypatch, fault):
    atlas, annot, _ = REAL[0]
    write_templateflow(shared, tmp_path / "served", atlas, annot)
    with Server(tmp_path / "served") as server:
        server.fault, server.times = fault, 99
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", server.url)
        own = shelf(atlas=(atlas,), templateflow_home=tmp_path / "home")
        with pytest.raises(MissingInput, match="cannot be downloaded"):
            find(own, surface())
    assert not list((tmp_path / "home").rglob("*.gii"))


def test_without_a_network_both_files_are_named():
    own = shelf(atlas=("Yeo2011_seg-17n",), offline=True)
    with pytest.raises(MissingInput) as told:
        find(own, surface("fsaverage", 40962))
    for side in "LR":
        assert name_of("atlas-Yeo2011_seg-17n", side, "41k") in str(told.value)


def test_coarse_meshes_do_not_take_the_first_vertices_of_a_fine_one():
    own = shelf(atlas=("Schaefer2018_seg-7n_scale-400",), offline=True)
    with pytest.raises(SpaceMismatch) as told:
        find(own, surface())
    text = str(told.value)
    assert "surfaces in fsaverage den-164k" in text
    assert "Labels of den-164k are not cut down to a coarser mesh" in text
    assert "mri_surf2surf" in text
    fitting = text.partition("On these meshes there are: ")[2]
    assert "Desikan2006_seg-aparc" in fitting
    assert "Yeo2011_seg-17n" in fitting


def test_another_edition_of_the_names_is_told_and_not_joined(tmp_path):
    """TemplateFlow's tables of Schaefer's 400 differ in 58 names and 8 colours."""
    name = "Schaefer2018_seg-7n_scale-400"
    home = tmp_path / "home"
    rows = read_skeleton(f"tpl-fsaverage/tpl-fsaverage_atlas-{name}_dseg.tsv").decode()
    keys = {"L": [], "R": []}
    for row in csv.DictReader(rows.splitlines(), delimiter="\t"):
        keys[row["hemi"]].append((int(row["index"]), row["name"]))
    for side, known in keys.items():
        data = np.resize([key for key, _ in known], 163842)
        path = home / name_of(f"atlas-{name}", side, "164k")
        write_label_gii(path, data, known)
    own = shelf(atlas=(name,), templateflow_home=home, offline=True)
    found = find(own, surface("fsaverage", 163842))
    (warning,) = [text for text in found.warnings if "another edition" in text]
    assert "is another region there, by its colour" in warning
    assert len(found.regions.name) == 400
    assert found.regions.name[0] == "7Networks_LH_Vis_1"
    assert not any("Wall" in region for region in found.regions.name)


# A participant's own annots


@pytest.fixture
def native(shared, tmp_path):
    """A run in fsnative, whose surface is fsaverage5's."""
    root = tmp_path / "fmriprep"
    label = root / "sourcedata/freesurfer/sub-01/label"
    label.mkdir(parents=True)
    for side in ("lh", "rh"):
        source = shared / f"atlases/surface/fsa5_{side}_aparc.annot"
        shutil.copy(source, label / f"{side}.aparc.annot")
        shutil.copy(source, label / f"{side}.aparc.a2009s.annot")
    return root


def find_own(native, name="subject:aparc", where=None, ses=False, **options):
    own = shelf(atlas=(name,), offline=True, **options)
    entities = "sub-01_ses-a" if ses else "sub-01"
    bold = (
        native / f"sub-01/func/{entities}_task-rest_hemi-L_space-fsnative_bold.func.gii"
    )
    where = where or surface("fsnative:sub-01")
    return find(own, where, "fsnative", own.names[0], root=native, bold=bold)


def test_a_participants_own_annots(native):
    found = find_own(native)
    assert found.name == "aparc"
    assert found.source == (
        "bids:preprocessed:sourcedata/freesurfer/sub-01/label/lh.aparc.annot"
    )
    assert found.description["LevelType"] == "individual"
    assert len(found.regions.name) == 68
    assert not {"unknown", "corpuscallosum"} & set(found.regions.original_name)
    assert find_own(native, "subject:aparc.a2009s").name == "aparca2009s"


def test_annots_of_the_session_or_of_another_folder_come_first(native, tmp_path):
    homes = native / "sourcedata/freesurfer"
    shutil.copytree(homes / "sub-01", homes / "sub-01_ses-a")
    assert "sub-01_ses-a" in find_own(native, ses=True).source
    other = tmp_path / "subjects"
    shutil.move(homes, other)
    found = find_own(native, fs_subjects_dir=other)
    assert found.files[0] == other / "sub-01/label/lh.aparc.annot"
    assert found.source == "bids:freesurfer:sub-01/label/lh.aparc.annot"
    assert found.individual


def test_annots_that_are_absent_or_one_alone(native):
    label = native / "sourcedata/freesurfer/sub-01/label"
    (label / "rh.aparc.annot").unlink()
    with pytest.raises(MissingInput, match=r"rh\.aparc\.annot not found.*subjects-dir"):
        find_own(native)
    with pytest.raises(MissingInput, match=r"lh\.x\.y\.annot and rh\.x\.y\.annot not"):
        find_own(native, "subject:x.y")


def test_annots_of_another_mesh_are_refused(native):
    parts = surface("fsnative:sub-01").parts
    right = Part(Mesh("fsnative:sub-01", 10240), "CORTEX_RIGHT")
    with pytest.raises(AtlasError) as told:
        find_own(native, where=Frame((parts[0], right)))
    assert str(told.value.where).endswith("sub-01/label/rh.aparc.annot")
    assert "10,242 vertices, CORTEX_RIGHT of the run 10,240" in str(told.value)


def test_own_annots_are_for_the_participants_own_surface(native):
    with pytest.raises(SpaceMismatch, match=r"\(fsnative\), the run on fsaverage"):
        find_own(native, where=surface())
    with pytest.raises(SpaceMismatch, match="the run a volume"):
        find_own(native, where=TWO_MM)
