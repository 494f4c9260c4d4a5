"""Options from flags, --set, a YAML file and defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.pipeline.spec import Spec, resolve, to_yaml

GIVEN = {"model": Path("m"), "output": Path("o")}


def test_defaults() -> None:
    assert resolve(GIVEN, None, ()) == Spec(model=Path("m"), output=Path("o"))
    assert (Spec(**GIVEN).effort, Spec(**GIVEN).threads, Spec(**GIVEN).max_drop) == ("default", 1, None)


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("max-memory: 3MB\nseed: 1\neffort: quick\nlayer: {head: int8}\n")
    spec = resolve(
        {**GIVEN, "seed": 3, "effort": None, "formats": ()}, file, ("seed=2", "effort=thorough", "threads=2")
    )
    assert (spec.max_memory, spec.seed, spec.effort, spec.threads) == ("3MB", 3, "thorough", 2)
    assert spec.layer == {"head": "int8"}
    assert resolve({**GIVEN, "layer": {"emb": "sign"}}, file, ()).layer == {"emb": "sign"}


def test_single_globs_in_yaml_are_a_list() -> None:
    spec = resolve(GIVEN, None, ("max_drop=1%", "formats=int4-g64", "max-time=90s"))
    assert (spec.max_drop, spec.formats, spec.max_time) == ("1%", ("int4-g64",), "90s")


def test_what_is_written_can_be_given_again(tmp_path: Path) -> None:
    file = tmp_path / "config.resolved.yaml"
    spec = resolve({**GIVEN, "max_drop": "1%", "formats": ("int*",), "layer": {"head": "int8"}}, None, ())
    file.write_text(to_yaml(spec))
    assert resolve({}, file, ()) == spec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("nonsense=1",), "unknown option 'nonsense'; allowed are model"),
        (("seed=-1",), "'seed': .* found -1"),
        (("threads=257",), "'threads': .* found 257"),
        (("metric=bleu",), "'metric': .*perplexity.*accuracy"),
        (("formats=[",), "not YAML"),
        (("x",), "KEY=VALUE"),
        (("max_drop=1",), "--max-drop: '1' has no unit; give percent, as 1%"),
        (("max_latency=5",), "--max-latency: '5' has no unit"),
        (("max_rss=40000000",), "--max-rss: '40000000' has no unit"),
        (("max_build_memory=true",), "--max-build-memory: 'True' is not a quantity"),
        (("max_memory=-.inf",), "--max-memory: '-inf' is not a quantity"),
    ],
)
def test_refusals_say_what_is_allowed(settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(SlmcError, match=words):
        resolve(GIVEN, None, settings)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SlmcError, match="'model' is missing"):
        resolve({"output": Path("o")}, None, ())


ALIASES = "a: &a [x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "more than 32 levels"),
        ("layer: " + "{a: " * 100 + "1" + "}" * 100, "more than 32 levels"),
        ("- " * 500 + "x", "more than 32 levels"),
        (ALIASES + "layer: *j", r"alias \*a"),
        ("a: &a 1\nseed: *a", r"alias \*a"),
        ("seed: " + "9" * 400, "bits"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("\x00", "not YAML"),
        ("a: " + "x" * 2**20, "at most 1048576"),
    ],
)
def test_configurations_have_a_size_a_depth_and_no_aliases(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SlmcError, match=words) as refused:
        resolve(GIVEN, tmp_path / "c.yaml", ())
    assert len(str(refused.value)) < 600
    if len(text) < 2**20:
        with pytest.raises(SlmcError, match=words):
            resolve(GIVEN, None, (f"layer={text}",))


def test_a_configuration_that_is_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(SlmcError, match="a FIFO, and a regular file is needed"):
        resolve(GIVEN, tmp_path / "c.yaml", ())
