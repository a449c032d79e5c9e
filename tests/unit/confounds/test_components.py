"""CompCor components by mask, number and variance; a second table side by side."""

import pytest
from numpy.testing import assert_array_equal
from support.confound_tables import WHOLE, loader, select, strategy, toy, write

from bids_roi.confounds.components import merge_confounds
from bids_roi.confounds.strategies import Component
from bids_roi.confounds.table import read_confounds
from bids_roi.errors import ConfoundsError


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    return loader(shared, tmp_path_factory.mktemp("real"))


def compcor_table(folder, masks, metadata=..., **more):
    names = [f"a_comp_cor_{number:02d}" for number in range(len(masks))]
    entries = {
        name: {"Mask": mask, "VarianceExplained": 0.2, "Retained": True}
        for name, mask in zip(names, masks, strict=True)
    }
    for name, change in more.items():
        entries[name].update(change)
    return write(folder, toy(5, *names), entries if metadata is ... else metadata)


MIXED = ("CSF", "CSF", "WM", "WM", "WM", "combined", "combined")


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"model": "anat_combined"}, [5, 6]),
        ({"model": "anat_combined", "n_components": 1}, [5]),
        ({"model": "anat_separated"}, [0, 1, 2, 3, 4]),
        ({"model": "anat_separated", "n_components": 2}, [0, 1, 2, 3]),
        ({"model": "anat_separated", "variance_explained": 0.2}, [0, 2]),
        ({"model": "anat_separated", "variance_explained": 0.4}, [0, 1, 2, 3]),
        ({"model": "anat_separated", "variance_explained": 0.5}, [0, 1, 2, 3, 4]),
    ],
)
def test_components_by_mask_number_and_variance(tmp_path, options, numbers):
    confounds = read_confounds(compcor_table(tmp_path, MIXED))
    selected = select(confounds, strategy(Component("compcor", **options)))
    assert list(selected.names) == [f"a_comp_cor_{number:02d}" for number in numbers]


def test_a_share_that_is_not_reached_is_noted(tmp_path):
    confounds = read_confounds(compcor_table(tmp_path, MIXED))
    chosen = strategy(Component("compcor", "anat_combined", variance_explained=0.5))
    notes = select(confounds, chosen).notes
    expected = "All 2 CompCor components of combined explain less than the 0.5 asked"
    assert notes[0] == f"{expected} for."


@pytest.mark.parametrize("version", WHOLE)
def test_half_the_variance_is_what_fmriprep_retains(real, version):
    confounds, _ = real(version)
    for model in ("anat_combined", "anat_separated"):
        half = Component("compcor", model, variance_explained=0.5)
        every = Component("compcor", model)
        assert (
            select(confounds, strategy(half)).names
            == select(confounds, strategy(every)).names
        )
        few = select(
            confounds,
            strategy(Component("compcor", model, variance_explained=0.3)),
        ).names
        assert 0 < len(few) < len(select(confounds, strategy(every)).names)


def test_dropped_components_stay_out(tmp_path):
    path = compcor_table(tmp_path, MIXED, a_comp_cor_06={"Retained": False})
    selected = select(
        read_confounds(path), strategy(Component("compcor", "anat_combined"))
    )
    assert selected.names == ("a_comp_cor_05",)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            None,
            r"a_comp_cor_00 which mask it comes from \(Mask\), and there is no sub-",
        ),
        ("{,", r"and sub-01_.*\.json: the file is not JSON \(line 1"),
        ({}, "and it has no Mask of a_comp_cor_00"),
        ({"a_comp_cor_00": {"Mask": "WM"}}, r"no Mask of a_comp_cor_01 \(of others: 1"),
    ],
)
def test_without_the_json_compcor_stops_and_says_why(tmp_path, metadata, message):
    path = compcor_table(tmp_path, MIXED, metadata)
    confounds = read_confounds(path)
    with pytest.raises(ConfoundsError, match=message) as caught:
        select(confounds, strategy(Component("compcor", "anat_combined")))
    assert "Put the JSON" in caught.value.remedy
    selected = select(confounds, strategy(Component("pattern", "a_comp_cor_0[01]")))
    assert selected.names == ("a_comp_cor_00", "a_comp_cor_01")


def test_variance_needs_the_json_too(tmp_path):
    confounds = read_confounds(write(tmp_path, toy(5, "t_comp_cor_00")))
    chosen = strategy(Component("compcor", "temporal", variance_explained=0.5))
    with pytest.raises(ConfoundsError, match="how much it explains"):
        select(confounds, chosen)


def test_a_mask_without_components_is_missing(tmp_path):
    confounds = read_confounds(compcor_table(tmp_path, ("WM", "combined")))
    chosen = strategy(Component("compcor", "anat_separated"))
    with pytest.raises(
        ConfoundsError,
        match=r"1 of 2 of compcor \(c_comp_cor \(CSF\)\); the table has a_comp_cor_00",
    ):
        select(confounds, chosen)
    selected = select(confounds, chosen, allow_missing=True)
    assert selected.names == ("a_comp_cor_00",)
    assert selected.missing == ("c_comp_cor (CSF)",)
    none = read_confounds(write(tmp_path, toy(5, "csf")))
    with pytest.raises(ConfoundsError, match="has nothing of the kind"):
        select(none, chosen)


# --- tables of ICA-AROMA


def test_tables_that_do_not_belong_together_are_not_merged(tmp_path):
    (tmp_path / "two").mkdir()
    first = read_confounds(write(tmp_path, toy(5, "csf", "rmsd")))
    short = read_confounds(write(tmp_path / "two", toy(4, "aroma_motion_01")))
    with pytest.raises(ConfoundsError, match=r"two.*4 rows, but .* has 5"):
        merge_confounds(first, short)
    other = read_confounds(write(tmp_path / "two", toy(5, "csf", "x", seed=1)))
    with pytest.raises(ConfoundsError, match=r"differ .*: csf\."):
        merge_confounds(first, other)
    same = read_confounds(write(tmp_path / "two", toy(5, "csf", "rmsd", "x")))
    both = merge_confounds(first, same)
    assert both.names == ("csf", "rmsd", "x")
    assert_array_equal(both.values, same.values)
