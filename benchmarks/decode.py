"""Whole models: our operators beside stock ONNX Runtime exports of the same recipe, fp32 ONNX Runtime, and torch."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from stock import VARIANTS, write_stock

from exporters.artifact.manifest import Io
from exporters.artifact.native_library import library_path
from exporters.export import GRAPH_NAME, export_graph
from targets.device.measurement import MeasureRequest, chunk_for
from targets.device.session import Session, open_session
from targets.measure.child import measure
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import stored_model
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.search.plan import recipe_bytes

PROMPT = 128


@dataclass(frozen=True)
class Runner:
    """One way to run the model. step: one token; prompt: 128 tokens, or None; graph: (folder, file, native) or None."""

    name: str
    step: Callable[[int], object]
    prompt: Callable[[], object] | None
    graph: tuple[Path, str, bool] | None


@dataclass(frozen=True)
class Result:
    """Medians in ms; bytes of the two files, and the peak of a child process less an empty runtime's, where known."""

    name: str
    step_ms: float
    prompt_ms: float
    file_bytes: int
    peak_bytes: int
    empty_bytes: int


def export(model: LoadedModel, name: str, activations: str, folder: Path) -> Io:
    """Every layer in one format by nearest rounding (speed depends on the shapes alone), signs where signs do."""
    tree = model.tree
    small = name != "fp32"
    recipe = {
        x.path: LayerConfig(x.exact if x.exact and small else name, "nearest", activations if small else "fp32")
        for x in tree.layers
    }
    encoded = {path: compress(model.weight(path), choice, None) for path, choice in recipe.items()}
    module = stored_model(model, encoded, recipe)
    folder.mkdir()
    return export_graph(module, model.forward.state_specs(), folder, recipe_bytes(recipe, tree)).io


def session_runner(name: str, folder: Path, file: str, io: Io, threads: int, *, native: bool, prompt: bool) -> Runner:
    session: Session = open_session(folder / file, io, native=library_path() if native else None, threads=threads)
    chunk, text = chunk_for(session.vocabulary), np.arange(PROMPT, dtype=np.int64)[None] % session.vocabulary
    return Runner(
        name, session.step, (lambda: session.prefill(text, chunk)) if prompt else None, (folder, file, native)
    )


def torch_runner(model: LoadedModel) -> Runner:
    forward, state = model.forward, model.forward.initial_state(1)
    text = torch.arange(PROMPT)[None] % model.tree.layers[0].rows

    def run(tokens: torch.Tensor) -> None:
        nonlocal state
        with torch.inference_mode():
            state = forward(tokens, state)[1]

    return Runner("torch, fp32, eager", lambda token: run(torch.tensor([[token]])), lambda: run(text), None)


def timed(runners: Sequence[Runner], rounds: int, tokens: int, limit_s: float) -> list[tuple[float, float]]:
    """Median ms of a step and of a prompt for every runner; all take turns, so that a slow moment is shared."""
    steps: list[list[float]] = [[] for _ in runners]
    prompts: list[list[float]] = [[] for _ in runners]
    began = time.perf_counter()
    for number in range(rounds + 1):
        if number > 1 and time.perf_counter() - began > limit_s:
            break
        for i, runner in enumerate(runners):
            for token in range(tokens):
                start = time.perf_counter()
                runner.step(token * 37 % 1000)
                steps[i].append((time.perf_counter() - start) * 1e3)
            if runner.prompt is not None:
                start = time.perf_counter()
                runner.prompt()
                prompts[i].append((time.perf_counter() - start) * 1e3)
        if number == 0:  # memory is touched, caches are warm
            steps, prompts = [[] for _ in runners], [[] for _ in runners]
    return [
        (statistics.median(s), statistics.median(p) if p else float("nan")) for s, p in zip(steps, prompts, strict=True)
    ]


def weighed(runner: Runner, io: Io, threads: int, vocabulary: int) -> tuple[int, int, int]:
    """Bytes of the files, peak of a clean child process, and of that process with no model."""
    if runner.graph is None:
        return 0, 0, 0
    folder, file, native = runner.graph
    prompt = PROMPT if runner.prompt is not None else 0
    request = MeasureRequest(
        prompt_tokens=prompt, generate_tokens=16, repetitions=1, threads=threads, native=native,
        chunk_tokens=chunk_for(vocabulary),
    )  # fmt: skip
    found = measure(folder, io, request, graph=file)
    size = (folder / file).stat().st_size + (folder / f"{GRAPH_NAME}.data").stat().st_size
    return size, max(found.loaded.peak_bytes, found.ended.peak_bytes), found.baseline.peak_bytes


def results(model: LoadedModel, name: str, threads: int, rounds: int, tokens: int, memory: bool) -> list[Result]:
    """All runners side by side; the first is ours."""
    torch.set_num_threads(threads)
    vocabulary = model.tree.layers[0].rows
    with tempfile.TemporaryDirectory() as place:
        small, exact, full = (Path(place) / part for part in ("int8", "fp32-inputs", "fp32"))
        io = export(model, name, "int8", small)
        export(model, name, "fp32", exact)
        export(model, "fp32", "fp32", full)
        runners = [
            session_runner("ours, int8 inputs", small, GRAPH_NAME, io, threads, native=True, prompt=True),
            session_runner("ours, fp32 inputs", exact, GRAPH_NAME, io, threads, native=True, prompt=True),
        ]
        for folder, label in ((exact, ""), (full, "fp32: ")):
            for variant in VARIANTS:
                if folder is full and variant.level:
                    continue
                file = write_stock(folder, variant)
                runners.append(
                    session_runner(label + variant.name, folder, file, io, threads, native=False, prompt=variant.scan)
                )
        runners.append(torch_runner(model))
        times = timed(runners, rounds, tokens, 100.0)
        sizes = [weighed(r, io, threads, vocabulary) if memory else (0, 0, 0) for r in runners]
        return [Result(r.name, *t, *s) for r, t, s in zip(runners, times, sizes, strict=True)]


def table(found: Sequence[Result]) -> str:
    """Markdown; times over ours in brackets, memory as files, peak, and peak over files and an empty runtime."""
    ours = found[0]
    lines = [
        "| | ms per token | prompt of 128, ms | files, MB | peak RSS, MB | of files + empty |",
        "|---|---|---|---|---|---|",
    ]
    for r in found:
        share = f"{r.peak_bytes / (r.file_bytes + r.empty_bytes):.2f}" if r.peak_bytes else ""
        prompt = f"{r.prompt_ms:.1f} ({r.prompt_ms / ours.prompt_ms:.1f})" if r.prompt_ms == r.prompt_ms else ""
        memory = (f"{r.file_bytes / 1e6:.1f}", f"{r.peak_bytes / 1e6:.0f}") if r.peak_bytes else ("", "")
        step = f"{r.step_ms:.3f} ({r.step_ms / ours.step_ms:.1f})"
        lines.append(f"| {r.name} | {step} | {prompt} | {memory[0]} | {memory[1]} | {share} |")
    return "\n".join(lines)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="For a bare checkpoint; any that has the vocabulary."
)
@click.option("--format", "name", default="int4-g128", help="2, 4 or 8 bits in groups, symmetric.")
@click.option("--threads", type=int, multiple=True, default=(1, 2))
@click.option("--rounds", default=10)
@click.option("--tokens", default=16, help="Steps per round.")
@click.option("--memory/--no-memory", default=True, help="Also the peak memory, in child processes.")
def main(
    model: Path, tokenizer: Path | None, name: str, threads: tuple[int, ...], rounds: int, tokens: int, memory: bool
) -> None:
    """Print one table per number of threads; MODEL is a directory or a checkpoint (benchmarks/random_spikegpt.py)."""
    loaded = load_model(model, tokenizer)
    for count in threads:
        found = results(loaded, name, count, rounds, tokens, memory)
        click.echo(f"\n{loaded.name}, {name}, {count} thread{'s' if count > 1 else ''}; in brackets times of ours\n")
        click.echo(table(found))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
