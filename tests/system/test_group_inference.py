"""Covariates, permutations, intervals, weights and measures of the group level."""

import json

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from support.calls import UPPER, run
from support.group_oracles import by_lstsq
from support.group_trees import (
    CENTRES,
    SPACE,
    Tree,
    correlation,
    lose,
    read_rows,
    read_square,
    write_tsv,
)
from support.oracles import anova_by_hand

from bids_roi.report.group import write_group_page

N = 12
AGES = [20, 33, 41, 28, 60, 55, 47, 36, 29, 31, 50, 44]
SITES = ["Basel", "Genf", "Basel", "Bern", "Genf", "Bern"] * 2
BASE = f"group_task-rest_space-{SPACE}_atlas-Toy_stat-pearsoncorrelation"
LENGTHS = scipy.spatial.distance.pdist(CENTRES)


def plant(root, n=N, runs=(1, 2), lost=None, **more):
    """Participants with runs; returns FD and Fisher's z of each run, (n, k, ...)."""
    rng, tree = np.random.default_rng(4), Tree(root)
    fd, z, weights = np.zeros((n, len(runs))), np.zeros((n, len(runs), 15)), []
    for person in range(n):
        mine = correlation(rng)
        for place, number in enumerate(runs):
            matrix = 0.6 * mine + 0.4 * correlation(rng)
            if lost == (person, number):
                matrix = lose(matrix, 2)
            fd[person, place] = 0.1 + 0.3 * rng.random()
            weights.append(40 + 10 * person + number)
            tree.run(
                f"sub-{person + 1:02d}_task-rest_run-{number}",
                matrix,
                fd=fd[person, place],
                DegreesOfFreedom=weights[-1],
                MaxFramewiseDisplacement=float(number + AGES[person]),
                **more,
            )
            z[person, place] = np.arctanh(matrix[UPPER])
    return fd, z, np.reshape(weights, z.shape[:2])


def write_people(folder, n=N, **columns):
    people = [f"sub-{k + 1:02d}" for k in range(n)]
    columns = {
        "age": AGES[:n],
        "site": SITES[:n],
        "sex": [*"FMMFMFFMFMMF"][:n],
    } | columns
    rows = zip(people, *columns.values(), strict=True)
    write_tsv(folder / "participants.tsv", ["participant_id", *columns], rows)
    return folder / "participants.tsv"


def design(n=N):
    sites = np.array(SITES[:n])
    dummies = [sites == site for site in ("Bern", "Genf")]
    return np.column_stack([AGES[:n], *dummies]).astype(float)


def group(capsys, root, *options):
    told = run(capsys, root / "raw", root, "group", "--stack", "none", *options)
    (row,) = read_rows(root / "group_strategies.tsv")
    return told, row


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    write_people(tmp_path / "raw")
    return tmp_path / "raw"


def test_partial_qcfc_of_participants(tmp_path, raw, capsys):
    fd, z, _ = plant(tmp_path, lost=(3, 1))
    told, row = group(capsys, tmp_path, "--covariates", "age", "site")
    # Of the one who lost a region in a run, the other run counts.
    means = np.nanmean(z, axis=1)
    r = by_lstsq(fd.mean(axis=1), design(), means)
    _names, found = read_square(tmp_path / f"{BASE}_qcfcpartial.tsv")
    assert_allclose(found[UPPER], r, rtol=1e-9)
    assert_allclose(float(row["median_abs_r_partial"]), np.median(np.abs(r)), rtol=1e-9)
    rho = scipy.stats.spearmanr(LENGTHS, r).statistic
    assert_allclose(float(row["distance_rho_partial"]), rho, rtol=1e-9)
    # Three columns: of a correlation of 9 units.
    p = 2 * scipy.stats.t.sf(np.abs(r) * np.sqrt(7 / (1 - r**2)), 7)
    assert_allclose(float(row["share_p05_partial"]), np.mean(p < 0.05))
    assert (row["n_units_partial"], row["covariates"]) == (
        "12",
        "age, site (3 categories)",
    )
    # The one without covariates is there as before.
    plain = by_lstsq(fd.mean(axis=1), design()[:, :0], means)
    assert_allclose(float(row["median_abs_r"]), np.median(np.abs(plain)), rtol=1e-9)
    said = json.loads((tmp_path / f"{BASE}_qcfcpartial.json").read_text())
    assert said["Covariates"] == ["age", "site (3 categories)"]
    assert f"age, site of {raw / 'participants.tsv'}" in told.out


def test_by_run_the_covariates_are_those_of_the_participant(tmp_path, raw, capsys):
    fd, z, _ = plant(tmp_path)
    group(capsys, tmp_path, "--covariates", "age", "--group-unit", "run")
    ages = np.repeat(AGES, 2)[:, None].astype(float)
    r = by_lstsq(fd.ravel(), ages, z.reshape(-1, 15))
    _, found = read_square(tmp_path / f"{BASE}_qcfcpartial.tsv")
    assert_allclose(found[UPPER], r, rtol=1e-9)


def test_processes_change_nothing(tmp_path, raw, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person in range(1, 81):
        tree.run(f"sub-{person:02d}_task-rest", correlation(rng), fd=rng.random())
    ages = {"age": rng.integers(20, 60, 80).tolist()}
    people = [f"{k:02d}" for k in range(1, 81)]  # sub- may be missing
    rows = zip(people, *ages.values(), strict=True)
    write_tsv(raw / "participants.tsv", ["participant_id", "age"], rows)
    asked = ["--covariates", "age", "--permutations", 20, "--confidence"]
    tables = set()
    for n_procs in (1, 2):
        group(capsys, tmp_path, *asked, "--n-procs", n_procs)
        files = sorted(tmp_path.glob("group_*.tsv"))
        tables.add(b"".join(path.read_bytes() for path in files))
    assert len(tables) == 1


def test_who_has_no_covariate_is_told_and_left_out(tmp_path, raw, capsys):
    fd, z, _ = plant(tmp_path)
    ages = ["n/a" if k in (2, 7) else age for k, age in enumerate(AGES)]
    write_people(raw, age=ages)
    told, row = group(capsys, tmp_path, "--covariates", "age")
    kept = [k for k in range(N) if k not in (2, 7)]
    r = by_lstsq(fd.mean(axis=1)[kept], design()[kept, :1], z.mean(axis=1)[kept])
    _, found = read_square(tmp_path / f"{BASE}_qcfcpartial.tsv")
    assert_allclose(found[UPPER], r, rtol=1e-9)
    words = "2 of 12 participants have no age in participants.tsv"
    assert words in told.out
    assert "sub-03, sub-08" in told.out
    assert (row["n_units_partial"], row["n_participants"]) == ("10", "12")
    notes = json.loads((tmp_path / f"{BASE}_qcfcpartial.json").read_text())["Warnings"]
    assert any(words in note for note in notes)


@pytest.mark.parametrize(
    ("columns", "asked", "words", "used"),
    [
        (
            {"age": [30] * N},
            ["age", "sex"],
            "age is the same for all",
            "sex (2 categories)",
        ),
        (
            {"months": [12 * age for age in AGES]},
            ["age", "months"],
            "months is told by the others before it: it is left out",
            "age",
        ),
        (
            {"scanner": [{"Genf": "b"}.get(site, "a") for site in SITES]},
            ["site", "scanner"],
            "scanner (2 categories) is told by the others",
            "site (3 categories)",
        ),
    ],
)
def test_useless_covariates_are_told(
    tmp_path, raw, capsys, columns, asked, words, used
):
    plant(tmp_path)
    write_people(raw, **columns)
    told, row = group(capsys, tmp_path, "--covariates", *asked)
    assert words in told.out
    assert row["covariates"] == used
    assert row["median_abs_r_partial"] != "n/a"


def test_a_reason_is_told_once_for_all_groups(tmp_path, raw, capsys):
    tree, rng = Tree(tmp_path), np.random.default_rng(7)
    for person in range(1, 8):
        for desc in ("24P", "36P"):
            fd = 0.1 * person
            tree.run(f"sub-{person:02d}_task-rest", correlation(rng), fd=fd, desc=desc)
    write_people(raw, sex=["M", "F", "NA", "nan"] * 3, age=[30] * N)
    asked = [raw, tmp_path, "group", "--stack", "none", "--covariates"]
    told = run(capsys, *asked, "age", "sex")
    for reason in (
        "desc-24P_qcfcpartial.tsv and 1 table more: the covariate age is the same",
        "qcfcpartial.tsv and 1 table more: the covariate sex has the category NA, nan",
    ):
        assert told.out.count(reason) == 1
    assert told.out.count("is the same for all") == 1
    write_people(raw, sex=[f"X{person}" for person in range(N)])
    told = run(capsys, *asked, "sex")
    row, _ = read_rows(tmp_path / "group_strategies.tsv")
    assert "Partial QC-FC: 7 have motion" in row["reason"]
    reason = row["reason"].partition(" No participant")[0]
    assert told.out.count(f", none with covariates. {reason}") == 2


def test_numbers_are_categories_where_something_says_so(tmp_path, raw, capsys):
    plant(tmp_path)
    codes = {"Basel": 1, "Bern": 2, "Genf": 3}
    write_people(raw, site=[codes[site] for site in SITES])
    _, as_number = group(capsys, tmp_path, "--covariates", "site")
    _, by_word = group(capsys, tmp_path, "--covariates", "site:category")
    levels = {"site": {"Levels": {str(k): name for name, k in codes.items()}}}
    (raw / "participants.json").write_text(json.dumps(levels))
    _, by_levels = group(capsys, tmp_path, "--covariates", "site")
    assert as_number["covariates"] == "site"
    assert by_word["covariates"] == by_levels["covariates"] == "site (3 categories)"
    assert by_word["median_abs_r_partial"] == by_levels["median_abs_r_partial"]
    assert by_word["median_abs_r_partial"] != as_number["median_abs_r_partial"]


@pytest.mark.parametrize(
    ("columns", "asked", "words"),
    [
        ({}, ["agee"], "no column agee. Did you mean age? It has age, site, sex."),
        ({"age": ["89+", *AGES[1:]]}, ["age"], "no numbers beside others: '89+'"),
        # Numbers to a person, and not to Python; and one to Python alone.
        ({"age": [f"-1,{age}" for age in AGES]}, ["age"], "'-1,20'"),
        ({"age": [f",{age}" for age in AGES]}, ["age"], "no numbers beside others"),
        ({"age": [f"{age}_0" for age in AGES]}, ["age"], "'20_0'"),
        ({}, ["age:number"], "only :category can follow"),
        ({}, ["age", "site", "age:category"], "names age more than once"),
    ],
)
def test_covariates_that_cannot_be_read_stop_before_anything_is_written(
    tmp_path, raw, capsys, columns, asked, words
):
    plant(tmp_path)
    write_people(raw, **columns)
    code = 64 if ":" in asked[-1] else 65
    options = ["group", "--covariates", *asked]
    told = run(capsys, raw, tmp_path, *options, code=code)
    assert words in " ".join(told.err.split())
    assert not [*tmp_path.glob("group_*")]


@pytest.mark.parametrize("broken", ["text", "link"])
def test_codes_that_nobody_can_look_up_are_no_numbers(tmp_path, raw, capsys, broken):
    plant(tmp_path, 2)
    beside = raw / "participants.json"
    if broken == "text":
        beside.write_text('{"site": {"Levels": {"1": "Basel"')
    else:
        beside.symlink_to("nowhere.json")
    asked = ["group", "--covariates"]
    told = run(capsys, raw, tmp_path, *asked, "age", code=65)
    assert f"{beside}: " in told.err
    assert not [*tmp_path.glob("group_*")]
    run(capsys, raw, tmp_path, *asked, "age:category")


def test_two_rows_of_a_participant_are_refused(tmp_path, raw, capsys):
    plant(tmp_path)
    with (raw / "participants.tsv").open("a") as file:
        file.write("sub-01\t21\tBern\tM\n")
    told = run(capsys, raw, tmp_path, "group", "--covariates", "age", code=65)
    assert "sub-01 has more than one row" in told.err


def test_where_the_table_is_looked_for(tmp_path, capsys):
    plant(tmp_path / "out")
    raw = tmp_path / "ds" / "derivatives" / "fmriprep"
    raw.mkdir(parents=True)
    out, asked = tmp_path / "out", ["group", "--covariates", "age"]
    told = run(capsys, raw, out, *asked, code=66)
    assert str(raw / "participants.tsv") in told.err
    assert "--participants-file" in told.err
    above = write_people(tmp_path / "ds")
    assert str(above) in run(capsys, raw, out, *asked).out
    near = write_people(raw)
    assert str(near) in run(capsys, raw, out, *asked).out
    given = run(capsys, raw, out, *asked, "--participants-file", tmp_path / "ds")
    assert str(above) in given.out


@pytest.mark.parametrize("n", [1, 3, 5])
def test_few_participants_are_words(tmp_path, raw, capsys, n):
    plant(tmp_path, n)
    asked = ["--covariates", "age", "site", "--permutations", 20, "--confidence"]
    _, row = group(capsys, tmp_path, *asked, "--group-weights", "degrees_of_freedom")
    numbers = ("median_abs_r_partial", "share_fdr_partial", "distance_rho_partial")
    numbers += ("median_abs_r_p", "distance_rho_p", "distance_rho_low")
    assert {row[key] for key in numbers} == {"n/a"}
    assert "Partial QC-FC" in row["reason"]
    assert row["n_permutations"] == "0"
    assert not (tmp_path / f"{BASE}_qcfcpartial.tsv").exists()


def test_no_participant_in_the_table_is_words(tmp_path, raw, capsys):
    plant(tmp_path)
    (raw / "participants.tsv").write_text("participant_id\tage\nsub-99\t30\n")
    told, row = group(capsys, tmp_path, "--covariates", "age", "--permutations", 9)
    assert row["median_abs_r_partial"] == row["median_abs_r_p"] == "n/a"
    assert "12 of 12 participants have no age" in told.out
    assert "is the same for all" not in told.out
    assert row["median_abs_r"] != "n/a"


@pytest.mark.parametrize("covariates", [[], ["--covariates", "age"]])
def test_permutations_tell_motion_from_chance(tmp_path, raw, capsys, covariates):
    rng, tree = np.random.default_rng(7), Tree(tmp_path)
    for person in range(N):
        moved = rng.random()
        matrix = correlation(rng, n_volumes=400)
        matrix = np.tanh(np.arctanh(np.where(np.eye(6), 0, matrix)) + 0.5 * moved)
        matrix[np.diag_indices(6)] = 1
        tree.run(f"sub-{person + 1:02d}_task-rest", matrix, fd=moved)
    asked = ["--permutations", 199, "--permutation-seed", 5, *covariates]
    _, row = group(capsys, tmp_path, *asked)
    assert float(row["median_abs_r_p"]) == 1 / 200
    assert float(row["distance_rho_low"]) < float(row["distance_rho_high"])
    (motion,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert (motion["n_permutations"], motion["n_edges_permuted"]) == ("199", "15")
    said = json.loads((tmp_path / "group_strategies.json").read_text())
    assert said["PermutationSeed"] == 5
    first = (tmp_path / "group_strategies.tsv").read_bytes()
    group(capsys, tmp_path, *asked)
    assert (tmp_path / "group_strategies.tsv").read_bytes() == first


def test_confidence_intervals_of_each_edge(tmp_path, raw, capsys):
    fd, z, _ = plant(tmp_path)
    group(capsys, tmp_path, "--confidence", "--covariates", "age")

    def read(suffix):
        return read_square(tmp_path / f"{BASE}_{suffix}.tsv")[1][UPPER]

    for suffix, held in (("qcfc", 0), ("qcfcpartial", 1)):
        r = by_lstsq(fd.mean(axis=1), design()[:, :held], z.mean(axis=1))
        reach = scipy.stats.norm.ppf(0.975) / np.sqrt(N - held - 3)
        assert_allclose(read(f"{suffix}low"), np.tanh(np.arctanh(r) - reach))
        assert_allclose(read(f"{suffix}high"), np.tanh(np.arctanh(r) + reach))
    icc = [anova_by_hand(list(z[..., e])) for e in range(15)]
    assert_allclose(read("icc"), icc, rtol=1e-9)
    # Of two runs each, Spearman and Brown.
    assert_allclose(read("iccmean"), 2 * np.array(icc) / (1 + np.array(icc)), rtol=1e-9)
    assert (read("icclow") < read("icc")).all()
    assert (read("icc") < read("icchigh")).all()
    assert (read("iccmeanlow") < read("iccmean")).all()
    assert (read("iccmean") < read("iccmeanhigh")).all()
    (row,) = read_rows(tmp_path / "group_reliability.tsv")
    for column, suffix in (
        ("icc_low_median", "icclow"),
        ("icc_mean_median", "iccmean"),
        ("icc_mean_high_median", "iccmeanhigh"),
    ):
        assert_allclose(float(row[column]), np.median(read(suffix)), rtol=1e-9)
    assert row["runs_per_participant"] == "2.0"


def test_means_weighted_by_degrees_of_freedom(tmp_path, raw, capsys):
    _, z, weights = plant(tmp_path)
    _, _plain = group(capsys, tmp_path)
    before = (tmp_path / f"{BASE}_relmat.tsv").read_bytes()
    group(capsys, tmp_path, "--group-weights", "degrees_of_freedom")
    mean = np.average(z.reshape(-1, 15), axis=0, weights=weights.ravel())
    _, found = read_square(tmp_path / f"{BASE}_relmatweighted.tsv")
    assert_allclose(found[UPPER], np.tanh(mean), rtol=1e-9)
    assert (np.diag(found) == 1).all()
    units = np.stack([np.average(z[k], axis=0, weights=weights[k]) for k in range(N)])
    w = weights.sum(axis=1)
    variance = w @ (units - mean) ** 2 / (w.sum() - (w**2).sum() / w.sum())
    _, found = read_square(tmp_path / f"{BASE}_relmatweightedsd.tsv")
    assert_allclose(found[UPPER], np.sqrt(variance), rtol=1e-9)
    # The one in which all count alike stays.
    assert (tmp_path / f"{BASE}_relmat.tsv").read_bytes() == before
    group(capsys, tmp_path)
    assert not (tmp_path / f"{BASE}_relmatweighted.tsv").exists()


def test_runs_without_degrees_of_freedom_weigh_nothing_and_are_told(
    tmp_path, raw, capsys
):
    _, z, weights = plant(tmp_path)
    for path in tmp_path.glob("sub-02/func/*_run-1_*stat-*.json"):
        content = json.loads(path.read_text())
        del content["DegreesOfFreedom"]
        path.write_text(json.dumps(content))
    told, _ = group(capsys, tmp_path, "--group-weights", "degrees_of_freedom")
    assert "runs without degrees of freedom, which weigh nothing: 1 of 24" in told.out
    weights[1, 0] = 0
    mean = np.average(z.reshape(-1, 15), axis=0, weights=weights.ravel())
    _, found = read_square(tmp_path / f"{BASE}_relmatweighted.tsv")
    assert_allclose(found[UPPER], np.tanh(mean), rtol=1e-9)


def test_another_measure_of_motion(tmp_path, raw, capsys):
    _, z, _ = plant(tmp_path)
    _told, row = group(capsys, tmp_path, "--fd-measure", "fd_max")
    moved = np.array(AGES) + 1.5
    r = by_lstsq(moved, design()[:, :0], z.mean(axis=1))
    assert_allclose(read_square(tmp_path / f"{BASE}_qcfc.tsv")[1][UPPER], r, rtol=1e-9)
    assert row["motion_measure"] == "fd_max"
    said = json.loads((tmp_path / f"{BASE}_qcfc.json").read_text())
    assert said["MotionMeasure"] == "fd_max"
    assert "framewise" not in said["Description"]
    (motion,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert_allclose(float(motion["fd_mean"]), moved.mean())


def test_who_is_not_in_qcfc_is_told(tmp_path, raw, capsys):
    """As where some runs were made by a release that did not tell a measure yet."""
    tree, rng = Tree(tmp_path), np.random.default_rng(9)
    for person in range(1, 8):
        known = {"MeanRMSD": 0.1 * person} if person > 2 else {}
        for number in (1, 2):
            name = f"sub-{person:02d}_task-rest_run-{number}"
            tree.run(name, correlation(rng), fd=0.2 * person, **known)
    told, row = group(capsys, tmp_path, "--fd-measure", "rmsd_mean")
    assert row["median_abs_r"] != "n/a"
    assert "_qcfc.tsv: 2 of 7 participants have no rmsd_mean: not in QC-FC." in told.out
    options = ["--group-unit", "run", "--confidence"]
    told, _ = group(capsys, tmp_path, *options)
    assert "not in QC-FC" not in told.out
    assert "take the runs of one participant for independent" in told.out
    told, _ = group(capsys, tmp_path, "--confidence")
    assert "independent" not in told.out


def test_a_measure_that_runs_lack_is_words(tmp_path, raw, capsys):
    plant(tmp_path)
    _, row = group(capsys, tmp_path, "--fd-measure", "rmsd_mean")
    assert row["median_abs_r"] == "n/a"
    assert "0 participants have rmsd_mean; 4 are needed" in row["reason"]


def test_a_column_of_the_tables_of_outliers(tmp_path, raw, capsys):
    """As a filtered FD that a strategy has, whatever it is called."""
    rng, tree = np.random.default_rng(3), Tree(tmp_path)
    z, moved = [], []
    for person in range(1, 7):
        matrix, own = correlation(rng), rng.random(5)
        run_name = f"sub-{person:02d}_task-rest"
        tree.run(run_name, matrix, fd=0.1 * person, desc="24P")
        folder, _ = tree.stem(run_name)
        rows = [[0, value] for value in ["n/a", *own.tolist()]]
        path = folder / f"{run_name}_space-{SPACE}_desc-24P_outliers.tsv"
        write_tsv(path, ["outlier", "fd"], rows)
        tree.write_json(path, {})
        z.append(np.arctanh(matrix[UPPER]))
        moved.append(own.mean())
        # That of a condition is of a series with another desc-.
        told = {"Condition": "go", "CombinedTables": ["d" * 64]}
        path = tree.relmat(run_name, matrix, desc="24Pgo", **told)
        content = json.loads(path.with_suffix(".json").read_text())
        content["Sources"] = [s.replace("24Pgo", "24P") for s in content["Sources"]]
        tree.write_json(path, content)
    options = ["group", "--fd-measure", "fd", "--stack", "none"]
    run(capsys, raw, tmp_path, *options)
    r = by_lstsq(np.array(moved), np.empty((6, 0)), np.array(z))
    rows = read_rows(tmp_path / "group_strategies.tsv")
    assert [row["desc_id"] for row in rows] == ["24P", "24Pgo"]
    for row in rows:
        assert_allclose(float(row["median_abs_r"]), np.median(np.abs(r)), rtol=1e-9)


def test_a_mean_over_volumes_of_several_runs_is_over_all_of_them(tmp_path, raw, capsys):
    rng, tree = np.random.default_rng(8), Tree(tmp_path)
    z, moved = [], []
    for person in range(1, 7):
        name, series, volumes = f"sub-{person:02d}_task-rest", [], []
        for number, n_volumes in ((1, 3), (2, 9)):
            key = f"{name}_run-{number}"
            tree.run(key, correlation(rng), fd=0.1)
            folder, stem = tree.stem(key)
            inside = folder.relative_to(tmp_path).as_posix()
            series.append(f"bids::{inside}/{stem}_stat-mean_timeseries.tsv")
            volumes += (own := rng.random(n_volumes).tolist())
            path = folder / f"{key}_space-{SPACE}_outliers.tsv"
            write_tsv(path, ["fd"], [[value] for value in own])
            tree.write_json(path, {})
        matrix = correlation(rng)
        path = tree.relmat(name, matrix)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        runs = {"CombinedRuns": ["run-1", "run-2"], "CombinedTables": ["a", "b"]}
        tree.write_json(path, sidecar | {"Sources": series, **runs})
        z.append(np.arctanh(matrix[UPPER]))
        moved.append(np.mean(volumes))
    options = ["--fd-measure", "fd", "--group-unit", "combined"]
    _, row = group(capsys, tmp_path, *options)
    r = by_lstsq(np.array(moved), np.empty((6, 0)), np.array(z))
    assert_allclose(float(row["median_abs_r"]), np.median(np.abs(r)), rtol=1e-9)


def test_matrices_over_runs_are_those_of_their_participants(tmp_path, raw, capsys):
    rng, tree = np.random.default_rng(6), Tree(tmp_path)
    z, moved = [], []
    for person in range(1, 8):
        name, most, series = f"sub-{person:02d}_task-rest", rng.random(2), []
        for number in (1, 2):
            of_run = {"MaxFramewiseDisplacement": most[number - 1]}
            key = f"{name}_run-{number}"
            tree.run(key, correlation(rng), fd=0.1, **of_run)
            folder, stem = tree.stem(key)
            inside = folder.relative_to(tmp_path).as_posix()
            series.append(f"bids::{inside}/{stem}_stat-mean_timeseries.tsv")
        matrix = correlation(rng)
        path = tree.relmat(name, matrix, DegreesOfFreedom=90 + person)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        runs = {"CombinedRuns": ["run-1", "run-2"], "CombinedTables": ["a", "b"]}
        sidecar |= {"Sources": series, **runs}
        tree.write_json(path, sidecar)
        z.append(np.arctanh(matrix[UPPER]))
        moved.append(most.mean())
    asked = ["--covariates", "age", "--fd-measure", "fd_max", "--permutations", 30]
    asked += ["--group-unit", "combined", "--group-weights", "degrees_of_freedom"]
    told, row = group(capsys, tmp_path, *asked)
    r = by_lstsq(np.array(moved), design(7)[:, :1], np.array(z))
    assert_allclose(float(row["median_abs_r_partial"]), np.median(np.abs(r)), rtol=1e-9)
    assert row["n_permutations"] == "30"
    assert f"p {float(row['median_abs_r_p']):.4f}" in told.out
    # Matrices over runs are no runs.
    assert "14 runs of 7 participants" in told.out
    write_group_page(tmp_path)
    assert "14 runs of 7 participants" in (tmp_path / "group.html").read_text()
    mean = np.tanh(np.average(z, axis=0, weights=np.arange(91, 98)))
    _, found = read_square(tmp_path / f"{BASE}_relmatweighted.tsv")
    assert_allclose(found[UPPER], mean, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fd-measure", "rmsd"], "Did you mean rmsd_mean"),
        (["--permutations", -1], "from 0 to 1000000"),
        (["--permutation-seed", 3], "no effect without --permutations"),
        (["--permutations", 9, "--group-unit", "run"], "cannot be exchanged"),
        (["--participants-file", "."], "no effect without --covariates"),
    ],
)
def test_options_that_make_no_sense(tmp_path, raw, capsys, options, words):
    plant(tmp_path, 1)
    told = run(capsys, raw, tmp_path, "group", *options, code=64)
    assert words in " ".join(told.err.split())


def test_all_matrices_without_a_value(tmp_path, raw, capsys):
    tree = Tree(tmp_path)
    for person in range(1, 6):
        nothing = np.full((6, 6), np.nan)
        tree.run(f"sub-0{person}_task-rest", nothing, fd=0.1 * person)
    asked = ["--covariates", "age", "--permutations", 9, "--confidence"]
    asked += ["--group-weights", "degrees_of_freedom"]
    told = run(capsys, raw, tmp_path, "group", *asked)
    assert "5 left out" in told.out
    assert not [*tmp_path.glob("group_qcfc.tsv")]
