"""One engine in a process of its own, for head_to_head.py: requests as lines of JSON on stdin, answers on stdout.

It may run under another Python than ours, the one in which the peers are installed: numpy and the engine are all it
needs. Argument: KIND PATH THREADS CONTEXT.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS_DROPPED = 2
"""First steps at a depth that do not count."""


def _losses(logits: Any, following: Any) -> float:
    """The sum of nats of tokens [n] under logits [n, V]."""
    wide = np.asarray(logits, np.float64)
    wide -= wide.max(-1, keepdims=True)
    picked = np.take_along_axis(wide, np.asarray(following)[:, None], -1)[:, 0]
    return float((np.log(np.exp(wide).sum(-1)) - picked).sum())


class Ours:
    """An artifact's graph with our operators, or without them where `native` is false: then fp32 on ONNX Runtime."""

    native = True

    def __init__(self, path: str, threads: int, context: int) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from exporters.artifact.manifest import Io
        from exporters.artifact.native_library import library_path
        from exporters.artifact.parsing import parse
        from targets.device.session import open_session

        io = parse(Io, json.loads((Path(path) / "io.json").read_text()), "io.json")
        native = library_path() if self.native else None
        self._session = open_session(Path(path) / "model.onnx", io, native=native, threads=threads)

    def reset(self) -> None:
        self._session.reset()

    def read(self, ids: list[int]) -> None:
        self._session.prefill(np.array([ids], np.int64), CHUNK_TOKENS)

    def step(self, token: int) -> None:
        self._session.step(token)

    def losses(self, ids: list[int]) -> float:
        self._session.reset()
        return _losses(self._session.run(np.array([ids], np.int64))[0, :-1], ids[1:])

    def built(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}{', slmc operators' if self.native else ''}"


class Fp32(Ours):
    native = False


class LlamaCpp:
    """llama-cpp-python with flash attention; the cache is float16, as it is by default there."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        import llama_cpp

        def opened(context: int, every: bool) -> Any:
            return llama_cpp.Llama(
                path, n_ctx=context, n_batch=512, n_threads=threads, n_threads_batch=threads, flash_attn=True,
                logits_all=every, verbose=False,
            )  # fmt: skip

        self._open, self._model = opened, opened(context, False)

    def reset(self) -> None:
        self._model.reset()
        self._model._ctx.kv_cache_clear()

    def read(self, ids: list[int]) -> None:
        self._model.eval(ids)

    def step(self, token: int) -> None:
        self._model.eval([token])

    def losses(self, ids: list[int]) -> float:
        model = self._open(len(ids), True)
        model.eval(ids)
        found = _losses(model.scores[: len(ids) - 1], ids[1:])
        model.close()
        return found

    def built(self) -> str:
        import llama_cpp

        return f"llama-cpp-python {llama_cpp.__version__}: {llama_cpp.llama_print_system_info().decode().strip(' |')}"


class GenAi:
    """ONNX Runtime GenAI on a folder that its builder wrote; a step takes the best token, as its loop does."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        import onnxruntime_genai as genai

        self._genai, self._context, self._path = genai, context, path
        config = genai.Config(path)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self._model, self._generator = genai.Model(config), None
        self.reset()

    def reset(self) -> None:
        self._generator = None  # its cache goes before the next one comes
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=self._context, min_length=self._context, do_sample=False)
        self._generator = self._genai.Generator(self._model, params)

    def read(self, ids: list[int]) -> None:
        self._generator.append_tokens(np.array([ids], np.int32))  # type: ignore[attr-defined]

    def step(self, token: int) -> None:
        self._generator.generate_next_token()  # type: ignore[attr-defined]

    def losses(self, ids: list[int]) -> float:
        import onnxruntime

        config = json.loads((Path(self._path) / "genai_config.json").read_text())["model"]["decoder"]
        session = onnxruntime.InferenceSession(str(Path(self._path) / config["filename"]))
        empty = np.zeros((1, config["num_key_value_heads"], 0, config["head_size"]), np.float32)
        given = {i.name: empty for i in session.get_inputs() if i.name.startswith("past")}
        given |= {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        asked = {i.name for i in session.get_inputs()}
        (logits,) = session.run(["logits"], {name: value for name, value in given.items() if name in asked})
        return _losses(logits[0, :-1], ids[1:])

    def built(self) -> str:
        import onnxruntime

        return f"onnxruntime-genai {self._genai.__version__} on onnxruntime {onnxruntime.__version__}"


class StandIn:
    """symboliclight_standin.cc, compiled, beside its model."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._library = ctypes.CDLL(str(Path(path) / "libstandin.so"))
        self._library.standin_open.restype = ctypes.c_void_p
        self._engine = ctypes.c_void_p(self._library.standin_open(str(Path(path) / "model.bin").encode()))
        self._logits = np.zeros(int(np.fromfile(Path(path) / "model.bin", np.int32, 1)[0]), np.float32)

    def reset(self) -> None:
        self._library.standin_reset(self._engine)

    def read(self, ids: list[int]) -> None:
        for token in ids:
            self.step(token)

    def step(self, token: int) -> None:
        self._library.standin_step(self._engine, token, self._logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))

    def losses(self, ids: list[int]) -> float:
        self.reset()
        logits = []
        for token in ids:
            self.step(token)
            logits.append(self._logits.copy())
        return _losses(np.array(logits[:-1]), ids[1:])

    def built(self) -> str:
        return "g++ -O3 -march=native -fopenmp -ffast-math"


ENGINES = {"standin": StandIn, "slmc": Ours, "fp32": Fp32, "llama.cpp": LlamaCpp, "genai": GenAi}
CHUNK_TOKENS = 128
"""Tokens of a prompt that our session reads in one call."""


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _timed(clock: Any, work: Any) -> float:
    start = clock()
    work()
    return float((clock() - start) * 1e3)


def _answer(engine: Any, clock: Any, request: dict[str, Any]) -> dict[str, Any]:
    if "losses" in request:
        return {"losses": engine.losses(request["losses"])}
    if request.get("new"):
        engine.reset()
    ids, steps = request["ids"], request["steps"]
    read_ms = _timed(clock, lambda: engine.read(ids))
    following = request.get("following") or [ids[-1]] * steps
    taken = [_timed(clock, lambda token=token: engine.step(token)) for token in following]  # type: ignore[misc]
    step_ms = statistics.median(taken[STEPS_DROPPED:]) if taken else None
    return {"read_ms": read_ms, "step_ms": step_ms, "peak_bytes": _peak_bytes()}


def main() -> None:
    kind, path, threads, context = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    clock = time.process_time if threads == "1" else time.perf_counter
    try:
        engine = ENGINES[kind](path, int(threads), int(context))
        print(json.dumps({"built": engine.built()}), file=out, flush=True)
    except Exception as error:
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        return
    for line in sys.stdin:
        print(json.dumps(_answer(engine, clock, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
