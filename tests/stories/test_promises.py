"""What a manifest promises is judged alike by every command: altered artifacts break it, intact ones keep it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result

Slmc = Callable[..., Result]
EVALUATION = Path(__file__).parents[2] / "toolchain" / "texts" / "evaluation.txt"


def weights(folder: Path) -> None:
    """Another byte in each sixteenth place: a model that has learned nothing."""
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[::16] = bytes(byte ^ 0x3C for byte in data[::16])
    (folder / "model.onnx.data").write_bytes(data)


def longer(folder: Path) -> None:
    with (folder / "model.onnx.data").open("ab") as file:
        file.write(bytes(64))


def one_body_for_all(folder: Path) -> None:
    """As ONNX Runtime below 1.27 read older artifacts: the functions compute something else than the operators."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for function in model.functions:
        for node in function.node:
            if node.op_type == "Relu":
                node.op_type = "Neg"
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def promise(folder: Path, *path: str, value: float) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def smaller_drop(folder: Path) -> None:
    promise(folder, "quality", "relative_drop", value=-0.5)
    promise(folder, "quality", "relative_drop_upper", value=-0.49)


BREAKS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "other weights": (weights, ("perplexity", "drop", "agreement")),
    "a longer file": (longer, ("size",)),
    "bodies that compute something else": (
        one_body_for_all, ("parity with plain runtime", "perplexity on plain runtime"),
    ),
    "a better perplexity promised": (lambda f: promise(f, "quality", "compressed", value=2.0), ("perplexity",)),
    "a better agreement promised": (lambda f: promise(f, "quality", "top1_agreement", value=1.5), ("agreement",)),
    "a smaller drop promised": (smaller_drop, ("drop",)),
    "less memory promised": (lambda f: promise(f, "measured", "rss_peak_bytes", value=1), ("memory",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_validate_names_the_broken_promise(
    name: str, artifact: Path, tiny_model: Path, altered: Callable[..., Path], slmc: Slmc
) -> None:
    change, names = BREAKS[name]
    result = slmc("validate", altered(artifact, change), "--reference", tiny_model, "--json")
    assert result.exit_code == 3, result.stderr
    found = json.loads(result.stdout)
    assert set(names) <= set(found["broken"]) and found["verdict"].startswith("broken: "), found["promises"]


def test_other_weights_break_it_on_plain_runtime_and_elsewhere_too(
    artifact: Path, altered: Callable[..., Path], slmc: Slmc
) -> None:
    folder = altered(artifact, weights)
    for options in (("--no-native",), ("--on", "local")):
        result = slmc("validate", folder, *options, "--json")
        assert result.exit_code == 3 and "perplexity" in json.loads(result.stdout)["broken"], options


def test_every_command_says_the_same(artifact: Path, altered: Callable[..., Path], slmc: Slmc, tmp_path: Path) -> None:
    longer_file = altered(artifact, longer)
    baseline = tmp_path / "baseline.json"
    assert slmc("gate", artifact, "--baseline", baseline, "--update-baseline").exit_code == 0
    commands = (
        ("validate", longer_file), ("eval", longer_file, "--data", EVALUATION), ("report", longer_file),
        ("bench", longer_file, "-p", "8", "-n", "4", "-r", "1"),
        ("gate", longer_file, "--baseline", baseline, "--tolerance", "latency=1000%"),
    )  # fmt: skip
    for command in commands:
        result = slmc(*command)
        assert result.exit_code == 3 and "size" in result.stdout + result.stderr, (
            command,
            result.stdout,
            result.stderr,
        )
        again = [artifact if part == longer_file else part for part in command]
        assert slmc(*again).exit_code == 0, again


def test_eval_judges_the_text_that_the_figure_was_taken_of(
    artifact: Path, tiny_model: Path, altered: Callable[..., Path], slmc: Slmc
) -> None:
    result = slmc("eval", altered(artifact, weights), "--data", EVALUATION, "--reference", tiny_model, "--json")
    assert result.exit_code == 3
    assert {"drop", "agreement"} <= set(json.loads(result.stdout)["broken"])


def test_a_manifest_without_figures_is_compared_where_it_can_be(
    artifact: Path, altered: Callable[..., Path], slmc: Slmc
) -> None:
    def forget(folder: Path) -> None:
        for key in ("quality", "parity", "measured"):
            promise(folder, key, value=None)  # type: ignore[arg-type]

    result = slmc("validate", altered(artifact, forget), "--json")
    assert result.exit_code == 0, result.stderr
    said = {p["name"]: p["status"] for p in json.loads(result.stdout)["promises"]}
    assert said.pop("size") == "kept" and set(said.values()) == {"not compared"}


def test_plain_runtime_is_not_compared_with_itself(artifact: Path, slmc: Slmc) -> None:
    found = json.loads(slmc("validate", artifact, "--no-native", "--json").stdout)
    said = {p["name"]: p["status"] for p in found["promises"]}
    assert found["stock_runtime_top1"] is None and said["parity with plain runtime"] == "not compared"
    assert said["perplexity"] == "kept"


def test_no_false_alarms_on_twenty_texts(artifact: Path, tiny_model: Path, slmc: Slmc, tmp_path: Path) -> None:
    words = EVALUATION.read_text(encoding="utf-8").split()
    for seed in range(20):
        text = tmp_path / f"{seed}.txt"
        start = random.Random(seed).randrange(len(words) - 400)
        text.write_text(" ".join(words[start : start + 150 + 12 * seed]), encoding="utf-8")
        result = slmc("eval", artifact, "--data", text, "--reference", tiny_model, "--json")
        assert result.exit_code == 0, (seed, json.loads(result.stdout)["promises"])
        assert {"drop", "agreement"} <= {
            p["name"] for p in json.loads(result.stdout)["promises"] if p["status"] == "kept"
        }


def test_rounded_inputs_break_no_promise_on_other_texts(
    tiny_model: Path, slmc: Slmc, limits: tuple[str, ...], tmp_path: Path
) -> None:
    out, words = tmp_path / "out", EVALUATION.read_text(encoding="utf-8").split()
    built = slmc("build", tiny_model, "-o", out, *limits, "--activations", "int8")
    assert built.exit_code == 0, built.stderr
    for seed in range(6):
        rng = random.Random(seed)
        start, length = rng.randrange(len(words) // 2), rng.randrange(150, 600)
        (text := tmp_path / f"{seed}.txt").write_text(" ".join(words[start : start + length]), encoding="utf-8")
        for more in ((), ("--no-native",)):
            result = slmc("validate", out, "--reference", tiny_model, "--data", text, "-q", *more)
            assert result.exit_code == 0, (seed, more, result.stdout, result.stderr)
