"""Does an artifact tell stories token by token as its fp32 model does? Agreement of best tokens, story by story.

    python benchmarks/storytelling.py MODEL ARTIFACT --stories 40 --seed 1000

The fp32 model begins each story by itself (a few tokens drawn at temperature 1) and goes on, by its best tokens or by
draws at a temperature; the artifact reads the same tokens and says what it would have gone on with after each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from targets.device.session import Session
from targets.device.verify import open_artifact
from toolchain.delivery.validate import artifact_session
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.self_generated import continued

OPENING = 8
"""Tokens that are drawn before a story is told."""


def told(model: LoadedModel, stories: int, temperature: float, seed: int) -> list[torch.Tensor]:
    """Stories as token ids, each from the token that begins a text to the next one or the end of the context."""
    begin = model.tokenizer.encode("").ids[0]
    generator = torch.Generator().manual_seed(seed)
    openings = continued(model.forward, torch.full((stories, 1), begin), OPENING, 1.0, generator)
    ids = continued(model.forward, openings, model.forward.context or 512, temperature, generator)
    ends = [(row[1:] == begin).nonzero() for row in ids]
    return [row[: 1 + int(end[0])] if len(end) else row for row, end in zip(ids, ends, strict=True)]


def agreement(model: LoadedModel, session: Session, stories: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Per story: the share of equal best tokens after the opening, and the tokens up to the first that differs."""
    shares, runs = [], []
    for story in stories:
        session.reset()
        given = session.run(story[None].numpy())[0].argmax(-1)
        with torch.inference_mode():
            wanted = model.forward(story[None], model.forward.initial_state(1))[0][0].argmax(-1).numpy()
        same = (given == wanted)[OPENING - 1 :]
        shares.append(same.mean())
        runs.append(len(same) if same.all() else int(np.argmin(same)))
    return np.array(shares), np.array(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--stories", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    session = artifact_session(options.artifact, open_artifact(options.artifact).io)
    print("| the fp32 model goes on | tokens | top-1 agreement | told alike from the start, median |")
    print("|---|---|---|---|")
    for name, temperature in (("by its best tokens", 0.0), ("at temperature 0.5", 0.5), ("at temperature 1", 1.0)):
        stories = told(model, options.stories, temperature, options.seed)
        shares, runs = agreement(model, session, stories)
        weights = np.array([len(story) - OPENING + 1 for story in stories])
        mean = float((shares * weights).sum() / weights.sum())
        print(f"| {name} | {weights.sum()} | {mean:.2%} | {np.median(runs):.0f} |")


if __name__ == "__main__":
    main()
