"""Does the gate catch what it should and nothing else? Regressions seeded into the sample's artifact, one by one.

    python benchmarks/gate_regressions.py WORK --unchanged 20

WORK keeps the artifact, the baseline and every result, so that the command can be stopped and goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from click.testing import CliRunner

from exporters.artifact.manifest import MANIFEST_NAME, Io, read_manifest
from targets.device.evaluation import EvaluationRequest, evaluate
from targets.device.measurement import Measurement, MeasureRequest
from targets.measure.child import measure
from toolchain.cli.main import main as slmc
from toolchain.delivery.package import write_sums
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.gate.values import read_baseline, unpacked
from toolchain.model.text import read_text
from toolchain.model.tokenizer import read_tokenizer

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "samples" / "spikegpt-6m"
DATA = "model.onnx.data"
LOWER = "blocks.3.ffn.key"
SWAPPED = ("blocks.1.att.key.codes", "blocks.2.att.key.codes")
FALL = (0.0100, 0.0115)
"""How much the agreement with the fp32 model's best tokens is made to fall, in shares of all tokens."""

_CHILD = """
import sys, time
from targets.device import worker
{hook}
worker.main()
"""
SLOWER = """
step = worker.Session.step
def slowed(self, token):
    began = time.process_time_ns()
    logits = step(self, token)
    end = time.process_time_ns() + int(0.15 * (time.process_time_ns() - began))
    while time.process_time_ns() < end:
        pass
    return logits
worker.Session.step = slowed
"""
LARGER = """
import numpy as np
opened = worker.open_session
def larger(*args, **kwargs):
    worker.ballast = np.ones({bytes}, np.uint8)
    return opened(*args, **kwargs)
worker.open_session = larger
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One regression: how it is made, the check that has to catch it, and code for the measured process if need be."""

    what: str
    caught_by: str
    seed: Callable[[Path, Path], None]
    hook: str = ""


def lower(folder: Path, work: Path) -> None:
    """The same plan with one layer a bit lower, exported by slmc."""
    plan = json.loads((folder / "plan.json").read_text())
    entry = plan["recipe"][LOWER]
    bits = int(entry["format"].removeprefix("int").split("-")[0])
    entry["format"] = entry["format"].replace(f"int{bits}", f"int{bits - 1}")
    (work / "lower.json").write_text(json.dumps(plan))
    run("export", MODEL, "--plan", work / "lower.json", "-o", folder, "--force", "-q")


def swap(folder: Path, _work: Path) -> None:
    """The codes of two layers of the same shape change places."""
    (at, size), (other, same) = (tensor(folder, name) for name in SWAPPED)
    assert size == same
    data = bytearray((folder / DATA).read_bytes())
    data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
    (folder / DATA).write_bytes(data)
    sign(folder)


def grow(folder: Path, _work: Path) -> None:
    """5 % of zeros at the end of the weights file."""
    data = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(data + bytes(len(data) // 20))
    sign(folder)


def blur(folder: Path, work: Path) -> None:
    """The head's scales, multiplied by 1 + noise that is just loud enough for the agreement to fall by a hundredth."""
    at, size = tensor(folder, "head.scales")
    data = bytearray((folder / DATA).read_bytes())
    scales = np.frombuffer(bytes(data[at : at + size]), np.float16)
    noise = np.random.default_rng(0).standard_normal(scales.shape)
    before = agreement(folder, work)
    low, high = 0.0, 0.5
    for _ in range(14):
        loud = (low + high) / 2
        data[at : at + size] = (scales * (1 + loud * noise)).astype(np.float16).tobytes()
        (folder / DATA).write_bytes(data)
        fall = before - agreement(folder, work)
        if FALL[0] <= fall <= FALL[1]:
            break
        low, high = (loud, high) if fall < FALL[0] else (low, loud)
    else:
        raise click.ClickException(f"no noise makes the agreement fall by {FALL}; it fell by {fall:.4f}")
    click.echo(f"noise {loud:.4f} of the head's scales: agreement fell by {fall:.4f}", err=True)
    sign(folder)


def tamper(folder: Path, _work: Path) -> None:
    """One bit of the weights, and nobody told."""
    data = bytearray((folder / DATA).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / DATA).write_bytes(data)


def nothing(_folder: Path, _work: Path) -> None:
    """The artifact as it is."""


def cases(work: Path) -> dict[str, Case]:
    memory = read_baseline(work / "baseline.json").figures.model_memory_bytes
    ballast = LARGER.replace("{bytes}", str(int(np.median(memory)) // 10))
    return {
        "bit": Case(f"{LOWER} a bit lower", "layers", lower),
        "swap": Case("two tensors swapped", "top-1 agreement", swap),
        "grown": Case("weights file 5 % longer", "size", grow),
        "slow": Case("15 % more CPU time per token", "latency", nothing, SLOWER),
        "memory": Case("10 % more memory", "memory", nothing, ballast),
        "top1": Case("top-1 agreement 1 % lower", "top-1 agreement", blur),
        "tampered": Case("one bit of the weights flipped", "files", tamper),
    }


def tensor(folder: Path, name: str) -> tuple[int, int]:
    """Offset and bytes of a tensor in the weights file."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    tensor = next(t for t in graph.initializer if t.name == name)
    place = {e.key: e.value for e in tensor.external_data}
    return int(place["offset"]), int(place["length"])


def sign(folder: Path) -> None:
    """Checksums that fit the files again, as a build would have written them."""
    manifest = dataclasses.replace(read_manifest(folder), files=write_sums(folder))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    write_sums(folder)


def agreement(folder: Path, work: Path) -> float:
    """Share of the baseline's text where the best token is the fp32 model's."""
    baseline = read_baseline(work / "baseline.json")
    vocabulary = json.loads((MODEL / "config.json").read_text())["vocabulary"]
    tokenizer = read_tokenizer(folder / "tokenizer.json", vocabulary).tokenizer
    ids = read_text(SHIPPED_TEXTS / "evaluation.txt", tokenizer).ids[: baseline.figures.text.tokens]
    found = evaluate(folder, "model.onnx", read_manifest(folder).io, EvaluationRequest(tuple(ids.tolist())))
    return found.agreement(unpacked(baseline.reference_tokens, work / "baseline.json"))


def run(*args: object) -> Any:
    result = CliRunner().invoke(slmc, [str(arg) for arg in args])
    if result.exit_code not in (0, 3):
        raise click.ClickException(result.stderr)
    return result


def gate(artifact: Path, work: Path, hook: str) -> dict[str, Any]:
    """What `slmc gate --json` says, with the hook in every process that it measures."""
    from toolchain.delivery import execution

    def hooked(folder: Path, io: Io, request: MeasureRequest) -> Measurement:
        return measure(folder, io, request, command=(sys.executable, "-c", _CHILD.replace("{hook}", hook)))

    execution.measure = hooked if hook else measure
    began = time.monotonic()
    result = run("gate", artifact, "--baseline", work / "baseline.json", "--json", "-q")
    document = json.loads(result.stdout)
    return {
        "exit_code": result.exit_code, "failed": document["failed"], "seconds": round(time.monotonic() - began, 1),
        "why": {c["name"]: c["why"] for c in document["checks"]},
    }  # fmt: skip


def prepare(work: Path) -> None:
    """The artifact and its baseline, once."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "sample").exists():
        limits = ("--max-memory", "13.5%", "--max-drop", "2%", "--effort", "quick")
        run("build", MODEL, *limits, "-o", work / "sample", "-q")
    if not (work / "baseline.json").exists():
        update = ("--update-baseline", "--reference", MODEL, "-q")
        run("gate", work / "sample", "--baseline", work / "baseline.json", *update)


def one(work: Path, name: str, case: Case) -> dict[str, Any]:
    folder = work / "seeded"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "sample", folder)
    case.seed(folder, work)
    return {"case": name, **gate(folder, work, case.hook)}


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--unchanged", default=20, help="Runs of the unchanged artifact.")
@click.option("--seconds", default=150.0, help="No further run begins after this time; call again to go on.")
def main(work: Path, unchanged: int, seconds: float) -> None:
    """Run what is not yet in WORK/results.jsonl, then print the table."""
    end = time.monotonic() + seconds
    prepare(work)
    kept = work / "results.jsonl"
    results = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    table = cases(work)
    wanted = [*table, *["unchanged"] * unchanged]
    for name in [result["case"] for result in results]:
        if name in wanted:
            wanted.remove(name)
    for name in wanted:
        if time.monotonic() > end:
            break
        results.append(one(work, name, table.get(name, Case("unchanged", "", nothing))))
        with kept.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
    print("| seeded | has to be caught by | exit code | failed checks | why |\n|---|---|---|---|---|")
    for name, case in table.items():
        for r in (r for r in results if r["case"] == name):
            why = r["why"].get(case.caught_by, "")
            print(f"| {case.what} | {case.caught_by} | {r['exit_code']} | {', '.join(r['failed'])} | {why[:150]} |")
    same = [r for r in results if r["case"] == "unchanged"]
    wrong = [r for r in same if r["failed"]]
    print(f"| nothing, {len(same)} runs | | | {len(wrong)} failed: {[r['failed'] for r in wrong]} | |")


if __name__ == "__main__":
    main()
