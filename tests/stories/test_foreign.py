"""Files of other people: a foreign tree beside and inside every output, work folder and link outlives every command."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from targets.device.verify import open_artifact

THESIS = "years of work\n"


def tree(folder: Path) -> dict[str, str]:
    """Contents of all files below a folder, targets of links, and folders."""
    return {
        str(p.relative_to(folder)): str(p.readlink()) if p.is_symlink() else p.read_text() if p.is_file() else "folder"
        for p in folder.rglob("*")
    }


def foreign(folder: Path) -> dict[str, str]:
    """A web application with a thesis in it, under names that slmc also uses."""
    (folder / "layers").mkdir(parents=True)
    (folder / "artifact").mkdir()
    for name in ("manifest.json", "thesis.txt", "inputs.json", "lock", "study.md", "layers/x.npz", "artifact/run.py"):
        (folder / name).write_text(THESIS)
    return tree(folder)


COMMANDS: dict[str, tuple[str, ...]] = {
    "build": ("build", "MODEL", "-o", "OUT", "--max-memory", "25%", "--effort", "quick", "-q"),
    "search": ("search", "MODEL", "-o", "OUT", "--max-memory", "25%", "--effort", "quick", "-q"),
    "export": ("export", "MODEL", "--plan", "PLAN", "-o", "OUT", "-q"),
    "study": ("study", "MODEL", "-o", "OUT", "--formats", "int8", "--methods", "nearest", "--tune", "0", "-q"),
    "probe": ("targets", "probe", "--quick", "-o", "OUT"),
    "write": ("write", "MODEL", "-o", "OUT", "-n", "5"),
    "report": ("report", "ARTIFACT", "-o", "OUT"),
    "sensitivity": ("sensitivity", "MODEL", "--html", "OUT", "--max-memory", "25%", "--effort", "quick", "-q"),
    "baseline": ("gate", "ARTIFACT", "--baseline", "OUT", "--update-baseline"),
    "junit": ("gate", "ARTIFACT", "--baseline", "none.json", "--junit", "OUT"),
}
"""Every command that writes what the user names. All of these must refuse before any work."""

FORCED = ("build", "search", "export", "probe", "write")
RESUMED = ("build", "search", "export")


def call(slmc: Any, name: str, model: Path, artifact: Path, out: Path, *more: str) -> Any:
    known = {"MODEL": model, "OUT": out, "PLAN": artifact / "plan.json", "ARTIFACT": artifact}
    return slmc(*(known.get(word, word) for word in COMMANDS[name]), *more)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_writes_over_what_is_not_ours(
    name: str, tiny_model: Path, artifact: Path, slmc: Any, tmp_path: Path
) -> None:
    """A folder, a file, a link to each, with and without --force and --resume."""
    foreign(tmp_path / "app")
    (tmp_path / "file").write_text(THESIS)
    (tmp_path / "to-app").symlink_to("app")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = tree(tmp_path)
    options = [(), *([("--force",)] if name in FORCED else []), *([("--force", "--resume")] if name in RESUMED else [])]
    for out in ("app", "file", "to-app", "to-file", "dangling"):
        for more in options:
            if name == "write" and out == "file" and more:
                continue  # the one that keeps what stood there aside, below
            result = call(slmc, name, tiny_model, artifact, tmp_path / out, *more)
            assert result.exit_code == 2 and result.stderr.startswith("error: "), (out, more, result.stderr)
            assert len(result.stderr.splitlines()) == 1 and tree(tmp_path) == before, (out, more)


def test_a_text_that_stood_there_is_kept_aside(tiny_model: Path, artifact: Path, slmc: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(THESIS)
    result = call(slmc, "write", tiny_model, artifact, tmp_path / "file", "--force")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "file.old-1").read_text() == THESIS and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_a_work_folder_that_is_not_ours(
    name: str, kind: str, tiny_model: Path, artifact: Path, slmc: Any, tmp_path: Path
) -> None:
    work = tmp_path / "out.slmc-work"
    if kind == "folder":
        foreign(work)
    elif kind == "link":
        foreign(tmp_path / "important")
        work.symlink_to("important")
    else:
        work.write_text(THESIS)
    before = tree(tmp_path)
    for more in ((), ("--force",), ("--resume",)):
        result = call(slmc, name, tiny_model, artifact, tmp_path / "out", *more)
        assert result.exit_code == 2 and "out.slmc-work" in result.stderr, result.stderr
        assert len(result.stderr.splitlines()) == 1 and tree(tmp_path) == before


def test_killed_with_a_foreign_tree_all_around(
    tiny_model: Path, artifact: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path
) -> None:
    """Replacing an artifact: killed, a thesis laid into the work folder and the output, refused; taken out, gone on."""
    out, work, beside = tmp_path / "out", tmp_path / "out.slmc-work", tmp_path / "beside"
    shutil.copytree(artifact, out)
    around = foreign(beside)
    command = ("build", tiny_model, "-o", out, *limits, "-q", "--force")
    for name in ("inputs.json", "artifact/run.py"):
        running = start(*command, *(("--resume",) if work.exists() else ()))
        while not (work / name).is_file():
            assert running.process.is_alive(), running.err.read_text()
            time.sleep(0.005)
        os.kill(running.process.pid, signal.SIGKILL)
        running.code()
    open_artifact(out)
    for place in (work / "thesis.txt", work / "layers" / "thesis.txt", work / "artifact" / "thesis.txt", out / "x.txt"):
        place.write_text(THESIS)
        before = tree(beside)
        for more in ((), ("--resume",)):
            refused = slmc(*command, *more)
            assert refused.exit_code == 2 and place.name in refused.stderr, refused.stderr
        assert place.read_text() == THESIS and tree(beside) == before
        place.unlink()
    result = slmc(*command, "--resume")
    assert result.exit_code == 0, result.stderr
    open_artifact(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside", "out"] and tree(beside) == around


def test_an_artifact_holds_nothing_that_a_work_folder_would_not_know(artifact: Path) -> None:
    """A new file of artifacts needs a line in the workspace's table: an interrupted build would be refused else."""
    from toolchain.files.workspace import ARTIFACT

    known = {path for pattern in ARTIFACT for path in artifact.glob(pattern)}
    assert {path for path in artifact.rglob("*") if path.is_file()} == known
