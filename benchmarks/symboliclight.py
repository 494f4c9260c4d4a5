"""SymbolicLight beside a stand-in of its published C++ engine, and beside llama.cpp on a Llama of as many parameters.

    python benchmarks/random_symboliclight.py MODEL --tokenizer tokenizer.json
    python benchmarks/symboliclight.py MODEL --work FOLDER --peers-python PYTHON

The engine is not public: symboliclight_standin.cc is ours, after its published design. All take turns in one run, on
the same tokens; a round reads a text of every length from an empty state, and times the tokens that follow. On one
thread the clock is the process's CPU time, on more the wall's. --check compares losses with those of the fp32 model.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from head_to_head import Engine, folder_bytes
from torch.nn import functional
from uniform import export_uniform

from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.symboliclight import SymbolicLight

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-ffast-math", "-shared", "-fPIC")
Array = np.ndarray[Any, Any]


def spike_fed(model: LoadedModel) -> list[str]:
    """Paths of the products whose inputs are spikes."""
    return [x.path for x in model.tree.layers if x.path.endswith(("tcam_proj", "ffn.down"))]


def write_standin(model: LoadedModel, folder: Path) -> None:
    """The stand-in's library, and its model: int8 with a scale per row, by columns where spikes come in."""
    folder.mkdir(parents=True, exist_ok=True)
    source, library = HERE / "symboliclight_standin.cc", folder / "libstandin.so"
    subprocess.run(["g++", *FLAGS, str(source), "-o", str(library)], check=True)
    module = model.module
    assert isinstance(module, SymbolicLight)
    c, state = module.config, {name: t.numpy() for name, t in module.state_dict().items()}
    prior = float(state["output_head.prior_weight"]) if c.prior is None else c.prior
    sizes = [c.vocabulary, c.hidden_size, c.layers, c.heads, c.intermediate_size, c.bottleneck, c.window, c.anchors]

    with (folder / "model.bin").open("wb") as file:

        def vectors(*names: str) -> None:
            for name in names:
                state[name].astype(np.float32).tofile(file)

        def matrix(name: str, by_columns: bool = False) -> None:
            weight = state[f"{name}.weight"]
            scales = np.maximum(np.abs(weight).max(1), 1e-12) / 127
            codes = np.rint(weight / scales[:, None]).astype(np.int8)
            np.ascontiguousarray(codes.T if by_columns else codes).tofile(file)
            scales.astype(np.float32).tofile(file)

        np.array(sizes, np.int32).tofile(file)
        np.array([c.threshold, c.leak, c.theta, prior], np.float32).tofile(file)
        first = "spike_encoder"
        vectors(f"{first}.frontend.text_embedding.weight", f"{first}.norm.weight", f"{first}.norm.bias")
        for i in range(c.layers):
            tcam, ffn = f"blocks.{i}.tcam", f"blocks.{i}.ffn"
            vectors(f"{tcam}.decay_raw", f"{tcam}.attn_gate")
            matrix(f"{tcam}.tcam_proj", by_columns=True)
            for name in ("sparse_attn.q_proj", "sparse_attn.k_proj", "sparse_attn.v_proj", "out_proj"):
                matrix(f"{tcam}.{name}")
            vectors(f"{tcam}.norm.weight", f"{tcam}.norm.bias")
            matrix(f"{ffn}.up")
            matrix(f"{ffn}.down", by_columns=True)
            vectors(f"{ffn}.norm.weight", f"{ffn}.norm.bias")
        for name in ("output_proj", "prior_net.0", "prior_net.2"):
            matrix(f"output_head.{name}")


def write_ours(model: LoadedModel, folder: Path, dense: str, event: str) -> None:
    """The graph of an artifact: dense products with inputs of 8 bits, spike-fed ones input-major."""
    others = dict.fromkeys(spike_fed(model), event)
    graph = export_uniform(model, folder, dense, activations="int8", others=others)
    (folder / "io.json").write_text(json.dumps(dataclasses.asdict(graph.io)))


def write_llama(path: Path, tokenizer: Path, params: int, layers: int, width: int, heads: int) -> int:
    """A Llama in Q8_0 with random weights and so many parameters, as near as rows of 32 allow; how many they are."""
    import gguf

    model = json.loads(tokenizer.read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    outer = 2 * len(words) * width
    hidden = round(((params - outer) / layers - 4 * width**2) / (3 * width) / 32) * 32
    writer, rng = gguf.GGUFWriter(str(path), "llama"), np.random.default_rng(0)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]])
    kind = gguf.GGMLQuantizationType.Q8_0

    def matrix(name: str, rows: int, cols: int) -> None:
        weight = rng.standard_normal((rows, cols), np.float32) / np.float32(cols**0.5)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)

    matrix("token_embd", len(words), width)
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}", width, width)
        for name, shape in (("ffn_gate", (hidden, width)), ("ffn_up", (hidden, width)), ("ffn_down", (width, hidden))):
            matrix(f"blk.{i}.{name}", *shape)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    matrix("output", len(words), width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return outer + layers * (4 * width**2 + 3 * width * hidden)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Engines' files are written there once.")
@click.option("--peers-python", default=sys.executable, help="The Python in which llama-cpp-python is installed.")
@click.option("--format", "formats", multiple=True, default=("int4-g64",), help="Of our dense products.")
@click.option("--event", default="event/int8-g64", help="Format of products that spikes feed.")
@click.option("--depths", default="32,128,256")
@click.option("--threads", default=1)
@click.option("--rounds", default=3)
@click.option("--steps", default=32)
@click.option("--prepare", is_flag=True, help="Write the files, and stop.")
@click.option("--check", is_flag=True, help="Losses of 64 tokens, of the fp32 model and of every engine.")
def main(
    model: Path, work: Path, peers_python: str, formats: tuple[str, ...], event: str, depths: str, threads: int,
    rounds: int, steps: int, prepare: bool, check: bool,
) -> None:  # fmt: skip
    lengths = [int(depth) for depth in depths.split(",")]
    parts = [("stand-in, INT8", "standin", work / "standin", sys.executable)]
    parts += [(f"slmc {name}", "slmc", work / name, sys.executable) for name in formats]
    llama = work / "llama-q8_0.gguf"
    parts.append(("llama.cpp Q8_0, a Llama", "llama.cpp", llama, peers_python))
    missing = [path for _, _, path, _ in parts if not path.exists()]
    loaded = load_model(model) if missing or check else None
    for path in missing:
        assert loaded is not None and isinstance(loaded.module, SymbolicLight)
        c = loaded.module.config
        if path == llama:
            params = write_llama(path, model / "tokenizer.json", loaded.tree.params, c.layers, c.hidden_size, c.heads)
            click.echo(f"SymbolicLight has {loaded.tree.params} parameters, the Llama {params}")
        elif path == work / "standin":
            write_standin(loaded, path)
        else:
            write_ours(loaded, path, path.name, event)
    if prepare:
        return
    engines = [Engine(name=n, kind=k, path=p, python=y, file_bytes=folder_bytes(p)) for n, k, p, y in parts]
    engines = [engine for engine in engines if engine.start(threads, 2048)]
    rng = np.random.default_rng(0)
    if check and loaded is not None:
        ids = rng.integers(0, 40000, 64).tolist()
        with torch.no_grad():
            logits, _ = loaded.forward(torch.tensor([ids]), loaded.forward.initial_state())
        expected = float(functional.cross_entropy(logits[0, :-1], torch.tensor(ids[1:]), reduction="sum"))
        for engine in engines[:-1]:
            click.echo(f"{engine.name}: loss {engine.ask(losses=ids)['losses']:.2f} nats, fp32 {expected:.2f}")
    for _ in range(rounds):
        for length in lengths:
            ids = rng.integers(0, 40000, length + steps).tolist()
            for engine in engines:
                asked = {"new": True, "ids": ids[:length], "steps": steps, "following": ids[length:]}
                engine.note(f"depth {length}", engine.ask(**asked)["step_ms"])
    click.echo(f"\n{threads} thread(s), milliseconds per token, and how many times as long as the first of ours\n")
    click.echo("| engine | " + " | ".join(f"after {length}" for length in lengths) + " |")
    click.echo("|---" * (1 + len(lengths)) + "|")
    medians = {e.name: [statistics.median(e.results[f"depth {n}"]) for n in lengths] for e in engines}
    ours = medians[next(name for name in medians if name.startswith("slmc"))]
    for name, found in medians.items():
        click.echo(
            f"| {name} | " + " | ".join(f"{a:.2f} ({a / b:.2f})" for a, b in zip(found, ours, strict=True)) + " |"
        )


if __name__ == "__main__":
    main()
