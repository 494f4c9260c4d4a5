"""Best tokens with an int8 or fp16 cache beside those with an fp32 one, all else equal: MODEL DIRECTORY TEXT FILE.

The text is read in one context, in calls of 64 tokens.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from uniform import export_uniform

from exporters.artifact.native_library import library_path
from exporters.export import GRAPH_NAME
from targets.device.evaluation import read_text
from targets.device.session import open_session
from toolchain.model.catalog import load_model
from toolchain.model.family import CACHE_FORMATS, ModelOptions


def read(model: Path, cache: str, weights: str, ids: npt.NDArray[np.int64], threads: int) -> tuple[float, npt.NDArray]:
    """Perplexity, and the best token after every one."""
    loaded = load_model(model, options=ModelOptions(context=len(ids), kv_cache=cache))
    with tempfile.TemporaryDirectory() as place:
        io = export_uniform(loaded, Path(place), weights).io
        session = open_session(Path(place) / GRAPH_NAME, io, native=library_path(), threads=threads)
        losses, best = read_text(session, ids)
    return float(np.exp(losses.mean())), best


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--tokens", default=4000)
@click.option("--weights", default="int8-g64")
@click.option("--threads", default=1)
def main(model: Path, text: Path, tokens: int, weights: str, threads: int) -> None:
    tokenizer = load_model(model, options=ModelOptions(context=8)).tokenizer
    ids = np.array(tokenizer.encode(text.read_text()[: 20 * tokens]).ids[:tokens], np.int64)
    expected, reference = read(model, "fp32", weights, ids, threads)
    print(f"{len(ids)} tokens, weights {weights}\ncache  perplexity  top-1 of the fp32 cache\nfp32   {expected:10.4f}")
    for cache in CACHE_FORMATS[1:]:
        perplexity, best = read(model, cache, weights, ids, threads)
        print(f"{cache:5}  {perplexity:10.4f}  {(best == reference).mean():.2%}", flush=True)


if __name__ == "__main__":
    main()
