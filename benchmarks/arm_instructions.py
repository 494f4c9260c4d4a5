"""Instructions per token of slmc-run under qemu-user: what a board would run, counted where there is none.

    python benchmarks/arm_instructions.py ARTIFACT... [--cpu aarch64:cortex-a53 ...] [--tokens 8] [--depth 16]

Counts by a plugin of qemu (count_instructions.c, compiled here with cc); programs are those of 'make runtime-cross'. A
token's count is the difference of two runs, so that loading falls out. Instructions are no time: an in-order core runs
between a third and two of them a cycle (benchmarks/arm_loops.py says which).
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"aarch64": "linux-aarch64", "arm": "linux-armv7l", "riscv64": "linux-riscv64"}
"""Folders of build/native by qemu's names of processors."""
CPUS = ("aarch64:cortex-a53", "aarch64:cortex-a76", "arm:cortex-a15", "riscv64:rv64")
LEAST_ID = 1
"""Token ids of prompts: this one on, one after another."""


@dataclass(frozen=True)
class Emulated:
    """slmc-run on one emulated processor, with the plugin that counts."""

    cpu: str
    program: Path
    plugin: Path

    def count(self, artifact: Path, prompt: int, tokens: int) -> int:
        """Instructions of a run that reads a prompt of so many tokens and writes so many."""
        with tempfile.TemporaryDirectory() as place:
            ids, counted = Path(place) / "ids", Path(place) / "count"
            np.arange(LEAST_ID, LEAST_ID + prompt, dtype="<i4").tofile(ids)
            system, _, cpu = self.cpu.partition(":")
            emulator = [f"qemu-{system}", "-cpu", cpu, "-plugin", self.plugin, "-d", "plugin", "-D", counted]
            options = ["--ids", ids, "-n", tokens, "--temp", 0, "--no-stop", "--print-ids"]
            subprocess.run(
                list(map(str, [*emulator, self.program, artifact, *options])), check=True, stdout=subprocess.DEVNULL
            )
            return int(counted.read_text())


def compiled_plugin(folder: Path) -> Path:
    plugin = folder / "count.so"
    source = Path(__file__).with_name("count_instructions.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", plugin, source], check=True)
    return plugin


@click.command(help=__doc__)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--cpu", "cpus", multiple=True, default=CPUS, help="qemu's processor and model. Repeatable.")
@click.option("--tokens", default=8, help="How many tokens the average is over.")
@click.option("--depth", default=16, help="Tokens of the prompt before them.")
@click.option("--build", default=ROOT / "build" / "native", type=click.Path(path_type=Path))
def main(artifacts: tuple[Path, ...], cpus: tuple[str, ...], tokens: int, depth: int, build: Path) -> None:
    print("| artifact | processor | generation, M | prompt, M |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        plugin = compiled_plugin(Path(place))
        for artifact in artifacts:
            for cpu in cpus:
                program = build / PROGRAMS[cpu.partition(":")[0]] / "slmc-run"
                emulated = Emulated(cpu, program, plugin)
                base = emulated.count(artifact, depth, 1)
                written = (emulated.count(artifact, depth, tokens + 1) - base) / tokens
                read = (emulated.count(artifact, depth + 64, 1) - base) / 64
                print(f"| {artifact.name} | {cpu} | {written / 1e6:.3f} | {read / 1e6:.3f} |", flush=True)


if __name__ == "__main__":
    main()
