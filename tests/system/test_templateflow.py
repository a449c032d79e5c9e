"""Downloads against a server on loopback: whole and verified, or not at all."""

import os
import subprocess
import sys

import pytest
from support.tf_server import FINE, IMAGE, TABLE, Server, write_image_of

from bids_roi.atlases import templateflow
from bids_roi.atlases.templateflow import download, list_skeleton, read_skeleton
from bids_roi.errors import MissingInput, OutputError


@pytest.fixture
def server(tmp_path):
    for name in (IMAGE, FINE):
        write_image_of(tmp_path / "archive" / name)
    with Server(tmp_path / "archive") as running:
        yield running


def files(home):
    return {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()}


def test_a_download_is_the_servers_file(server, tmp_path):
    home = tmp_path / "home"
    paths = download([IMAGE, TABLE], home, s3_root=server.url)
    assert paths == [home / IMAGE, home / TABLE]
    assert paths[0].read_bytes() == (server.root / IMAGE).read_bytes()
    assert paths[1].read_bytes() == read_skeleton(TABLE)
    # the table is in the package; nothing else was made in the home
    assert server.asked == [IMAGE]
    assert {p.name for p in home.iterdir()} == {"tpl-MNI152NLin6Asym"}
    assert files(home) == {IMAGE, TABLE}
    assert paths[0].stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("fault", ["interrupted", "truncated", "error page"])
def test_what_breaks_off_is_tried_again(fault, server, tmp_path):
    server.fault, server.times = fault, 2
    (path,) = download([IMAGE], tmp_path / "home", s3_root=server.url)
    assert path.read_bytes() == (server.root / IMAGE).read_bytes()
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "fault", ["interrupted", "truncated", "error page", "other content", "404"]
)
def test_what_stays_broken_leaves_nothing_behind(fault, server, tmp_path):
    server.fault, server.times = fault, 99
    home = tmp_path / "home"
    with pytest.raises(
        MissingInput, match=r"cannot be downloaded \(.*fetch ATLAS"
    ) as caught:
        download([IMAGE], home, s3_root=server.url)
    assert caught.value.where == f"{server.url}/{IMAGE}"
    assert files(home) == set()
    assert list(home.iterdir()) == []
    # a refusal is not asked again
    assert len(server.asked) == (1 if fault == "404" else 3)


def test_a_present_file_survives_a_failed_download(server, tmp_path):
    home = tmp_path / "home"
    (path,) = download([IMAGE], home, s3_root=server.url)
    before = path.read_bytes()
    server.fault, server.times = "truncated", 99
    with pytest.raises(MissingInput):
        download([IMAGE], home, s3_root=server.url)
    assert path.read_bytes() == before


def test_slow_is_not_stalled(server, tmp_path):
    server.fault, server.times = "slow", 1
    (path,) = download([IMAGE], tmp_path / "home", s3_root=server.url, timeout=1)
    assert path.read_bytes() == (server.root / IMAGE).read_bytes()
    assert len(server.asked) == 1


def test_a_stalled_answer_is_given_up(server, tmp_path):
    server.fault, server.times = "stalled", 1
    (path,) = download([IMAGE], tmp_path / "home", s3_root=server.url, timeout=1)
    assert path.read_bytes() == (server.root / IMAGE).read_bytes()
    assert len(server.asked) == 2


def test_nobody_there(tmp_path):
    with Server(tmp_path) as gone:
        url = gone.url
    with pytest.raises(
        MissingInput, match=r"cannot be downloaded \(connection refused\)"
    ):
        download([IMAGE], tmp_path / "home", s3_root=url)


def test_a_checksum_that_is_known_is_compared(server, tmp_path):
    name = next(
        n for n in list_skeleton() if "2009cAsym_res-02" in n and "400Parcels7" in n
    )
    write_image_of(server.root / name)
    with pytest.raises(MissingInput, match=r"MD5 checksum .* is expected"):
        download([name], tmp_path / "home", s3_root=server.url)


def test_the_real_file_has_the_known_checksum(server, tmp_path, shared):
    name = next(
        n for n in list_skeleton() if "2009cAsym_res-02" in n and "400Parcels7" in n
    )
    real = shared / "atlases/volume/schaefer400x7_MNI152NLin2009cAsym_2mm.nii.gz"
    (server.root / name).parent.mkdir(parents=True)
    (server.root / name).write_bytes(real.read_bytes())
    (path,) = download([name], tmp_path / "home", s3_root=server.url)
    assert path.read_bytes() == real.read_bytes()


def test_a_home_that_cannot_be_written(server, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="--templateflow-home"):
        download([IMAGE], blocked / "home", s3_root=server.url)
    assert server.asked == []


CODE = """
import sys
from pathlib import Path
from bids_roi.atlases.templateflow import download
download(sys.argv[2:], Path(sys.argv[1]))
"""


EIGHT = """
import os, sys
from pathlib import Path
import bids.layout, requests, templateflow.client  # once, not in each of them
from bids_roi.atlases.templateflow import download
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            download(sys.argv[2:], Path(sys.argv[1]))
            code = 0
        finally:
            os._exit(code)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
"""


def test_eight_processes_at_once(server, tmp_path):
    """Each gets whole files, though some answers break off."""
    server.fault, server.times = "interrupted", 2
    home = tmp_path / "home"
    environment = {
        **os.environ,
        "BIDS_ROI_TEMPLATEFLOW_URL": server.url,
        "TEMPLATEFLOW_HOME": str(server.root),  # is filled
    }
    command = [sys.executable, "-c", EIGHT, str(home), IMAGE, TABLE, FINE]
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert files(home) == {IMAGE, TABLE, FINE}
    for name in (IMAGE, FINE):
        assert (home / name).read_bytes() == (server.root / name).read_bytes()
    assert {p.name for p in home.iterdir()} == {"tpl-MNI152NLin6Asym"}


def test_the_users_home_is_left_alone(server, tmp_path):
    """The client would unpack 2,500 files where TEMPLATEFLOW_HOME is empty."""
    empty, cache = tmp_path / "empty", tmp_path / "cache"
    empty.mkdir()
    environment = {
        **os.environ,
        "BIDS_ROI_TEMPLATEFLOW_URL": server.url,
        "TEMPLATEFLOW_HOME": str(empty),
        "XDG_CACHE_HOME": str(cache),
        "HOME": str(tmp_path / "user"),
    }
    command = [sys.executable, "-c", CODE, str(tmp_path / "home"), IMAGE]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "user").exists()
    assert not cache.exists()


# What urllib3 and requests say, and the word for it.
SAID = {
    "Max retries exceeded with url: /y (Caused by NameResolutionError(Failed to resolve"
    " 'x' ([Errno -2] Name or service not known)))": "no network",
    "[Errno 101] Network is unreachable": "no network",
    "HTTPSConnectionPool(host='x'): Read timed out. (read timeout=10)": "no answer",
    "[Errno 111] Connection refused": "connection refused",
    "404 Client Error: Not Found for url: http://x/y": "404 Client Error: Not Found",
}


@pytest.mark.parametrize("said", SAID)
def test_what_stops_a_download_is_said_in_a_word(said):
    assert templateflow._why(said) == SAID[said]
