"""Tuning end to end: the loss falls, the formats stay, and an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.dense import FP16
from toolchain.compress.catalog import compress
from toolchain.compress.masks import best_mask
from toolchain.compress.recipe import LayerConfig
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.tuning.distil import Schedule, Tuned, tune
from toolchain.tuning.parametrization import MaskedWeight

SCHEDULE = Schedule(steps=60, streams=4, window=32, rate=2e-3, scale_rate=2e-4)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def ids(model: LoadedModel) -> Tensor:
    text = (Path(__file__).parents[3] / "toolchain" / "texts" / "calibration.txt").read_text(encoding="utf-8")
    return torch.tensor(model.tokenizer.encode(text[:20_000]).ids)


@pytest.fixture(scope="module")
def encoded(model: LoadedModel) -> dict[str, Encoded]:
    """Linear layers in two bits, the embedding as signs, the head in float16."""
    names = {layer.path: "int2-g32" if layer.kind == "linear" else "sign" for layer in model.tree.layers}
    names["head"] = "fp16"
    return {
        path: compress(model.weight(path), LayerConfig(name, "range" if name.startswith("int") else "nearest"), None)
        for path, name in names.items()
    }


def packed(encoded: Mapping[str, Encoded]) -> dict[str, np.ndarray]:
    return {f"{path}.{name}": tensor for path, e in encoded.items() for name, tensor in e.packed.items()}


@pytest.fixture(scope="module")
def tuned(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Tuned:
    return tune(model, encoded, ids, SCHEDULE, tmp_path_factory.mktemp("tuning") / "state.pt")


def test_the_loss_falls(tuned: Tuned) -> None:
    assert len(tuned.losses) == SCHEDULE.steps
    assert np.mean(tuned.losses[-10:]) < 0.8 * np.mean(tuned.losses[:5])


def test_formats_and_sizes_stay(tuned: Tuned, encoded: dict[str, Encoded]) -> None:
    assert tuned.encoded.keys() == encoded.keys()
    for path, before in encoded.items():
        after = tuned.encoded[path]
        assert (after.format, after.shape, after.nbytes) == (before.format, before.shape, before.nbytes)


def test_what_cannot_learn_stays(tuned: Tuned, encoded: dict[str, Encoded]) -> None:
    assert tuned.encoded["emb"] is encoded["emb"]
    assert tuned.encoded["head"] is encoded["head"]


def test_vectors_learn_too_and_the_fp32_model_does_not(tuned: Tuned, model: LoadedModel) -> None:
    assert "emb.weight" not in tuned.vectors and "blocks.0.att.key.weight" not in tuned.vectors
    before = {name: model.module.get_parameter(name) for name in tuned.vectors}
    assert any(not torch.equal(tuned.vectors[name], p) for name, p in before.items())
    assert not any(p.requires_grad for p in model.module.parameters())


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tuned: Tuned, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop_at_40(done: int, _total: int) -> None:
        if done == 40:
            raise Stop

    with pytest.raises(Stop):
        tune(model, encoded, ids, SCHEDULE, tmp_path / "state.pt", stop_at_40)
    steps: list[int] = []
    again = tune(model, encoded, ids, SCHEDULE, tmp_path / "state.pt", lambda done, _: steps.append(done))
    assert steps[0] == 26  # saved after 25
    assert again.losses == tuned.losses
    for name, tensor in packed(tuned.encoded).items():
        assert np.array_equal(packed(again.encoded)[name], tensor), name


def test_a_damaged_checkpoint_is_not_used(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tmp_path: Path
) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    short = Schedule(steps=2, streams=4, window=8)
    assert len(tune(model, encoded, ids, short, tmp_path / "state.pt").losses) == 2


def test_pruned_weights_learn_under_their_mask(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tmp_path: Path
) -> None:
    path = "blocks.0.ffn.key"
    weight = model.weight(path)
    mask = best_mask(weight.abs(), 2, 4)
    parametrizations = {path: MaskedWeight(weight, mask)}
    after = tune(model, encoded, ids, Schedule(3, 4, 16), tmp_path / "state.pt", parametrizations=parametrizations)
    decoded = torch.from_numpy(FP16.decode(after.encoded[path]))
    assert (decoded[~mask] == 0).all()
    assert (decoded[mask] != weight[mask].half().float()).any()
    assert after.encoded["head"] is encoded["head"]


def test_the_best_on_held_out_text_is_kept(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tuned: Tuned, tmp_path: Path
) -> None:
    """A rate that ruins the model leaves what was there before."""
    assert tuned.held_out[60] == min(tuned.held_out.values()) < tuned.held_out[0]
    ruined = tune(model, encoded, ids, Schedule(8, 4, 32, rate=3.0, scale_rate=0.1), tmp_path / "state.pt")
    assert min(ruined.held_out, key=lambda step: ruined.held_out[step]) == 0
    for name, tensor in packed(encoded).items():
        assert np.array_equal(packed(ruined.encoded)[name], tensor), name


def test_a_text_too_short_to_learn_from(
    model: LoadedModel, encoded: dict[str, Encoded], ids: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(SlmcError, match="has 5 tokens; tuning needs 8 or more"):
        tune(model, encoded, ids[:5], SCHEDULE, tmp_path / "state.pt")
