"""An artifact's files: listed, checked, and put in place at once."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from exporters.errors import SlmcError
from toolchain.delivery.package import check_output, check_output_file, publish, write_sums


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


def test_what_stood_there_goes_only_with_force_and_only_at_the_end(
    staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renamings nothing is lost, and going on puts the new one in place."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("old")
    with pytest.raises(SlmcError, match="--force"):
        publish(staging, out, force=False)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == staging:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        publish(staging, out, force=True)
    assert not out.exists() and (staging.parent / "replaced" / "manifest.json").read_text() == "old"
    publish(staging, out, force=True)
    assert (out / "manifest.json").read_text() == "{}"
    assert list(staging.parent.iterdir()) == []


def test_places_leave_no_trace_when_they_are_checked(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b" / "out", force=False)
    check_output_file(tmp_path / "a" / "plan.json", force=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_replaced_with_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SlmcError, match="exists already"):
        check_output(tmp_path / "out", force=False)
    check_output(tmp_path / "out", force=True)


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_places_without_a_name(name: str) -> None:
    for check in (check_output, check_output_file):
        with pytest.raises(SlmcError, match="give a name"):
            check(Path(name), force=True)
