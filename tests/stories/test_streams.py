"""Where a stream is gone, full or too narrow: one line, the right exit code, no traceback. Names are never markup."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from targets.device.verify import SUMS_NAME, file_sha256
from toolchain.cli.console import Console, plain

COMMAND = f"{sys.executable} -c \"from toolchain.cli.main import main; main(prog_name='slmc')\""
LIGHT = ("targets ls", "--help", "--version", "schema --help")


def shell(line: str, **more: Any) -> subprocess.CompletedProcess[str]:
    text = f'slmc() {{ {COMMAND} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, timeout=120, **more)


@pytest.mark.parametrize("command", LIGHT)
def test_a_full_device(command: str) -> None:
    done = shell(f"slmc {command} > /dev/full")
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done.stderr
    assert done.stderr.startswith("error: ") and "space left" in done.stderr


@pytest.mark.parametrize("command", LIGHT)
def test_a_reader_that_is_gone(command: str) -> None:
    done = shell(f"slmc {command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (0, 1) and done.stderr == ""  # 1 is click's own for its help texts


@pytest.mark.parametrize(("streams", "lines"), [(">&-", 1), ("2>&-", 0), (">&- 2>&-", 0)])
def test_closed_streams(streams: str, lines: int) -> None:
    done = shell(f"slmc targets ls {streams}")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", lines), done.stderr


def test_errors_that_nobody_can_read_keep_their_exit_code() -> None:
    assert shell("slmc targets show nothing 2> /dev/full").returncode == 2


def test_too_little_address_space() -> None:
    done = shell("ulimit -v 1000000; slmc targets ls")
    assert done.returncode == 5 and done.stderr.count("\n") == 1 and "ulimit -v" in done.stderr
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    assert hard == resource.RLIM_INFINITY or shell("slmc --help").returncode == 0


def test_a_console_that_lacks_the_characters(artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "m\u00f6d\u20acl"))
    (folder / "model.onnx").unlink()
    done = shell(f"PYTHONIOENCODING=latin-1 slmc report '{folder}'", encoding="latin-1")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "m\u00f6d\\u20acl" in done.stderr


@pytest.mark.parametrize("name", ["x[/b]", "m[red]", "[bold", "a\x1b[2Jb", "two\nlines", "b\udce9", "w\u202eeird"])
def test_paths_are_shown_as_they_are(slmc: Any, artifact: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "x[").mkdir()
    folder = Path(shutil.copytree(artifact, tmp_path / name))
    result = slmc("inspect", folder)
    assert result.exit_code == 0, result.stderr
    shown = "".join(line.strip() for line in result.stdout.splitlines())
    assert plain(name).replace("\n", "") in shown and "\x1b" not in result.stdout


@pytest.mark.parametrize("name", ["[/red][bold", "[link=file:///x]y", "a\x1b]0;title\x07b"])
def test_names_of_layers_too(slmc: Any, artifact: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "a"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"][name] = manifest["recipe"].pop("head")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sums = [line for line in (folder / SUMS_NAME).read_text().splitlines() if not line.endswith("manifest.json")]
    digest = file_sha256(folder / "manifest.json")
    (folder / SUMS_NAME).write_text("\n".join([*sums, f"{digest}  manifest.json"]) + "\n")
    result = slmc("inspect", folder)
    assert result.exit_code == 0 and plain(name) in result.stdout


def test_what_moves_the_cursor_is_written_as_its_escape(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a\x1b[2J\r\u202e\ud800é[b]") == r"a\x1b[2J\r\u202e\ud800é[b]"
    Console().note("[red]\x1b]0;x\x07")
    assert capsys.readouterr().err == "[red]\\x1b]0;x\\x07\n"
