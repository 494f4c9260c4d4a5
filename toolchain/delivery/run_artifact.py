"""Run this artifact with numpy, onnxruntime and tokenizers alone: python run.py -p "Once"; a classifier labels it."""

import argparse
import ctypes
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent


def open_session(native: bool, threads: int, bodies: int) -> ort.InferenceSession:
    """The model, with the compiled operators for this machine if the artifact brings them and they load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    library = HERE / "native" / f"{platform.system().lower()}-{machine}" / "libslmc_ops.so"
    if native and library.is_file():
        try:
            ctypes.CDLL(str(library))
            options.add_session_config_entry("ai.slmc.bodies", str(bodies))
            options.register_custom_ops_library(str(library))
        except OSError as error:
            print(f"compiled operators not used ({error}); running on plain ONNX Runtime", file=sys.stderr)
    return ort.InferenceSession(str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"])


def pick(logits: np.ndarray, temperature: float, top_k: int, random: np.random.Generator) -> int:
    """The next token: the best one at temperature 0, else drawn from the top_k best."""
    if temperature <= 0:
        return int(logits.argmax())
    best = np.argpartition(logits, -top_k)[-top_k:] if top_k < len(logits) else np.arange(len(logits))
    return int(random.choice(best, p=softmax(logits[best] / temperature)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores [n]."""
    shares: np.ndarray = np.exp(scores.astype(np.float64) - scores.max())
    shares /= shares.sum()
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-p", "--prompt", default="The ")
    parser.add_argument("-n", "--tokens", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.7, help="0 always takes the best token")
    parser.add_argument("--top-k", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-native", action="store_true", help="plain ONNX Runtime, without compiled operators")
    args = parser.parse_args()
    io = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))["io"]
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    session = open_session(not args.no_native, args.threads, io["bodies"])
    state = {s["input"]: np.full(s["shape"], s["fill"], s["dtype"]) for s in io["states"]}
    names = [io["logits"], *(s["output"] for s in io["states"])]
    random = np.random.default_rng(args.seed)
    ids = tokenizer.encode(args.prompt).ids or [0]
    room = io["context"] - len(ids) if io["context"] else args.tokens
    if room < 0:
        sys.exit(f"error: the prompt has {len(ids)} tokens, and the context is {io['context']}; shorten it")
    if io["classes"]:
        scores = session.run([io["logits"]], {io["tokens"]: np.array([ids], np.int64), **state})[0][0, 0]
        print(io["classes"]["labels"][int(scores.argmax())])
        for label, score, share in zip(io["classes"]["labels"], scores, softmax(scores), strict=True):
            print(f"{label}\t{score:.4f}\t{share:.1%}")
        return
    if args.tokens > room:
        print(f"only {room} tokens fit into the context after this prompt", file=sys.stderr)
    shown, written, fresh, seconds = tokenizer.decode(ids), list(ids), ids, 0.0
    print(shown, end="", flush=True)
    for _ in range(min(args.tokens, room)):
        began = time.perf_counter()
        logits, *after = session.run(names, {io["tokens"]: np.array([fresh], np.int64), **state})
        seconds += time.perf_counter() - began
        state = {s["input"]: value for s, value in zip(io["states"], after, strict=True)}
        fresh = [pick(logits[0, -1], args.temperature, args.top_k, random)]
        written += fresh
        text = tokenizer.decode(written)
        if not text.endswith("\ufffd"):  # an unfinished UTF-8 character waits for its other bytes
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print(f"\n\n{args.tokens / max(seconds, 1e-9):.0f} tokens per second", file=sys.stderr)


if __name__ == "__main__":
    main()
