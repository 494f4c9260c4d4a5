"""What is kept on disk: found again when whole, made again when not, and never half written under its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.formats.base import Encoded
from exporters.formats.catalog import SEARCHED, format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.quality.reference import Score
from toolchain.search import store
from toolchain.search.store import Journal, LayerStore, recipe_key

SCORE = Score(21.5, 20.0, 0.075, 0.001, 0.07, 0.93, 999)
ONE: Recipe = {"emb": LayerConfig("sign", "nearest"), "head": LayerConfig("int4-g64", "gptq")}
TWO: Recipe = {"emb": LayerConfig("sign", "nearest"), "head": LayerConfig("int8", "gptq")}


def never(recipe: Recipe) -> Score:
    raise AssertionError(f"evaluated again: {recipe}")


class Maker:
    """Compresses random layers and counts how often."""

    def __init__(self) -> None:
        self.made: list[tuple[str, LayerConfig]] = []

    def __call__(self, path: str, config: LayerConfig) -> Encoded:
        self.made.append((path, config))
        weight = np.random.default_rng(len(path)).standard_normal((3, 70)).astype(np.float32)
        return format_named(config.format).encode(weight)


def same(one: Encoded, other: Encoded) -> bool:
    kinds = [(e.format, e.shape, e.exponent, e.packed.keys()) for e in (one, other)]
    if kinds[0] != kinds[1]:
        return False
    pairs = [(one.packed[n], other.packed[n]) for n in one.packed]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


# --- layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f.name for f in SEARCHED] + ["fp32", "sign"])
def test_a_layer_is_made_once_and_found_by_the_next_process(tmp_path: Path, name: str) -> None:
    config, maker = LayerConfig(name, "gptq"), Maker()
    first = LayerStore(tmp_path / "a" / "layers", maker)
    made = first.encoded("blocks.0.att.key", config)
    assert first.encoded("blocks.0.att.key", config) is made
    found = LayerStore(tmp_path / "a" / "layers", maker).encoded("blocks.0.att.key", config)
    assert same(found, made)
    assert maker.made == [("blocks.0.att.key", config)]


def test_paths_formats_and_methods_are_kept_apart(tmp_path: Path) -> None:
    maker = Maker()
    keys = [
        (path, LayerConfig(fmt, method))
        for path in ("head", "blocks.1.att.key", "blocks.11.att.key")
        for fmt in ("int4", "int4-g64")
        for method in ("gptq", "range")
    ]
    for _ in range(2):
        layers = LayerStore(tmp_path, maker)
        for path, config in keys:
            layers.encoded(path, config)
    assert maker.made == keys


def test_beyond_the_memory_limit_layers_come_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEEP_BYTES", 0)
    maker = Maker()
    layers = LayerStore(tmp_path, maker)
    one, other = (layers.encoded("head", LayerConfig("int3-g64", "gptq")) for _ in range(2))
    assert one is not other
    assert same(one, other)
    assert len(maker.made) == 1


def truncations(size: int) -> list[int]:
    return sorted({1, 4, 21, 22, 30, 64, size // 4, size // 2, size - 100, size - 22, size - 2, size - 1})


def test_a_truncated_file_is_made_again(tmp_path: Path) -> None:
    config, maker = LayerConfig("int4-g64", "gptq"), Maker()
    made = LayerStore(tmp_path, maker).encoded("head", config)
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    for n, size in enumerate(truncations(len(raw))):
        file.write_bytes(raw[:size])
        assert same(LayerStore(tmp_path, maker).encoded("head", config), made)
        assert len(maker.made) == n + 2, size
        assert file.read_bytes() == raw


def test_an_empty_file_is_made_again(tmp_path: Path) -> None:
    config, maker = LayerConfig("int4-g64", "gptq"), Maker()
    LayerStore(tmp_path, maker).encoded("head", config)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"")
    LayerStore(tmp_path, maker).encoded("head", config)
    assert len(maker.made) == 2


def test_a_file_with_a_damaged_header_is_made_again(tmp_path: Path) -> None:
    config, maker = LayerConfig("int4-g64", "gptq"), Maker()
    LayerStore(tmp_path, maker).encoded("head", config)
    (file,) = tmp_path.iterdir()
    raw = bytearray(file.read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + 10] = 99  # the compression method
    file.write_bytes(bytes(raw))
    LayerStore(tmp_path, maker).encoded("head", config)
    assert len(maker.made) == 2


@pytest.mark.parametrize("raw", [b"hello", b"PK\x03\x04" + bytes(50), bytes(1000)], ids=["text", "zip", "zeros"])
def test_a_file_of_other_things_is_made_again(tmp_path: Path, raw: bytes) -> None:
    config, maker = LayerConfig("int4-g64", "gptq"), Maker()
    made = LayerStore(tmp_path, maker).encoded("head", config)
    (file,) = tmp_path.iterdir()
    file.write_bytes(raw)
    assert same(LayerStore(tmp_path, maker).encoded("head", config), made)
    assert len(maker.made) == 2


def test_a_crash_while_writing_leaves_nothing_under_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, maker = LayerConfig("int4-g64", "gptq"), Maker()

    def crashing(out: Any, **arrays: Any) -> None:
        out.write(b"PK\x03\x04 half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", crashing)
        with pytest.raises(KeyboardInterrupt):
            LayerStore(tmp_path, maker).encoded("head", config)
    assert not list(tmp_path.glob("*.npz"))
    for _ in range(2):
        LayerStore(tmp_path, maker).encoded("head", config)
    assert len(maker.made) == 2
    assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]


# --- evaluations -------------------------------------------------------------------------------------------------


def test_a_score_is_evaluated_once_and_remembered_by_the_next_process(tmp_path: Path) -> None:
    calls: list[Recipe] = []

    def evaluate(recipe: Recipe) -> Score:
        calls.append(recipe)
        return SCORE

    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.scored(ONE, evaluate) == SCORE
    assert journal.scored(dict(reversed(ONE.items())), never) == SCORE
    again = Journal(tmp_path / "journal.jsonl")
    assert len(again) == 1
    assert again.scored(ONE, never) == SCORE
    assert again.scored(TWO, evaluate) == SCORE
    assert calls == [ONE, TWO]


def test_floats_come_back_exactly(tmp_path: Path) -> None:
    exact = Score(1 / 3, 2**0.5, 1e-17, float("inf"), 0.1 + 0.2, 1.0, 7)
    Journal(tmp_path / "j").scored(ONE, lambda recipe: exact)
    assert Journal(tmp_path / "j").scored(ONE, never) == exact


def test_an_evaluation_that_fails_is_not_remembered(tmp_path: Path) -> None:
    def failing(recipe: Recipe) -> Score:
        raise KeyboardInterrupt

    journal = Journal(tmp_path / "j")
    with pytest.raises(KeyboardInterrupt):
        journal.scored(ONE, failing)
    assert len(journal) == len(Journal(tmp_path / "j")) == 0
    assert journal.scored(ONE, lambda recipe: SCORE) == SCORE


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.995])
def test_a_torn_last_line_is_forgotten_and_the_next_one_is_appended_after_it(tmp_path: Path, share: float) -> None:
    file = tmp_path / "j"
    for recipe in (ONE, TWO):
        Journal(file).scored(recipe, lambda recipe: SCORE)
    first, second = file.read_text().splitlines(keepends=True)
    torn = second[: max(1, int(share * len(second.rstrip())))]
    file.write_text(first + torn)
    journal = Journal(file)
    assert len(journal) == 1
    assert journal.scored(ONE, never) == SCORE
    assert journal.scored(TWO, lambda recipe: SCORE) == SCORE
    assert file.read_text() == first + torn + "\n" + second
    assert Journal(file).scored(TWO, never) == SCORE


def test_a_last_line_without_its_newline_is_whole_and_the_next_does_not_join_it(tmp_path: Path) -> None:
    file = tmp_path / "j"
    Journal(file).scored(ONE, lambda recipe: SCORE)
    file.write_text(file.read_text().rstrip("\n"))
    Journal(file).scored(TWO, lambda recipe: SCORE)
    assert len(Journal(file)) == 2


@pytest.mark.parametrize(
    "line", ["", "3", "null", "[]", '{"key": "x"}', '{"key": "x", "score": {"perplexity": 1}}', "\x00" * 40]
)
def test_lines_that_are_no_evaluation_are_passed_over(tmp_path: Path, line: str) -> None:
    file = tmp_path / "j"
    file.write_text(line + "\n")
    Journal(file).scored(ONE, lambda recipe: SCORE)
    assert len(Journal(file)) == 1


def test_bytes_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "j"
    file.write_bytes(b'{"key": "\xff\xfe\n')
    Journal(file).scored(ONE, lambda recipe: SCORE)
    assert len(Journal(file)) == 1


def test_every_line_is_json_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    for recipe in (ONE, TWO):
        journal.scored(recipe, lambda recipe: SCORE)
    entries = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [entry["key"] for entry in entries] == [recipe_key(ONE), recipe_key(TWO)]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r | {"head": LayerConfig("int4-g64", "range")},
        lambda r: r | {"head": LayerConfig("int4-g32", "gptq")},
        lambda r: {"emb": r["emb"]},
        lambda r: {"emb": r["emb"], "tail": r["head"]},
    ],
)
def test_a_key_tells_recipes_apart_but_not_orders(change: Callable[[Recipe], Recipe]) -> None:
    assert recipe_key(change(ONE)) != recipe_key(ONE)
    assert recipe_key(dict(reversed(ONE.items()))) == recipe_key(ONE)
    assert len(recipe_key(ONE)) == 24
