"""Models that stay on disk: the same numbers as from memory, and one widened matrix alive at a time."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from decoders import family, llama_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from toolchain.calibration.fisher import output_fisher
from toolchain.calibration.hessian import accumulate_hessians, input_hessians
from toolchain.calibration.hessian_file import GrowingFile, StoredTensors
from toolchain.compress.catalog import compress
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig
from toolchain.model import offloaded
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.decoder import Decoder
from toolchain.model.offloaded import Offloaded, OffloadedLinear
from toolchain.model.offloading import bytes_from_disk, bytes_in_memory, weight_storage
from toolchain.quality.reference import stream_logits

VOCABULARY, WIDTH, LAYERS = 40, 16, 3
IDS = torch.arange(96) * 7 % VOCABULARY
Pair = tuple[LoadedModel, LoadedModel]


@pytest.fixture(params=["tied", "untied"])
def both(request: pytest.FixtureRequest, tmp_path: Path, write_tokenizer: object) -> Pair:
    """A bfloat16 Llama in two shards, from memory and from disk."""
    tied = request.param == "tied"
    torch.manual_seed(1)
    sizes = {"heads": 4, "groups": 2, "head_size": 4, "context": 48, "tied": tied}
    module = Decoder(llama_config(LAYERS, WIDTH, 24, VOCABULARY, **sizes))  # type: ignore[arg-type]
    tensors = {f"model.{n}": t.bfloat16() for n, t in module.state_dict().items() if not (tied and "lm_head" in n)}
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    places = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        save_file({name: t for name, t in tensors.items() if places[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 48}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llama", "tie_word_embeddings": tied}))
    write_tokenizer(tmp_path / "tokenizer.json", VOCABULARY)  # type: ignore[operator]
    return load_model(tmp_path, room=2**40), load_model(tmp_path, room=1)


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many widened matrices there are now, were at most, and were made."""
    count = {"now": 0, "most": 0, "made": 0}
    plain = offloaded.widened

    def gone() -> None:
        count["now"] -= 1

    def counted(read: offloaded.Read) -> Tensor:
        weight = plain(read)
        weakref.finalize(weight, gone)
        count["now"] += 1
        count["made"] += 1
        count["most"] = max(count["most"], count["now"])
        return weight

    monkeypatch.setattr(offloaded, "widened", counted)
    yield count


def logits(model: LoadedModel) -> Tensor:
    return torch.cat([piece for _, piece in stream_logits(model.forward, IDS, 16)])


def test_only_vectors_are_held(both: Pair) -> None:
    memory, disk = both
    assert (memory.weight_storage, disk.weight_storage) == ("memory", "disk")
    held = sum(p.numel() for p in disk.module.parameters())
    assert held == disk.tree.vector_params == (2 * LAYERS + 1) * WIDTH
    assert all(isinstance(disk.module.get_submodule(layer.path), Offloaded) for layer in disk.tree.layers)
    assert disk.tree == memory.tree and disk.sha256 == memory.sha256


def test_logits_and_weights_are_the_same(both: Pair) -> None:
    memory, disk = both
    assert torch.equal(logits(memory), logits(disk))
    for layer in memory.tree.layers:
        assert disk.weight(layer.path).dtype == torch.float32
        assert torch.equal(memory.weight(layer.path), disk.weight(layer.path))


def test_fisher_is_the_same_and_keeps_no_matrix(both: Pair, alive: dict[str, int]) -> None:
    memory, disk = both
    expected, found = output_fisher(memory, IDS, 0), output_fisher(disk, IDS, 0)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[path], found[path]) for path in expected)
    assert alive["made"] > 2 * 7 * LAYERS  # forward and backward
    assert (alive["most"], alive["now"]) == (1, 0)


def test_hessians_grow_on_disk_to_the_same(both: Pair, alive: dict[str, int], tmp_path: Path) -> None:
    memory, disk = both
    expected = input_hessians(memory, IDS)
    growing = GrowingFile(tmp_path / "growing", {f"hessian.{path}": tuple(t.shape) for path, t in expected.items()})
    places = {path: partial(growing.opened, f"hessian.{path}") for path in expected}
    accumulate_hessians(disk, IDS, places, lambda done, total: None)
    growing.finish(tmp_path / "hessians.safetensors")
    found = StoredTensors(tmp_path / "hessians.safetensors", "hessian.")
    assert set(found) == set(expected) and len(found) == len(expected)
    assert all(torch.equal(expected[path], found[path]) for path in expected)
    assert all(torch.equal(t, expected[n[8:]]) for n, t in load_file(tmp_path / "hessians.safetensors").items())
    assert "nothing" not in found
    assert (alive["most"], alive["now"]) == (1, 0)


def test_a_quantized_model_decodes_a_layer_for_its_product_alone(both: Pair, alive: dict[str, int]) -> None:
    memory, disk = both
    recipe = {layer.path: LayerConfig("int4-g16", "nearest") for layer in memory.tree.layers}
    quantized_models = [QuantizedModel(m, partial(_compressed, m)) for m in both]
    ids, changed = IDS[None, :40], []
    for quantized, model in zip(quantized_models, both, strict=True):
        taken = quantized.apply(recipe)
        with torch.inference_mode():
            changed.append(taken(ids, model.forward.initial_state())[0])
    assert torch.equal(changed[0], changed[1])
    assert (alive["most"], alive["now"]) == (1, 0)
    with torch.inference_mode():
        back = quantized_models[1].apply({})(ids, disk.forward.initial_state())[0]
        assert torch.equal(back, memory.forward(ids, memory.forward.initial_state())[0])
    assert not torch.equal(back, changed[1])


def _compressed(model: LoadedModel, path: str, layer_config: LayerConfig) -> object:
    return compress(model.weight(path), layer_config, None)


def test_gradient_and_bias_by_hand() -> None:
    linear = OffloadedLinear(lambda: torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half(), torch.tensor([10.0, 20.0]))
    x = torch.tensor([[[1.0, -1.0]]], requires_grad=True)
    y = linear(x)
    assert y.tolist() == [[[9.0, 19.0]]]
    y.backward(torch.tensor([[[1.0, 10.0]]]))
    assert x.grad is not None and x.grad.tolist() == [[[31.0, 42.0]]]
    assert [name for name, _ in linear.named_parameters()] == ["bias"]


def test_a_file_that_is_gone_is_named(both: Pair, tmp_path: Path) -> None:
    _, disk = both
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(SlmcError, match=r"safetensors: model\..* can no longer be read"):
        logits(disk)


def test_room_decides(both: Pair) -> None:
    tree = both[0].tree
    need = bytes_in_memory(tree)
    hessians = 4 * (LAYERS * (6 * WIDTH**2 + 24**2) + WIDTH**2)
    assert need == 2 * tree.bytes_fp32 + hessians + 2**29
    assert weight_storage(tree, need) == weight_storage(tree, None) == "memory"
    assert weight_storage(tree, need - 1) == "disk"


def test_a_llama_of_a_billion_parameters_stays_on_disk_within_six_gigabytes() -> None:
    config = llama_config(22, 2048, 5632, 32000, heads=32, groups=4, head_size=64, context=2048)
    with torch.device("meta"):
        tree = family("llama").tree(Decoder(config))
    assert tree.params == 1_100_048_384
    assert bytes_in_memory(tree) > 14e9
    assert weight_storage(tree, 6 * 10**9) == "disk"
    assert bytes_from_disk(tree, tree.params // 2) < 6e9


def test_a_growing_file_begins_with_zeros_at_aligned_places(tmp_path: Path) -> None:
    growing = GrowingFile(tmp_path / "part", {"a": (4, 4), "b": (3,)})
    with growing.opened("b") as b:
        assert b.data_ptr() % 64 == 0
        b += torch.tensor([1.0, 2.0, 3.0])
    growing.finish(tmp_path / "whole")
    found = load_file(tmp_path / "whole")
    assert found["b"].tolist() == [1.0, 2.0, 3.0] and np.count_nonzero(found["a"].numpy()) == 0
    assert not (tmp_path / "part").exists()


def test_torch_files_stay_mapped(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "model.pth")
    disk = load_model(folder, room=1)
    assert isinstance(disk.module.get_submodule("head"), Offloaded)
    assert not any(isinstance(m, nn.Linear) for m in disk.module.modules())
    assert torch.equal(disk.weight("head"), tensors["head.weight"])
