"""Text that a model writes by itself, for calibration and evaluation where its training text is not at hand.

    python benchmarks/model_text.py MODEL -o FILE --tokens 40000 --seed 1

Texts are sampled at temperature 1 from the fp32 model, each from the beginning-of-text token to the next one or the end
of the context, many side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from toolchain.model.catalog import LoadedModel, load_model

STREAMS = 64


def written(model: LoadedModel, tokens: int, seed: int) -> list[str]:
    """Texts of at least so many tokens together."""
    generator = torch.Generator().manual_seed(seed)
    begin = model.tokenizer.encode("").ids[:1]
    if not begin:
        raise SystemExit("the tokenizer has no token that begins a text; give this model a text of its own")
    texts: list[str] = []
    count = 0
    while count < tokens:
        ids = _streams(model, begin[0], generator)
        for row in ids:
            ends = (row[1:] == begin[0]).nonzero()
            text = row[1 : 1 + int(ends[0])] if len(ends) else row[1:]
            texts.append(model.tokenizer.decode(text.tolist()).strip())
            count += len(text)
    return texts


def _streams(model: LoadedModel, begin: int, generator: torch.Generator) -> torch.Tensor:
    """Token ids [STREAMS, context], each row begun and then drawn from the model's predictions."""
    state = model.forward.initial_state(STREAMS)
    ids = torch.full((STREAMS, 1), begin)
    length = model.forward.context or 512
    with torch.inference_mode():
        while ids.shape[1] < length:
            logits, state = model.forward(ids[:, -1:], state)
            drawn = torch.multinomial(torch.softmax(logits[:, -1], -1), 1, generator=generator)
            ids = torch.cat([ids, drawn], 1)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = written(load_model(options.model), options.tokens, options.seed)
    options.output.write_text("\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
