"""Gaps in the table of confounds: only volumes that are kept need values."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.calls import FUNC, read, run, series
from support.datasets import SPACE
from support.toy_confounds import SPIKES, T, write_confounds

from bids_roi.confounds.strategies import Component, Strategy
from bids_roi.confounds.table import (
    framewise_displacement,
    read_confounds,
    select_confounds,
)
from bids_roi.options.settings import Settings

TABLE = f"{FUNC}/sub-01_task-rest_desc-confounds_timeseries"


def edit(root, change):
    """Change cells of the table: ``change`` takes columns of words by name."""
    path = root / f"{TABLE}.tsv"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    columns = {name: list(cells) for name, *cells in zip(*rows, strict=True)}
    change(columns)
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n")


def add_compcor(columns):
    rng = np.random.default_rng(5)
    for mask in "wc":
        for k in range(5):
            values = map(repr, rng.normal(size=T).tolist())
            columns[f"{mask}_comp_cor_0{k}"] = list(values)


def put(names, volumes, word):
    def change(columns):
        for name in names:
            for volume in volumes:
                columns[name][volume] = word

    return change


# Kinds of columns, and a strategy that has them.
KINDS = {
    "motion": ("trans_x", "24P"),
    "power": ("rot_z_power2", "24P"),
    "derivative": ("trans_y_derivative1", "24P"),
    "square of derivative": ("csf_derivative1_power2", "36P"),
    "global signal": ("global_signal", "36P"),
    "CompCor": ("w_comp_cor_02", "acompcor"),
    "cosine": ("cosine01", "acompcor"),
}
WAYS = {
    "drop": [],
    "na": ["--censored", "na"],
    "interpolate": ["--censored", "interpolate"],
    "band": ["--high-pass", "0.01", "--low-pass", "0.1"],
    "slow cosines": ["--high-pass", "0.02", "--filter", "cosine"],
    "filled": ["--high-pass", "0.01", "--censored", "interpolate", "--scrub", "3"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_censored_volume_needs_no_value(
    kind, way, cleaned_input, atlas, tmp_path, capsys
):
    """The oracle: whatever number stands there, every output has the same bits."""
    root, _, _ = cleaned_input
    name, strategy = KINDS[kind]
    edit(root, add_compcor)
    found = []
    for number, word in enumerate(("n/a", "12345.6", "-1e9")):
        edit(root, put([name], [0, *SPIKES], word))
        out = tmp_path / f"out{number}"
        common = [root, out, "participant", "--atlas-file", atlas]
        common += ["--denoise", strategy, "--fd-threshold", "0.5", *WAYS[way]]
        run(capsys, *common, "--relmat", "pearson")
        tables = sorted(out.glob("sub-01/func/*desc-*.tsv"))
        found.append([path.read_bytes() for path in tables])
        assert len(tables) == 3
    assert found[0] == found[1] == found[2]
    values = read(series(out, strategy))[1]
    assert np.isfinite(values).any(axis=1).sum() >= T - 1 - len(SPIKES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_volume_needs_one(kind, cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    name, strategy = KINDS[kind]
    edit(root, add_compcor)
    edit(root, put([name], [SPIKES[0], 30, 31], "n/a"))
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--denoise", strategy, "--fd-threshold", "0.5"]
    shown = run(capsys, *common, code=1)
    assert f"{name} in volumes 30, 31. Only" in shown.err  # 20 is censored
    assert f"{TABLE}.tsv: " in shown.err
    assert "Complete the table" in shown.err


def test_many_gaps_are_told_in_short(cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    names = [f"trans_{axis}" for axis in "xyz"] + ["rot_x", "rot_y"]
    edit(root, put(names, range(22, 38), "n/a"))
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", "24P", code=1)
    assert "22, 23, 24, 25, 26, 27, 28, 29 and 8 more" in shown.err
    assert "and 2 more columns" in shown.err


def test_the_first_volume_takes_the_value_of_the_second_where_it_has_one(
    cleaned_input, tmp_path
):
    root, columns, _ = cleaned_input
    motion = Strategy("m", "m", "", (Component("motion", "derivatives"),), Settings())
    name = "trans_x_derivative1"

    def select(kept=None):
        table = read_confounds(root / f"{TABLE}.tsv")
        return select_confounds(
            table, motion, n_volumes=T, image_desc="preproc", kept=kept
        )

    chosen = select()
    index = chosen.names.index(name)
    assert name in chosen.filled
    assert chosen.regressors[0, index] == columns[name][1]
    edit(root, put([name], [1], "n/a"))
    kept = np.ones(T, dtype=bool)
    kept[:2] = False
    late = select(kept)
    assert name not in late.filled
    assert_array_equal(np.isnan(late.regressors[:, index]), np.arange(T) < 2)
    kept[0] = True
    with pytest.raises(Exception, match=rf"{name} in volumes 0\. Only the first"):
        select(kept)


def test_motion_that_decides_nothing_needs_no_value(
    cleaned_input, atlas, tmp_path, capsys
):
    """Framewise displacement and DVARS: of dummy scans no, of all others yes."""
    root, _, _ = cleaned_input
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--denoise", "24P", "--fd-threshold", "0.5", "--dummy-scans", "4"]
    common += ["--std-dvars-threshold", "1.5"]
    for name in ("framewise_displacement", "std_dvars"):
        edit(root, put([name], [2, 3], "n/a"))
    run(capsys, *common)
    assert len(read(series(tmp_path / "out", "24P"))[1]) == T - 4 - len(SPIKES)
    edit(root, put(["framewise_displacement"], [4], "n/a"))
    shown = run(capsys, *common, code=1)
    assert "framewise_displacement has no value in volumes 4, counted" in shown.err
    table = read_confounds(root / f"{TABLE}.tsv")
    with pytest.raises(Exception, match="no value in volumes 2, 3, 4"):
        framewise_displacement(table)


# --- columns without any value


EMPTY = {
    "csf": ("csf", "36P", "4 of 8 of wm_csf"),
    "global signal": ("global_signal", "36P", "4 of 4 of global_signal"),
    "one derivative": ("rot_x_derivative1", "24P", "2 of 24 of motion"),
    "CompCor": ("c_comp_cor_0", "acompcor", "5 of 10 of compcor"),
    "cosine": ("cosine0", "acompcor", "2 of 2 of cosine"),
}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_column_is_a_missing_one(name, cleaned_input, atlas, tmp_path, capsys):
    """The oracle: a table without these columns; the signals have the same bits."""
    root, _, _ = cleaned_input
    stem, strategy, told = EMPTY[name]
    edit(root, add_compcor)
    whole = (root / f"{TABLE}.tsv").read_text()

    def matching(columns):
        return [c for c in columns if c.startswith(stem)]

    edit(root, lambda columns: put(matching(columns), range(T), "n/a")(columns))
    common = ["participant", "--atlas-file", atlas, "--denoise", strategy]
    shown = run(capsys, root, tmp_path / "a", *common, code=1)
    assert f"{told} ({stem}" in shown.err
    assert "hold nothing but n/a" in shown.err
    assert "--allow-missing-confounds" in shown.err
    assert f"{TABLE}.tsv: " in shown.err
    common += ["--allow-missing-confounds"]
    shown = run(capsys, root, tmp_path / "a", *common)
    assert "missing or empty, as was allowed" in shown.err
    assert "hold nothing but n/a" in shown.err
    (root / f"{TABLE}.tsv").write_text(whole)
    edit(root, lambda columns: [columns.pop(c) for c in matching(columns)])
    run(capsys, root, tmp_path / "b", *common)
    found, without = (series(tmp_path / out, strategy) for out in "ab")
    assert found.read_bytes() == without.read_bytes()
    used = json.loads(found.with_suffix(".json").read_text())["ConfoundRegressors"]
    assert not [column for column in used if column.startswith(stem)]


def test_missing_and_empty_columns_are_told_apart(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    edit(root, lambda columns: columns.pop("csf_power2"))
    edit(root, put(["csf_derivative1"], range(T), "n/a"))
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", "36P", code=1)
    assert "1 of 8 of wm_csf (csf_power2); the table has" in shown.err
    assert "1 of 8 of wm_csf (csf_derivative1) hold nothing but n/a" in shown.err


def test_a_table_of_before_1_4_with_an_empty_column(
    cleaned_input, atlas, tmp_path, capsys
):
    """Derivatives and squares are computed here, of nothing too."""
    root, _, _ = cleaned_input

    def shorten(columns):
        for name in list(columns):
            if name.endswith(("_derivative1", "_power2")):
                del columns[name]
        put(["csf"], range(T), "n/a")(columns)

    edit(root, shorten)
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", "36P", code=1)
    assert "4 of 8 of wm_csf (csf, csf_derivative1, csf_power2" in shown.err
    run(capsys, *common, "--denoise", "36P", "--allow-missing-confounds")
    facts = json.loads(series(tmp_path / "out", "36P").with_suffix(".json").read_text())
    assert len(facts["ConfoundRegressors"]) == 32
    assert SPACE in str(facts["Sources"])


def test_the_toy_table_is_whole_again(cleaned_input):
    """The helper itself: reading and writing a table changes no cell."""
    root, _, _ = cleaned_input
    write_confounds(root)
    before = (root / f"{TABLE}.tsv").read_bytes()
    edit(root, lambda columns: None)
    assert (root / f"{TABLE}.tsv").read_bytes() == before
