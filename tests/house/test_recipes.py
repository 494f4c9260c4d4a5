"""The recipes, followed to the letter: files as the pages give them, lines where the pages say."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import exporters.formats.catalog as catalog
import toolchain.model.recognition as recognition
from exporters.artifact.manifest import read_manifest
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import METHODS

ROOT = Path(__file__).parents[2]
FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
CHANGE = re.compile(r"^```diff\n--- (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8")


def changed(text: str, change: str) -> str:
    """A file's text after a change: lines that begin with a blank or a minus stand in it once."""
    lines = change.splitlines()
    before = "\n".join(line[1:] for line in lines if line[0] in " -")
    after = "\n".join(line[1:] for line in lines if line[0] in " +")
    assert text.count(before) == 1, f"{before!r} stands there {text.count(before)} times"
    return text.replace(before, after)


@pytest.mark.parametrize("name", ["own-format.md", "own-family.md"])
def test_changes_fit_the_files(name: str) -> None:
    changes = CHANGE.findall(page(name))
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path, _ in changes}
    for path, change in changes:
        texts[path] = changed(texts[path], change)
    assert changes
    for text in texts.values():
        ast.parse(text)


def test_a_change_that_does_not_fit_is_found() -> None:
    with pytest.raises(AssertionError, match="0 times"):
        changed("a = (1, 2)\n", " a = (1,)\n+b = 2")
    assert changed("a = 1\nc = 3\n", "+b = 2\n c = 3") == "a = 1\nb = 2\nc = 3\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Iterator[ModuleType]]:
    """The files of a page, imported under the names that they would have."""

    def load(name: str) -> Iterator[ModuleType]:
        for path, text in FILE.findall(page(name)):
            assert not (ROOT / path).exists() and (ROOT / path).parent.is_dir()
            place = tmp_path / Path(path).name
            place.write_text(text, encoding="utf-8")
            module_name = ".".join(Path(path).with_suffix("").parts)
            spec = importlib.util.spec_from_file_location(module_name, place)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, module_name, module)
            spec.loader.exec_module(module)
            yield module

    return load


def test_the_format_passes_the_walk(
    written: Callable[[str], Iterator[ModuleType]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (module,) = written("own-format.md")
    monkeypatch.setattr(catalog, "KINDS", (*catalog.KINDS, module.QuinaryFormat))
    fmt = format_named("quinary-g16")
    encoded = fmt.encode(np.array([[4, -4, 2, -1.9, 0.9, 0]], np.float32))
    assert fmt.decode(encoded).tolist() == [[4, -4, 2, -2, 0, 0]]
    spec = importlib.util.spec_from_file_location("walk", ROOT / "tests" / "toolchain" / "test_every_format.py")
    assert spec and spec.loader
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    asked = 0
    for question in vars(walk).values():
        names = list(inspect.signature(question).parameters) if inspect.isfunction(question) else []
        if "name" in names and question.__name__.startswith("test_"):
            for method in [m.name for m in METHODS] if "method" in names else [None]:
                given = {"name": "quinary-g64", "tmp_path": tmp_path, "method": method}
                question(**{name: given[name] for name in names})
                asked += 1
    assert asked > len(METHODS) + 4


def test_the_family_is_built_and_its_own_test_passes(
    written: Callable[[str], Iterator[ModuleType]], slmc: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    module, own_test = written("own-family.md")
    tests = [test for name, test in vars(own_test).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
    families = (*recognition.all_families(), module.ShiftedFamily())
    monkeypatch.setattr(recognition, "all_families", lambda: families)
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "samples" / "spikegpt-6m" / "tokenizer.json", source)
    vocabulary = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(0)
    save_file(module.Shifted(2, 32, 64, vocabulary, 1e-5).state_dict(), source / "model.safetensors")
    (source / "config.json").write_text(json.dumps({"model_type": "shifted", "hidden_size": 32}))
    done = slmc("build", source, "--effort", "quick", "--formats", "int8", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest.source.family == "shifted" and manifest.parity is not None
    assert manifest.parity.top1_agreement > 0.995
    (source / "config.json").write_text(json.dumps({"model_type": "shifted", "hidden_size": 33}))
    assert "hidden_size is 33, but the weights have 32" in slmc("inspect", source).stderr
