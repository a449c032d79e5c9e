"""Pictures of the demo's pages for README.md and docs/, as Chromium draws them.

    python docs/pictures.py demo/derivatives docs/assets

A script beside a copy of each page leaves what the picture is of; the rest of the
window, which is empty then, is cut off, and the colours are brought to 96.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

__all__ = ["PICTURES", "open_page", "take_pictures"]

# Name of the picture: page, and the elements that stay (the first of each selector).
PICTURES: dict[str, tuple[str, list[str]]] = {
    "report": (
        "sub-02.html",
        [
            "header",
            "h2[id*=desc-preproc_bold]",
            "figure:has([href*=desc-contours_dseg])",
            "figure:has([href*=Carpet_timeseries])",
        ],
    ),
    "report-matrix": (
        "sub-02.html",
        ["figure:has([href*=Relmat_relmat])", "figure.picker"],
    ),
    "report-regions": (
        "sub-02.html",
        ["section.atlas details:has(table[id^=regions])"],
    ),
    "group": (
        "group.html",
        [
            "header",
            "#strategies",
            "#strategies ~ figure",
            "#quality",
            "#quality ~ figure",
            "figure:has([href*=_qcfc])",
        ],
    ),
}
_WIDTH, _HEIGHT, _MARGIN = 1200, 2400, 16
# A table that is longer than its picture has to be.
_HEIGHTS = {"report-regions": 620}
# What is missing leaves nothing, which is found below.
_SCRIPT = """
addEventListener("load", () => {
  const kept = KEPT.map(words => document.querySelector(words));
  if (kept.includes(null)) { document.body.textContent = ""; return; }
  for (const one of kept) if (one.tagName === "DETAILS") one.open = true;
  for (const image of document.images) image.loading = "eager";
  // Columns beside what is taken away would stay narrow.
  for (const one of document.querySelectorAll(".columns, .beside"))
    one.style.display = "block";
  const stays = one => kept.some(other => other.contains(one) || one.contains(other));
  for (const one of document.querySelectorAll("body *"))
    if (!stays(one)) one.remove();
  for (const one of document.querySelectorAll("details:not(:has(> summary))"))
    one.replaceWith(...one.childNodes);
});
"""


def take_pictures(results: Path, folder: Path) -> list[Path]:
    """Write all pictures.

    Parameters
    ----------
    results
        Outputs of the demo, both levels.
    folder
        For the PNGs.
    """
    written = []
    for name, (page, kept) in PICTURES.items():
        copy = results / f"picture-{page}"
        script = results / "picture.js"
        script.write_text(_SCRIPT.replace("KEPT", json.dumps(kept)))
        text = (results / page).read_text(encoding="utf-8")
        tag = f'<script src="{script.name}"></script></body>'
        copy.write_text(text.replace("</body>", tag), encoding="utf-8")
        written.append(folder / f"{name}.png")
        try:
            _take(copy, written[-1], _HEIGHTS.get(name, _HEIGHT))
        finally:
            copy.unlink()
            script.unlink()
    return written


def open_page(
    address: str, *words: str, size: tuple[int, int] = (_WIDTH, _HEIGHT)
) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium without a window, a profile or a way out."""
    with tempfile.TemporaryDirectory() as profile:
        call = [os.environ.get("BIDS_ROI_BROWSER", "chromium"), "--headless"]
        call += ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
        call += ["--hide-scrollbars", "--disable-background-networking"]
        call += ["--enable-logging=stderr", f"--user-data-dir={profile}"]
        call += ["--host-resolver-rules=MAP * ~NOTFOUND"]
        call += [f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=20000"]
        call += [*words, address]
        return subprocess.run(  # noqa: S603
            call, capture_output=True, text=True, check=True, timeout=120
        )


def _take(page: Path, path: Path, height: int) -> None:
    open_page(page.resolve().as_uri(), f"--screenshot={path}", size=(_WIDTH, height))
    with Image.open(path) as shot:
        picture = shot.convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, height - 1)))
    box = ImageChops.difference(picture, empty).getbbox()
    if box is None:
        raise SystemExit(f"{page.name}: what {path.name} shows is not on it.")
    bottom = min(height, box[3] + _MARGIN)
    picture = picture.crop((0, max(0, box[1] - _MARGIN), _WIDTH, bottom))
    picture.quantize(palette=_palette(picture), dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def _palette(picture: Image.Image) -> Image.Image:
    """32 greys, and 64 of what is coloured: else paper and brains are tinted."""
    pixels = np.asarray(picture).reshape(-1, 3)
    spread = pixels.max(axis=1).astype(int) - pixels.min(axis=1)
    coloured = Image.fromarray(pixels[spread > 32][None])
    few = coloured.quantize(64, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    greys = np.repeat(np.linspace(0, 255, 32).astype(int), 3)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys.tolist(), *few[: 3 * 64]])
    return palette


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]), Path(sys.argv[2]))
