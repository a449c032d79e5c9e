"""Sidecar, table and record are of one making, or are made again, or refused."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from support import datasets
from support.fault_tools import files_of, leftovers

import bids_roi
from bids_roi.cli import main
from bids_roi.errors import DataError
from bids_roi.outputs import records
from bids_roi.outputs.records import read_all_records, told_digest

RUN = "sub-01_task-rest"
SERIES = f"sub-01/func/{RUN}_space-{datasets.SPACE}_atlas-Toy_stat-mean_desc-Own"
FIRST, OTHER = ("--fd-threshold", "0.5"), ("--fd-threshold", "0.3")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One run with confounds, a strategy, an atlas."""
    base = tmp_path_factory.mktemp("making")
    root = datasets.write_dataset(base / "in", [])
    rng = np.random.default_rng(1)
    data = rng.normal(1000, 5, (*datasets.bold(0).shape[:3], 40)).astype(np.float32)
    datasets.write_run(root, f"{RUN}_space-{datasets.SPACE}", data)
    fd = ["n/a", *(f"{x:.3f}" for x in rng.uniform(0, 0.6, 39))]
    motion = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    moved = rng.normal(0, 0.1, (40, 6)).round(4).astype(str)
    rows = ["\t".join([x, *row]) for x, row in zip(fd, moved, strict=True)]
    table = root / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv"
    table.write_text(
        "\n".join(["\t".join(["framewise_displacement", *motion]), *rows]) + "\n"
    )
    strategy = base / "Own.json"
    content = {"name": "own", "label": "Own", "components": [{"motion": "basic"}]}
    strategy.write_text(json.dumps({**content, "settings": {"detrend": True}}))
    datasets.write_atlas(base / "atlas")
    return base


class Site:
    """A copy of the dataset, and an output folder."""

    def __init__(self, folder, model, server):
        self.root, self.out, self.server = folder / "in", folder / "out", server
        shutil.copytree(model / "in", self.root)
        atlas = model / "atlas" / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
        pair = f"{atlas},{str(atlas).replace('.nii.gz', '.tsv')}"
        self.arguments = [self.root, self.out, "participant", "--atlas-file", pair]
        self.arguments += ["--denoise", "none", str(model / "Own.json"), "--relmat"]
        self.arguments += ["pearson", "--no-report"]

    def run(self, *more, **fault):
        return self.server.run(*self.arguments, *more, **fault)

    def group(self):
        return self.server.run(self.root, self.out, "group", "--no-report")

    def statuses(self):
        lines = (self.out / "group_runs.tsv").read_text().splitlines()
        column = lines[0].split("\t").index("status")
        return [line.split("\t")[column] for line in lines[1:]]

    def changed(self):
        """Times of change, which tell whether a file was made again."""
        return {p: p.stat().st_mtime_ns for p in self.out.rglob("*.tsv")}


@pytest.fixture
def site(tmp_path, model, fault_server):
    return Site(tmp_path, model, fault_server)


@pytest.fixture(scope="module")
def calm(tmp_path_factory, model, fault_server):
    """Trees of calls in which nothing goes wrong, by their option; ``out`` is one."""
    trees = {}
    for options in (OTHER, FIRST):
        calm = Site(tmp_path_factory.mktemp("calm"), model, fault_server)
        done = calm.run(*options)
        assert done.returncode == 0, done.stderr
        trees[options] = files_of(calm.out)
    assert trees[FIRST].keys() == trees[OTHER].keys()
    assert trees[FIRST] != trees[OTHER]
    calm.trees = trees
    return calm


def check_pairs(out):
    """No table lies beside the sidecar of another one, or the group level says so."""
    mixed = []
    for table in out.glob("sub-*/func/*.tsv"):
        told = told_digest(json.loads(table.with_suffix(".json").read_text()))
        if told != hashlib.sha256(table.read_bytes()).hexdigest():
            mixed.append(table)
    return mixed


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("SIGKILL", range(1, 13, 2)),
        ("SIGKILL", range(2, 13, 2)),
        ("SIGTERM", [8]),
        ("SIGINT", [8]),
    ],
)
def test_an_interrupted_overwrite_is_never_taken_for_done(site, calm, name, moments):
    n_mixed = 0
    for after in moments:
        shutil.rmtree(site.out, ignore_errors=True)
        shutil.copytree(calm.out, site.out)
        done = site.run(*OTHER, "--overwrite", after=after, then=name)
        if done.returncode == 0:
            break
        if check_pairs(site.out):
            n_mixed += 1
            group = site.group()
            if group.returncode == 0:
                assert "done" not in site.statuses()[-1:]
        again = site.run(*OTHER)
        if again.returncode:
            assert again.returncode == 1
            assert "--overwrite" in again.stderr
            assert RUN in again.stderr
            again = site.run(*OTHER, "--overwrite")
        assert again.returncode == 0, again.stderr
        found = {k: v for k, v in files_of(site.out).items() if "group" not in k}
        assert found == calm.trees[OTHER]
        statuses = [record.status for record in read_all_records(site.out)]
        assert statuses == ["done"] * 2
        assert leftovers(site.out) == []
    # Odd numbers are the moments after a pair, even ones those within.
    assert bool(n_mixed) == (moments[0] % 2 == 0)


def stopped_call(site, options, after):
    """A call that stops itself after so many renames, as a suspended job does."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from support.fault_tools import signal_after;"
        "signal_after(int(sys.argv.pop(1)), 'SIGSTOP');"
        "from bids_roi.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    tests = Path(__file__).parents[1]
    arguments = [str(a) for a in (*site.arguments, *options, "--executor", "serial")]
    return subprocess.Popen(
        [sys.executable, "-c", script, str(tests), str(after), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def renames_until(site, options, which, monkeypatch):
    """How many files a call renames until the first of that name, this one included."""
    rename, names = os.replace, []

    def replace(source, target):
        rename(source, target)
        names.append(str(target))

    arguments = [*site.arguments, *options, "--executor", "serial"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert main([str(a) for a in arguments]) == 0
    shutil.rmtree(site.out)
    return next(n for n, name in enumerate(names, 1) if name.endswith(which))


@pytest.mark.parametrize("which", ["desc-Own_timeseries.json", "desc-Own_relmat.json"])
def test_two_option_sets_at_once_are_never_mixed(site, calm, which, monkeypatch):
    """One is stopped after a sidecar, the other runs, the first goes on."""
    after = renames_until(site, FIRST, which, monkeypatch)
    first = stopped_call(site, FIRST, after)
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    newest = max(site.out.rglob("sub-*/func/*"), key=_written)
    assert newest.name.endswith(which)
    second = site.run(*OTHER)
    os.kill(first.pid, 18)
    _, said = first.communicate(timeout=120)
    codes = (first.returncode, second.returncode)
    assert codes != (0, 0)
    if first.returncode:
        assert "another call has replaced the file" in said
        assert "sub-01/func/" in said
    for options in (FIRST, OTHER):
        again = site.run(*options)
        found = files_of(site.out)
        if again.returncode == 0:
            assert found == calm.trees[options]
        else:
            assert "sub-01/func/" in again.stderr


def _written(path):
    return path.stat().st_ctime_ns


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *(("dseg", "emptied"), ("relmat", "zeroed"), ("outliers", "cut")),
        *(("timeseries", "emptied"), ("timeseries", "cut"), ("timeseries", "zeroed")),
        *(("outliers", "removed"), ("relmat", "removed")),
    ],
)
def test_a_damaged_table_is_told_and_made_again(site, calm, kind, damage):
    shutil.copytree(calm.out, site.out)
    tables = sorted(site.out.glob(f"sub-01/func/*_{kind}.tsv"))
    table = tables[-1]
    content = table.read_bytes()
    kept = {"emptied": b"", "cut": content[:-20], "zeroed": bytes(len(content))}
    if damage == "removed":
        table.unlink()
    else:
        table.write_bytes(kept[damage])
        done = site.group()
        if kind != "outliers":
            if done.returncode == 0:
                told = (site.out / "group_runs.tsv").read_text()
                assert table.name in told
            else:
                assert table.name in done.stderr
        read = {"dseg": "regions", "relmat": "relmats"}.get(kind, kind)
        outputs = bids_roi.load(site.out)
        chosen = {} if kind in ("dseg", "outliers") else {"strategy": "none"}
        if kind in ("timeseries", "relmat"):
            chosen = {"strategy": "Own" if "desc-Own" in table.name else "none"}
        with pytest.raises(DataError, match="its sidecar was written with"):
            getattr(outputs, read)(**chosen)
        if kind == "outliers":  # which tells the volumes of a series
            with pytest.raises(DataError, match="its sidecar was written with"):
                outputs.timeseries(denoise="Own")
    done = site.run(*FIRST)
    assert done.returncode == 0, done.stderr
    found = {k: v for k, v in files_of(site.out).items() if "group" not in k}
    assert found == calm.trees[FIRST]


def test_a_sidecar_of_other_settings_is_never_taken_for_done(site, calm):
    """The JSON of another call, put beside the table of this one."""
    assert site.run(*FIRST).returncode == 0
    name = f"{SERIES}_timeseries.json"
    (site.out / name).write_bytes(calm.trees[OTHER][name])
    group = site.group()
    assert (site.out / "group_runs.tsv").read_text().count(
        "sidecar"
    ) or group.returncode
    done = site.run(*OTHER)
    assert done.returncode == 1
    assert "--fd-threshold" in done.stderr
    done = site.run(*FIRST)
    assert done.returncode == 1
    assert RUN in done.stderr


def test_a_change_that_keeps_size_and_time_is_found_by_verify(site, calm):
    assert site.run(*FIRST).returncode == 0
    table = site.out / f"{SERIES}_timeseries.tsv"
    content, state = table.read_bytes(), table.stat()
    digit = content.rindex(b"1")
    table.write_bytes(content[:digit] + b"2" + content[digit + 1 :])
    os.utime(table, ns=(state.st_atime_ns, state.st_mtime_ns))
    before = site.changed()
    assert site.run(*FIRST).returncode == 0
    assert site.changed() == before  # what size and time cannot tell
    assert site.run(*FIRST, "--verify").returncode == 0
    assert files_of(site.out) == calm.trees[FIRST]


def test_a_copy_is_read_once_and_not_made_again(site, monkeypatch):
    assert site.run(*FIRST).returncode == 0
    copy = site.out.with_name("copy")
    shutil.copytree(site.out, copy, copy_function=shutil.copyfile)
    site.out = copy
    site.arguments[1] = copy
    before = site.changed()
    assert before
    read = []
    file_digest = records.file_digest
    monkeypatch.setattr(
        records, "file_digest", lambda path: read.append(path) or file_digest(path)
    )
    arguments = [str(a) for a in (*site.arguments, *FIRST, "--executor", "serial")]
    assert main(arguments) == 0
    assert {path.name for path in read} == {
        path.name for path in before if "sub-01" in path.parts
    }
    read.clear()
    assert main(arguments) == 0
    assert read == []
    assert site.changed() == before


def test_byte_identical_inputs_elsewhere_are_the_same(site):
    """A fresh clone or a plain copy of the input has other times of change."""
    assert site.run(*FIRST).returncode == 0
    before = site.changed()
    elsewhere = site.root.with_name("elsewhere")
    shutil.copytree(site.root, elsewhere, copy_function=shutil.copyfile)
    shutil.rmtree(site.root)
    elsewhere.rename(site.root)
    for path in site.root.rglob("*"):
        os.utime(path, (time.time() + 60,) * 2)
    done = site.run(*FIRST)
    assert done.returncode == 0, done.stderr
    assert site.changed() == before
    # Another number in the confounds is another input.
    (table,) = site.root.rglob("*confounds_timeseries.tsv")
    table.write_text(table.read_text().replace("\t0.", "\t0.9", 1))
    assert site.run(*FIRST).returncode == 0
    assert site.changed() != before


def annex(root, key):
    """Turn files into links to what git-annex keeps, as in a DataLad clone."""
    store = root.with_name("annex")
    store.mkdir()
    for path in [p for p in root.rglob(key) if not p.is_symlink()]:
        kept = store / path.name
        path.rename(kept)
        path.symlink_to(kept)
    return store


@pytest.mark.parametrize("key", ["*.nii.gz", "*_bold.nii.gz", "*timeseries.tsv"])
def test_outputs_stay_done_when_their_input_has_been_dropped(site, key):
    store = annex(site.root, key)
    assert site.run(*FIRST).returncode == 0
    before, records = site.changed(), read_all_records(site.out)
    store.rename(store.with_name("dropped"))
    done = site.run(*FIRST)
    assert done.returncode == 0, done.stderr
    assert site.changed() == before
    assert read_all_records(site.out) == records
    assert site.group().returncode == 0
    assert site.statuses() == ["done", "done"]
    # Other settings are refused, and what is not there yet fails.
    other = site.run(*OTHER)
    assert other.returncode == 1
    assert "--fd-threshold" in other.stderr
    assert site.changed() | before == site.changed()
    (site.out / f"{SERIES}_timeseries.tsv").unlink()
    failed = site.run(*FIRST)
    assert failed.returncode == 1
    assert "not here" in failed.stderr or "confounds_timeseries.tsv" in failed.stderr


@pytest.mark.parametrize("part", ["image", "table"])
def test_another_atlas_of_the_same_name_is_noticed_for_dropped_inputs(
    site, model, part
):
    """Nothing of the run is here, so that only the atlas's own digests can tell."""
    shutil.copytree(model / "atlas", site.root.with_name("atlas"))
    place = site.arguments.index("--atlas-file") + 1
    site.arguments[place] = site.arguments[place].replace(
        str(model), str(site.root.parent)
    )
    image, table = map(Path, site.arguments[place].split(","))
    store = annex(site.root, "*.nii.gz")
    assert site.run(*FIRST).returncode == 0
    store.rename(store.with_name("dropped"))
    before = site.changed()
    done = site.run(*FIRST)
    assert done.returncode == 0, done.stderr
    if part == "image":
        labels = nb.load(image)
        values = np.asarray(labels.dataobj)
        first, second = np.unique(values[values > 0])[:2]
        swapped = np.where(values == first, second, values)
        swapped[values == second] = first
        nb.save(nb.Nifti1Image(swapped, labels.affine, labels.header), image)
    else:
        index, name = table.read_text().splitlines()[1].split("\t")[:2]
        table.write_text(
            table.read_text().replace(f"{index}\t{name}", f"{index}\tX", 1)
        )
    done = site.run(*FIRST)
    assert done.returncode == 1
    assert "atlas" in done.stderr
    assert "--overwrite" in done.stderr
    assert RUN in done.stderr
    assert site.changed() == before


def test_a_series_of_another_input_beside_the_same_region_table(site):
    """Volumes in another order have other series, and the same levels of regions."""
    (path,) = site.root.rglob("*desc-preproc_bold.nii.gz")
    image = nb.load(path)
    values = np.full(image.shape, 1000, np.float32)
    values[..., 1::2] += 1

    def write(data):
        nb.save(nb.Nifti1Image(data, image.affine, image.header), path)

    write(values)
    assert site.run(*FIRST).returncode == 0
    (regions,) = site.out.rglob("sub-*_dseg.tsv")
    table, series = regions.read_bytes(), site.out / f"{SERIES}_timeseries.tsv"
    raw = series.with_name(series.name.replace("_desc-Own", ""))
    old = raw.read_bytes()
    write(values[..., ::-1])
    both = list(site.arguments)
    site.arguments.remove("none")
    assert site.run(*FIRST).returncode == 0
    assert (regions.read_bytes(), raw.read_bytes()) == (table, old)
    assert site.group().returncode == 0
    lines = (site.out / "group_runs.tsv").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), x.split("\t"), strict=True)) for x in lines]
    told = {row["desc_id"]: (row["status"], row["reason"]) for row in rows[1:]}
    assert told["Own"][0] == "done"
    assert told["n/a"][0] != "done"
    assert "made of another input" in told["n/a"][1]
    outputs = bids_roi.load(site.out)
    for read in (outputs.runs, outputs.timeseries, outputs.relmats):
        with pytest.raises(DataError, match="made of another input"):
            read(denoise="none")
        assert len(read(denoise="Own"))
    site.arguments = both
    assert site.run(*FIRST).returncode == 0
    assert raw.read_bytes() != old
    assert regions.read_bytes() == table
    assert set(bids_roi.load(site.out).runs()["strategy"]) == {"none", "Own"}


def test_gzip_of_other_bytes_is_another_input(site):
    assert site.run(*FIRST).returncode == 0
    before = site.changed()
    (bold,) = site.root.rglob("*desc-preproc_bold.nii.gz")
    content = bytearray(gzip.decompress(bold.read_bytes()))
    content[-1] ^= 1
    bold.write_bytes(gzip.compress(bytes(content)))
    assert site.run(*FIRST).returncode == 0
    assert site.changed() != before
