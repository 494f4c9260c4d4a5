"""The command that lets the fp32 model write text for calibration, tuning and evaluation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import torch

from exporters.artifact.errors import SlmcError
from toolchain.cli.console import Console
from toolchain.cli.opening import opened
from toolchain.cli.options import PATH, THREADS, command, model_options
from toolchain.files.outputs import TEXT, check_output_file, put_aside
from toolchain.files.workspace import write_whole
from toolchain.model.self_generated import written


@click.command("write")
@model_options
@click.option("-o", "--output", type=PATH, required=True, help="The text file to write.")
@click.option("-n", "--tokens", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option("--opening", type=click.IntRange(0, 256), default=0, help="Tokens of each text drawn at temperature 1.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--threads", type=THREADS, default=1)
@click.option("--force", is_flag=True, help="Write even if the file exists; the old one is kept as FILE.old-1.")
@command
def write_command(
    console: Console, model: Path, tokenizer: Path | None, family: str | None, output: Path, tokens: int,
    temperature: float, opening: int,
    seed: int, threads: int, force: bool,
) -> int:  # fmt: skip
    """Let the fp32 MODEL write text, for --calibration and --eval where you have none like its training text."""
    check_output_file(output, TEXT, force=force)
    torch.set_num_threads(threads)
    loaded = opened(console, model, tokenizer, family)
    if loaded.classes:
        raise SlmcError(f"{model}: a classifier ({', '.join(loaded.classes.labels)}), which writes no text")
    with console.working():
        text = written(loaded, tokens, temperature, seed, partial(console.progress, "writing"), opening)
        put_aside(output)
        write_whole(output, text)
    count = len(loaded.tokenizer.encode(text, add_special_tokens=False).ids)
    console.result({"file": str(output), "tokens": count, "bytes": len(text.encode())}, f"{output}: {count} tokens")
    return 0
