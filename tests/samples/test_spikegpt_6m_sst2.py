"""The second sample keeps what its model card says: a classifier of two classes, and its accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.classifier import Classes
from toolchain.model.text import read_sentences
from toolchain.quality.accuracy import ClassReference

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "spikegpt-6m-sst2"
DEV = ROOT.parent / "shared" / "data" / "sst2-glue" / "dev.tsv"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(SAMPLE)


def test_it_is_a_classifier_as_large_as_the_card_says(model: LoadedModel) -> None:
    assert model.classes == Classes(("negative", "positive"))
    assert model.tree.params == 5_654_528
    assert (SAMPLE / "model.safetensors").stat().st_size <= 12_500_000


def test_it_knows_what_is_said_of_films(model: LoadedModel, tmp_path: Path) -> None:
    """Sentences of our own, not of its training."""
    file = tmp_path / "own.tsv"
    rows = {
        "a dull and lifeless film that wastes its cast": 0, "a warm , funny and beautifully acted story": 1,
        "the plot is a mess and the jokes are awful": 0, "one of the best films of the year": 1,
        "boring , predictable and far too long": 0, "an engaging and moving portrait of a family": 1,
    }  # fmt: skip
    file.write_text("".join(f"{label}\t{text}\n" for text, label in rows.items()), encoding="utf-8")
    found = read_sentences(file, model.tokenizer, ("negative", "positive")).sentences
    assert found is not None
    assert ClassReference(model.forward, found).accuracy == 1.0


@pytest.mark.skipif(not DEV.is_file(), reason="SST-2 is not shipped; it lies in ../shared/data for developers")
def test_accuracy_on_sst2(model: LoadedModel) -> None:
    """872 sentences take too long here; the card has their figure."""
    text = read_sentences(DEV, model.tokenizer, ("negative", "positive")).head(6000)
    assert text.sentences is not None
    assert ClassReference(model.forward, text.sentences).accuracy >= 0.74
