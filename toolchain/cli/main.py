"""The command line: one group, one line per command."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "build": ("toolchain.cli.building", "build_command"),
    "search": ("toolchain.cli.building", "search_command"),
    "export": ("toolchain.cli.building", "export_command"),
    "inspect": ("toolchain.cli.looking", "inspect_command"),
    "sensitivity": ("toolchain.cli.looking", "sensitivity_command"),
    "report": ("toolchain.cli.looking", "report_command"),
    "targets": ("toolchain.cli.looking", "targets_group"),
    "schema": ("toolchain.cli.looking", "schema_command"),
    "validate": ("toolchain.cli.running", "validate_command"),
    "eval": ("toolchain.cli.running", "eval_command"),
    "bench": ("toolchain.cli.running", "bench_command"),
    "generate": ("toolchain.cli.running", "generate_command"),
    "doctor": ("toolchain.cli.doctor", "doctor_command"),
}
"""Command -> module and function, imported when it is used, so that help and errors are quick."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), function)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slmc")
def main() -> None:
    """Compile small language models, spike-driven first, into compressed artifacts for embedded CPUs."""
