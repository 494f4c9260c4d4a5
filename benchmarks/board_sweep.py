"""Predicted against measured time per token of 12 artifacts on a board: two models, four uniform formats and two mixes.

    python benchmarks/limited_board.py slmc targets probe -o board.toml
    python benchmarks/limited_board.py python benchmarks/board_sweep.py --target board.toml --work DIR

Costs of slmc-run (targets probe --runtime slmc-run) are compared with what it takes there.
Weights are random or rounded to nearest, because time does not depend on their quality. Measured is what a user waits:
the median wall time of a token, of three visits.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from latency_model import BAR, export
from random_llama import main as write_llama
from random_spikegpt import main as write_spikegpt

from exporters.artifact.manifest import Io
from exporters.artifact.parsing import parse
from exporters.artifact.runtimes import SLMC_RUN
from exporters.graph_nodes import read_workload
from targets.cpus.cost import predict
from targets.cpus.spec import read_cpu
from targets.device.clock import median
from targets.device.measurement import MeasureRequest
from toolchain.cli.boards import ConnectedBoard
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, agent_of
from toolchain.delivery.boards import provisional_manifest
from toolchain.delivery.operators import runtime_programs
from toolchain.delivery.visits import spread, together
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions

NAMES = ("fp16", "int8", "int4-g64", "int2-g64", "int8+int4-g64", "fp16+int2-g64")
TOKENIZER = Path(__file__).parents[1] / "samples" / "spikegpt-6m" / "tokenizer.json"


def spikegpt(work: Path) -> LoadedModel:
    """8 layers of width 512."""
    checkpoint = work / "spikegpt.pth"
    if not checkpoint.exists():
        write_spikegpt([str(checkpoint), "--layers", "8", "--width", "512", "--vocabulary", "2048"],
                       standalone_mode=False)  # fmt: skip
    return load_model(checkpoint, TOKENIZER, ModelOptions(family="spikegpt"))


def llama(work: Path) -> LoadedModel:
    """6 layers of width 512, which attend."""
    folder = work / "llama"
    if not folder.exists():
        shape = ("--layers", "6", "--width", "512", "--hidden", "1408", "--heads", "8", "--groups", "8",
                 "--vocabulary", "2048", "--context", "512", "--shards", "1")  # fmt: skip
        write_llama([str(folder), "--tokenizer", str(TOKENIZER), *shape], standalone_mode=False)
    return load_model(folder)


MODELS = {"spikegpt": spikegpt, "llama": llama}


def measured_ms(board: ConnectedBoard, folder: Path, visits: int) -> tuple[float, float, float]:
    """Median wall and CPU time of a token, and the spread of the repetitions' medians, as a share."""
    io: Io = parse(Io, json.loads((folder / "io.json").read_text()), "io.json")
    request = MeasureRequest(prompt_tokens=128, generate_tokens=32, repetitions=3, bandwidth=False, budget_s=6.0)
    with provisional_manifest(folder, io) as manifest:
        found = [board.measure(folder, manifest, request) for _ in range(visits)]
    whole = together(found, board.cpu.wait or 1.0)
    return median(whole.decode_wall_ms), median(whole.decode_cpu_ms), spread(whole)


@click.command()
@click.option("--target", type=click.Path(path_type=Path), required=True, help="A file of 'slmc targets probe'.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where the artifacts are kept.")
@click.option("--visits", default=3, help="Of every artifact.")
@click.option("--make-only", is_flag=True, help="Make the artifacts and measure nothing.")
@click.option("--on")
@click.option("--ssh")
@click.option("--remote-python")
@click.option("--remote-dir")
def main(target: Path, work: Path, visits: int, make_only: bool, **place: str | None) -> None:
    """Print the table, and how many are within 20 %."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    for kind, made in MODELS.items():
        missing = [name for name in NAMES if not (work / f"{kind}-{name}").exists()]
        model = made(work) if missing else None
        for name in missing:
            assert model is not None
            export(model, name, work / f"{kind}-{name}")
    if make_only:
        return
    cpu = read_cpu(target)
    console = Console(quiet=True)
    agent = agent_of(runtime_programs([Path(SLMC_RUN)]) if cpu.of_slmc_run else {})
    where = ExecutionOptions(**place, limit_memory=None, limit_cores=None)
    board = ConnectedBoard(where, cpu, not cpu.of_slmc_run, console, agent)
    print(f"{cpu.model}, wait {cpu.wait}\n")
    print("| artifact | predicted ms | measured ms | of it CPU | spread | error | without a matrix | assumed |")
    print("|---" * 8 + "|")
    errors = []
    for kind in MODELS:
        for name in NAMES:
            folder = work / f"{kind}-{name}"
            found = predict(cpu, read_workload(folder / "model.onnx"))
            actual, cpu_ms, sure = measured_ms(board, folder, visits)
            rest = (found.others_ms + found.call_ms) / found.decode_ms
            errors.append(found.decode_ms / actual - 1)
            print(
                f"| {kind} {name} | {found.decode_ms:.2f} | {actual:.2f} | {cpu_ms:.2f} | {sure:.0%} "
                f"| {errors[-1]:+.0%} | {rest:.0%} | {', '.join(found.assumed)} |",
                flush=True,
            )
    within = sum(abs(e) <= BAR for e in errors)
    print(f"\n{within} of {len(errors)} within {BAR:.0%}; median {median([abs(e) for e in errors]):.1%}")


if __name__ == "__main__":
    main()
