"""The recipe 'To add an input format' of docs/contributing.md, as it stands there.

A copy of the package learns to read series in numpy's format, by two places.
"""

import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import surface_runs as runs
from support.calls import read
from support.package_copy import ROOT, Copy

PAGE = ROOT / "docs" / "contributing.md"
READER = """
@dataclass(frozen=True)
class _Array:
    path: Path
    n_volumes: int
    volume_bytes: int = 8

    def block_volumes(self, block_bytes):
        return 1

    def blocks(self, block_bytes=0):
        import numpy as np
        from bids_roi.core.frame import Block

        for t, volume in enumerate(np.load(self.path)):
            yield Block(slice(t, t + 1), slice(0, volume.size), volume[None])


def _open_array(files, template):
    import numpy as np
    from bids_roi.core.frame import Part
    from bids_roi.images.header import mesh_of

    (path,) = files.values()
    n_volumes, n_points = np.load(path).shape
    mesh = mesh_of(template, n_points // 2)
    frame = Frame((Part(mesh, "CORTEX_LEFT"), Part(mesh, "CORTEX_RIGHT")))
    return Series(frame, _Array(path, n_volumes), 1.0, 0.0, None)


"""
V = 10_242


def recipe():
    """The places in the package that the section names."""
    _, _, rest = PAGE.read_text().partition("## To add an input format\n")
    text, _, _ = rest.partition("\n## ")
    return re.findall(r"`(bids_roi/[\w/.]+)`", text)


def test_a_format_that_follows_it(tmp_path, shared):
    reader, kinds = recipe()
    copy = Copy(tmp_path / "copy")
    copy.add({reader: ("# For the kinds of ``dataset/query.py``.", READER)})
    copy.add({reader: ('    "gifti": _open_gifti,', '    "array": _open_array,\n')})
    copy.add(
        {
            kinds: (
                '    "gifti": (".func.gii", ".func.gii.gz"),',
                '    "array": (".npy",),\n',
            )
        }
    )
    folder = runs.write_root(tmp_path / "in")
    rng = np.random.default_rng(0)
    data = rng.uniform(1, 9, 2 * V) + 0.1 * rng.normal(size=(9, 2 * V))
    stem = f"{runs.GIFTI}_bold"
    np.save(folder / f"{stem}.npy", data)
    (folder / f"{stem}.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    one, other = (
        shared / f"atlases/surface/fsa5_{side}_aparc.annot" for side in ("lh", "rh")
    )
    call = [tmp_path / "in", tmp_path / "out", "participant", "--executor", "serial"]
    call += ["--atlas-file", f"L={one},R={other}", "--atlas-space", "fsaverage5"]
    answers, _ = copy.call({"run": call}, "more = None")
    assert answers["run"][0] == 0, answers["run"]
    import nibabel as nb

    names, found = read(
        tmp_path
        / "out/sub-01/func"
        / f"{runs.GIFTI}_atlas-fsa5aparc_stat-mean_timeseries.tsv"
    )
    labels, _, words = nb.freesurfer.read_annot(other)
    key = [word.decode() for word in words].index("insula")
    wanted = data[:, V:][:, labels == key].mean(axis=1)
    assert_allclose(found[:, names.index("RH_insula")], wanted, rtol=1e-12)
    assert (tmp_path / "out/sub-01.html").is_file()


def test_it_names_both_places():
    assert recipe() == ["bids_roi/images/nifti.py", "bids_roi/dataset/query.py"]


@pytest.mark.parametrize("place", recipe())
def test_the_places_are_there(place):
    assert (ROOT / place).is_file()
