"""Participant-level outputs as files, written by hand: what the group level reads."""

import json

import numpy as np

SPACE = "MNI152NLin2009cAsym"
NAMES = ("Vis 1", "Vis 2", "Mot 1", "Mot 2", "Déf 1", "Node")
NETWORKS = ("Visual", "Visual", "Motor", "Motor", "Default", "n/a")
CENTRES = np.array(
    [[0, 0, 0], [10, 0, 0], [0, 25, 5], [-30, 8, 1], [4, 4, 60], [-9, -50, 2]], float
)


def cell(value):
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return repr(float(value)) if np.isfinite(value) else "n/a"
    return str(value)


def write_tsv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(cell, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_tsv(path):
    """Header and rows of strings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header, *rows = (line.split("\t") for line in lines)
    return header, rows


def read_rows(path):
    header, rows = read_tsv(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_square(path):
    """Row names and values of a matrix; ``n/a`` is NaN."""
    header, rows = read_tsv(path)
    assert header[1:] == [row[0] for row in rows]
    values = [[np.nan if c == "n/a" else float(c) for c in row[1:]] for row in rows]
    return header[1:], np.array(values)


class Tree:
    """An output folder that grows run by run.

    Parameters
    ----------
    root
        The folder.
    names, networks, centres
        Of the atlas's regions; ``networks`` and ``centres`` may be ``None``.
    offsets
        How far the centres lie outside of their regions, mm.
    """

    def __init__(
        self, root, names=NAMES, networks=NETWORKS, centres=CENTRES, offsets=None
    ):
        self.root = root
        self.offsets = [0.0] * len(names) if offsets is None else offsets
        self.names, self.networks, self.centres = names, networks, centres
        self.corner = "Node"
        while self.corner in names:
            self.corner += "_"

    def stem(self, run, atlas="atlas-Toy"):
        entities = dict(part.split("-", 1) for part in run.split("_"))
        folder = self.root / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder /= f"ses-{entities['ses']}"
        return folder / "func", f"{run}_space-{SPACE}_{atlas}"

    def source(self, run):
        folder, _ = self.stem(run)
        inside = folder.relative_to(self.root).as_posix()
        return f"{inside}/{run}_space-{SPACE}_desc-preproc_bold.nii.gz"

    def sidecar(self, run, **more):
        return {
            "Sources": [f"bids:preprocessed:{self.source(run)}"],
            "Atlas": "Toy",
            "RepetitionTime": 2.0,
            "NumberOfVolumes": 100,
            "OptionsDigest": "d0d0d0d0d0d0",
            "SettingsDigest": "5e5e5e5e5e5e",
            **more,
        }

    def regions(self, run, *, coverage=None, mean=None, tsnr=None, names=None, **more):
        """Write the region table; returns its path."""
        names = names or self.names
        n = len(names)
        coverage = np.ones(n) if coverage is None else coverage
        columns = {"index": range(1, n + 1), "name": names}
        if self.networks is not None:
            columns["network"] = self.networks
        if self.centres is not None:
            columns |= dict(zip("xyz", self.centres.T.tolist(), strict=True))
            columns["centre_offset"] = list(map(float, self.offsets))
        columns |= {
            "coverage": list(map(float, coverage)),
            "status": ["ok" if c >= 0.5 else "below_coverage" for c in coverage],
            "mean": [1000.0] * n if mean is None else list(map(float, mean)),
            "tsnr": [50.0] * n if tsnr is None else list(map(float, tsnr)),
        }
        folder, stem = self.stem(run)
        path = folder / f"{stem}_dseg.tsv"
        write_tsv(path, columns, zip(*columns.values(), strict=True))
        self.write_json(path, self.sidecar(run, **more))
        return path

    def series(self, run, *, desc="", **more):
        """Write a time series of one volume: only its sidecar is read."""
        folder, stem = self.stem(run)
        label = f"_desc-{desc}" if desc else ""
        path = folder / f"{stem}_stat-mean{label}_timeseries.tsv"
        write_tsv(path, self.names, [[1.0] * len(self.names)])
        self.write_json(path, self.sidecar(run, **more))
        return path

    def relmat(
        self, run, matrix, *, desc="", stat="pearsoncorrelation", names=None, **more
    ):
        """Write a matrix; returns its path."""
        names = names or self.names
        folder, stem = self.stem(run)
        label = f"_desc-{desc}" if desc else ""
        path = folder / f"{stem}_stat-{stat}{label}_relmat.tsv"
        rows = [[n, *map(float, row)] for n, row in zip(names, matrix, strict=True)]
        write_tsv(path, [self.corner, *names], rows)
        series = f"{stem}_stat-mean{label}_timeseries.tsv"
        inside = folder.relative_to(self.root).as_posix()
        content = self.sidecar(run, FisherZ=stat.endswith("fisherz"), **more)
        content["Sources"] = [f"bids::{inside}/{series}"]
        self.write_json(path, content)
        return path

    def run(self, run, matrix, *, fd=None, desc="", stat="pearsoncorrelation", **more):
        """Write everything of a run, with a mean FD."""
        known = {} if fd is None else {"MeanFramewiseDisplacement": fd}
        self.regions(run)
        self.series(run, desc=desc, **known, **more)
        return self.relmat(run, matrix, desc=desc, stat=stat, **known, **more)

    @staticmethod
    def write_json(path, content):
        text = json.dumps(content, ensure_ascii=False, indent=1)
        path.with_suffix(".json").write_text(text, encoding="utf-8")


def correlation(rng, n_regions=6, n_volumes=40):
    """A correlation matrix of noise with something in common, symmetric exactly."""
    signals = rng.normal(size=(n_volumes, n_regions)) + rng.normal(size=(n_volumes, 1))
    matrix = np.corrcoef(signals.T)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


def lose(matrix, *regions):
    """The matrix of a run that has lost these regions."""
    matrix = matrix.copy()
    matrix[list(regions)] = np.nan
    matrix[:, list(regions)] = np.nan
    return matrix
