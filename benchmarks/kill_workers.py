"""Ten searches on a real scheduler with three workers, two of which are killed at random moments: one result.

    python benchmarks/kill_workers.py MODEL --runs 10

Prints a line for every run, with the most memory that a worker held, and ends with 1 where a plan differs from that of
one process, or a worker was over its bound. A killed worker is started again, as an operator's supervisor would.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from targets.device.quantities import parse_bytes

BOUND = "2GB"
DASK = "from distributed.cli.dask_{0} import main; main()"
SLMC = "from toolchain.cli.main import main; main()"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


class Team:
    """A scheduler and three workers, each a process of its own."""

    def __init__(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self._place = f"tcp://127.0.0.1:{port}", place
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._quiet = quiet
        self._scheduler = subprocess.Popen(
            python(DASK.format("scheduler"), "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"), **quiet
        )
        self.workers = [self._worker() for _ in range(3)]

    def _worker(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--memory-limit", BOUND, "--no-dashboard", "--no-nanny")
        return subprocess.Popen(
            python(DASK.format("worker"), self.address, *options, "--local-directory", str(self._place)), **self._quiet
        )

    def kill(self, number: int) -> None:
        """End a worker as a crash would, and start another in its place."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()
        self.workers[number] = self._worker()

    def end(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()


@contextlib.contextmanager
def team(place: Path) -> Iterator[Team]:
    made = Team(place)
    try:
        yield made
    finally:
        made.end()


def search(model: Path, output: Path, *options: str) -> tuple[str, str, float]:
    """The plan's digest, what was said, and the seconds."""
    began = time.monotonic()
    command = ("search", str(model), "-o", str(output), "--effort", "quick", "--max-drop", "5%", *options)
    ended = subprocess.run(python(SLMC, *command), capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 4):
        raise SystemExit(ended.stderr)
    return hashlib.sha256(output.read_bytes()).hexdigest()[:12], ended.stderr, time.monotonic() - began


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--runs", default=10)
@click.option("--seed", default=0)
@click.option("--formats", multiple=True)
def main(model: Path, runs: int, seed: int, formats: tuple[str, ...]) -> None:
    chance, wrong = random.Random(seed), 0
    options = tuple(part for name in formats for part in ("--formats", name))
    with tempfile.TemporaryDirectory(prefix="slmc-kill-") as folder:
        place = Path(folder)
        alone, _, seconds = search(model, place / "alone.json", *options)
        print(f"one process: {alone}, {seconds:.0f} s", flush=True)
        usual = seconds
        for run in range(runs):
            moments = sorted(chance.uniform(0.1, 0.9) * usual for _ in range(2))
            victims = chance.sample(range(3), 2)
            with team(place) as workers:
                timers = [
                    threading.Timer(moment, workers.kill, (victim,))
                    for moment, victim in zip(moments, victims, strict=True)
                ]
                for timer in timers:
                    timer.start()
                found, said, usual = search(
                    model, place / f"{run}.json", *options, "--cluster", workers.address, "--worker-memory", BOUND
                )
                killed = sum(not timer.is_alive() for timer in timers)
                for timer in timers:
                    timer.cancel()
                    timer.join()
            held = re.findall(r"held ([\d.]+ [kMG]?B)", said)
            over = not held or parse_bytes(held[-1].replace(" ", ""), "held") > parse_bytes(BOUND, "bound")
            wrong += found != alone or over
            print(
                f"run {run + 1}: {found} {'same' if found == alone else 'ANOTHER'}, {killed} killed after "
                f"{moments[0]:.0f} and {moments[1]:.0f} s of {usual:.0f}, the largest worker held {held[-1:]}",
                flush=True,
            )
    print(f"{runs - wrong} of {runs} the same, within {BOUND}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
