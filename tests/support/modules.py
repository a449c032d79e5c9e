"""Modules of the package, and what each imports."""

import ast
import functools
from pathlib import Path

import bids_roi

ROOT = Path(bids_roi.__file__).parent
MODULES = {
    ".".join(("bids_roi", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}


@functools.cache
def nodes_of(path):
    """Every node of a file's syntax tree; dozens of tests ask for the same files."""
    return tuple(ast.walk(ast.parse(path.read_text())))


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
def imports(path):
    """All that a file imports, inside functions and for types too."""
    return tuple(name for node in nodes_of(path) for name in names_in(node, path))


def imports_when_loaded(path):
    """What a file imports as it is imported itself: not in functions, nor for types."""
    waiting = list(nodes_of(path)[0].body)
    while waiting:
        node = waiting.pop()
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if later or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            continue
        yield from names_in(node, path)
        waiting += ast.iter_child_nodes(node)
