"""The examples for BABS and Nipoppy: their options exist, and the tools take them.

The tools are in no extra, as they are large; ``.ci/examples-test`` installs them. The
program that runs the container is replaced by one that runs the installed command with
the same arguments, so what is shown is the call that the tools make.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import datasets

from bids_roi.cli import build_parser
from bids_roi.options.table import OPTIONS
from bids_roi.version import __version__

ROOT = Path(__file__).parents[2]
BABS = ROOT / "docs" / "examples" / "babs" / "bids_roi.yaml"
NIPOPPY = ROOT / "docs" / "examples" / "nipoppy"
PROGRAMS = Path(sys.executable).parent


def babs_config():
    return yaml.safe_load(BABS.read_text(encoding="utf-8"))


def nipoppy_file(name):
    return json.loads((NIPOPPY / name).read_text(encoding="utf-8"))


def test_babs_arguments_are_options():
    """In the order of the script that BABS writes: ours, then the participant's."""
    argv = ["in", "out", "participant"]
    for flag, value in babs_config()["bids_app_args"].items():
        if not flag.startswith("$"):
            argv += [flag, value] if value else [flag]
    argv += [babs_config()["bids_app_args"]["$SUBJECT_SELECTION_FLAG"], "sub-01"]
    parsed = build_parser().parse_args(argv)
    assert list(parsed.participant_label) == ["sub-01"]
    assert list(parsed.atlas) == ["schaefer400"]


def test_nipoppy_names_are_inputs_of_the_descriptor():
    inputs = {
        entry["id"]: entry
        for entry in json.loads((ROOT / "boutiques.json").read_text())["inputs"]
    }
    for name, value in nipoppy_file("invocation.json").items():
        assert isinstance(value, list) is inputs[name].get("list", False), name
    assert {option.name for option in OPTIONS} <= set(inputs)


def test_versions_are_those_of_the_descriptor():
    version = json.loads((ROOT / "boutiques.json").read_text())["tool-version"]
    assert nipoppy_file("config.json")["VERSION"] == version
    (folder,) = babs_config()["zip_foldernames"].items()
    assert folder == ("bids_roi", version.replace(".", "-"))


@pytest.fixture
def programs(tmp_path):
    """Environment with an ``apptainer`` and its kin that need no image."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apptainer").write_text(
        "#!/bin/bash\n"
        '[[ $1 == --version ]] && echo "apptainer version 1.4.5" && exit\n'
        'while [[ $# -gt 0 && $1 != *.sif ]]; do shift; done; shift; exec sh "$@"\n'
    )
    (folder / "singularity").write_text(
        "#!/bin/bash\n"
        "while [[ $# -gt 0 && $1 != */image ]]; do shift; done; shift\n"
        'exec bids_roi "$@"\n'
    )
    # the archiver, which need not be here: zipped is what is copied
    (folder / "7z").write_text('#!/bin/bash\ncp -r "$3" "$2"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{PROGRAMS}:{os.environ['PATH']}"}


def run(*argv, **more):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_babs_runs_it(tmp_path, programs):
    """The script that BABS writes for each job, run in a folder like a job's."""
    pytest.importorskip(
        "babs", reason="BABS is not installed (.ci/examples-test has it)"
    )
    from babs.generate_bidsapp_runscript import generate_bidsapp_runscript
    from babs.utils import app_output_settings_from_config

    config, name = babs_config(), f"bids_roi-{__version__.replace('.', '-')}"
    data = tmp_path / "job" / config["input_datasets"]["fmriprep"]["path_in_babs"]
    datasets.write_dataset(data)
    atlas = datasets.write_atlas(tmp_path / "atlas")
    arguments = config["bids_app_args"]
    del arguments["--atlas"]  # its image is not here
    arguments["--atlas-file"] = atlas
    folders, output_dir = app_output_settings_from_config(config)
    script = generate_bidsapp_runscript(
        [
            {
                "name": "fmriprep",
                "is_zipped": False,
                "path_in_babs": "inputs/data/fmriprep",
                "unzipped_path_containing_subject_dirs": "inputs/data/fmriprep",
            }
        ],
        "subject",
        container_name=name,
        relative_container_path=f"containers/.datalad/environments/{name}/image",
        bids_app_output_dir=output_dir,
        dict_zip_foldernames=folders,
        bids_app_args=arguments,
        singularity_args=config["singularity_args"],
        templateflow_home=None,
    )
    run("bash", "-c", script, "job", "sub-01", cwd=tmp_path / "job", env=programs)
    (zipped,) = (tmp_path / "job").glob(f"sub-01_{name}.zip")
    assert list(zipped.rglob("sub-01/**/*_timeseries.tsv"))
    assert not list(zipped.rglob("sub-02"))


def test_nipoppy_runs_and_tracks_it(tmp_path, programs):
    """A study with two participants and the bundle of the example."""
    pytest.importorskip(
        "nipoppy", reason="Nipoppy is not installed (.ci/examples-test has it)"
    )
    nipoppy, study, bundle = PROGRAMS / "nipoppy", tmp_path / "study", tmp_path / "new"
    bundle.mkdir()
    for path in NIPOPPY.glob("*.json"):
        shutil.copy(path, bundle)
    shutil.copy(ROOT / "boutiques.json", bundle / "descriptor.json")
    assert "all valid" in run(nipoppy, "pipeline", "validate", bundle)
    invocation = nipoppy_file("invocation.json")
    del invocation["atlas"]  # its image is not here
    invocation["atlas_file"] = [datasets.write_atlas(tmp_path / "atlas")]
    (bundle / "invocation.json").write_text(json.dumps(invocation))

    run(nipoppy, "init", "--study", study)
    rows = ["participant_id\tvisit_id\tsession_id\tdatatype"]
    rows += [f'{label}\t1\t1\t["func"]' for label in ("01", "02")]
    (study / "manifest.tsv").write_text("\n".join(rows) + "\n")
    install = [nipoppy, "pipeline", "install", "--study", study, "--skip-container"]
    run(*install, bundle)
    runs = tuple(f"sub-{label}_ses-1_task-rest" for label in ("01", "02"))
    datasets.write_dataset(study / "derivatives/fmriprep/25.1.3/output", runs)
    for label in ("01", "02"):
        (study / f"bids/sub-{label}/ses-1").mkdir(parents=True)
        (study / f"bids/sub-{label}/ses-1/empty.nii").touch()
    (study / "containers" / f"bids_roi_{__version__}.sif").touch()
    of_study = ["--study", study]
    run(nipoppy, "track-curation", *of_study, "--regenerate", env=programs)

    pipeline = [*of_study, "--pipeline", "bids_roi", "--pipeline-version"]
    pipeline.append(__version__)
    run(nipoppy, "process", *pipeline, "--participant-id", "01", env=programs)
    run(nipoppy, "track-processing", *pipeline, env=programs)
    (table,) = study.rglob("processing_status.tsv")
    header, *lines = [line.split("\t") for line in table.read_text().splitlines()]
    status = {
        row["participant_id"]: row["status"]
        for row in (dict(zip(header, line, strict=True)) for line in lines)
    }
    assert status == {"01": "SUCCESS", "02": "FAIL"}, "one was run, the other was not"


def test_the_notebook_is_what_its_cells_give(demo_call, monkeypatch):
    """Run anew, each cell shows what docs/examples/regions.ipynb holds.

    The first one's command is that of ``demo_call``, whose folder is taken.
    """
    called, really = [], subprocess.run

    def call(words, **options):
        if words[0] != "bids_roi_tools":  # what a library asks of the machine
            return really(words, **options)
        called.append((words, options))
        return Path("demo").symlink_to(demo_call[0])

    monkeypatch.setattr(subprocess, "run", call)
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs/notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (example,) = module.EXAMPLES.glob("*.py")
    held = json.loads(example.with_suffix(".ipynb").read_text(encoding="utf-8"))
    found = json.loads(json.dumps(module.run_example(example)))
    words = ["bids_roi_tools", "demo", "demo"]
    assert called == [(words, {"check": True, "capture_output": True})]
    assert [c["source"] for c in found["cells"]] == [c["source"] for c in held["cells"]]
    for one, other in zip(found["cells"], held["cells"], strict=True):
        for given, kept in zip(
            one.get("outputs", []), other.get("outputs", []), strict=True
        ):
            # Pictures may differ by a rounded digit where a processor adds otherwise.
            assert given["data"]["text/plain"] == kept["data"]["text/plain"]
            assert set(given["data"]) == set(kept["data"])
    kinds = {
        mime for c in held["cells"] for o in c.get("outputs", []) for mime in o["data"]
    }
    assert kinds == {"text/plain", "text/html", "image/svg+xml"}
    assert "True" in [
        o["data"]["text/plain"] for c in held["cells"] for o in c.get("outputs", [])
    ]
