"""Files have at most 300 lines and functions at most 60, in Python and in C++, tests among them."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 300
FUNCTION_LINES = 60

EXEMPT = {
    "exporters/native/run/unicode_tables.h",  # written by make_unicode.py, and read by nobody
}

_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
_SCOPE = re.compile(r'\b(namespace|class|struct|union|enum)\b[^()]*$|\bextern\s+""\s*$')


def sources(*endings: str) -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "--", *(f"*{ending}" for ending in endings)],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed if name not in EXEMPT and (ROOT / name).is_file()]


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and lines of every function, its decorators left out."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def cpp_functions(text: str) -> Iterator[tuple[str, int]]:
    """First line and lines of every block that is neither a scope nor within a function."""
    plain = _TEXT.sub(lambda m: '""' + "\n" * m[0].count("\n") if m[0][0] in "R\"'" else "\n" * m[0].count("\n"), text)
    plain = re.sub(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", lambda m: "\n" * m[0].count("\n"), plain, flags=re.MULTILINE)
    header, open_at, functions = 0, [], []
    for brace in re.finditer(r"[{};]", plain):
        at = brace.start()
        if brace[0] == "{":
            words = plain[header:at]
            start = header + len(words) - len(words.lstrip())
            open_at.append(start if not functions and ")" in words and not _SCOPE.search(words) else None)
            if open_at[-1] is not None:
                functions.append(start)
        elif brace[0] == "}" and open_at and (start := open_at.pop()) is not None:
            functions.pop()
            name = " ".join(plain[start : plain.index("{", start)].split())
            yield name, plain.count("\n", start, at) + 1
        header = at + 1


def test_cpp_functions_are_found():
    inside = 'namespace a {\nstruct B { int c() const {\n  return "}"[0]; // {\n} };\nint d = 3;\n}\n'
    text = inside + "void e(int f) {\n  if (f) {\n  }\n}\n"
    assert list(cpp_functions(text)) == [("int c() const", 3), ("void e(int f)", 4)]


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(".py", ".cc", ".h", ".c")
        if (lines := len(path.read_text().splitlines())) > FILE_LINES
    }
    assert not long, f"split these by subject, at {FILE_LINES} lines at most: {long}"


def test_functions_are_short():
    long = {
        f"{path.relative_to(ROOT)}: {name}": lines
        for endings, functions in (((".py",), python_functions), ((".cc", ".h", ".c"), cpp_functions))
        for path in sources(*endings)
        for name, lines in functions(path.read_text())
        if lines > FUNCTION_LINES
    }
    assert not long, f"split these, at {FUNCTION_LINES} lines at most: {long}"
