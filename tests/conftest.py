"""What all tests share: a tiny trained model, an artifact built from it once, and slmc called as a user calls it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[1]
TEXTS = ROOT / "toolchain" / "texts"
LAYERS, WIDTH, VOCABULARY = 2, 32, 300
STEPS, BATCH, WINDOW, RATE = 120, 8, 64, 6e-3
LIMITS = ("--max-memory", "25%", "--max-drop", "5%", "--effort", "quick")
"""What the shared artifact was asked to keep: easy for the tiny model, and quick to find."""

Slmc = Callable[..., Result]

torch.set_num_threads(1)  # two files are tested at a time, and sums are the same in whichever process a test runs


def _read_once() -> None:
    """For every export torch's exporter parses the source of all its five hundred functions again, half a second; in a
    process that exports a hundred models once is enough."""
    with contextlib.suppress(ImportError, AttributeError):
        from onnxscript._internal.values import TracedOnnxFunction as Traced

        parsed = functools.cached_property(Traced.function_ir.fget)
        parsed.__set_name__(Traced, "function_ir")
        Traced.function_ir = parsed


_read_once()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulator", help="slmc-run and its driver as 'make runtime-cross' compiled them, under this qemu"
    )


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest) -> str | None:
    """The emulator that slmc-run is to be tested under; None on this machine itself."""
    chosen: str | None = request.config.getoption("--emulator")
    return chosen


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SpikeGPT of 2 layers and width 32 with a tokenizer of 300 entries, trained for seconds on the shipped prose."""
    from train_spikegpt import encode, initialise, save_model, train_tokenizer

    from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig

    texts = [path.read_text(encoding="utf-8") for path in sorted(TEXTS.glob("*.txt"))]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    model = SpikeGpt(SpikeGptConfig(LAYERS, WIDTH, 4 * WIDTH, VOCABULARY))
    initialise(model, torch.Generator().manual_seed(3))
    ids = torch.from_numpy(encode(tokenizer, "".join(texts)))
    starts = torch.randint(len(ids) - WINDOW - 1, (STEPS, BATCH), generator=torch.Generator().manual_seed(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in starts:
        windows = torch.stack([ids[at : at + WINDOW + 1] for at in step])
        logits, _ = model(windows[:, :-1], model.initial_state(BATCH))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def slmc() -> Slmc:
    """slmc in this very process: arguments in; exit code, stdout and stderr out. What it did not foresee is raised."""
    from toolchain.cli.main import main

    def call(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture(scope="session")
def artifact(tiny_model: Path, slmc: Slmc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model built with LIMITS; shared, so not to be changed."""
    folder = tmp_path_factory.mktemp("artifact") / "tiny.slmc"
    result = slmc("build", tiny_model, "-o", folder, *LIMITS)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def oldest_python() -> Path:
    """A Python with the oldest releases of numpy, onnxruntime and tokenizers that pyproject.toml allows a device."""
    python = ROOT / "build" / "oldest" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no environment of the oldest releases in build/oldest; 'make test' sets it up")
    return python


@pytest.fixture(scope="session")
def said_everywhere(oldest_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """What an artifact's run.py prints on the oldest and newest runtime: with operators, without, and with a library
    that cannot be loaded."""

    def call(artifact: Path, *options: object) -> dict[str, bytes]:
        broken = tmp_path_factory.mktemp("broken") / "artifact"
        shutil.copytree(artifact, broken)
        for library in broken.glob("native/*/*"):
            library.write_bytes(b"for another machine")
        summed_again(broken)
        said = {}
        for runtime, python in (("newest", sys.executable), ("oldest", str(oldest_python))):
            for how, folder, more in (
                ("", artifact, ()),
                ("plain", artifact, ("--no-native",)),
                ("broken", broken, ()),
            ):
                command = [python, str(folder / "run.py"), *map(str, options), *more]
                done = subprocess.run(command, capture_output=True, check=False)
                assert done.returncode == 0, (runtime, how, done.stderr.decode())
                assert (b"not used" in done.stderr) == (how == "broken"), done.stderr
                said[f"{runtime} {how}"] = done.stdout
        return said

    return call


def summed_again(artifact: Path) -> None:
    """Brings the sums of an artifact that was altered up to date, as someone would who means to deceive."""
    from toolchain.delivery.package import write_sums

    path = artifact / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    manifest["files"] = {name: dataclasses.asdict(entry) for name, entry in write_sums(artifact).items()}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    write_sums(artifact)


@pytest.fixture
def altered(tmp_path: Path) -> Callable[..., Path]:
    """A copy of an artifact that was changed by a function, its sums made again."""

    def call(artifact: Path, change: Callable[[Path], object]) -> Path:
        copy = tmp_path / "altered"
        shutil.copytree(artifact, copy)
        change(copy)
        summed_again(copy)
        return copy

    return call


@dataclasses.dataclass(frozen=True)
class Running:
    """slmc in a process of its own, with its output in files."""

    process: BaseProcess
    out: Path
    err: Path

    def code(self, timeout_s: float = 120.0) -> int:
        """The exit code, negative for a signal; waits for the end."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"still running after {timeout_s} s: {self.err.read_text()}"
        return self.process.exitcode


_CHILD = """
import os, sys
for path, number in ((out, 1), (err, 2)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
from toolchain.cli.main import main
main(args, prog_name="slmc")
"""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Running]:
    """Starts slmc in a process that can be killed; forked from one that has its imports behind it."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toolchain.cli.building", "toolchain.cli.running", "torch.onnx"])
    folder = tmp_path_factory.mktemp("running")
    count = 0

    def call(*args: object) -> Running:
        nonlocal count
        count += 1
        out, err = folder / f"{count}.out", folder / f"{count}.err"
        names = {"args": [str(a) for a in args], "out": str(out), "err": str(err)}
        process = context.Process(target=exec, args=(_CHILD, names), daemon=True)
        process.start()
        return Running(process, out, err)

    return call


def one_error(result: Result, code: int, *words: object) -> None:
    """Assert that a command said exactly one line, `error: ...` with all the words, and left with the exit code."""
    lines = result.stderr.splitlines()
    assert (result.exit_code, len(lines)) == (code, 1), f"exit code {result.exit_code}\n{result.stderr}"
    assert lines[0].startswith("error: ")
    missing = [str(word) for word in words if str(word) not in lines[0]]
    assert not missing, f"{missing} not in {lines[0]}"
    assert result.stdout == ""


@pytest.fixture(scope="session")
def fails(slmc: Slmc) -> Callable[..., None]:
    """Asserts that a command fails with one line on stderr: fails(arguments, exit code, words of the line...)."""
    return lambda args, code, *words: one_error(slmc(*args), code, *words)


@pytest.fixture(scope="session")
def document(slmc: Slmc) -> Callable[..., object]:
    """What a command prints with --json: exactly one document, of strict JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def call(*args: object) -> object:
        result = slmc(*args, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout, parse_constant=refuse)

    return call


@pytest.fixture(scope="session")
def limits() -> tuple[str, ...]:
    """The options that the shared artifact was built with."""
    return LIMITS
