"""Options that several commands share, and how errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from exporters.errors import NotAvailable, SlmcError
from toolchain.cli.console import Console, plain
from toolchain.cli.main import INTERRUPTED, give_up_streams

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
THREADS = click.IntRange(1, 256)
UNEXPECTED = 1


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """Give a command its console (--json, -q, -v); it returns the exit code; an SlmcError becomes one line."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout and nothing else there.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more; show the traceback of an unexpected error.")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> None:
        console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
        try:
            code = function(console, *args, **kwargs) or 0
            sys.stdout.flush()
        except SlmcError as error:
            code = _fail(str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            click.echo(f"interrupted: {stop}" if str(stop) else "interrupted", err=True)
            code = INTERRUPTED
        except BrokenPipeError:  # the reader has seen enough
            code = 0
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if verbose:
                raise
            code = _fail(*_explained(error))
        give_up_streams()
        sys.exit(code)

    return run


def _fail(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # where even that stream is gone, the exit code says it
        click.echo("error: " + plain(" ".join(text.splitlines())), err=True)
    return code


def _explained(error: Exception) -> tuple[str, int]:
    """Text and exit code for what no part of slmc has foreseen."""
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs or use a smaller model", NotAvailable.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{where}no space left on the disk; free some and repeat the command", NotAvailable.exit_code
        return f"{where}{error.strerror}; check the path and who may read and write it", SlmcError.exit_code
    what = f"{type(error).__name__}: {error}"
    return f"{what}; this is a fault of slmc: repeat with -v for the traceback and report it", UNEXPECTED


def stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


family_option = click.option(
    "--family", help="The model's family, where neither its tensors nor its config.json say it: rwkv, spikegpt."
)

model_options = stack(
    click.argument("model", type=PATH),
    click.option("--tokenizer", type=PATH, help="tokenizer.json, for a bare checkpoint file."),
    family_option,
)

cache_options = stack(
    click.option("--context", type=int, help="Tokens that a key-value cache has room for, for models that have one."),
    click.option("--kv-cache", help="How the compressed model stores keys and values: fp32 or int8."),
)

text_field_option = click.option(
    "--text-field", help="Of JSON Lines, JSON, Parquet and tables: the field that holds the text; 'text' if not given."
)

text_options = stack(
    click.option("--calibration", type=PATH, help="Text that methods look at; English prose of our own if not given."),
    click.option(
        "--eval", "eval", type=PATH, help="Text that candidates are judged on; for a classifier a labelled .tsv."
    ),
    text_field_option,
)

search_options = stack(
    text_options,
    cache_options,
    click.option("--max-memory", help="Weights and states as stored: 3MB, or 15% of the fp32 model."),
    click.option("--max-drop", help="Relative loss of the metric on the artifact: 1%."),
    click.option("--max-latency", help="Median time per generated token: 5ms. Foretold, and checked at the end."),
    click.option("--max-rss", help="Peak memory less that of an empty runtime: 40MB. Checked at the end."),
    click.option("--metric", help="What a drop is a drop of: perplexity, or a classifier's accuracy."),
    click.option("--formats", multiple=True, help="Formats to choose from, as names or globs: 'int4*'. Repeatable."),
    click.option("--layer", "layer", multiple=True, help="Pin layers: REGEX=FORMAT[@METHOD]. Repeatable."),
    click.option(
        "--method",
        help="nearest, range, gptq, descent; for N:M also magnitude, wanda, ria, esparse, sparsegpt, alps. "
        "The effort's own if not given.",
    ),
    click.option("--layout", help="auto: input-major where inputs are mostly zero; or dense everywhere."),
    click.option("--activations", help="Inputs of products: fp32, int8 (faster), or search: int8 within the limits."),
    click.option("--shuffle", help="Pattern that inner channels are put in order for, 2:4: free at run time."),
    click.option("--tune", type=int, help="Steps of end-to-end tuning of what the search chose; 200 is a good start."),
    click.option(
        "--tune-for",
        help="What tuning learns from the fp32 model: its distribution (default), or best-token: also its choices.",
    ),
    click.option("--effort", help="quick, default or thorough."),
    click.option("--max-time", help="Time for the whole command: 10m. The best so far is delivered."),
    click.option(
        "--max-build-memory",
        help="What the build itself may take: 6GB; what is available if not given. Larger models stay on disk.",
    ),
    click.option("--seed", type=int),
    click.option("--threads", type=int),
    click.option(
        "--native", multiple=True, type=PATH, help="libslmc_ops.so of another platform, to go along. Repeatable."
    ),
    click.option("--target", help="What it is built for; see 'slmc targets ls'."),
    click.option("-c", "--config", type=PATH, help="YAML file with the same keys."),
    click.option("--set", "settings", multiple=True, help="KEY=VALUE over the file. Repeatable."),
)


def pins(layers: tuple[str, ...]) -> dict[str, str]:
    """REGEX=FORMAT texts as a mapping.

    Raises:
        SlmcError: one has no '='.
    """
    result = {}
    for text in layers:
        pattern, equals, name = text.rpartition("=")
        if not equals or not pattern:
            raise SlmcError(f"--layer {text!r}: expected REGEX=FORMAT, for example 'head=int8'")
        result[pattern] = name
    return result
