"""Write a Llama directory with random weights in several 16-bit shards, of TinyLlama's shape (1.1B) by default."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def write_tokenizer(source: Path, output: Path, size: int) -> None:
    """The first `size` tokens of a byte-pair tokenizer.json, whose merges come in the order of their tokens.

    Where it has fewer, tokens follow that no text has.
    """
    document = json.loads(source.read_text(encoding="utf-8"))
    model = document["model"]
    model["vocab"] = {token: i for token, i in model["vocab"].items() if i < size}
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    known = model["vocab"]
    model["merges"] = [[a, b] for a, b in pairs if a in known and b in known and a + b in known]
    taken = {*known.values(), *(token["id"] for token in document["added_tokens"])}
    known |= {f"<none {i}>": i for i in range(size) if i not in taken}
    document["added_tokens"] = [token for token in document["added_tokens"] if token["id"] < size]
    output.write_text(json.dumps(document), encoding="utf-8")


def block(i: int, width: int, hidden: int, shared: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of layer i."""
    at = f"model.layers.{i}"
    return {
        f"{at}.input_layernorm.weight": (width,),
        f"{at}.self_attn.q_proj.weight": (width, width),
        f"{at}.self_attn.k_proj.weight": (shared, width),
        f"{at}.self_attn.v_proj.weight": (shared, width),
        f"{at}.self_attn.o_proj.weight": (width, width),
        f"{at}.post_attention_layernorm.weight": (width,),
        f"{at}.mlp.gate_proj.weight": (hidden, width),
        f"{at}.mlp.up_proj.weight": (hidden, width),
        f"{at}.mlp.down_proj.weight": (width, hidden),
    }


def in_shards(shapes: Mapping[str, tuple[int, ...]], shards: int) -> dict[str, str]:
    """Tensor name to file name, about the same number of values in every file."""
    total, before, places = sum(map(math.prod, shapes.values())), 0, {}
    for name, shape in shapes.items():
        places[name] = f"model-{before * shards // total + 1:05}-of-{shards:05}.safetensors"
        before += math.prod(shape)
    return places


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), required=True, help="tokenizer.json, BPE.")
@click.option("--layers", default=22)
@click.option("--width", default=2048)
@click.option("--hidden", default=5632)
@click.option("--heads", default=32)
@click.option("--groups", default=4)
@click.option("--vocabulary", default=32000)
@click.option("--context", default=2048)
@click.option("--dtype", type=click.Choice(sorted(DTYPES)), default="bf16")
@click.option("--shards", default=5)
@click.option("--seed", default=0)
def main(
    output: Path, tokenizer: Path, layers: int, width: int, hidden: int, heads: int, groups: int, vocabulary: int,
    context: int, dtype: str, shards: int, seed: int,
) -> None:  # fmt: skip
    """A directory as Hugging Face writes it; one shard is in memory at a time."""
    output.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for i in range(layers):
        shapes |= block(i, width, hidden, width // heads * groups)
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}
    places = in_shards(shapes, shards)
    generator = torch.Generator().manual_seed(seed)
    for file in dict.fromkeys(places.values()):
        here = [(name, shape) for name, shape in shapes.items() if places[name] == file]
        save_file({name: drawn(shape, generator, DTYPES[dtype]) for name, shape in here}, output / file)
    index = json.dumps({"metadata": {}, "weight_map": places}, indent=1)
    (output / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": width,
        "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "max_position_embeddings": context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": vocabulary,
    }  # fmt: skip
    (output / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    write_tokenizer(tokenizer, output / "tokenizer.json", vocabulary)
    click.echo(f"{output}: {sum(map(math.prod, shapes.values()))} parameters in {shards} shards")


def drawn(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Ones for a norm, otherwise normal values of such a size that a product keeps that of its inputs."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return (torch.randn(shape, generator=generator) / math.sqrt(shape[1])).to(dtype)


if __name__ == "__main__":
    main()
