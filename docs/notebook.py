"""The examples of docs/examples, run cell by cell and written as notebooks.

``python docs/notebook.py`` runs ``docs/examples/*.py`` (cells as Jupytext, Spyder and
VS Code know them: ``# %%``) in a temporary folder and writes the ``.ipynb`` beside
them. The standard library does: a kernel and its protocol are some twenty packages.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent / "examples"
_MIMES = {"_repr_svg_": "image/svg+xml", "_repr_html_": "text/html"}


def split_cells(text: str) -> list[tuple[str, str]]:
    """Kind (``code`` or ``markdown``) and source of each cell."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        head, _, source = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        if kind == "markdown":
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        cells.append((kind, source.strip("\n")))
    return cells


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as a notebook does; what it prints, and what its last line is."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, outputs = io.StringIO(), []
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)  # noqa: S102 - our own file
        value = None
        if isinstance(last, ast.Expr):
            code = compile(ast.Expression(last.value), "cell", "eval")
            value = eval(code, names)  # noqa: S307 - as above
    if printed.getvalue():
        text = printed.getvalue()
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = {"text/plain": repr(value)}
        for method, mime in _MIMES.items():
            if hasattr(value, method):
                data[mime] = getattr(value, method)()
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": data})
    return outputs


def run_example(path: Path) -> dict[str, Any]:
    """Run a file of cells in a temporary folder; its content as a notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells: list[dict[str, Any]] = []
    count = 0
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        before = os.environ["PATH"]
        os.environ["PATH"] = programs
        try:
            for kind, source in split_cells(path.read_text(encoding="utf-8")):
                cell = {"cell_type": kind, "metadata": {}, "source": source}
                if kind == "code":
                    count += 1
                    outputs = run_cell(source, names)
                    for output in outputs:
                        if output["output_type"] == "execute_result":
                            output["execution_count"] = count
                    cell |= {"execution_count": count, "outputs": outputs}
                cells.append(cell)
        finally:
            os.environ["PATH"] = before
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


if __name__ == "__main__":
    for example in sorted(EXAMPLES.glob("*.py")):
        notebook = json.dumps(run_example(example), indent=1, ensure_ascii=False)
        example.with_suffix(".ipynb").write_text(notebook + "\n", encoding="utf-8")
