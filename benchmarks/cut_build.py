"""A build for a board over ssh, cut in each phase and resumed: the same model every time, and nothing left there.

    python benchmarks/limited_board.py --share 0.5 python benchmarks/cut_build.py MODEL --runtime slmc-run

Where a connection is open, it is its ssh that is killed; else the build itself, as by a power failure. The first, whole
build says what is right. Exit code 1 where a resumed one ended otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

SLMC = "from toolchain.cli.main import main; main()"
POLL_S = 0.005


@dataclass(frozen=True)
class Place:
    """Folders of one build: home, where costs of boards are kept; the output; where the board keeps files."""

    home: Path
    output: Path
    there: Path

    @property
    def work(self) -> Path:
        return self.output.with_name(self.output.name + ".slmc-work")

    def lines(self, name: str) -> int:
        with contextlib.suppress(OSError):
            return len((self.work / name).read_text().splitlines())
        return 0

    @property
    def probed(self) -> int:
        """Results of a probe that is under way."""
        files = self.home.glob(".cache/slmc/targets/*.slmc-work/probe.jsonl")
        return sum(len(file.read_text().splitlines()) for file in files)

    @property
    def exported(self) -> bool:
        return any(self.work.rglob("model.onnx"))

    @property
    def visited(self) -> bool:
        return any(self.there.iterdir())


PHASES: dict[str, Callable[[Place], bool]] = {
    "probing": lambda place: place.probed > 20,
    "calibration": lambda place: place.work.is_dir(),
    "compression": lambda place: any((place.work / "layers").glob("*")),
    "search": lambda place: place.lines("journal.jsonl") >= 2,
    "export": lambda place: place.exported,
    "measurement": lambda place: place.exported and place.visited,
    "proof": lambda place: place.lines("measured.jsonl") >= 1,
}
"""What shows that a phase has begun."""


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] + [deeper for child in found for deeper in children(int(child))]


def cut(process: subprocess.Popen[str]) -> str:
    """Kill the build's ssh, or the build; what was killed."""
    with contextlib.suppress(OSError):
        for child in children(process.pid):
            if Path(f"/proc/{child}/comm").read_text().strip() == "ssh":
                os.kill(child, signal.SIGKILL)
                return "the connection"
    process.kill()
    return "the build"


def digest(output: Path) -> str:
    """Of the model and of what was chosen for every layer."""
    whole = hashlib.sha256(json.dumps(json.loads((output / "plan.json").read_text())["recipe"]).encode())
    for name in ("model.onnx", "model.onnx.data"):
        whole.update((output / name).read_bytes())
    return whole.hexdigest()[:12]


def build(command: list[str], place: Place, *, cut_in: Callable[[Place], bool] | None = None) -> tuple[int, str, str]:
    """Exit code, stderr, and what was cut."""
    environment = os.environ | {"HOME": str(place.home)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    what = ""
    while cut_in is not None and process.poll() is None:
        if cut_in(place):
            what = cut(process)
            break
        time.sleep(POLL_S)
    _, said = process.communicate()
    return process.returncode, said, what


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--max-latency", default="9s")
@click.option("--formats", multiple=True, default=("int4-g64", "int8", "fp16"))
@click.option("--runtime", help="slmc-run, to measure that.")
@click.option("--on", required=True)
@click.option("--ssh", required=True)
@click.option("--remote-python", required=True)
@click.option("--remote-dir", required=True, type=click.Path(path_type=Path))
def main(
    model: Path, max_latency: str, formats: tuple[str, ...], runtime: str | None, remote_dir: Path, **place: str
) -> None:
    options = [part for name in formats for part in ("--formats", name)] + ["--max-latency", max_latency]
    options += ["--runtime", runtime] if runtime else []
    options += [part for key, value in place.items() for part in (f"--{key.replace('_', '-')}", value)]
    options += ["--remote-dir", str(remote_dir), "--effort", "quick", "-q"]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="slmc-cut-") as folder:
        root = Path(folder)
        usual = Place(root / "home", root / "whole", remote_dir)

        def command(output: Path, *more: str) -> list[str]:
            return [sys.executable, "-c", SLMC, "build", str(model), "-o", str(output), *options, *more]

        began = time.monotonic()
        code, said, _ = build(command(usual.output), usual)
        if code != 0:
            raise SystemExit(said)
        whole = digest(usual.output)
        print(f"whole: {whole}, {time.monotonic() - began:.0f} s", flush=True)
        for phase, begun in PHASES.items():
            home = root / "fresh" if phase == "probing" else usual.home
            found = Place(home, root / phase, remote_dir)
            stopped, _, what = build(command(found.output), found, cut_in=begun)
            code, said, _ = build(command(found.output, "--resume"), found)
            same = code == 0 and digest(found.output) == whole
            clean = not found.visited and not found.work.exists()
            wrong += not (same and clean and what)
            print(
                f"{phase}: {what or 'nothing'} cut, exit code {stopped}; resumed: exit code {code}, "
                f"{'the same' if same else said.strip() or 'ANOTHER'}, {'nothing' if clean else 'SOMETHING'} left",
                flush=True,
            )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
