"""Any bytes give a value or a BidsRoiError: never another exception, never a hang.

Real files are the seeds where they are there. BIDS_ROI_FUZZ_EXAMPLES=20000 looks
longer; what was found has a test by name in ``test_hostile``.
"""

import gzip
import io
import json
import os
import struct

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from support import datasets

from bids_roi.atlases.names import AtlasKey, key_of_file, parse_atlas_name
from bids_roi.atlases.open import AtlasFiles, examine_atlas
from bids_roi.atlases.regions import read_raw_table
from bids_roi.confounds.strategies import list_strategies, load_strategy
from bids_roi.confounds.table import read_confounds, select_confounds
from bids_roi.dataset.partners import Sidecars
from bids_roi.dataset.query import dataset_description, load_filters
from bids_roi.errors import BidsRoiError
from bids_roi.files.names import parse_name
from bids_roi.files.tables import format_json, format_table, read_json, read_table
from bids_roi.images.header import ATLAS, BOLD, check_complete, read_header
from bids_roi.images.nifti import (
    open_image,
    read_labels,
    read_mask,
    write_image,
)
from bids_roi.outputs.records import Record, read_all_records, write_records
from bids_roi.participant.plan import choose_repetition_time

EXAMPLES = int(os.environ.get("BIDS_ROI_FUZZ_EXAMPLES", "60"))
fuzz = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def survive(read, *arguments, **options):
    """The value, or None where the file was refused in the app's own words."""
    try:
        return read(*arguments, **options)
    except BidsRoiError as error:
        if not error.problem or not str(error).replace("\n", "").isprintable():
            raise
        return None


SPECIAL = [
    *(b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\t", b"\n", b"\r", b'"', b"'"),
    *(b",", b";", b"#", b"-1", b"1e999", b"NaN", b"Infinity", b"9" * 30, b"null"),
    *(b"{", b"}", b"[", b"]", b"n/a", b"<label", b"</label>", b"&a;", b"\xe2\x80\xa8"),
    *(b"\x7f\xff", b"\x80\x00", b"\xff\xff\xff\xff", b"\x7f\x80\x00\x00", b"\x1f\x8b"),
]


@st.composite
def mutated(draw, seeds):
    """One of the seeds, with a few bytes changed, cut out, doubled or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(0, 40))
        what = draw(st.integers(0, 4))
        if what == 0:
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif what == 1:
            del content[at : at + length]
        elif what == 2:
            content[at:at] = content[at : at + length]
        elif what == 3:
            content[at:at] = draw(st.sampled_from(SPECIAL))
        else:
            word = draw(st.sampled_from(SPECIAL))
            content[at : at + len(word)] = word
    return bytes(content)


def any_of(seeds):
    return st.one_of(mutated(seeds), st.binary(max_size=300))


def real(*names, limit=4000):
    """The beginnings of real files, where these are there."""
    paths = [SHARED / name for name in names]
    return [path.read_bytes()[:limit] for path in paths if path.is_file()]


def find(pattern, n=4):
    return [str(p.relative_to(SHARED)) for p in sorted(SHARED.glob(pattern))[:n]]


TABLES = [
    b"index\tname\n1\tV1\n2\tV2\n",
    b'a,b\r\n1,"x"\r\n',
    b"\xef\xbb\xbfindex\tname\n",
    *real(*find("atlases/**/*.tsv"), *find("atlases/**/*.csv")),
]


@fuzz
@given(any_of(TABLES), st.sampled_from([".tsv", ".csv"]), st.integers(0, 9))
def test_tables(folder, content, suffix, max_rows):
    path = folder / f"t{suffix}"
    path.write_bytes(content)
    table = survive(read_table, path)
    survive(read_table, path, max_rows=max_rows)
    if table:
        lines = format_table(table).split("\n")
        assert {line.count("\t") for line in lines[:-1]} == {len(table) - 1}


KEYS = [
    "RepetitionTime",
    "VolumeTiming",
    "StartTime",
    "TaskName",
    "Name",
    "GeneratedBy",
]
KEYS += ["DatasetType", "bold", "mask", "confounds", "task", "run", "session", "space"]
KEYS += ["name", "label", "description", "components", "settings", "kind", "model"]
KEYS += ["n", "high_pass", "fd_threshold", "Retained", "Mask", "Method", "Columns"]
KEYS += ["VarianceExplained", "CumulativeVarianceExplained", "SingularValue"]
VALUES = ["rest", "*", "Query.NONE", "Query.ODD", "../../x", "motion", "compcor", "CSF"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**25), 0, 2]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*VALUES, "\ud800", "a\tb\nc", "<script>", "=1+1"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(KEYS), st.text(max_size=4)), inner, max_size=5
        ),
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)
JSONS = [
    b'{"RepetitionTime": 2.0, "TaskName": "rest"}',
    b'{"bold": {"task": ["rest", null], "run": 1, "session": "Query.NONE"}}',
    b'{"a": NaN, "b": [Infinity, -1e999], "c": ' + b"9" * 5000 + b"}",
    *real(*find("confounds/**/*.json"), *find("**/*bold.json")),
]
SIDECARS = st.one_of(any_of(JSONS), OBJECTS.map(lambda v: json.dumps(v).encode()))


@fuzz
@given(SIDECARS)
def test_sidecars(folder, content):
    path = folder / "sub-01_task-rest_bold.json"
    path.write_bytes(content)
    found = survive(read_json, path)
    if found is not None:
        assert json.loads(format_json(found)) == found  # it can be written again
    metadata, _ = Sidecars(folder).read(folder / "sub-01_task-rest_bold.nii.gz")
    survive(choose_repetition_time, None, metadata, 2.0)
    (folder / "dataset_description.json").write_bytes(content)
    survive(dataset_description, folder)


@fuzz
@given(SIDECARS)
def test_filter_files_and_strategies(folder, content):
    path = folder / "f.json"
    path.write_bytes(content)
    rules = survive(load_filters, path)
    for section in rules or {}:
        for rule in rules[section]:
            assert isinstance(rule.accepts("rest"), bool)
            assert isinstance(rule.accepts(None), bool)
    survive(load_strategy, path)


CONFOUNDS = [
    b"csf\ttrans_x\tframewise_displacement\ta_comp_cor_00\n1\t2\tn/a\t1\n2\t3\t0.1\t2\n",
    *real(*find("confounds/**/*.tsv"), limit=20000),
]
SEVERAL = [load_strategy(name) for name in list_strategies()[::4]]


@fuzz
@given(any_of(CONFOUNDS), SIDECARS, st.sampled_from(SEVERAL))
def test_confounds(folder, content, sidecar, strategy):
    path = folder / "c.tsv"
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(sidecar)
    confounds = survive(read_confounds, path, 2)
    if confounds is not None:
        n = confounds.n_volumes
        selected = survive(
            select_confounds, confounds, strategy, n_volumes=n, image_desc="preproc"
        )
        if selected is not None:
            assert selected.regressors.shape == (n, len(selected.names))
            assert np.isfinite(selected.regressors).all()


LOOKUPS = {
    ".xml": [
        b'<?xml version="1.0"?><atlas><header><type>Label</type></header><data>'
        b'<label index="1" x="1">V1 &amp; V2</label><label index="2">B</label></data>',
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
        b'<atlas><label index="0">&b;</label></atlas>',
    ],
    ".txt": [
        b"# colours\n1 Left-V1 120 18 134 0\n2 Right-V1 1 2 3 0\n",
        b"1 V1\n2 V2\n",
        b"V1\nV2\n",
        *real(*find("atlases/**/*.txt")),
    ],
    ".tsv": TABLES,
    ".csv": TABLES,
    ".1D": [b"1 2 3\n"],
}


@pytest.mark.parametrize("suffix", LOOKUPS)
@settings(fuzz, max_examples=max(1, EXAMPLES // 2))
@given(st.data())
def test_region_tables(folder, suffix, data):
    image, table = folder / "i.nii.gz", folder / f"l{suffix}"
    if not image.exists():
        write_image(image, datasets.labels(), datasets.oblique())
    table.write_bytes(data.draw(any_of(LOOKUPS[suffix])))
    raw = survive(read_raw_table, table)
    files = AtlasFiles(AtlasKey("X"), datasets.SPACE, image, table)
    examined = survive(examine_atlas, files)
    if raw is not None and examined and examined[0] is not None:
        names = examined[0].regions.name
        assert len(set(names)) == len(names)
        assert all(name.isprintable() and name for name in names)


def image_bytes(folder, shape, dtype):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    write_image(folder / "seed.nii", values, datasets.oblique())
    return (folder / "seed.nii").read_bytes()


@pytest.fixture(scope="module")
def images(folder):
    shapes = [
        ((3, 4, 2, 5), np.int16),
        ((3, 4, 2), np.uint8),
        ((3, 4, 2, 5), np.float32),
    ]
    return [image_bytes(folder, shape, dtype) for shape, dtype in shapes]


def read_everything(path):
    """All readers of images, one after the other."""
    bold = survive(open_image, path, BOLD)
    if bold is not None:
        survive(lambda: [b.values.shape for b in bold.source.blocks()])
    survive(open_image, path, ATLAS)
    labels = survive(read_labels, path)
    assert labels is None or labels[0].nbytes < 2**20
    survive(read_mask, path)
    survive(read_header, path)
    survive(check_complete, path)


# Field of the header, where it is, and how it is stored.
FIELDS = {"dim": (40, "<8h"), "datatype": (70, "<2h"), "pixdim": (76, "<8f")}
FIELDS |= {"offset": (108, "<3f"), "codes": (252, "<2h"), "sform": (280, "<12f")}
FIELDS |= {"size": (0, "<i"), "units": (123, "<b"), "magic": (344, "<i")}
EXTREMES = {"h": [-32768, -1, 0, 1, 2, 4, 5, 16, 128, 512, 1024, 1536, 32767]}
EXTREMES |= {"b": [-128, 0, 2, 8, 127], "i": [-(2**31), 0, 348, 540, 2**31 - 1]}
EXTREMES |= {"f": [0, 1, -1, 1e-30, 1e30, 3e38, float("nan"), float("inf"), 352, 1e9]}


@fuzz
@given(st.data())
def test_image_headers(folder, images, data):
    content = bytearray(data.draw(st.one_of(mutated(images), st.sampled_from(images))))
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4)):
        at, kind = FIELDS[name]
        values = list(struct.unpack_from(kind, bytes(content).ljust(352, b"\0"), at))
        position = data.draw(st.integers(0, len(values) - 1))
        values[position] = data.draw(st.sampled_from(EXTREMES[kind[-1]]))
        packed = struct.pack(kind, *values)
        content[at : at + len(packed)] = packed
    path = folder / "h.nii"
    path.write_bytes(content)
    read_everything(path)
    packed = folder / "h.nii.gz"
    packed.write_bytes(gzip.compress(bytes(content), 1))
    read_everything(packed)
    assert path.read_bytes() == content


@fuzz
@given(st.data())
def test_compressed_images(folder, images, data):
    """Damaged anywhere: refused, or every value is what it was."""
    source = images[0]
    packed = gzip.compress(source, data.draw(st.sampled_from([0, 1, 9])))
    path = folder / "z.nii.gz"
    path.write_bytes(data.draw(mutated([packed])))
    read_everything(path)
    bold = survive(open_image, path, BOLD)
    blocks = bold and survive(lambda: [b.values.copy() for b in bold.source.blocks()])
    if blocks:
        expected = np.frombuffer(source[352:], "<i2").reshape(5, -1)
        assert_array_equal(np.concatenate(blocks), expected)


@fuzz
@given(st.binary(max_size=200), st.text(max_size=40))
def test_anything_at_all(folder, content, text):
    for name in ("x.nii", "x.nii.gz"):
        (folder / name).write_bytes(content)
        read_everything(folder / name)
    survive(parse_atlas_name, text)
    survive(load_strategy, text)
    name = parse_name(text)
    assert all(key and label for key, label in name.entities)
    found = key_of_file(text)
    assert {c for c in found.name if not c.isalnum()} <= set("+-_")
    assert "/" not in found.name


@fuzz
@given(
    mutated([b'{"run": "sub-01/func/a_bold.nii.gz", "atlas": "X", "status": "done"}'])
)
def test_records(folder, content):
    out = folder / "out"
    path = out / "logs/sub-01/sub-01_bold.0123456789ab.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    survive(read_all_records, out)
    record = Record("sub-01/func/sub-01_bold.nii.gz", "X", "done")
    survive(write_records, out, record.run, [record])
    assert any(r.atlas == "X" and r.status == "done" for r in read_all_records(out))


def test_fuzzing_notices_an_exception(folder):
    def broken(_):
        raise KeyError

    with pytest.raises(KeyError):
        survive(broken, io.BytesIO())
