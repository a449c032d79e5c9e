"""The group level: manifest and coverage matrix from participant outputs alone."""

import csv
import json
import shutil

import numpy as np
from support import datasets
from support.calls import run
from support.datasets import INDEX, NAMES

from bids_roi.images.nifti import write_image


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def prepare(tmp_path, atlas, capsys):
    names = [
        "sub-01_ses-a_task-rest_run-01",
        "sub-01_ses-a_task-rest_run-02",
        "sub-02_task-rest",
    ]
    root = datasets.write_dataset(tmp_path / "in", names)
    bad = next(root.glob("sub-01/ses-a/func/*run-02*_bold.nii.gz"))
    bad.write_bytes(b"")
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas, code=1)
    shutil.rmtree(root)  # group never reads the images
    return out


def test_manifest_and_coverage(tmp_path, atlas, capsys):
    out = prepare(tmp_path, atlas, capsys)
    shown = run(capsys, tmp_path, out, "group")
    assert "1 failed" in shown.out
    runs = rows(out / "group_runs.tsv")
    assert [r["participant_id"] for r in runs] == ["sub-01", "sub-01", "sub-02"]
    assert [r["session_id"] for r in runs] == ["ses-a", "ses-a", "n/a"]
    assert [r["run_id"] for r in runs] == ["01", "02", "n/a"]
    assert [r["status"] for r in runs] == ["done", "failed", "done"]
    assert "0 bytes" in runs[1]["reason"]
    assert runs[0]["n_volumes"] == "12"
    assert runs[0]["repetition_time"] == "2.0"
    name = f"group_space-{datasets.SPACE}_atlas-Toy_coverage.tsv"
    coverage = rows(out / name)
    assert len(coverage) == 2
    for row, path in zip(
        coverage, sorted(out.glob("sub-*/**/*_dseg.tsv")), strict=True
    ):
        regions = {r["name"]: float(r["coverage"]) for r in rows(path)}
        assert {n: float(row[n]) for n in NAMES} == regions
        lost = np.mean([float(row[n]) for n in NAMES])
        match = [r for r in runs if r["regions_file"].endswith(path.name)]
        assert abs(float(match[0]["coverage_mean"]) - lost) < 1e-4


def test_twice_is_the_same(tmp_path, atlas, capsys):
    out = prepare(tmp_path, atlas, capsys)
    run(capsys, tmp_path, out, "group")
    before = datasets.snapshot(out)
    run(capsys, tmp_path, out, "group")
    assert datasets.snapshot(out) == before


def test_mixed_options_are_refused_by_name(tmp_path, dataset, atlas, capsys):
    out = tmp_path / "out"
    common = [dataset, out, "participant", "--atlas-file", atlas, "--participant-label"]
    run(capsys, *common, "01")
    run(capsys, *common, "02", "--min-coverage", 0.2)
    shown = run(capsys, dataset, out, "group", code=65)
    assert "different options" in shown.err
    assert "sub-01" in shown.err
    assert "sub-02" in shown.err


def test_outputs_without_logs_still_count(tmp_path, dataset, atlas, capsys):
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    shutil.rmtree(out / "logs")
    run(capsys, dataset, out, "group")
    assert [r["status"] for r in rows(out / "group_runs.tsv")] == ["done", "done"]


def test_participants_own_segmentations_are_one_atlas(tmp_path, capsys):
    root, out = datasets.write_dataset(tmp_path / "in", ()), tmp_path / "out"
    for shift, person in enumerate(("01", "02")):
        stem = f"sub-{person}_task-rest_space-T1w"
        path = datasets.write_run(root, stem)
        own = np.roll(datasets.labels(), shift, axis=1)  # no two heads are the same
        image = path.with_name(f"{stem}_desc-own_dseg.nii.gz")
        write_image(image, own, datasets.oblique())
    table = "".join(f"{i}\t{n}\n" for i, n in zip(INDEX, NAMES, strict=True))
    (root / "desc-own_dseg.tsv").write_text(f"index\tname\n{table}")
    run(capsys, root, out, "participant", "--atlas", "subject:own", "--offline")
    run(capsys, root, out, "group")
    assert [r["status"] for r in rows(out / "group_runs.tsv")] == ["done", "done"]
    assert len(rows(out / "group_space-T1w_atlas-own_coverage.tsv")) == 2
    sidecars = [json.loads(p.read_text()) for p in out.glob("sub-*/func/*series.json")]
    assert len({s["AtlasImageDigest"] for s in sidecars}) == 2
    assert len({s["OptionsDigest"] for s in sidecars}) == 2
    only = ["--participant-label", "02", "--min-coverage", 0.2, "--overwrite"]
    run(capsys, root, out, "participant", "--atlas", "subject:own", "--offline", *only)
    shown = run(capsys, root, out, "group", code=65)
    assert "different options" in shown.err
