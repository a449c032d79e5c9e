"""An atlas that a run is not given: another space is no fault, damage is one."""

import csv
import json

import numpy as np
import pytest
from support import datasets
from support.calls import run
from support.datasets import INDEX, NAMES, SPACE, write_image

ONE, TWO = "sub-01_task-rest_space-T1w", "sub-02_task-rest_space-T1w"


def own_of(root, stem, desc="own"):
    person = stem.partition("_")[0]
    return root / person / "func" / f"{stem}_desc-{desc}_dseg.nii.gz"


@pytest.fixture
def native(tmp_path):
    """Two participants in T1w space, each with a segmentation of its own."""
    root = datasets.write_dataset(tmp_path / "in", ())
    for stem in (ONE, TWO):
        datasets.write_run(root, stem)
        write_image(own_of(root, stem), datasets.labels(), datasets.oblique())
    table = "".join(f"{i}\t{n}\n" for i, n in zip(INDEX, NAMES, strict=True))
    (root / "desc-own_dseg.tsv").write_text(f"index\tname\n{table}")
    return root


def records(out):
    rows = [
        json.loads(line)
        for path in out.glob("logs/sub-*/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {(r["run"].partition("/")[0], r["atlas"]): r for r in rows}


def group_rows(out):
    with (out / "group_runs.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def fraction(path):
    write_image(path, datasets.labels() * np.float32(0.3), datasets.oblique())


def link(path):
    path.unlink()
    path.symlink_to("../../.git/annex/objects/x")


DAMAGE = {
    "truncated": (truncate, "it is truncated"),
    "without its CRC": (lambda p: p.write_bytes(p.read_bytes()[:-6]), "truncated"),
    "missing": (lambda p: p.unlink(), "no segmentation desc-own"),
    "empty": (lambda p: p.write_bytes(b""), "0 bytes"),
    "annexed": (link, "a link to content that is not here"),
    "not labels": (fraction, "no whole number"),
    "text": (lambda p: p.write_text("<html>no such file</html>"), "own_dseg.nii.gz"),
}


@pytest.mark.parametrize("who", [ONE, TWO], ids=["first", "second"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_one_bad_segmentation_fails_its_run_only(kind, who, native, tmp_path, capsys):
    spoil, words = DAMAGE[kind]
    spoil(own_of(native, who))
    out = tmp_path / "out"
    arguments = ["--atlas", "subject:own", "--offline"]
    shown = run(capsys, native, out, "participant", *arguments, code=1)
    person, other = ("sub-01", "sub-02") if who == ONE else ("sub-02", "sub-01")
    assert words in shown.err
    assert person in shown.err
    assert "1  failed" in shown.out
    assert words in shown.out
    assert "not in the run's space" not in shown.out + shown.err
    found = records(out)
    assert found[person, "own"]["status"] == "failed"
    assert words in found[person, "own"]["reason"]
    assert found[other, "own"]["status"] == "done"
    run(capsys, native, out, "group")
    status = {r["participant_id"]: r["status"] for r in group_rows(out)}
    assert status == {person: "failed", other: "done"}


def test_a_segmentation_that_only_this_run_lacks_in_its_space(native, tmp_path, capsys):
    """FreeSurfer's in anat is of T1w; the others have theirs resampled as well."""
    for person in ("01", "02"):
        stem = f"sub-{person}_task-rest_space-{SPACE}"
        datasets.write_run(native, stem)
        own = own_of(native, stem)
        write_image(own, datasets.labels(), datasets.oblique())
    own.unlink()
    out = tmp_path / "out"
    arguments = ["--atlas", "subject:own", "--space", SPACE]
    shown = run(capsys, native, out, "participant", *arguments, code=1)
    assert "there is one in T1w" in shown.err
    assert "other runs of this dataset in this space have one" in shown.err


def test_another_space_is_skipped_in_its_own_words(native, tmp_path, capsys):
    datasets.write_run(native, f"sub-01_task-rest_space-{SPACE}")
    out = tmp_path / "out"
    shown = run(capsys, native, out, "participant", "--atlas", "subject:own")
    assert "1  skipped" in shown.out
    assert "skipped: sub-01/func/" in shown.out
    assert f"in space {SPACE} (there is one in T1w)" in shown.out
    assert "failed" not in shown.out


def test_every_bad_atlas_file_is_told_once_and_a_good_one_serves(
    dataset, atlas, tmp_path, capsys
):
    bad = tmp_path / f"tpl-{SPACE}_atlas-Frac_dseg.nii.gz"
    fraction(bad)
    cut = tmp_path / f"tpl-{SPACE}_atlas-Cut_dseg.nii.gz"
    write_image(cut, datasets.labels(), datasets.oblique())
    truncate(cut)
    out = tmp_path / "out"
    arguments = ["--atlas-file", atlas, bad, cut]
    shown = run(capsys, dataset, out, "participant", *arguments, code=65)
    for name in ("Frac", "Cut"):
        assert shown.err.count(f"atlas {name}:") == 1
    assert "2  extracted" in shown.out
    assert "4  failed" in shown.out
    statuses = {(run, name): r["status"] for (run, name), r in records(out).items()}
    assert statuses == {
        (person, name): "done" if name == "Toy" else "failed"
        for person in ("sub-01", "sub-02")
        for name in ("Toy", "Frac", "Cut")
    }


def test_the_first_crash_stops_at_a_bad_segmentation_too(native, tmp_path, capsys):
    truncate(own_of(native, ONE))
    out = tmp_path / "out"
    arguments = ["--atlas", "subject:own", "--stop-on-first-crash"]
    run(capsys, native, out, "participant", *arguments, "--n-procs", 1, code=1)
    assert ("sub-02", "own") not in records(out)
