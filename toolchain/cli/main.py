"""The command line: one group, one line per command."""

from __future__ import annotations

import importlib
import sys

import click

from exporters.errors import NotAvailable

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
    "write": ("writing", "write_command", "Let the fp32 model write text for calibration and evaluation."),
    "gate": ("gating", "gate_command", "Has an artifact become worse than a baseline in git? For CI."),
    "doctor": ("doctor", "doctor_command", "What is installed and what is missing."),
}
"""Command -> module, function and what it does; imported only when it is used, so that help and errors are quick."""

INTERRUPTED = 130


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[name]
        try:
            command: click.Command = getattr(importlib.import_module(f"toolchain.cli.{module}"), function)
        except ModuleNotFoundError as error:
            click.echo(f"error: the package {error.name} is not installed; pip install 'slmc[toolchain]'", err=True)
            sys.exit(NotAvailable.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slmc")
def main() -> None:
    """Compress small language models, spike-driven first, into compressed artifacts for embedded CPUs."""
