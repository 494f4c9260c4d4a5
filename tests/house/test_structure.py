"""The structure that is promised: formats are asked, not told apart; packages do not import in circles."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import exporters.formats.catalog as catalog
from exporters.formats.base import Format

ROOT = Path(__file__).parents[2]
PRODUCT = ("exporters", "targets", "toolchain")


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def told_apart(tree: ast.Module, classes: set[str]) -> Iterator[int]:
    """Lines that ask whether something is of one of these classes."""

    def names(node: ast.AST) -> set[str]:
        return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & classes

    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
        if called in ("isinstance", "issubclass") and names(node.args[1]):  # type: ignore[attr-defined]
            yield node.lineno  # type: ignore[attr-defined]
        elif isinstance(node, ast.MatchClass) and names(node.cls):
            yield node.lineno


def test_no_code_outside_tells_formats_apart() -> None:
    classes = {kind.__name__ for kind in catalog.KINDS} | {Format.__name__}
    found = [
        f"{path}:{line}"
        for path, tree in trees(*PRODUCT, "samples")
        if path.parts[:2] != ("exporters", "formats")
        for line in told_apart(tree, classes)
    ]
    assert not found
    assert list(told_apart(ast.parse("isinstance(x, int | A)\nmatch x:\n  case A(y): pass"), {"A"})) == [1, 3]


def package_of(module: str) -> str:
    """The folder that a module lies in: toolchain.model.tree -> toolchain.model."""
    parts = module.split(".")
    while not (ROOT / Path(*parts)).is_dir():
        parts.pop()
    return ".".join(parts)


def test_packages_do_not_import_in_circles() -> None:
    below: dict[str, set[str]] = {}
    for path, tree in trees(*PRODUCT):
        own = ".".join(path.parent.parts)
        for node in ast.walk(tree):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            packages = {package_of(m) for m in modules if m.split(".")[0] in PRODUCT}
            below.setdefault(own, set()).update(packages - {own, *PRODUCT})
    assert {"toolchain.cli", "targets.device", "exporters.formats"} <= set(below)
    list(graphlib.TopologicalSorter(below).static_order())  # raises CycleError
