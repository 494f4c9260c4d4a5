"""What users get wrong: each is one line on stderr with the thing, what was found and what to do, and no traceback."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

Fails = Callable[..., None]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("bomb-went-off",)


def test_no_such_model(fails: Fails, tmp_path: Path) -> None:
    for command in (("inspect",), ("build", "-o", tmp_path / "out"), ("search", "-o", tmp_path / "p")):
        fails((command[0], tmp_path / "nothing", *command[1:]), 2, tmp_path / "nothing", "no such file or directory")
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_with_code_is_refused_and_not_run(
    model: Path, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (("old.pth", lambda p: p.write_bytes(pickle.dumps({"emb.weight": Bomb()}, 2))),
                        ("new.pth", lambda p: torch.save({"emb.weight": Bomb()}, p))):  # fmt: skip
        write(model / name)
        fails(("inspect", model / name), 2, name, "run code", "safetensors")
    assert not (tmp_path / "bomb-went-off").exists()


def test_checkpoints_of_no_known_family(model: Path, fails: Fails, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(2)}, model / "model.safetensors")
    args = ("build", model, "--max-memory", "20%", "-o", tmp_path / "out")
    fails(args, 2, "model.safetensors", "no known model family", "conv.weight", "spikegpt")


def test_checkpoints_that_are_damaged(model: Path, fails: Fails) -> None:
    file = model / "model.safetensors"
    tensors = load_file(file)

    def refused(changed: dict[str, torch.Tensor], *words: str) -> None:
        save_file(changed, file)
        fails(("inspect", model), 2, "model.safetensors", *words)

    refused(tensors | {"blocks.0.att.key.weight": torch.zeros(7, 32)}, "blocks.0.att.key.weight", "[7, 32]")
    spoilt = tensors["head.weight"].clone()
    spoilt[3, 3] = float("nan")
    refused(tensors | {"head.weight": spoilt}, "head.weight", "1 values", "NaN")
    refused({n: t for n, t in tensors.items() if n != "blocks.1.ffn.key.weight"}, "missing", "blocks.1.ffn.key.weight")
    save_file(tensors, file)
    file.write_bytes(file.read_bytes()[:-500])
    fails(("inspect", model), 2, file, "no readable safetensors", "copy it again")


def test_tokenizers_that_do_not_fit(model: Path, fails: Fails) -> None:
    file = model / "tokenizer.json"
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(7)}, unk_token="w0")).save(str(file))
    fails(("inspect", model), 2, file, "7 entries", "300")
    file.write_text("{")
    fails(("inspect", model), 2, file, "not a tokenizer.json")
    file.unlink()
    fails(("inspect", model), 2, file, "no such tokenizer", "--tokenizer")
    (model / "config.json").write_text("{,")
    fails(("inspect", model), 2, "config.json", "not JSON")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"w1 \xff\xfd\x00A", "not UTF-8"),
        (b"text\0text", "NUL"),
        (b"Short.", "too few"),
    ],
)
@pytest.mark.parametrize("option", ["--calibration", "--eval"])
def test_texts_that_are_none(
    tiny_model: Path, fails: Fails, tmp_path: Path, raw: bytes, words: str, option: str
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_bytes(raw)
    fails(("build", tiny_model, "-o", out, option, text), 2, text, words)
    fails(("build", tiny_model, "-o", out, option, tmp_path / "no.txt"), 2, "no.txt", "no such text file")
    assert not out.exists()


def test_outputs_that_cannot_be(
    tiny_model: Path, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the model is even read, and nothing is changed."""
    file, folder, plan = tmp_path / "file", tmp_path / "folder", tmp_path / "plan.json"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").touch()
    (tmp_path / "link").symlink_to(folder)
    plan.write_text("{}")
    for command in (("build", tiny_model), ("export", tiny_model, "--plan", plan)):
        fails((*command, "-o", file / "out"), 2, file / "out", "cannot be written", "Not a directory")
        fails((*command, "-o", "/proc/out"), 2, "/proc/out", "cannot be written", "choose another")
        fails((*command, "-o", folder), 2, folder, "already exists", "--force")
        fails((*command, "-o", folder, "--force"), 2, folder, "no artifact")
        fails((*command, "-o", file, "--force"), 2, file, "a file")
        fails((*command, "-o", tmp_path / "link", "--force"), 2, "link", "a link")
        fails((*command, "-o", "."), 2, "give a name")
        fails((*command, "-o", "/", "--force"), 2, "give a name")
    fails(("search", tiny_model, "-o", plan), 2, plan, "already exists", "--force")
    fails(("search", tiny_model, "-o", folder, "--force"), 2, folder, "a folder")
    fails(("sensitivity", tiny_model, "--html", folder), 2, folder, "a folder")
    monkeypatch.chdir(tmp_path)
    fails(("build", tiny_model, "-o", "x" * 300), 2, "File name too long")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link", "plan.json"]
    assert file.read_text() == "mine" and (folder / "mine").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder(tiny_model: Path, fails: Fails, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    fails(("build", tiny_model, "-o", tmp_path / "out"), 2, tmp_path / "out", "Permission denied")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--formats", "int99"), ("int99",)),
        (("--formats", "z*"), ("z*", "int4")),
        (("--method", "magic"), ("magic", "gptq")),
        (("--effort", "lazy"), ("lazy", "thorough")),
        (("--target", "toaster"), ("toaster", "host")),
        (("--metric", "beauty"), ("metric", "perplexity", "beauty")),
        (("--layer", "head"), ("'head'", "REGEX=FORMAT")),
        (("--layer", "head=int99"), ("int99",)),
        (("--layer", "nose=int8"), ("nose", "matches no layer", "emb")),
        (("--layer", "(=int8"), ("'('", "regular expression")),
        (("--layer", "head=sign"), ("head", "sign")),
        (("--max-memory", "-5%"), ("--max-memory", "'-5%'", "3MB")),
        (("--max-memory", "abc"), ("--max-memory", "'abc'")),
        (("--max-memory", "3XB"), ("--max-memory", "XB", "MiB")),
        (("--max-memory", "300000"), ("--max-memory", "no unit", "MiB")),
        (("--max-memory", "0"), ("--max-memory",)),
        (("--max-memory", "0%"), ("--max-memory", "nothing at all")),
        (("--max-memory", ""), ("--max-memory",)),
        (("--max-memory", "9" * 400 + "GB"), ("--max-memory",)),
        (("--max-memory", "1kB"), ("--max-memory", "below the smallest possible", "or give at least --max-memory")),
        (("--max-rss", "much"), ("--max-rss", "'much'")),
        (("--max-drop", "-1%"), ("--max-drop", "'-1%'")),
        (("--max-drop", "nan"), ("--max-drop", "'nan'")),
        (("--max-drop", "1GB"), ("--max-drop", "GB")),
        (("--max-latency", "0ms"), ("--max-latency", "nothing at all")),
        (("--max-latency", "5 parsecs"), ("--max-latency", "parsecs")),
        (("--max-drop", "1"), ("--max-drop", "'1' has no unit", "1%")),
        (("--max-latency", "5"), ("--max-latency", "'5' has no unit", "5ms")),
        (("--max-time", "60"), ("--max-time", "no unit", "10m")),
        (("--max-rss", "50"), ("--max-rss", "no unit", "3MB")),
        (("--max-build-memory", "50%"), ("--max-build-memory", "'%'", "64MB")),
        (("--set", "max_drop=0.01"), ("--max-drop", "'0.01' has no unit", "1%")),
        (("--set", "max-time=1:30"), ("--max-time", "'90' has no unit", "10m")),
        (("--set", "max-memory=.nan"), ("--max-memory", "'nan'", "3MB")),
        (("--max-time", ""), ("--max-time",)),
        (("--seed", "-1"), ("seed", "-1")),
        (("--seed", str(2**70)), ("seed", str(2**70))),
        (("--threads", "0"), ("threads", "0")),
        (("--set", "effort"), ("'effort'", "KEY=VALUE")),
        (("--set", "effrot=quick"), ("effrot", "effort", "max_memory")),
        (("--set", "formats=*"), ("formats=*", "quotes")),
        (("--set", "seed=many"), ("seed", "many")),
        (("-c", "/nowhere.yaml"), ("/nowhere.yaml", "cannot be read")),
    ],
)
def test_options_that_make_no_sense(
    tiny_model: Path, fails: Fails, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    fails(("build", tiny_model, "-o", tmp_path / "new" / "out", *options), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("efort: quick", ("efort", "allowed are", "effort")),
        ("effort: [1]", ("effort",)),
        ("- effort", ("list",)),
        ("effort: : quick", ("not YAML",)),
        ("layer: {head: 7}", ("layer.head", "7")),
        ("\0", ("not YAML",)),
    ],
)
def test_configurations_that_make_no_sense(
    tiny_model: Path, fails: Fails, tmp_path: Path, yaml: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml)
    fails(("build", tiny_model, "-o", tmp_path / "out", "-c", file), 2, *words)


def test_plans_that_are_none(tiny_model: Path, artifact: Path, fails: Fails, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    command = ("export", tiny_model, "--plan", plan, "-o", tmp_path / "out")
    good = json.loads((artifact / "plan.json").read_text())
    recipe, options = good["recipe"], good["options"]
    fails(command, 2, plan, "cannot be read", "slmc search")
    for raw, words in (
        ("", ("not JSON",)),
        ("[" * 100_000, ("not JSON",)),
        ("[]", ("plan_version", "None")),
        (json.dumps(good | {"plan_version": 99}), ("plan_version", "99", "search again")),
        (json.dumps(good | {"model_sha256": "0" * 64}), ("0000", "not for this one")),
        (json.dumps(good | {"options": options | {"effort": "lazy"}}), ("lazy",)),
        (json.dumps(good | {"options": options | {"unheard": 1}}), ("unheard", plan)),
        (json.dumps(good | {"surprise": 1}), ("surprise",)),
        (json.dumps(good | {"options": options | {"tune_for": "fame"}}), ("fame", "distribution", "best-token")),
        (json.dumps(good | {"options": options | {"tune": -1}}), ("tune", "-1")),
        (json.dumps(good | {"recipe": {k: v for k, v in recipe.items() if k != "head"}}), ("head",)),
        (json.dumps(good | {"recipe": recipe | {"head": recipe["head"] | {"format": "int99"}}}), ("int99",)),
        (json.dumps(good | {"recipe": recipe | {"head": recipe["head"] | {"method": "magic"}}}), ("magic",)),
        (json.dumps(good | {"recipe": recipe | {"head": recipe["head"] | {"activations": "int3"}}}), ("int3", "fp32")),
        (json.dumps(good | {"recipe": recipe | {"emb": recipe["emb"] | {"activations": "int8"}}}), ("emb", "sign")),
    ):
        plan.write_text(raw)
        fails(command, 2, *words)
    assert list(tmp_path.iterdir()) == [plan]


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("build",), ("build", "m"), ("inspect", "m", "--nonsense"), ("generate", "a", "-n", "-1"),
     ("generate", "a", "--seed", "-1"), ("validate", "a", "--threads", "0"),
     ("eval", "a", "--data", "t", "--tokens", "1"), ("bench", "a", "-o", "xml")],
)  # fmt: skip
def test_click_says_the_rest(slmc: Callable[..., object], arguments: tuple[str, ...]) -> None:
    result = slmc(*arguments)
    assert (result.exit_code, result.stdout) == (2, "") and "Traceback" not in result.stderr  # type: ignore[attr-defined]


def test_a_package_that_is_missing(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    fails(("inspect", "model"), 5, "torch", "pip install")
