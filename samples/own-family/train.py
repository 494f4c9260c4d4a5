"""Train the spiking transformer for a minute and save it as a folder that slmc reads."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from own_family.trained import SpikingTransformer
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY, WINDOW, BATCH = 512, 48, 16


def byte_pairs(text: str) -> Tokenizer:
    """A byte-level BPE of 512 entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="any text in UTF-8")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    args = parser.parse_args()
    torch.manual_seed(0)
    text = args.text.read_text(encoding="utf-8")
    tokenizer = byte_pairs(text)
    ids = torch.tensor(tokenizer.encode(text).ids)
    model = SpikingTransformer(VOCABULARY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    began, step = time.monotonic(), 0
    while step < args.steps and time.monotonic() - began < args.seconds:
        starts = torch.randint(0, len(ids) - WINDOW - 1, (BATCH,))
        batch = torch.stack([ids[s : s + WINDOW + 1] for s in starts])
        logits = model(batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
    print(f"{step} steps, loss {loss.item():.3f}")
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(
        {n: t.detach().contiguous() for n, t in model.state_dict().items() if t.ndim}, args.output / "model.safetensors"
    )
    (args.output / "config.json").write_text(json.dumps({"model_type": "own-spiking-transformer"}))
    tokenizer.save(str(args.output / "tokenizer.json"))


if __name__ == "__main__":
    main()
