"""Ours beside llama.cpp, ONNX Runtime GenAI and fp32 ONNX Runtime on one model: MODEL.gguf or a directory.

All take turns in one run. Peers are optional: --gguf FILE for llama-cpp-python, --genai FOLDER as its builder wrote it,
and --peers-python where they are installed. On one thread the clock is the process's CPU time, on more the wall's. With
--results FILE several short calls, of some depths and prompts each, end in one table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from head_to_head_report import table, write_picture
from tokenizers import Tokenizer
from uniform import export_uniform

from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions

WINDOW = 512
PATH = click.Path(exists=True, path_type=Path)


@dataclass
class Engine:
    """One engine's process and what it said. results: name of a test -> milliseconds, a value per round."""

    name: str
    kind: str
    path: Path
    python: str
    file_bytes: int
    built: str = ""
    perplexity: float | None = None
    peak_bytes: int = 0
    results: dict[str, list[float]] = field(default_factory=dict)
    process: Any = None

    def start(self, threads: int, context: int) -> bool:
        """Whether it runs; names what is missing."""
        worker = str(Path(__file__).with_name("peer_worker.py"))
        command = [self.python, worker, self.kind, str(self.path), str(threads), str(context)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        first = json.loads(self.process.stdout.readline() or '{"missing": "its process ended"}')
        if "missing" in first:
            click.echo(f"{self.name}: left out ({first['missing']})", err=True)
            return False
        self.built = first["built"]
        click.echo(f"{self.name}: {self.built}", err=True)
        return True

    def ask(self, **request: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def note(self, test: str, ms: float) -> None:
        self.results.setdefault(test, []).append(ms)

    def said(self) -> dict[str, Any]:
        """What it said, for a file."""
        names = ("name", "file_bytes", "built", "perplexity", "peak_bytes", "results")
        return {name: getattr(self, name) for name in names}

    def add(self, before: dict[str, Any]) -> None:
        """Takes in what it said in an earlier call."""
        self.perplexity = self.perplexity or before["perplexity"]
        self.peak_bytes = max(self.peak_bytes, before["peak_bytes"])
        self.results = {**before["results"], **self.results}


def folder_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.suffix in (".gguf", ".onnx", ".data"))


def tokenized(model: Path, text: Path, count: int) -> list[int]:
    """The first tokens of a text."""
    own = model / "tokenizer.json"
    if own.is_file():
        tokenizer = Tokenizer.from_file(str(own))
    else:
        tokenizer = load_model(model, options=ModelOptions(context=8)).tokenizer
    return [int(i) for i in tokenizer.encode(text.read_text()[: 12 * count]).ids[:count]]


def ours(
    model: Path, place: Path, format_name: str, context: int, without: Collection[str]
) -> list[tuple[str, str, Path]]:
    """Our graphs, written where they are not there yet: (name, kind, folder)."""
    found = []
    for name, kind, fmt, cache in (
        (f"slmc {format_name}, int8 cache", "slmc", format_name, "int8"),
        ("ONNX Runtime fp32", "fp32", "fp32", "fp32"),
    ):
        folder = place / f"{kind}-{context}"
        if kind in without:
            continue
        if not (folder / "io.json").exists():
            loaded = load_model(model, options=ModelOptions(context=context, kv_cache=cache))
            graph = export_uniform(loaded, folder, fmt, activations="int8")
            (folder / "io.json").write_text(json.dumps(dataclasses.asdict(graph.io)))
        found.append((name, kind, folder))
    return found


def one_round(engine: Engine, text: list[int], prompts: tuple[int, ...], depths: tuple[int, ...], steps: int) -> None:
    """Prompts from an empty state, and generation behind texts of these lengths."""
    read = 0
    for length in sorted({*prompts, *depths}):
        new = length in prompts or read == 0
        ids = text[:length] if new else text[read + steps : length]
        answer = engine.ask(new=new, ids=ids, steps=steps if length in depths else 0)
        if length in prompts:
            engine.note(f"prompt {length}", answer["read_ms"])
        if length in depths:
            engine.note(f"depth {length}", answer["step_ms"])
        read = length if length in depths else length - steps
        engine.peak_bytes = max(engine.peak_bytes, answer["peak_bytes"])


def perplexity(engine: Engine, text: list[int], windows: int) -> float | None:
    """Over windows of WINDOW tokens, each from an empty state."""
    if not windows:
        return None
    losses = [engine.ask(losses=text[i * WINDOW : (i + 1) * WINDOW])["losses"] for i in range(windows)]
    return math.exp(sum(losses) / (windows * (WINDOW - 1)))


def merged(engines: list[Engine], results: Path | None, threads: int) -> list[Engine]:
    """The engines with what the file holds of earlier calls with so many threads, and those of it alone; updates it."""
    if results is None:
        return engines
    kept = json.loads(results.read_text()) if results.exists() else {}
    before = {entry["name"]: entry for entry in kept.get(str(threads), [])}
    for engine in engines:
        if engine.name in before:
            engine.add(before.pop(engine.name))
    others = [Engine(kind="", path=results, python="", **entry) for entry in before.values()]
    kept[str(threads)] = [engine.said() for engine in [*engines, *others]]
    results.write_text(json.dumps(kept, indent=1))
    return [*engines, *others]


def show(engines: list[Engine], threads: int, picture: Path | None) -> None:
    medians = {e.name: {test: statistics.median(ms) for test, ms in e.results.items()} for e in engines}
    click.echo(table(engines, medians, threads))
    if picture:
        write_picture(picture, medians)


@click.command(help=__doc__)
@click.argument("model", type=PATH)
@click.argument("text", type=PATH)
@click.option("--gguf", type=PATH, help="What llama.cpp runs; MODEL itself if that is a GGUF.")
@click.option("--genai", type=PATH, help="What GenAI runs: a folder that its builder wrote with -p int4 -e cpu.")
@click.option("--peers-python", default=sys.executable, help="The Python in which the peers are installed.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Our graphs are written there once.")
@click.option("--format", "format_name", default="int4-g64")
@click.option("--depths", default="16,512,2048,4096")
@click.option("--prompts", default="128,512,2048")
@click.option("--context", default=0, help="Of all engines; 0 for what the longest text needs.")
@click.option(
    "--results", type=click.Path(path_type=Path), help="Results of all calls with this file are shown together."
)
@click.option("--threads", default="1", help="Several with commas: a table each.")
@click.option("--rounds", default=3)
@click.option("--steps", default=16)
@click.option("--windows", default=20, help="Of 512 tokens, for perplexity.")
@click.option("--without", multiple=True, help="Kinds to leave out: slmc, fp32, llama.cpp, genai. Repeatable.")
@click.option("--picture", type=click.Path(path_type=Path), help="An SVG of generation by depth.")
def main(
    model: Path, text: Path, gguf: Path | None, genai: Path | None, peers_python: str, work: Path, format_name: str,
    depths: str, prompts: str, context: int, results: Path | None, threads: str, rounds: int, steps: int, windows: int,
    without: tuple[str, ...], picture: Path | None,
) -> None:  # fmt: skip
    lengths, texts = (tuple(int(part) for part in option.split(",") if part) for option in (depths, prompts))
    context = context or max(*lengths, *texts, WINDOW) + 2 * steps
    gguf = gguf or (model if model.suffix == ".gguf" else None)
    ids = tokenized(model, text, max(context, windows * WINDOW))
    graphs = ours(model, work, format_name, context, without)
    parts = [(name, kind, path, sys.executable) for name, kind, path in graphs]
    parts += [("llama.cpp", "llama.cpp", gguf, peers_python)] if gguf else []
    parts += [("ONNX Runtime GenAI int4", "genai", genai, peers_python)] if genai else []
    for kind, path, option in (("llama.cpp", gguf, "--gguf"), ("genai", genai, "--genai")):
        if path is None:
            click.echo(f"{kind}: left out, {option} is not given", err=True)
    for count in (int(part) for part in threads.split(",")):
        engines = [
            Engine(name=name, kind=kind, path=path, python=python, file_bytes=folder_bytes(path))
            for name, kind, path, python in parts
            if kind not in without
        ]
        engines = [engine for engine in engines if engine.start(count, context)]
        for _ in range(rounds):
            for engine in engines:
                one_round(engine, ids, texts, lengths, steps)
        for engine in engines:
            engine.perplexity = perplexity(engine, ids, windows if count == 1 else 0)
            engine.process.stdin.close()
            engine.process.wait()
        show(merged(engines, results, count), count, picture if count == 1 else None)


if __name__ == "__main__":
    main()
