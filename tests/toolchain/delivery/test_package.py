"""An artifact's files: listed, checked, and put in place at once."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from exporters.artifact.errors import SlmcError
from toolchain.delivery.package import add_companions, publish, write_sums
from toolchain.files.outputs import PLAN, check_output, check_output_file


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "artifact"
    (folder / "native").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "native" / "lib.so").write_bytes(b"\x7fELF")
    return folder


def test_sums_list_every_file_as_sha256sum_reads_it(staging: Path) -> None:
    entries = write_sums(staging)
    assert entries.keys() == {"native/lib.so"}, "the manifest cannot list itself"
    assert entries["native/lib.so"].bytes == 4
    assert entries["native/lib.so"].sha256 == hashlib.sha256(b"\x7fELF").hexdigest()
    assert write_sums(staging) == entries, "SHA256SUMS is not in itself"
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=staging, check=False).returncode == 0


def test_published_at_once(staging: Path, tmp_path: Path) -> None:
    publish(staging, tmp_path / "out", force=False)
    assert (tmp_path / "out" / "manifest.json").exists() and not staging.exists()


def test_places_leave_no_trace_when_they_are_checked(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "out", force=False)
    check_output_file(tmp_path / "a" / "plan.json", PLAN, force=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_replaced_with_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SlmcError, match="already exists"):
        check_output(tmp_path / "out", force=False)
    check_output(tmp_path / "out", force=True)


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_places_without_a_name(name: str) -> None:
    with pytest.raises(SlmcError, match="give a name"):
        check_output(Path(name), force=True)
    with pytest.raises(SlmcError, match="give a name"):
        check_output_file(Path(name), PLAN, force=True)


def test_tokens_that_were_left_out_are_not_in_the_artifact(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.add_special_tokens(["<s>", "<pad>"])
    tokenizer.enable_padding(pad_id=3, pad_token="<pad>")
    tokenizer.save(str(tmp_path / "own.json"))
    (tmp_path / "out").mkdir()
    add_companions(tmp_path / "out", (tmp_path / "own.json").read_bytes(), {}, ("<pad>",))
    found = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert found.get_vocab() == {"a": 0, "b": 1, "<s>": 2} and found.padding is None
    add_companions(tmp_path / "out", (tmp_path / "own.json").read_bytes(), {})
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "own.json").read_bytes()


def test_slmc_run_goes_along(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "out").mkdir()
    library, program = tmp_path / "lib.so", tmp_path / "program"
    library.write_bytes(b"library")
    program.write_bytes(b"program")
    board = {"linux-riscv64": program, "linux-x86_64": program}
    tokenizer = (tmp_path / "tokenizer.json").read_bytes()
    add_companions(tmp_path / "out", tokenizer, {"linux-x86_64": library}, programs=board)
    native = tmp_path / "out" / "native"
    assert {str(p.relative_to(native)): p.read_bytes() for p in native.rglob("*") if p.is_file()} == {
        "linux-riscv64/slmc-run": b"program",
        "linux-x86_64/slmc-run": b"program",
        "linux-x86_64/libslmc_ops.so": b"library",
    }
    assert (native / "linux-riscv64" / "slmc-run").stat().st_mode & 0o111 == 0o111
