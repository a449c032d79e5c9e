"""A drawing has the same bytes in any process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from bids_roi.report.paper import Panel, Sheet
from bids_roi.report.raster import CLEAR, GREYS, Scale


def everything():
    rng = np.random.default_rng(0)
    sheet = Sheet(300, 200, title="All", description="of it")
    values = rng.normal(size=(20, 30))
    values[3] = np.nan
    scale = Scale.of(GREYS, -2, 2, 64, (CLEAR, (255, 0, 0, 128)))
    sheet.raster((10, 10, 90, 60), scale.encode(values), scale.palette, striped=True)
    sheet.bar((120, 10, 8, 60), scale, ground="#777777")
    panel = Panel(sheet, (50, 100, 200, 60), (0, 20), (-2, 2))
    panel.line(np.arange(20), values[:, 0])
    panel.level(1.5)
    panel.axis_below("x")
    panel.axis_left("y")
    sheet.mark(3, 4, opacity=0.5)
    return sheet.finish()


def test_the_same_calls_make_the_same_bytes_whoever_asks():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_paper_bytes import everything\n"
        "sys.stdout.buffer.write(everything())"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
    }
    there = subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parent],
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    assert there.stdout == everything()
    assert len(re.findall(rb"https?://", everything())) == 1  # the name of SVG
