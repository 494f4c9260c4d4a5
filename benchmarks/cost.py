"""Cost as work grows: time per token against depth, size of the model, and prompt tokens of a call, beside its floor.

MODELS are directories or GGUF files; depth and batch are measured on the first, size on all. The floor of a step is the
bytes that it reads (weights, cache up to its depth) at the read bandwidth measured in the same run. On one thread the
clock is the process's CPU time, on more the wall's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from uniform import export_uniform

from exporters.artifact.native_library import library_path
from exporters.export import GRAPH_NAME
from exporters.graph_nodes import read_workload
from targets.device.bandwidth import read_bandwidth_gbs
from targets.device.clock import SystemClock
from targets.device.host import host_cpu
from targets.device.session import Session, open_session
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions

STEPS, DROPPED = 24, 4


@dataclass(frozen=True)
class Subject:
    """A model ready to run. weight_bytes: what a step reads of it; slot_bytes: of the cache, per token before."""

    session: Session
    params: int
    weight_bytes: int
    slot_bytes: float
    text: list[int]
    clock: Callable[[], float]

    def step_ms(self) -> float:
        """Median of the next steps."""
        times = []
        for token in self.text[:STEPS]:
            start = self.clock()
            self.session.step(token)
            times.append((self.clock() - start) * 1e3)
        return statistics.median(times[DROPPED:])


def opened(model: Path, place: Path, format_name: str, context: int, threads: int) -> Subject:
    loaded = load_model(model, options=ModelOptions(context=context, kv_cache="int8"))
    io = export_uniform(loaded, place, format_name, activations="int8").io
    session = open_session(place / GRAPH_NAME, io, native=library_path(), threads=threads)
    text = np.random.default_rng(0).integers(0, session.vocabulary, context).tolist()
    clock = time.process_time if threads == 1 else time.perf_counter
    return Subject(
        session=session, params=loaded.tree.params, weight_bytes=read_workload(place / GRAPH_NAME).weight_bytes,
        slot_bytes=session.state_bytes / context, text=text, clock=clock,
    )  # fmt: skip


def bandwidth() -> float:
    """Bytes per millisecond that a thread reads from memory."""
    return read_bandwidth_gbs(host_cpu().last_cache_bytes, SystemClock()) * 1e6


def by_depth(subject: Subject, depths: Sequence[int], per_ms: float) -> None:
    click.echo("\n| depth | ms per token | bytes, MB | floor, ms | times the floor |\n|---|---|---|---|---|")
    subject.session.reset()
    read = 0
    for depth in depths:
        subject.session.prefill(np.array([subject.text[read:depth]]), 256)
        ms, nbytes = subject.step_ms(), subject.weight_bytes + depth * subject.slot_bytes
        read = depth + STEPS
        click.echo(f"| {depth} | {ms:.2f} | {nbytes / 1e6:.1f} | {nbytes / per_ms:.2f} | {ms * per_ms / nbytes:.2f} |")


def by_batch(subject: Subject, batches: Sequence[int], rounds: int) -> None:
    """Beside the best of them: what the products alone would take is not measured."""
    found = []
    for batch in batches:
        tokens, times = np.array([subject.text[:batch]]), []
        for _ in range(rounds + 1):
            subject.session.reset()
            start = subject.clock()
            subject.session.prefill(tokens, batch)
            times.append((subject.clock() - start) * 1e3)
        found.append(statistics.median(times[1:]))
    best = min(ms / batch for ms, batch in zip(found, batches, strict=True))
    click.echo(
        "\n| tokens of a call | ms per token | 10^9 multiply-adds a second | times the best |\n|---|---|---|---|"
    )
    for ms, batch in zip(found, batches, strict=True):
        each = ms / batch
        click.echo(f"| {batch} | {each:.3f} | {subject.params / each / 1e6:.0f} | {each / best:.2f} |")


@click.command(help=__doc__)
@click.argument("models", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--format", "format_name", default="int4-g64")
@click.option("--depths", default="16,128,512,1024,2048,4096,8000")
@click.option("--batches", default="1,4,16,64,128,256,512")
@click.option("--threads", default=1)
@click.option("--rounds", default=3)
def main(
    models: tuple[Path, ...], format_name: str, depths: str, batches: str, threads: int, rounds: int
) -> None:  # fmt: skip
    asked = [int(depth) for depth in depths.split(",")]
    sizes = []
    for number, model in enumerate(models):
        with tempfile.TemporaryDirectory() as place:
            context = asked[-1] + 2 * STEPS if number == 0 else 128
            subject = opened(model, Path(place), format_name, context, threads)
            per_ms = bandwidth()
            if number == 0:
                click.echo(f"{model.name}, {format_name}, {threads} thread(s), reads {per_ms / 1e6:.1f} GB/s")
                fitting = [depth for depth in asked if depth + STEPS <= len(subject.text)]
                by_depth(subject, fitting, per_ms)
                by_batch(subject, [int(batch) for batch in batches.split(",")], rounds)
            subject.session.reset()
            subject.session.prefill(np.array([subject.text[:16]]))
            sizes.append((model.name, subject.params, subject.step_ms(), subject.weight_bytes, per_ms))
    click.echo("\n| model | parameters, M | ms per token | bytes, MB | floor, ms | times the floor |")
    click.echo("|---|---|---|---|---|---|")
    for name, params, ms, nbytes, per_ms in sizes:
        cells = (
            f"{params / 1e6:.1f} | {ms:.3f} | {nbytes / 1e6:.1f} | {nbytes / per_ms:.3f} | {ms * per_ms / nbytes:.2f}"
        )
        click.echo(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
