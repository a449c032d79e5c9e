"""bids_roi_tools: list, fetch and check atlases."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.tf_server import FINE, IMAGE, TABLE, Server, write_image_of

from bids_roi.cli import main as app_main
from bids_roi.images.nifti import write_image
from bids_roi.tools import main

NAME = "Schaefer2018_seg-7n_scale-100"


@pytest.fixture(autouse=True)
def no_caches(monkeypatch, tmp_path):
    for name in ("TEMPLATEFLOW_HOME", "BIDS_ROI_TEMPLATEFLOW", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.fixture
def tools(capsys):
    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in (IMAGE, FINE):
        write_image_of(tmp_path / "archive" / name)
    with Server(tmp_path / "archive") as running:
        monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", running.url)
        yield running


def rows(text):
    """Lines of the listing as {(template, atlas, kind): rest}."""
    found, template = {}, ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            template = line
        elif line.strip():
            name, kind, rest = line.split(None, 2)
            found[template, name, kind] = rest
    return found


def test_the_list_holds_every_atlas(tools):
    code, out, _ = tools("atlases")
    assert code == 0
    found = rows(out)
    row = found["MNI152NLin2009cAsym", "Schaefer2018_seg-7n_scale-400", "labels"]
    assert row.split()[0] == "400"
    assert "res-01 (1 mm), res-02 (2 mm)" in row
    assert "doi:10.1093/cercor/bhx179" in row
    assert found["MNI152NLin6Asym", "DiFuMo_scale-64", "maps"].split()[0] == "64"
    assert found["MNI152NLin6Asym", "HOCPAL_seg-th25", "labels"].split()[0] == "96"
    assert "res-06 (1.6 mm)" in found["MNI152NLin6Asym", "HCP", "labels"]
    assert ("fsaverage", "Yeo2011_seg-7n", "surface") in found
    assert ("UNCInfant+3", "AAL", "labels") in found
    assert len({(t, n) for t, n, _ in found if n.startswith("Schaefer")}) == 62
    assert "cached" not in out


def test_the_list_says_what_is_cached(tools, tmp_path):
    write_image_of(tmp_path / "home" / IMAGE)
    (tmp_path / "home" / FINE).write_bytes(b"")
    home = ["--templateflow-home", tmp_path / "home"]
    _, out, _ = tools("atlases", "--space", "MNI152NLin6Asym", *home)
    row = rows(out)["MNI152NLin6Asym", NAME, "labels"]
    assert "res-01 (1 mm), res-02 (2 mm) [cached]" in row
    assert "2009cAsym" not in out


def test_a_template_without_atlases(tools):
    code, _, err = tools("atlases", "--space", "MNI152Lin")
    assert code == 64
    assert "no atlas in MNI152Lin" in err
    assert "MNI152NLin6Asym" in err


def test_fetch_fills_a_folder(tools, server, tmp_path):
    dest = tmp_path / "dest"
    given = ["fetch", "schaefer100", "--space", "MNI152NLin6Asym", "--dest", dest]
    code, out, err = tools(*given)
    assert code == 0, err
    assert sorted(server.asked) == sorted([IMAGE, FINE])
    found = {p.relative_to(dest).as_posix() for p in dest.rglob("*") if p.is_file()}
    assert found == {IMAGE, FINE, TABLE}
    assert out.count("fetched") == 3
    assert str(dest) in out.splitlines()[-1]
    # what is there stays; what is damaged is fetched again
    (dest / IMAGE).write_bytes((dest / IMAGE).read_bytes()[:500])
    _, out, _ = tools(*given)
    assert (out.count("fetched"), out.count("present")) == (1, 2)
    assert (dest / IMAGE).read_bytes() == (server.root / IMAGE).read_bytes()


def test_fetch_one_resolution(tools, server, tmp_path):
    given = ["--space", "MNI152NLin6Asym", "--res", "2", "--dest", tmp_path / "dest"]
    assert tools("fetch", NAME, *given)[0] == 0
    assert server.asked == [IMAGE]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["schaefer123"], 64, "Nearest: schaefer100"),
        (["HCP", "--space", "MNI152NLin2009cAsym"], 64, "It is in MNI152NLin6Asym"),
        (["HCP", "--res", "01"], 64, "res-02, MNI152NLin6Asym res-06"),
        (["HCP", "--res", "6"], 66, "status code 404"),
    ],
)
def test_fetch_says_what_is_wrong(arguments, code, message, tools, server, tmp_path):
    found, _, err = tools("fetch", *arguments, "--dest", tmp_path / "dest")
    assert found == code
    assert message in err


def test_check_a_good_atlas(tools, tmp_path):
    given = datasets.write_atlas(tmp_path)
    code, out, _ = tools("check-atlas", given)
    assert code == 0
    assert "absent regions" in out  # one of them is in the table only
    assert "=> can be used, see the warnings (Toy: 5 regions, labels" in out


def test_check_a_bad_atlas_names_the_fix(tools, tmp_path):
    image, table = datasets.write_atlas(tmp_path).split(",")
    lines = Path(table).read_text().splitlines()
    off = [f"{int(i) - 1}\t{rest}" for i, rest in (r.split("\t", 1) for r in lines[1:])]
    Path(table).write_text("\n".join([lines[0], *off]) + "\n")
    code, out, _ = tools("check-atlas", f"{image},{table}")
    assert code == 65
    assert "error      off by one" in out
    assert "-> Add 1 to the index column." in out
    assert "=> cannot be used" in out


def test_check_what_is_not_there(tools, tmp_path):
    code, out, _ = tools("check-atlas", tmp_path / "a.nii.gz")
    assert code == 65
    assert "no such file" in out
    code, out, _ = tools("check-atlas", "schaefer100")
    assert code == 65
    assert f"bids_roi_tools fetch {NAME}" in out


def test_check_by_name(tools, tmp_path):
    write_image_of(tmp_path / "home" / IMAGE)
    given = ["--templateflow-home", tmp_path / "home"]
    code, out, _ = tools("check-atlas", "schaefer100", *given)
    assert code == 0
    assert "left and right agree with the position of all 100" in out
    assert f"=> good ({NAME}: 100 regions, labels, space MNI152NLin6Asym)" in out


def test_check_maps_to_their_end(tools, tmp_path):
    image = tmp_path / "tpl-X_atlas-Maps_dseg.nii.gz"
    maps = np.ones((4, 5, 6, 3), np.float32)
    maps[..., 1] = 0
    maps[0, 0, 0, 2] = -1
    write_image(image, maps, np.eye(4))
    code, out, _ = tools("check-atlas", image)
    assert code == 0
    code, out, _ = tools("check-atlas", "--full", image)
    assert code == 65
    assert "1 maps are 0 everywhere: [2]" in out
    assert "1 maps hold negative values" in out
    image.write_bytes(image.read_bytes()[:-40])
    code, out, _ = tools("check-atlas", "--full", image)
    assert code == 65


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"numpy", "nibabel", "templateflow"}),
        (["atlases"], {"numpy", "nibabel", "bids", "templateflow", "requests"}),
        (["check-atlas", "x.nii"], {"bids", "templateflow", "requests"}),
    ],
)
def test_what_is_imported(arguments, heavy):
    code = (
        "import sys; from bids_roi.tools import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["bids_roi_tools atlases", "bids_roi_tools --help"])
def test_a_reader_may_leave(command):
    """As head does, which is no fault of anyone."""
    words = [
        f"{Path(sys.executable).parent}/{command.split()[0]}",
        *command.split()[1:],
    ]
    script = f"set -o pipefail; {' '.join(words)} | head -1"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


ASKED = [
    *("bids_roi_tools atlases", "bids_roi_tools completion bash"),
    *("bids_roi_tools check-atlas nope.nii.gz", "bids_roi_tools inputs {root}"),
    *(
        "bids_roi --bids-exec-spec",
        "bids_roi {root} {out} participant --atlas-file {atlas} --dry-run",
    ),
]


@pytest.mark.parametrize("command", ASKED)
def test_what_was_asked_for_is_never_lost_in_silence(
    command, dataset, atlas, tmp_path, capsys
):
    """Where standard output is full nothing is done; where it is closed, none wants it.

    No traceback tells of either.
    """
    words = command.format(root=dataset, out=tmp_path / "out", atlas=atlas)
    codes = {}
    for shell in (">/dev/full", ">&-"):
        script = f"{Path(sys.executable).parent}/{words} {shell}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert "fault of bids_roi" not in done.stderr
        said = "standard output cannot be written (No space left" in done.stderr
        assert said == (shell == ">/dev/full")
        codes[shell] = done.returncode
    assert codes[">/dev/full"] == 73
    program, *arguments = words.split()
    call = {"bids_roi": app_main, "bids_roi_tools": main}[program]
    if "--bids-exec-spec" in arguments:
        with pytest.raises(SystemExit) as stop:
            call(arguments)
        calm = stop.value.code or 0
    else:
        calm = call(arguments)
    assert codes[">&-"] == calm
    assert "cannot be written" not in capsys.readouterr().err


def test_the_list_has_the_short_names(tools):
    _, out, _ = tools("atlases", "--space", "MNI152NLin2009cAsym")
    short = {
        line.split()[3].rstrip(","): line.split()[0]
        for line in out.splitlines()
        if "doi:" in line
    }
    assert short["schaefer400"] == "Schaefer2018_seg-7n_scale-400"
    assert short["schaefer400x17"] == "Schaefer2018_seg-17n_scale-400"
    assert short["difumo64"] == "DiFuMo_scale-64"


def test_an_atlas_that_is_not_fetched_is_not_called_unreadable(tools):
    code, out, _ = tools("check-atlas", "schaefer400", "--space", "MNI152NLin2009cAsym")
    assert code == 65
    assert "not here" in out
    assert "cannot be read" not in out
    assert "-> Fetch it: bids_roi_tools fetch Schaefer2018_seg-7n_scale-400." in out


def test_a_mistyped_tool_is_answered_with_the_nearest(tools):
    for typed, meant in (("atlas", "atlases"), ("ftech", "fetch")):
        code, _, err = tools(typed)
        assert code == 64
        assert f"; nearest: {meant}. See bids_roi_tools --help." in err
