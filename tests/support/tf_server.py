"""TemplateFlow's archive on loopback, with the faults that networks have."""

import contextlib
import gzip
import http.server
import threading
import time
from pathlib import Path

import numpy as np

from bids_roi.images.nifti import write_image

IMAGE = (
    "tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_res-02_atlas-Schaefer2018"
    "_desc-100Parcels7Networks_dseg.nii.gz"
)
FINE = IMAGE.replace("res-02", "res-01")
TABLE = IMAGE.replace("_res-02", "").replace(".nii.gz", ".tsv")


def write_image_of(path, n_regions=100):
    """Labels 1..n on the 2 mm grid: names' left ones at the left."""
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = [-90, -126, -72]
    labels = np.zeros((91, 109, 91), np.int16)
    for value in range(1, n_regions + 1):
        left = value <= n_regions // 2
        x = 10 if left else 70
        labels[x : x + 4, (value % 50) * 2, 20:24] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, labels, affine)


class Server:
    """Serves a folder; ``fault`` is applied to the answers of the first ``times``."""

    def __init__(self, root: Path) -> None:
        self.root, self.fault, self.times, self.asked = root, "", 0, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self._httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def answer(self, handler):
        name = handler.path.lstrip("/")
        self.asked.append(name)
        faulty = len(self.asked) <= self.times
        path = self.root / name
        if not path.is_file() or (faulty and self.fault == "404"):
            handler.send_error(404)
            return
        content = path.read_bytes()
        half = content[: len(content) // 2]
        fault = self.fault if faulty else ""
        if fault == "error page":
            content = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"
        if fault == "other content":
            content = gzip.compress(b"something else", mtime=0)
        handler.send_response(200)
        if fault != "truncated":
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if fault in ("truncated", "interrupted"):
            handler.wfile.write(half)
        elif fault == "stalled":
            handler.wfile.write(half)
            handler.wfile.flush()
            time.sleep(3)
        elif fault == "slow":
            step = max(1, len(content) // 8)
            for at in range(0, len(content), step):
                handler.wfile.write(content[at : at + step])
                handler.wfile.flush()
                time.sleep(0.2)
        else:
            handler.wfile.write(content)
        handler.close_connection = True

    def __enter__(self):
        threading.Thread(
            target=self._httpd.serve_forever, args=(0.01,), daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._httpd.shutdown()
            self._httpd.server_close()
