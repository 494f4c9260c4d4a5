"""The student: layers exchanged and given back, everything else one and the same memory as the original's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import compress
from toolchain.compress.quantized_model import Student
from toolchain.compress.recipe import Choice, Recipe
from toolchain.model.catalog import LoadedModel

INT4, INT2 = Choice("int4-g16", "nearest"), Choice("int2", "nearest")


class Layers:
    """Compresses layers and remembers what was asked for."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.asked: list[tuple[str, Choice]] = []

    def __call__(self, path: str, choice: Choice) -> Encoded:
        self.asked.append((path, choice))
        return compress(self.model.weight(path), choice, None)


@pytest.fixture
def layers(spiking: LoadedModel) -> Layers:
    return Layers(spiking)


def test_a_new_student_is_the_original_in_the_same_memory(spiking: LoadedModel, layers: Layers) -> None:
    student = Student(spiking, layers)
    assert student.module is not spiking.module
    for name, parameter in spiking.module.named_parameters():
        assert student.module.get_parameter(name).data_ptr() == parameter.data_ptr()
    assert id(student.take({})) == id(student.module)
    assert layers.asked == []


def test_buffers_are_shared_too(bigram: LoadedModel) -> None:
    student = Student(bigram, Layers(bigram))
    assert student.module.get_buffer("unused").data_ptr() == bigram.module.get_buffer("unused").data_ptr()


def test_layers_are_exchanged_and_restored(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    before = {name: p.clone() for name, p in spiking.module.named_parameters()}
    student = Student(spiking, layers)
    recipe: Recipe = {"head": INT4, "blocks.0.att.key": INT2}
    student.take(recipe)
    for path, choice in recipe.items():
        expected = torch.from_numpy(format_named(choice.format).decode(layers(path, choice)))
        assert torch.equal(student.module.get_parameter(f"{path}.weight"), expected)
        assert not torch.equal(expected, before[f"{path}.weight"])
    for name, parameter in spiking.module.named_parameters():
        shared = student.module.get_parameter(name).data_ptr() == parameter.data_ptr()
        assert shared is (name not in {"head.weight", "blocks.0.att.key.weight"})
        assert torch.equal(parameter, before[name])  # the original does not change

    student.take({"head": INT4})
    assert student.module.get_parameter("blocks.0.att.key.weight").data_ptr() == (
        spiking.module.get_parameter("blocks.0.att.key.weight").data_ptr()
    )
    student.take({})
    for name, parameter in spiking.module.named_parameters():
        assert student.module.get_parameter(name).data_ptr() == parameter.data_ptr()


def test_only_what_changes_is_asked_for(spiking: LoadedModel, layers: Layers) -> None:
    student = Student(spiking, layers)
    student.take({"head": INT4, "blocks.0.att.key": INT4})
    student.take({"head": INT4, "blocks.0.att.key": INT2})
    student.take({"blocks.0.att.key": INT2})
    student.take({"blocks.0.att.key": INT2, "head": INT4})
    assert layers.asked == [
        ("head", INT4),
        ("blocks.0.att.key", INT4),
        ("blocks.0.att.key", INT2),
        ("head", INT4),
    ]


def test_another_method_in_the_same_format_is_another_layer(spiking: LoadedModel, layers: Layers) -> None:
    student = Student(spiking, layers)
    student.take({"head": Choice("int2", "nearest")})
    nearest = student.module.get_parameter("head.weight").clone()
    student.take({"head": Choice("int2", "range")})
    assert not torch.equal(student.module.get_parameter("head.weight"), nearest)


def test_the_student_computes_with_its_own_weights(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    ids = token_ids(20, 13)[None]
    original = spiking.forward(ids, spiking.forward.initial_state())[0]
    student = Student(spiking, layers)
    taken = student.take({"head": INT2})
    logits = taken(ids, taken.initial_state())[0]
    hidden = torch.linalg.lstsq(spiking.weight("head"), original[0].T).solution  # the head's inputs, [width, time]
    expected = (student.module.get_parameter("head.weight") @ hidden).T
    assert torch.allclose(logits[0], expected, atol=1e-3)
    assert not torch.allclose(logits, original, atol=1e-2)
    assert torch.equal(spiking.forward(ids, spiking.forward.initial_state())[0], original)


def test_inputs_are_rounded_where_the_choice_says_so(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    ids = token_ids(20, 13)[None]
    student, seen = Student(spiking, layers), []
    as_it_is = student.take({"head": INT4})
    plain = as_it_is(ids, as_it_is.initial_state())[0]
    taken = student.take({"head": Choice("int4-g16", "nearest", "int8")})
    handle = student.module.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = taken(ids, taken.initial_state())[0]
    handle.remove()
    steps = seen[0] / seen[0].abs().amax(-1, keepdim=True) * 127  # its width is less than one block
    assert torch.allclose(steps, steps.round(), atol=1e-3) and not torch.equal(steps, steps.sign() * 127)
    assert torch.allclose(logits, seen[0] @ student.module.get_parameter("head.weight").T, atol=1e-5)
    assert 1e-5 < float((logits - plain).abs().max() / plain.abs().max()) < 0.02
    for recipe in ({"head": INT4}, {"head": Choice("fp16", "nearest", "int8")}, {}):
        taken = student.take(recipe)  # floats have no integer products
        assert not student.module.get_submodule("head")._forward_pre_hooks


def test_signs_are_exact_for_a_binarised_embedding(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    ids = token_ids(40, 13)[None]
    original = spiking.forward(ids, spiking.forward.initial_state())[0]
    taken = Student(spiking, layers).take({"emb": Choice("sign", "nearest")})
    assert torch.equal(taken(ids, taken.initial_state())[0], original)
