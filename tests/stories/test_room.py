"""A memory limit that is too small for a model with a key-value cache: what is said, and whether it helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.pipeline.room import most_tokens


@pytest.fixture(scope="module")
def cached(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose cache of 512 tokens is most of what it takes."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("cached")
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    return folder


def proposed(stderr: str) -> list[list[str]]:
    """The options that a message says would fit."""
    found = re.search(r"; (--[^;]*) would fit", stderr)
    return [shlex.split(option) for option in found[1].split(" or ")] if found else []


@pytest.mark.parametrize("limit", ["50%", "40%", "20%", "18%", "100kB", "60kB"])
def test_what_is_proposed_fits(cached: Path, slmc: Callable[..., Any], tmp_path: Path, limit: str) -> None:
    command = ("build", cached, "-o", tmp_path / "o", "--max-memory", limit, "--effort", "quick", "--dry-run")
    result = slmc(*command)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert re.search(r"94% of which is the key-value cache of 512 tokens", result.stderr)
    assert "smaller formats" not in result.stderr
    ways = proposed(result.stderr)
    assert ways and any("--context" in way or way == ["--kv-cache", "int8"] for way in ways)
    for way in ways:
        assert slmc(*command, *way).exit_code == 0
        if "--context" in way:  # sixteen tokens more do not
            more = [str(int(word) + 16) if word.isdigit() else word for word in way]
            assert slmc(*command, *more).exit_code == 2


def test_the_least_limit_that_is_named_is_one(cached: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    command = ("build", cached, "-o", tmp_path / "o", "--effort", "quick", "--dry-run")
    least = re.search(r"give at least --max-memory (\d+)B", slmc(*command, "--max-memory", "1%").stderr)
    assert least is not None
    assert slmc(*command, "--max-memory", f"{least[1]}B").exit_code == 0
    assert slmc(*command, "--max-memory", f"{int(least[1]) - 1}B").exit_code == 2


def test_all_formats_are_named_only_where_they_help(tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    command = ("build", tiny_model, "-o", tmp_path / "o", "--dry-run")
    helped = slmc(*command, "--max-memory", "30%", "--formats", "fp16").stderr
    assert "with all formats (--formats '*') the smallest size is" in helped and "cache" not in helped
    alone = slmc(*command, "--max-memory", "1kB", "--formats", "*").stderr
    assert "--formats" not in alone and "cache" not in alone and "or give at least" in alone


@pytest.mark.parametrize("limit", ["100%", "200%"])
def test_fp32_fits_into_all_of_fp32(cached: Path, slmc: Callable[..., Any], tmp_path: Path, limit: str) -> None:
    command = ("build", cached, "-o", tmp_path / "o", "--formats", "fp32", "--dry-run")
    assert slmc(*command, "--max-memory", limit).exit_code == 0
    assert slmc(*command, "--max-memory", "99.99%").exit_code == 2


def test_the_position_counts_once(cached: Path) -> None:
    """Eight bytes of the position, 2 caches of 2 layers, 4 heads, 512 tokens and 8 values of four bytes."""
    for kind in ("fp32", "int8"):
        tree = load_model(cached, options=ModelOptions(512, kind)).tree
        assert tree.exact_state_bytes == tree.bytes_fp32 - 4 * tree.params == 8 + 4 * 2 * 2 * 4 * 512 * 8
    assert load_model(cached).tree.stored_state_bytes == load_model(cached).tree.exact_state_bytes


@pytest.mark.parametrize(("room", "wanted"), [(0, 0), (1, 1), (7, 7), (511, 511), (512, 512), (9999, 512)])
def test_the_most_tokens_that_fit(room: int, wanted: int) -> None:
    assert most_tokens(lambda tokens: tokens <= room, 512) == wanted
