"""A prompt read with the logits of its last token alone, and with those of all: MODEL DIRECTORY, tokens, threads."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from uniform import export_uniform

from exporters.artifact.native_library import library_path
from exporters.export import GRAPH_NAME
from targets.device.session import open_session
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions

CHUNKS = (64, 128, 256, 512)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--tokens", default=512)
@click.option("--threads", default=1)
@click.option("--rounds", default=5)
def main(model: Path, tokens: int, threads: int, rounds: int) -> None:
    loaded = load_model(model, options=ModelOptions(context=tokens, kv_cache="int8"))
    with tempfile.TemporaryDirectory() as place:
        io = export_uniform(loaded, Path(place), "int4-g64", activations="int8").io
        session = open_session(Path(place) / GRAPH_NAME, io, native=library_path(), threads=threads)
        text = np.random.default_rng(0).integers(0, session.vocabulary, (1, tokens))

        def read(chunk: int, every: bool) -> float:
            session.reset()
            start = time.process_time()
            if every:
                for at in range(0, tokens, chunk):
                    session.run(text[:, at : at + chunk])
            else:
                session.prefill(text, chunk)
            return (time.process_time() - start) * 1e3

        kinds = [(chunk, every) for chunk in CHUNKS for every in (True, False)]
        times = [[read(*kind) for kind in kinds] for _ in range(rounds + 1)][1:]
    print(f"prompt of {tokens} tokens, {threads} threads, CPU time, medians of {rounds}, all in turns")
    print("chunk  all logits  the last")
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for i, chunk in enumerate(CHUNKS):
        print(f"{chunk:5}  {medians[2 * i]:7.0f} ms  {medians[2 * i + 1]:5.0f} ms")


if __name__ == "__main__":
    main()
