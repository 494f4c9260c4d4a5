"""slmc bench: speed and memory of artifacts, with llama-bench's flags, columns and formats; several in turn."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import STOCK
from exporters.graph_nodes import read_workload
from targets.device.measurement import Measurement, MeasureRequest, prompt_chunk
from targets.device.verify import open_artifact
from targets.measure.paired import compare_paired
from targets.measure.rounds import measure_in_turn, merged
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, execution_options, execution_target, runtime_option
from toolchain.cli.options import PATH, command, signature_option
from toolchain.cli.verdicts import exit_code, judged
from toolchain.delivery.execution import ExecutionTarget
from toolchain.delivery.llama_bench import (
    KINDS,
    bench_row,
    bench_test_name,
    comparison_fields,
    quiet_cpu_ms,
    render_bench,
)
from toolchain.delivery.promises import BROKEN, Found
from toolchain.delivery.validate import artifact_session
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.text import read_text
from toolchain.model.text_rules import artifact_tokenizer


@dataclass(frozen=True)
class _Subject:
    """One artifact, where it runs, and the text that it reads."""

    folder: Path
    manifest: Manifest
    target: ExecutionTarget
    tokens: tuple[int, ...]
    vocabulary: int
    token_bytes: int


@dataclass(frozen=True)
class _Test:
    """Tokens of a prompt and of generation that are timed, and of the text before them."""

    prompt: int
    generated: int
    depth: int


@click.command("bench")
@click.argument("artifacts", type=PATH, nargs=-1)
@click.option("-m", "--model", "models", type=PATH, multiple=True, help="An artifact, like ARTIFACTS. Repeatable.")
@click.option("-p", "--n-prompt", default="512", help="Prompt tokens; separate several values with commas.")
@click.option("-n", "--n-gen", default="128", help="Generated tokens; separate several values with commas.")
@click.option("-pg", "prompt_and_gen", multiple=True, help="Prompt and generation in one test: 512,128. Repeatable.")
@click.option(
    "-d", "--n-depth", default="0", help="Tokens read before, not timed; separate several values with commas."
)
@click.option("-t", "--threads", default="1", help="Threads; separate several values with commas.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5)
@click.option("-o", "--output", "kind", type=click.Choice(KINDS), default="md")
@runtime_option
@execution_options
@signature_option
@command
def bench_command(
    console: Console, artifacts: tuple[Path, ...], models: tuple[Path, ...], n_prompt: str, n_gen: str,
    prompt_and_gen: tuple[str, ...], n_depth: str, threads: str, repetitions: int, kind: str, runtime: str,
    **place: Any,
) -> int:  # fmt: skip
    """Speed and memory of ARTIFACTS, here or --on another machine, with llama-bench's flags and columns.

    Several are measured in turn, a process each time, and compared with the first. Exit code 3 if an artifact has
    another size, or needs more memory, than its manifest promises.
    """
    folders = (*artifacts, *models)
    if not folders:
        raise SlmcError("no artifact is given; name one or more, as 'slmc bench OUT' or 'slmc bench -m OUT -m OTHER'")
    counts, tests = _numbers(threads, "-t", 1, 256), _tests(n_prompt, n_gen, prompt_and_gen, n_depth)
    rows, code = [], 0
    with contextlib.ExitStack() as stack:
        subjects = [_subject(folder, console, stack, ExecutionOptions(**place), runtime) for folder in folders]
        for count in counts:
            for test in tests:
                taken = _measured(subjects, test, repetitions, count)
                rows += _rows(console, subjects, taken)
                code = max(code, _promises_code(console, subjects, taken))
    click.echo(render_bench(rows, "json" if console.as_json else kind))
    return code


def _tests(n_prompt: str, n_gen: str, pairs: Sequence[str], n_depth: str) -> list[_Test]:
    """All tests at every depth."""
    tests = [(p, 0) for p in _numbers(n_prompt, "-p") if p] + [(0, n) for n in _numbers(n_gen, "-n") if n]
    for pair in pairs:
        both = _numbers(pair, "-pg", 1)
        if len(both) != 2:
            raise SlmcError(f"-pg {pair!r}: expected two numbers, of prompt and generated tokens, as 512,128")
        tests.append((both[0], both[1]))
    if not tests:
        raise SlmcError("-p 0 and -n 0 leave nothing to measure; give a number of tokens to one of them")
    depths = _numbers(n_depth, "-d")
    return [_Test(prompt, generated, depth) for prompt, generated in tests for depth in depths]


def _numbers(text: str, option: str, least: int = 0, most: int = 10**6) -> list[int]:
    """The whole numbers of '128,512'."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part[:9]) <= most for part in parts):
        raise SlmcError(
            f"{option} {text!r}: expected whole numbers from {least} to {most} with commas between, as 1 or 1,2"
        )
    return [int(part) for part in parts]


def _subject(
    folder: Path, console: Console, stack: contextlib.ExitStack, place: ExecutionOptions, runtime: str
) -> _Subject:
    manifest = open_artifact(folder)
    vocabulary = artifact_session(folder, manifest.io, native=runtime != STOCK).vocabulary
    tokenizer = artifact_tokenizer(folder, manifest, vocabulary)
    text = read_text(SHIPPED_TEXTS / "evaluation.txt", tokenizer, manifest.io.context)
    where = stack.enter_context(execution_target(place, console, folder, manifest, runtime=runtime, speed=True))
    tokens = tuple(int(t) for t in text.ids[:4096])
    return _Subject(
        folder=folder,
        manifest=manifest,
        target=where,
        tokens=tokens,
        vocabulary=vocabulary,
        token_bytes=read_workload(folder / "model.onnx").weight_bytes,
    )


def _measured(
    subjects: Sequence[_Subject], test: _Test, repetitions: int, threads: int
) -> tuple[tuple[Measurement, ...], ...]:
    """One test of all artifacts, in turn."""
    request = MeasureRequest(
        prompt_tokens=test.prompt, generate_tokens=test.generated, depth_tokens=test.depth, repetitions=repetitions,
        threads=threads,
    )  # fmt: skip

    def measure_of(subject: _Subject) -> Any:
        own = {
            "tokens": subject.tokens, "chunk_tokens": prompt_chunk(subject.manifest.io, subject.vocabulary),
            "bandwidth": subject.target.name is None,
        }  # fmt: skip
        return lambda asked: subject.target.measure(
            dataclasses.replace(asked, **(own | {"bandwidth": own["bandwidth"] and asked.bandwidth}))
        )

    return measure_in_turn([measure_of(subject) for subject in subjects], request)


def _promises_code(console: Console, subjects: Sequence[_Subject], taken: Sequence[Sequence[Measurement]]) -> int:
    """The exit code that the artifacts' promises ask for; names the broken ones."""
    code = 0
    for subject, rounds in zip(subjects, taken, strict=True):
        promises = judged(subject.folder, subject.manifest, Found(memory=merged(rounds)))
        for promise in (p for p in promises if p.status == BROKEN):
            console.note(
                f"{subject.folder.name}: broken promise: {promise.name} is {promise.found}, promised "
                f"{promise.promised} within {promise.tolerance}"
            )
        code = max(code, exit_code(promises))
    return code


def _rows(
    console: Console, subjects: Sequence[_Subject], taken: Sequence[Sequence[Measurement]]
) -> list[dict[str, Any]]:
    rows = []
    for subject, rounds in zip(subjects, taken, strict=True):
        whole = merged(rounds)
        row = bench_row(subject.folder.name, subject.manifest, subject.token_bytes, whole)
        if len(subjects) > 1 and len(rounds) > 1:
            row |= comparison_fields(
                compare_paired([quiet_cpu_ms(m) for m in rounds], [quiet_cpu_ms(m) for m in taken[0]])
            )
        rows.append(row)
        for doubt in whole.doubts:
            console.note(f"{subject.folder.name}, {bench_test_name(row)}: {doubt}")
    return rows
