"""The command line: one group, one line per command."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from exporters.artifact.errors import NotAvailable

COMMANDS = {
    "build": ("building", "build_command", "Compress a model under constraints into a deployable artifact."),
    "search": ("building", "search_command", "The first half of build: find a recipe and write it as a plan."),
    "export": ("building", "export_command", "The second half: carry a plan out and write the artifact."),
    "inspect": ("looking", "inspect_command", "Hierarchy, shapes and bytes of a model, formats of an artifact."),
    "sensitivity": ("looking", "sensitivity_command", "What every layer is expected to lose in every format."),
    "study": ("studying", "study_command", "Methods by formats in one table: quality, bytes, seconds."),
    "report": ("looking", "report_command", "An artifact's report again: Markdown, HTML or JSON."),
    "targets": ("targeting", "targets_group", "CPU targets: list them, show one, probe this machine."),
    "schema": ("looking", "schema_command", "The JSON Schema of manifest, plan, config or report."),
    "validate": (
        "validating",
        "validate_command",
        "Check an artifact, here or on a device: files, quality, speed, memory.",
    ),
    "eval": ("running", "eval_command", "Perplexity and bits per byte of a model or artifact on a text."),
    "bench": ("benching", "bench_command", "Speed and memory, with llama-bench's flags and columns."),
    "generate": ("generating", "generate_command", "Write text with an artifact, token by token."),
    "sign": ("signing", "sign_command", "Sign an artifact with a key of yours."),
    "write": ("writing", "write_command", "Let the fp32 model write text for calibration and evaluation."),
    "gate": ("gating", "gate_command", "Has an artifact become worse than a baseline in git? For CI."),
    "doctor": ("doctor", "doctor_command", "What is installed and what is missing."),
}
"""Command -> module, function and what it does; imported only when it is used, so that help and errors are quick."""

INTERRUPTED, UNUSABLE = 130, 2

ADDRESS_SPACE_BYTES = 2 * 2**30
"""What Python, NumPy, torch and ONNX Runtime reserve before any model is read."""


class _Lazy(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, but with streams that are there, and one line where one of them takes nothing.

        A request to end (SIGTERM) ends as Ctrl-C does: what was paid for is kept.
        """
        if sys.stdout is None or sys.stderr is None:
            _replace_closed()
            _stop("standard output or standard error is closed; send it to a file or to /dev/null", UNUSABLE)
        try:
            with _ended_like_control_c():
                return super().main(*args, **kwargs)
        except OSError as error:
            _stop(f"standard output: {error.strerror}; give it another place", NotAvailable.exit_code)
        finally:
            give_up_streams()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[name]
        _check_address_space()
        try:
            command: click.Command = getattr(importlib.import_module(f"toolchain.cli.{module}"), function)
        except ModuleNotFoundError as error:
            _stop(f"the package {error.name} is not installed; pip install 'slmc[toolchain]'", NotAvailable.exit_code)
        except (ImportError, MemoryError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            _stop(f"the packages cannot be loaded ({reason}); free memory or raise 'ulimit -v'", NotAvailable.exit_code)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while packages are loaded or options are read
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _ended_like_control_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # whoever calls has said what shall happen
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def give_up_streams() -> None:
    """Turn streams that take no more to nowhere: at exit Python would flush them once more, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _replace_closed() -> None:
    """Give a process whose streams are closed others: a file that it opens must not become its standard output."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _check_address_space() -> None:
    """Refuse a limit in which the packages cannot even be loaded; some of them would say so in dozens of lines."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE_BYTES:
        _stop(
            f"address space is limited to {limit} bytes, and {ADDRESS_SPACE_BYTES} are needed; raise 'ulimit -v'",
            NotAvailable.exit_code,
        )


def _stop(text: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(f"error: {text}", err=True)
    sys.exit(code)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slmc")
def main() -> None:
    """Compress small language models, spike-driven first, into compressed artifacts for embedded CPUs."""
