"""Evaluations of a model small enough to be followed: two tables, no state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from bigram import Bigram
from tokenizers import Tokenizer
from torch import Tensor

from exporters.formats.catalog import SEARCHED, SEARCHED_SPARSE, format_named
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.catalog import LoadedModel
from toolchain.model.tree import Block, Layer, ModelTree
from toolchain.quality.reference import Reference, stream_logits
from toolchain.search.evaluator import SHARED_ROWS, ModelEvaluator, estimated_rows, layer_maker
from toolchain.search.search import OutOfTime
from toolchain.search.store import Journal, LayerStore

VOCABULARY, WIDTH = 11, 32
RECIPE: Recipe = {"emb": LayerConfig("int4-g32", "range"), "head": LayerConfig("int3-g32", "gptq")}


@pytest.fixture
def model() -> LoadedModel:
    module = Bigram(VOCABULARY, WIDTH)
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    module.eval().requires_grad_(False)
    layers = Layer("emb", "embedding", VOCABULARY, WIDTH), Layer("head", "linear", VOCABULARY, WIDTH)
    tree = ModelTree("bigram", tuple(Block(layer.path, (layer,)) for layer in layers), 0, 0)
    return LoadedModel(module, tree, cast(Tokenizer, None), b"", Path("m"), "tiny", "0" * 64)


TEXT = torch.randint(0, VOCABULARY, (700,), generator=torch.Generator().manual_seed(4))


def evaluator(model: LoadedModel, folder: Path, **options: Any) -> tuple[ModelEvaluator, CalibrationStatistics]:
    x = model.weight("emb")[TEXT]
    fisher = {"emb": torch.linspace(0.5, 2, WIDTH), "head": torch.linspace(1, 3, VOCABULARY)}
    statistics = CalibrationStatistics({"head": x.T @ x / len(TEXT)}, fisher, torch.full((VOCABULARY,), 1 / VOCABULARY))
    layers = LayerStore(folder / "layers", layer_maker(model, statistics))
    return ModelEvaluator(model, statistics, TEXT, layers, Journal(folder / "journal"), **options), statistics


def decoded(model: LoadedModel, statistics: CalibrationStatistics, path: str, config: LayerConfig) -> Tensor:
    encoded = layer_maker(model, statistics)(path, config)
    return torch.from_numpy(format_named(encoded.format).decode(encoded))


def test_an_evaluation_is_the_score_of_a_model_with_those_weights(model: LoadedModel, tmp_path: Path) -> None:
    made, statistics = evaluator(model, tmp_path)
    other = Bigram(VOCABULARY, WIDTH).eval().requires_grad_(False)
    for path, config in RECIPE.items():
        other.get_parameter(f"{path}.weight").data = decoded(model, statistics, path, config)
    expected = Reference(model.forward, TEXT).score(stream_logits(cast(Any, other), TEXT))
    assert made.evaluate(RECIPE) == expected
    assert expected.kl_mean > 0.001
    assert expected.tokens == 699


def test_the_fp32_recipe_loses_nothing(model: LoadedModel, tmp_path: Path) -> None:
    score = evaluator(model, tmp_path)[0].evaluate({p: LayerConfig("fp32", "nearest") for p in ("emb", "head")})
    assert (score.relative_drop, score.kl_mean, score.top1_agreement, score.standard_error) == (0, 0, 1, 0)


def test_losses_of_layers_by_their_formulas(model: LoadedModel, tmp_path: Path) -> None:
    made, statistics = evaluator(model, tmp_path)
    error = decoded(model, statistics, "head", RECIPE["head"]) - model.weight("head")
    per_token = (model.weight("emb")[TEXT] @ error.T).square().mean(0)  # what H is the mean of
    expected = 0.5 * float((per_token * statistics.fisher["head"]).sum())
    assert made.loss("head", RECIPE["head"]) == pytest.approx(expected, rel=1e-3)
    error = decoded(model, statistics, "emb", RECIPE["emb"]) - model.weight("emb")
    expected = 0.5 * float((error.square() * statistics.fisher["emb"]).sum()) / VOCABULARY
    assert made.loss("emb", RECIPE["emb"]) == pytest.approx(expected, rel=1e-3)


def test_evaluations_are_remembered_and_time_is_asked_only_for_new_ones(model: LoadedModel, tmp_path: Path) -> None:
    left = [1.0]
    made, _ = evaluator(model, tmp_path, time_left=lambda: left[0])
    score = made.evaluate(RECIPE)
    left[0] = 0.0
    assert made.evaluate(RECIPE) == score
    assert evaluator(model, tmp_path, time_left=lambda: 0.0)[0].evaluate(RECIPE) == score
    with pytest.raises(OutOfTime):
        made.evaluate(RECIPE | {"head": LayerConfig("int8", "gptq")})
    assert len(Journal(tmp_path / "journal")) == 1


def test_the_reference_is_made_once_and_only_when_needed(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator(model, tmp_path)[0].evaluate(RECIPE)
    made, _ = evaluator(model, tmp_path)
    calls: list[int] = []
    original = Bigram.forward

    def counted(self: Bigram, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        calls.append(tokens.shape[1])
        return original(self, tokens, state)

    monkeypatch.setattr(Bigram, "forward", counted)
    made.evaluate(RECIPE)
    assert calls == []
    for name in ("int8", "int2-g32"):
        made.evaluate(RECIPE | {"head": LayerConfig(name, "gptq")})
    assert calls == [512, 188] * 3


def test_rows_that_an_estimate_reads() -> None:
    """512 rows: 16 blocks of 16, every other one. 511 rows are read whole."""
    rows = estimated_rows(512)
    assert rows.tolist() == [32 * block + row for block in range(16) for row in range(16)]
    assert estimated_rows(511).tolist() == list(range(511))
    last = estimated_rows(1537)
    assert (len(last), len(last.unique()), int(last.max())) == (256, 256, 1440 + 15)
    assert (
        max(getattr(part, "pattern_rows", 1) for fmt in (*SEARCHED, *SEARCHED_SPARSE) for part in fmt.parts)
        <= SHARED_ROWS
    )


def test_an_estimate_from_some_rows_is_near_that_from_all(tmp_path: Path) -> None:
    """A head of 1,200 rows whose Fisher information falls from row to row."""
    module = Bigram(1200, WIDTH)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    module.eval().requires_grad_(False)
    layers = Layer("emb", "embedding", 1200, WIDTH), Layer("head", "linear", 1200, WIDTH)
    tree = ModelTree("bigram", tuple(Block(layer.path, (layer,)) for layer in layers), 0, 0)
    model = LoadedModel(module, tree, cast(Tokenizer, None), b"", Path("m"), "tiny", "0" * 64)
    fisher = {"emb": torch.ones(WIDTH), "head": torch.linspace(3, 0.1, 1200)}
    statistics = CalibrationStatistics({"head": torch.eye(WIDTH)}, fisher, torch.full((1200,), 1 / 1200))
    store = LayerStore(tmp_path / "layers", layer_maker(model, statistics))
    made = ModelEvaluator(model, statistics, TEXT, store, Journal(tmp_path / "journal"))
    config, fmt = LayerConfig("int4-g32", "range"), format_named("int4-g32")
    weight = model.weight("head")
    error = torch.from_numpy(fmt.decode(fmt.encode(weight.numpy()))) - weight
    # H = I: with the damping d = 0.1, 1 / U_jj^2 = 1.1
    expected = 0.5 * 1.1 * float((error.square().sum(1) * fisher["head"]).sum())
    assert made.estimate("head", config) == pytest.approx(expected, rel=0.08)
