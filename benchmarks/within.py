"""Run a command that is killed as soon as it holds more memory than a limit, and say its peak, CPU time and time."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click

from targets.device.limits import Watched
from targets.device.quantities import parse_bytes


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("limit")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(limit: str, command: tuple[str, ...]) -> None:
    """LIMIT as 6GB; what counts is the resident set, mapped files in it; processes that it starts are not counted."""
    watched = Watched(parse_bytes(limit, "LIMIT"), None)
    began = time.monotonic()
    child = subprocess.Popen(command)
    watched.watch(child.pid)
    _, status, usage = os.wait4(child.pid, 0)
    found = watched.found()
    code = os.waitstatus_to_exitcode(status)
    assert found is not None
    click.echo(
        f"exit code {code}, killed: {found['killed']}, peak {(found['peak_bytes'] or 0) / 1e9:.2f} GB of {limit}, "
        f"ru_maxrss {usage.ru_maxrss * 1024 / 1e9:.2f} GB, {usage.ru_utime + usage.ru_stime:.0f} s of CPU in "
        f"{time.monotonic() - began:.0f} s",
        err=True,
    )
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
