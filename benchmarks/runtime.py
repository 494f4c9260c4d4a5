"""One step of an artifact in slmc-run and in ONNX Runtime with our operators: paired processes, in turn, one thread.

    python benchmarks/runtime.py ARTIFACT [--pairs 10] [--tokens 128]

CPU time per token, the least of the rounds of a process; medians over the pairs, with the ratio's range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from exporters.artifact.native_library import library_path

ROUNDS = 5


def onnx_runtime_ms(artifact: Path, tokens: int) -> float:
    """The least CPU time per token, states bound where they lie as run.py does."""
    import onnxruntime as ort

    from targets.device.continuation import Model

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library_path()))
    session = ort.InferenceSession(str(artifact / "model.onnx"), options, providers=["CPUExecutionProvider"])
    io = json.loads((artifact / "manifest.json").read_text())["io"]
    found = []
    for _ in range(ROUNDS + 1):
        model = Model(session, io)
        began = time.process_time()
        for i in range(tokens):
            model.step(1 + i % 200)
        found.append((time.process_time() - began) * 1e3 / tokens)
    return min(found[1:])


def slmc_run_ms(artifact: Path, tokens: int) -> tuple[float, int]:
    program = library_path().parent / "slmc-run"
    command = [program, artifact, "--bench", "--pp", "0", "--tg", str(tokens), "-r", str(ROUNDS)]
    (row,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return row["least_cpu_ms_per_token"], row["peak_rss_bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(onnx_runtime_ms(args.artifact, args.tokens))
        return
    pairs, peak = [], 0
    for _ in range(args.pairs):
        command = [sys.executable, __file__, str(args.artifact), "--tokens", str(args.tokens), "--child"]
        theirs = float(subprocess.run(command, capture_output=True, check=True).stdout)
        ours, peak = slmc_run_ms(args.artifact, args.tokens)
        pairs.append((theirs, ours))
    ratios = sorted(theirs / ours for theirs, ours in pairs)
    theirs, ours = np.array(pairs).T
    print(f"ONNX Runtime {statistics.median(theirs):.4f} ms (least {min(theirs):.4f}), "
          f"slmc-run {statistics.median(ours):.4f} ms (least {min(ours):.4f})")  # fmt: skip
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(f"ratio {statistics.median(ratios):.2f} ({spread}); slmc-run's peak {peak / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
