"""The inner loops of the Arm kernels under llvm-mca: cycles of an iteration beside what the ports alone would take.

No Arm machine is needed: g++ for aarch64 compiles the kernels to assembly, every innermost loop with products of
vectors goes to llvm-mca (Debian: llvm, g++-aarch64-linux-gnu). A loop far above its ports' time waits for its results.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

NATIVE = Path(__file__).resolve().parents[1] / "exporters" / "native"
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-w", "-S")
DOT = "-march=armv8.2-a+dotprod"
FILES = {
    "attention_neon.cc": (), "linear_neon.cc": (), "sparse_neon.cc": (), "events_neon.cc": (),
    "attention_neon_dot.cc": (DOT,), "linear_neon_dot.cc": (DOT,), "sparse_neon_dot.cc": (DOT,),
}  # fmt: skip
"""Kernels for NEON, and for NEON with dot products, with the flags that CMakeLists.txt gives them."""

CPUS = {False: ("cortex-a53", "cortex-a72", "cortex-a76"), True: ("cortex-a76",)}
"""What runs kernels without dot products, and with them."""

JUMPS = r"b\.?(?:eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|hs|lo)|cbn?z|tbn?z"
PRODUCTS = re.compile(r"^\s+(sdot|udot|fmla|fmls|[su]mlal2?|[su]mull2?|mla|fmul)\s+v")
LIMIT = 1.5
"""Cycles over the ports' time from which on a loop is named."""


@dataclass(frozen=True)
class Loop:
    """An innermost loop: the function that it is in, and its instructions, the branch back last."""

    function: str
    lines: tuple[str, ...]

    @property
    def products(self) -> int:
        return sum(bool(PRODUCTS.match(line)) for line in self.lines)


@dataclass(frozen=True)
class Judged:
    """cycles: of an iteration in the steady state. ports: reciprocal throughput of its instructions, in cycles."""

    loop: Loop
    cycles: float
    ports: float

    @property
    def ratio(self) -> float:
        return self.cycles / self.ports


def loops_of(assembly: str) -> Iterator[Loop]:
    """Innermost loops with at least four products of vectors and no call."""
    function, lines, places = "", [], {}
    for line in assembly.splitlines():
        label = re.match(r"^([.\w$]+):", line)
        if label and not label[1].startswith(".L"):
            function, lines, places = label[1], [], {}
        elif label:
            places[label[1]] = len(lines)
        elif line.startswith("\t") and not line.startswith("\t."):
            lines.append(line)
            target = re.match(rf"^\t(?:{JUMPS})\t(?:.*[\s,])?(\.L\w+)", line)
            if target and target[1] in places:
                body = tuple(lines[places[target[1]] :])
                loop = Loop(function, body)
                branches = sum(bool(re.match(rf"^\t(?:{JUMPS}|b|bl|blr|br|ret)\b", one)) for one in body)
                if branches == 1 and loop.products >= 4:
                    yield loop


def judge(loop: Loop, cpu: str, iterations: int = 100) -> Judged | None:
    """None where llvm-mca does not know an instruction."""
    extension = ["-mattr=+dotprod"]
    command = ["llvm-mca", "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", *extension, f"-iterations={iterations}"]
    done = subprocess.run(command, input="\n".join(loop.lines) + "\n", capture_output=True, text=True, check=False)
    found = {
        key: re.search(rf"^{key}:\s+([\d.]+)", done.stdout, re.MULTILINE)
        for key in ("Total Cycles", "Block RThroughput")
    }
    cycles, ports = found["Total Cycles"], found["Block RThroughput"]
    if not cycles or not ports:
        return None
    return Judged(loop, float(cycles[1]) / iterations, float(ports[1]))


def compiled(file: str, compiler: str, build: Path | None) -> str:
    if build:
        return (build / "CMakeFiles" / "slmc_ops.dir" / f"{file}.s").read_text()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "kernels.s"
        subprocess.run([compiler, *FLAGS, *FILES[file], "-o", str(out), str(NATIVE / file)], check=True)
        return out.read_text()


def plain_name(function: str) -> str:
    done = subprocess.run(["c++filt", function], capture_output=True, text=True, check=True)
    return re.sub(r"slmc::(\w+::)?|\(anonymous namespace\)::|\(.*", "", done.stdout.strip())


@click.command(help=__doc__)
@click.option("--file", "files", multiple=True, type=click.Choice(list(FILES)), help="Only these. Repeatable.")
@click.option("--compiler", default="aarch64-linux-gnu-g++")
@click.option(
    "--build",
    type=click.Path(path_type=Path, exists=True),
    help="A build folder with -DCMAKE_CXX_FLAGS=-save-temps=obj, whose assembly is read in the place of compiling.",
)
@click.option("--threads", default=1)
@click.option("--worst", default=3, help="Loops over the limit that are named per file and CPU.")
def main(files: tuple[str, ...], compiler: str, build: Path | None, threads: int, worst: int) -> None:
    print("| kernels | CPU | loops | median | largest | over 1.5 |\n|---|---|---|---|---|---|")
    named = []
    for file in files or FILES:
        loops = list({loop.lines: loop for loop in loops_of(compiled(file, compiler, build))}.values())
        for cpu in CPUS[bool(FILES[file])]:
            with ThreadPoolExecutor(threads) as pool:
                judged = [j for j in pool.map(lambda loop, cpu=cpu: judge(loop, cpu), loops) if j]
            ratios = sorted((j.ratio for j in judged), reverse=True)
            over = sorted((j for j in judged if j.ratio > LIMIT), key=lambda j: -j.ratio)
            cells = [
                file,
                cpu,
                str(len(judged)),
                f"{statistics.median(ratios):.2f}",
                f"{ratios[0]:.2f}",
                str(len(over)),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
            named += [(file, cpu, j) for j in over[:worst]]
    for file, cpu, j in named:
        size = f"{len(j.loop.lines)} instructions, {j.loop.products} products"
        print(f"{file}, {cpu}: {j.cycles:.1f} cycles of {j.ports:.1f}, {size}: {plain_name(j.loop.function)}")


if __name__ == "__main__":
    main()
