"""Modules of the package, what each imports and how long its functions are."""

import ast
import functools
from pathlib import Path

import bids_roi

ROOT = Path(bids_roi.__file__).parent
MODULES = {
    ".".join(("bids_roi", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}


def names_in(node, path):
    """Top-level names and in-package modules that a statement imports, if it does."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}: relative import"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in MODULES else str(node.module)


@functools.cache
def look_into(path):
    """Names that a file imports, and (name, lines) of its functions."""
    # Kept without the nodes: millions of them would slow every collection of garbage.
    names, functions = [], []
    for node in ast.walk(ast.parse(path.read_text())):
        names += names_in(node, path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            n_lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            functions.append((node.name, n_lines))
    return tuple(names), tuple(functions)


def imports(path):
    """All that a file imports, inside functions and for types too."""
    return look_into(path)[0]


def imports_when_loaded(path):
    """What a file imports as it is imported itself: not in functions, nor for types."""
    waiting = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if later or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            continue
        yield from names_in(node, path)
        waiting += ast.iter_child_nodes(node)
