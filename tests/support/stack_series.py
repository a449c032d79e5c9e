"""Series and matrices as the participant level writes them."""

import hashlib
import json

import numpy as np

from bids_roi.files.tables import format_matrix

NAMES = ("Left V1", "Cuneus é", "Thalamus", "脳")


def write_series(out, run, values, *, desc="", stat="mean", digest="abc", **facts):
    """A time series, its region table and sidecars, as the participant level does."""
    tail = f"_desc-{desc}" if desc else ""
    stem = f"{run}_space-X_atlas-Toy_stat-{stat}{tail}_timeseries"
    labels = dict(part.split("-") for part in run.split("_"))
    folder = out / f"sub-{labels['sub']}"
    folder = folder / f"ses-{labels['ses']}" if "ses" in labels else folder
    folder = folder / "func"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.tsv"
    path.write_text("".join(format_matrix(NAMES[: values.shape[1]], values)))
    sidecar = {"OptionsDigest": digest, "RepetitionTime": 2.0, **facts}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    table = folder / f"{run}_space-X_atlas-Toy_dseg.tsv"
    rows = [f"{i * 10}\t{n}\tnet{i % 2}" for i, n in enumerate(NAMES, 1)]
    table.write_text("\n".join(["index\tname\tnetwork", *rows]) + "\n")
    table.with_suffix(".json").write_text(json.dumps({"OptionsDigest": digest}))
    return path


def write_relmat(out, run, values, *, stat="pearsoncorrelation", **facts):
    """A matrix and its sidecar."""
    labels = dict(part.split("-") for part in run.split("_"))
    folder = out / f"sub-{labels['sub']}" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run}_space-X_atlas-Toy_stat-{stat}_relmat.tsv"
    names = NAMES[: len(values)]
    rows = [
        "\t".join([name, *("n/a" if np.isnan(v) else repr(float(v)) for v in row)])
        for name, row in zip(names, values, strict=True)
    ]
    path.write_text("\n".join(["\t".join(["Node", *names]), *rows]) + "\n")
    path.with_suffix(".json").write_text(
        json.dumps({"OptionsDigest": "rel", "ValidDiagonal": False, **facts})
    )
    return path


def signals(seed, n_volumes=6):
    values = np.random.default_rng(seed).normal(1e4, 1, (n_volumes, len(NAMES)))
    values[:, 2] = np.nan
    return values


def matrix(seed):
    values = np.random.default_rng(seed).uniform(-1, 1, (4, 4))
    values = values + values.T
    values[2] = values[:, 2] = np.nan
    return values


def write_many(out):
    """Eleven runs with two kinds of matrices."""
    for number in range(11):
        run = f"sub-{20 + number}_task-rest"
        write_series(out, run, signals(number, 50 + number))
        write_relmat(out, run, matrix(number))
        more = {"stat": "covariance", "ValidDiagonal": True}
        write_relmat(out, run, matrix(number + 11), **more)


def tell_digest(path):
    """Write into the sidecar of a table what the participant level does: its digest."""
    sidecar = json.loads(path.with_suffix(".json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar["TableDigest"] = f"sha256:{digest}"
    path.with_suffix(".json").write_text(json.dumps(sidecar))
