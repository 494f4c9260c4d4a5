"""Checkpoint files that are whole, and files that are not, want to run code, or are something else."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.checkpoint import StoredTensor
from toolchain.model.weights import WRAPPERS, find_weights, read_checkpoint

Tensors = dict[str, Tensor]


class Touch:
    """A pickle of it creates a file when it is opened."""

    def __init__(self, how: str, victim: Path) -> None:
        self.how, self.victim = how, victim

    def __reduce__(self) -> Any:
        if self.how == "os.system":
            return os.system, (f"touch '{self.victim}'",)
        return (Path.touch, (self.victim,)) if self.how == "Path.touch" else (open, (str(self.victim), "w"))


def write(path: Path, tensors: Tensors, kind: str) -> Path:
    if kind == "safetensors":
        save_file(tensors, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    torch.save(tensors, path.with_suffix(".pth"), _use_new_zipfile_serialization=kind == "zip")
    return path.with_suffix(".pth")


KINDS = ("zip", "legacy", "safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_its_tensors(tmp_path: Path, tensors: Tensors, kind: str) -> None:
    path = write(tmp_path / "m", tensors, kind)
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.tensors[name], t) for name, t in tensors.items())
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_inside_a_training_checkpoint_is_found(tmp_path: Path, tensors: Tensors, wrapper: str) -> None:
    torch.save({wrapper: tensors, "epoch": 3, "loss": 2.5}, tmp_path / "m.pth")
    assert read_checkpoint(tmp_path / "m.pth").tensors.keys() == tensors.keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("how", ["os.system", "Path.touch", "open"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(tmp_path: Path, how: str, zipped: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pth"
    torch.save({"emb.weight": Touch(how, victim)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(SlmcError, match=r"evil\.pth: the file wants to run code .*refused.*safetensors"):
        read_checkpoint(path)
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the trap was armed
    assert victim.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bare_pickle_that_wants_to_run_code_is_not_run(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.bin"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"emb.weight": Touch("os.system", victim)}, protocol))
        with pytest.raises(SlmcError, match=r"evil\.bin"):
            read_checkpoint(path)
        assert not victim.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, tensors: Tensors, kind: str, share: float) -> None:
    path = write(tmp_path / "cut", tensors, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    what = "no readable safetensors file" if kind == "safetensors" else "no torch checkpoint, or truncated"
    with pytest.raises(SlmcError, match=rf"cut\..*: {what} .*copy it again"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_gives_no_other_error(tmp_path: Path, tensors: Tensors, kind: str) -> None:
    path = write(tmp_path / "bad", tensors, kind)
    raw, dice = path.read_bytes(), random.Random(7)
    refused = 0
    for _ in range(250):
        spoilt = bytearray(raw[: dice.randrange(1, len(raw))] if dice.random() < 0.3 else raw)
        for _ in range(dice.choice((1, 1, 3))):
            spoilt[dice.randrange(min(len(spoilt), 3000))] = dice.randrange(256)
        path.write_bytes(bytes(spoilt))
        try:
            read_checkpoint(path)
        except SlmcError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello, this is a text file\n" * 9,
        b"PK\x03\x04" + bytes(60),
        bytes(range(256)),
    ],
    ids=["empty", "text", "zip-start", "bytes"],
)
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_other_files_are_not_accused_of_running_code(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = (tmp_path / "odd").with_suffix(suffix)
    path.write_bytes(raw)
    with pytest.raises(SlmcError, match=rf"odd\{suffix}: no (torch checkpoint|readable safetensors).*copy it again"):
        read_checkpoint(path)


def test_torchs_advice_to_open_the_file_without_its_safeguard_is_not_passed_on(tmp_path: Path) -> None:
    for name, content in (("a.pth", b"no <html>"), ("b.pth", None)):
        if content is None:
            torch.save({"x": Touch("open", tmp_path / "victim")}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SlmcError) as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)


CONTENTS: list[Any] = [
    [1, 2], {"a": 1}, {"state_dict": {"a": [1]}}, {"encoder": {"a": torch.ones(1)}}, {}, {"state_dict": {}},
    torch.ones(3),
]  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS, ids=repr)
def test_a_file_of_other_things_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(SlmcError, match=r"m\.pth: expected a state dict \(names to tensors\), found a "):
        read_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_named_and_counted(
    tmp_path: Path, tensors: Tensors, kind: str, bad: float
) -> None:
    tensors["blocks.1.ffn.value.weight"][0, :3] = bad
    path = write(tmp_path / "m", tensors, kind)
    with pytest.raises(SlmcError, match=r"blocks\.1\.ffn\.value\.weight holds 3 values that are NaN or infinite"):
        read_checkpoint(path)


def test_weights_of_a_directory_are_looked_for_in_order(tmp_path: Path) -> None:
    (tmp_path / "SpikeGPT-216M.pth").touch()
    assert find_weights(tmp_path).name == "SpikeGPT-216M.pth"
    for name in ("model.pt", "model.pth", "pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path).name == name


def test_a_directory_without_weights_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SlmcError, match=r"expected one weights file \(model\.safetensors, .*found none"):
        find_weights(tmp_path)


def test_two_candidates_are_both_named(tmp_path: Path) -> None:
    for name in ("b.pth", "a.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(SlmcError, match=r"found several \(a\.safetensors, b\.pth\)"):
        find_weights(tmp_path)


def test_numbers_texts_and_counters_beside_tensors_are_left_out(tmp_path: Path, tensors: Tensors) -> None:
    beside = {"step": 5, "loss": 2.5, "run": "a", "best": None, "updates": torch.tensor(7), "args": {"lr": 1e-3}}
    torch.save(tensors | beside, tmp_path / "m.pth")
    assert read_checkpoint(tmp_path / "m.pth").tensors.keys() == tensors.keys()


def test_a_wrapper_in_a_wrapper_is_opened_and_two_beside_each_other_are_not(tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "m.pth"
    torch.save({"epoch": 3, "model_state_dict": {"net": tensors}, "optimizer_state_dict": {}}, path)
    assert read_checkpoint(path).tensors.keys() == tensors.keys()
    torch.save({"model": tensors, "net": tensors}, path)
    with pytest.raises(SlmcError, match=r"several state dicts \(model, net\); save the one that you mean"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [(2**20, 2**16), (2, 1), (1, 3)])
def test_expanded_tensors_are_judged_by_what_is_stored(tmp_path: Path, shape: tuple[int, int]) -> None:
    """4 bytes on disk that stood for 256 GiB when they were looked at."""
    torch.save({"a.weight": torch.zeros(3), "emb.weight": torch.zeros(1).expand(*shape)}, tmp_path / "model.pth")
    with pytest.raises(SlmcError, match=r"emb\.weight .* of which 4 are stored .*contiguous"):
        read_checkpoint(tmp_path / "model.pth")


def test_parts_of_a_tensor_and_shared_ones_are_no_expansion(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": whole, "b": whole, "row": whole[1], "turned": whole.T}, tmp_path / "model.pth")
    tensors = read_checkpoint(tmp_path / "model.pth").tensors
    assert torch.equal(tensors["turned"], whole.T) and torch.equal(tensors["row"], whole[1])


def test_the_header_is_not_read_anew_for_every_small_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = StoredTensor.__call__
    monkeypatch.setattr(StoredTensor, "__call__", lambda self: opened.append(self.name) or read(self))
    many = {f"t{i}": torch.ones(1) for i in range(3000)}
    save_file(
        many | {"large": torch.zeros(2**18), "bad": torch.tensor([1.0, float("nan")])}, tmp_path / "m.safetensors"
    )
    with pytest.raises(SlmcError, match="bad holds 1 values that are NaN"):
        read_checkpoint(tmp_path / "m.safetensors")
    assert set(opened) <= {"large"}
