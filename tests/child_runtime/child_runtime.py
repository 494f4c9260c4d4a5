"""A pytest plugin: the tests as they are, with ONNX Runtime and the operators in a child process of another kind.

    PYTHONPATH=tests/child_runtime python -m pytest -p child_runtime --operators LIBRARY --interpreter COMMAND TESTS

COMMAND starts the child's Python: an emulated one, or one with a sanitizer in it. Tests see its results and errors as
if ONNX Runtime ran here; if it dies or hangs, the test that was running fails with what it last said, and a new one
starts. Without COMMAND the tests run as ever, with LIBRARY for the installed operators.
"""

from __future__ import annotations

import contextlib
import select
import shlex
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import child
import onnx
import onnxruntime
import pytest
from child import Method, Reference, receive, send

from exporters.artifact.errors import NotAvailable

ANSWER_WITHIN_S = 120.0


class Died(BaseException):
    """The child process ended or hung; no test that expects an error may take this for one."""


class Child:
    """The process; started by the first request and after a death."""

    def __init__(self, interpreter: Sequence[str], library: str, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._command = [*interpreter, child.__file__, library]
        self._answer_within_s = answer_within_s
        self._process: subprocess.Popen[bytes] | None = None
        self._dropped: list[int] = []
        self._asking = threading.RLock()

    def ask(self, *request: Any) -> Any:
        """The answer, where references became objects; the child's errors are raised here. Threads take turns."""
        with self._asking:
            if self._process is None:
                self._start()
            if self._dropped:
                gone, self._dropped = self._dropped, []
                self._exchange("drop", gone)
            return self._exchange(*request)

    def make(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        return self.ask("make", kind, _references(args), dict(zip(kwargs, _references(kwargs.values()), strict=True)))

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._said)

    def _exchange(self, *request: Any) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, request)
            if not select.select([process.stdout], [], [], self._answer_within_s)[0]:
                raise self._died(f"did not answer within {self._answer_within_s:g} s")
            well, answer = receive(process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._died("ended") from None
        if not well:
            raise answer
        return self._objects(answer)

    def _objects(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self._objects(item) for item in answer]
        return Remote(self, answer) if isinstance(answer, Reference) else answer

    def _died(self, how: str) -> Died:
        assert self._process is not None
        if how != "ended":
            self._process.kill()
        status = self._process.wait()
        self._process = None
        self._dropped = []
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace")
        return Died(f"the child process {how} (status {status}); it said:\n{said[-6000:]}")


class Remote:
    """An object in the child."""

    def __init__(self, home: Child, reference: Reference) -> None:
        self.__dict__.update(_home=home, _reference=reference, _process=home._process)

    def __getattr__(self, name: str) -> Any:
        value = self._home.ask("get", self._reference.number, name)
        if not isinstance(value, Method):
            return value

        def method(*args: Any, **kwargs: Any) -> Any:  # keeps the object, which the child would drop
            return self._home.ask("call", self._reference.number, name, _references(args), kwargs)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        self._home.ask("set", self._reference.number, name, value)

    def __del__(self) -> None:
        if self._process is self._home._process:
            self._home._dropped.append(self._reference.number)


def _references(values: Any) -> tuple[Any, ...]:
    return tuple(value.__dict__["_reference"] if isinstance(value, Remote) else value for value in values)


class NativeFunction:
    """A C function of the child's library with integers for arguments."""

    def __init__(self, home: Child, name: str) -> None:
        self._home, self._name, self.restype = home, name, None

    def __call__(self, *args: int) -> Any:
        return self._home.ask("native", self._name, self.restype is not None, args)


class Library:
    """The operator library: what tells and forces the instruction set is the child's, all else this process's own."""

    def __init__(self, home: Child, own: Any) -> None:
        self._own = own
        for name in ("slmc_isa_level", "slmc_isa_name", "slmc_force_isa"):
            setattr(self, name, NativeFunction(home, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


class Session(Remote):
    """An inference session whose model and feeds are also tried in mutated forms, each model once."""

    def __init__(self, session: Remote, model: bytes, options: Options) -> None:
        super().__init__(session.__dict__["_home"], session.__dict__["_reference"])
        session.__dict__["_process"] = None  # the child's object is this one's now
        self.__dict__.update(_model=model, _options=options)

    def run(self, outputs: Any, feeds: Any) -> Any:
        answer = self.__getattr__("run")(outputs, feeds)
        seed = zlib.crc32(self._model)
        if seed not in self._options.tried:
            self._options.tried.add(seed)
            self._options.fuzzer.attack(seed, onnx.load_from_string(self._model), feeds, self._options.mutants)
        return answer


@dataclass
class Options:
    """What sessions need to try mutants."""

    fuzzer: Any
    mutants: int
    tried: set[int] = field(default_factory=set)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("child_runtime")
    group.addoption("--operators", required=True, help="the operator library to test, for the child's processor")
    group.addoption("--interpreter", help="command that starts the child's Python; without it there is no child")
    group.addoption("--mutants", type=int, default=0, help="how often to mutate every model that a test runs")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest takes the functions that are replaced here."""
    from exporters.artifact import native_library

    chosen = early_config.known_args_namespace
    path = Path(chosen.operators).absolute()
    patch = pytest.MonkeyPatch()
    early_config.add_cleanup(patch.undo)
    if chosen.interpreter is None:
        patch.setattr(native_library, "library_path", lambda: path)
        return
    home = Child(shlex.split(chosen.interpreter), str(path))
    early_config.add_cleanup(home.close)
    try:  # tests may skip where the library does not serve, and that would look like success
        home.make("SessionOptions").register_custom_ops_library(str(path))
    except (Died, Exception) as error:
        raise pytest.UsageError(f"{path} does not serve in '{chosen.interpreter}': {error}") from error
    own = None
    with contextlib.suppress(NotAvailable):  # then no test calls it directly
        own = native_library.library()
    library = Library(home, own)
    patch.setattr(native_library, "library", lambda: library)
    patch.setattr(native_library, "library_path", lambda: path)
    _replace_runtime(patch, home, str(path), chosen.mutants)


def _replace_runtime(patch: pytest.MonkeyPatch, home: Child, library: str, mutants: int) -> None:
    """ONNX Runtime's classes make objects in the child."""
    from fuzzing import Fuzzer

    options = Options(Fuzzer(home, library) if mutants else None, mutants)

    def session(model: Any, *args: Any, **kwargs: Any) -> Remote:
        made = home.make("InferenceSession", model, *args, **kwargs)
        return Session(made, model, options) if mutants and isinstance(model, bytes) else made

    def session_options() -> Any:
        made = home.make("SessionOptions")
        made.enable_cpu_mem_arena = False  # tensors in memory of their own, where a sanitizer sees their ends
        return made

    patch.setattr(onnxruntime, "InferenceSession", session)
    patch.setattr(onnxruntime, "SessionOptions", session_options)
