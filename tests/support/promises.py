"""What users build on: columns, sidecar keys and exit codes, as the code has them.

``python tests/support/promises.py`` writes them into tests/contract/columns.json.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import get_args

from bids_roi.group import connectivity, runs, summaries
from bids_roi.outputs.result import OUTLIER_COLUMNS, REGION_COLUMNS
from bids_roi.outputs.schema import FACTS, KEYS, Of

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "contract" / "columns.json"


def load_generated():
    """The module that fills in the pages."""
    path = ROOT / "docs" / "generated.py"
    spec = importlib.util.spec_from_file_location("generated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def promises():
    """Columns in their order, keys and codes sorted."""
    codes = re.findall(r"(?m)^\| (\d+) \|", load_generated().TABLES["exit-codes"]())
    of_groups = {
        name: [*summaries._KEY_TEXTS, *texts]
        for name, (_, texts) in summaries._TABLES.items()
    }
    return {
        "exit codes": sorted(map(int, codes)),
        "sidecar keys": {
            output: sorted(key.name for key in KEYS.values() if output in key.outputs)
            for output in get_args(Of)
            if output != "run"
        },
        "columns": {
            "dseg": list(REGION_COLUMNS),
            "outliers": list(OUTLIER_COLUMNS),
            "stack and Outputs.runs": [key.column for key in FACTS],
            "group_runs.tsv": list(runs._COLUMNS),
            **of_groups,
            "group networks": list(connectivity._NETWORK_TEXTS),
        },
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(promises(), indent=2) + "\n", encoding="utf-8")
