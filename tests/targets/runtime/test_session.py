"""An artifact over a pipe: the same logits as by hand, and what the program says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import read_manifest
from targets.device.native import platform_name
from targets.runtime.program import installed_program, serving_program
from targets.runtime.session import ServedSession


@pytest.fixture
def program():
    try:
        return installed_program()
    except NotAvailable as error:
        pytest.skip(str(error))


def test_logits_by_hand(program, runnable):
    session = ServedSession(program, runnable.artifact, runnable.io, 1)
    assert (session.width, session.vocabulary, session.room) == (3, 3, None)
    whole = session.run(np.array([runnable.tokens], np.int64))
    np.testing.assert_allclose(whole[0], runnable.logits, rtol=1e-6)
    session.reset()
    np.testing.assert_allclose([session.step(token) for token in runnable.tokens], runnable.logits, rtol=1e-6)
    session.reset()
    np.testing.assert_allclose(session.prefill(np.array([runnable.tokens]), 2), runnable.logits[-1], rtol=1e-6)


def test_what_cannot_be_read(program, runnable):
    session = ServedSession(program, runnable.artifact, dataclasses.replace(runnable.io, context=4), 1)
    assert session.room == 4
    session.step(1)
    assert session.room == 3
    with pytest.raises(SlmcError, match="not all in the vocabulary of 3"):
        session.step(3)
    with pytest.raises(SlmcError, match=r"tokens have shape \[1, 0\]"):
        session.run(np.zeros((1, 0), np.int64))
    session._process.kill()
    with pytest.raises(SlmcError, match="slmc-run ended with"):
        session.step(1)


def test_what_the_program_refuses(program, runnable):
    (runnable.artifact / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(SlmcError, match=r"model\.onnx\.data: 5 bytes, the manifest says"):
        ServedSession(program, runnable.artifact, runnable.io, 1)
    with pytest.raises(NotAvailable, match="cannot be started"):
        ServedSession(runnable.artifact / "no-program", runnable.artifact, runnable.io, 1)


def test_whose_program_runs(program, runnable):
    """An artifact's own is code: it runs only where somebody trusts it, or on the machine that it was sent to."""
    manifest = read_manifest(runnable.artifact)
    name = f"native/{platform_name()}/slmc-run"
    brought = dataclasses.replace(manifest, files=manifest.files | {name: manifest.files["model.onnx"]})
    assert serving_program(runnable.artifact, brought, platform_name(), own=False) == program
    assert serving_program(runnable.artifact, brought, platform_name(), own=True) == runnable.artifact / name
    assert serving_program(runnable.artifact, manifest, platform_name(), own=True) == program
    with pytest.raises(NotAvailable, match=r"no slmc-run for plan9-mips.*make runtime-cross"):
        serving_program(runnable.artifact, manifest, "plan9-mips", own=True)
