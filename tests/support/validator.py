"""What the BIDS validator says of a folder."""

import json
import subprocess
import sys
from pathlib import Path


def issues_of(folder, *severities):
    """Issues of these severities, or all."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [program, "--json", folder], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [i for i in issues if not severities or i["severity"] in severities]
