"""A session: one call, chunks and single tokens say the same; what is wrong is said in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Io, State
from targets.device.continuation import Model
from targets.device.session import Session, open_session


def opened(toy) -> Session:
    return open_session(toy.artifact / "model.onnx", toy.io, native=None)


def test_one_call(toy):
    logits = opened(toy).run(np.array([toy.tokens], np.int64))
    assert logits.shape == (1, 3, 3) and logits.dtype == np.float32
    np.testing.assert_array_equal(logits[0], toy.logits)


def test_token_by_token(toy):
    session = opened(toy)
    np.testing.assert_array_equal([session.step(token) for token in toy.tokens], toy.logits)


@pytest.mark.parametrize("cut", [1, 2])
def test_chunks(toy, cut):
    session = opened(toy)
    tokens = np.array([toy.tokens], np.int64)
    parts = [session.run(tokens[:, :cut]), session.run(tokens[:, cut:])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1)[0], toy.logits)


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 64])
def test_prefill_then_step(toy, chunk_tokens):
    """1 = logits after the prompt; 2 = the state that it leaves: total (4.5, 3.5) + (1, 0), before (0, 2)."""
    session = opened(toy)
    np.testing.assert_array_equal(session.prefill(np.array([toy.tokens]), chunk_tokens), toy.logits[2])
    np.testing.assert_array_equal(session.step(0), [5.5, 3.5, 9.0])


@pytest.fixture
def asked(toy):
    """The toy, whose graph gives the logits of the tokens that it is asked for."""
    path = toy.artifact / "model.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "every"
    model.graph.node.append(helper.make_node("Slice", ["every", "from", "end", "ones"], ["logits"]))
    model.graph.initializer.append(helper.make_tensor("end", onnx.TensorProto.INT64, [1], [2**63 - 1]))
    model.graph.input.append(helper.make_tensor_value_info("from", onnx.TensorProto.INT64, [1]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "R"
    onnx.save(model, path)
    return toy._replace(io=dataclasses.replace(toy.io, logits_from="from"))


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 64])
def test_a_graph_that_is_asked_for_logits(asked, chunk_tokens):
    session, tokens = opened(asked), np.array([asked.tokens])
    np.testing.assert_array_equal(session.prefill(tokens, chunk_tokens), asked.logits[2])
    np.testing.assert_array_equal(session.step(0), [5.5, 3.5, 9.0])
    session.reset()
    np.testing.assert_array_equal(session.run(tokens)[0], asked.logits)


def test_run_py_asks_for_the_last_logits(asked):
    inference = onnxruntime.InferenceSession(asked.artifact / "model.onnx", providers=["CPUExecutionProvider"])
    model, tokens = Model(inference, dataclasses.asdict(asked.io)), np.array([asked.tokens])
    assert model.run(tokens[:, :2], last=True).shape == (1, 1, 3)
    np.testing.assert_array_equal(model.prefill(tokens[:, 2:]), asked.logits[2])
    np.testing.assert_array_equal(model.step(0), [5.5, 3.5, 9.0])


def test_an_input_that_the_manifest_does_not_name(asked, toy):
    with pytest.raises(SlmcError, match="input 'from' is not in the manifest's io"):
        opened(toy)


def test_an_input_that_the_graph_does_not_have(toy):
    io = dataclasses.replace(toy.io, logits_from="from")
    with pytest.raises(SlmcError, match="no input 'from', which the manifest names"):
        open_session(toy.artifact / "model.onnx", io, native=None)


def test_reset_after_odd_and_even_numbers_of_calls(toy):
    session = opened(toy)
    for calls in range(4):
        for _ in range(calls):
            session.step(1)
        session.reset()
        np.testing.assert_array_equal(session.step(2), toy.logits[0])
        session.reset()


def test_results_belong_to_the_caller(toy):
    session = opened(toy)
    first = session.step(2)
    whole = session.run(np.array([[0, 1]]))
    session.step(0)
    session.run(np.array([[0, 1]]))
    np.testing.assert_array_equal(first, toy.logits[0])
    np.testing.assert_array_equal(whole[0], toy.logits[1:])


def test_whole_texts_come_in_one_call(whole_toy):
    """What is read in pieces would have other scores, so it is refused; a long prompt is not cut."""
    session = opened(whole_toy)
    tokens = np.array([whole_toy.tokens], np.int64)
    np.testing.assert_allclose(session.run(tokens), [whole_toy.logits], rtol=1e-6)
    for call in (lambda: session.run(tokens[:, :1]), lambda: session.step(1), lambda: session.prefill(tokens[:, :1])):
        with pytest.raises(SlmcError, match="reads a whole text in one call, and 3 tokens of this one are read; begin"):
            call()
    session.reset()
    np.testing.assert_allclose(session.prefill(tokens, 1), whole_toy.logits[0], rtol=1e-6)
    session.reset()
    with pytest.raises(SlmcError, match="5 tokens do not fit into its context of 4"):
        session.run(np.zeros((1, 5), np.int64))


def test_state_bytes(toy):
    assert opened(toy).state_bytes == 16


def test_states_of_other_types(tmp_path: Path):
    """An int64 counter of shape [1] that starts at 7 and a bool that is turned over: both are kept, beside floats."""
    nodes = [
        helper.make_node("Shape", ["tokens"], ["t"], start=1),
        helper.make_node("Add", ["count_in", "t"], ["count_out"]),
        helper.make_node("Not", ["flag_in"], ["flag_out"]),
        helper.make_node("Cast", ["tokens"], ["real"], to=1),
        helper.make_node("Cast", ["count_in"], ["count"], to=1),
        helper.make_node("Cast", ["flag_in"], ["flag"], to=1),
        helper.make_node("Mul", ["real", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "count"], ["a"]),
        helper.make_node("Add", ["nothing", "flag"], ["b"]),
        helper.make_node("Unsqueeze", ["a", "two"], ["a3"]),
        helper.make_node("Unsqueeze", ["b", "two"], ["b3"]),
        helper.make_node("Concat", ["a3", "b3"], ["logits"], axis=2),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("tokens", 7, [1, "T"]), info("count_in", 7, [1]), info("flag_in", 9, [1])]
    outputs = [info("logits", 1, [1, "T", 2]), info("count_out", 7, [1]), info("flag_out", 9, [1])]
    constants = [helper.make_tensor("zero", 1, [], [0.0]), helper.make_tensor("two", 7, [1], [2])]
    graph = helper.make_graph(nodes, "types", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    count = State("count_in", "count_out", (1,), "int64", 7.0)
    flag = State("flag_in", "flag_out", (1,), "bool", 1.0)
    session = open_session(tmp_path / "model.onnx", Io("tokens", "logits", (count, flag)), native=None)
    assert session.step(0).tolist() == [7, 1]
    assert session.run(np.array([[0, 1, 0]]))[0, 0].tolist() == [8, 0]
    assert session.step(0).tolist() == [11, 1]
    session.reset()
    assert session.step(0).tolist() == [7, 1]


@pytest.mark.parametrize("token", [-1, 3])
def test_token_outside_the_vocabulary_leaves_the_states_alone(toy, token):
    session = opened(toy)
    with pytest.raises(SlmcError, match=f"token {token} is not in the vocabulary .*0 to 2"):
        session.step(token)
    with pytest.raises(SlmcError, match=f"token {token} is not in the vocabulary"):
        session.run(np.array([[2, token]]))
    np.testing.assert_array_equal(session.step(2), toy.logits[0])


@pytest.mark.parametrize("tokens", [np.array([2, 0]), np.zeros((1, 0), np.int64), np.zeros((1, 2), np.int32)])
def test_tokens_of_a_wrong_kind(toy, tokens):
    with pytest.raises(SlmcError, match=r"int64 \[1, T\] with T of 1 or more is needed"):
        opened(toy).run(tokens)


def test_a_failure_while_running_is_one_line_and_leaves_the_states_alone(tmp_path: Path, toy):
    model = onnx.load(toy.artifact / "model.onnx")
    # The embedding keeps two of its three rows: token 2 is now outside it, though not outside the logits.
    embedding = next(c for c in model.graph.initializer if c.name == "embedding")
    embedding.CopyFrom(onnx.numpy_helper.from_array(np.array([[1, 0], [0, 2]], np.float32), "embedding"))
    onnx.save(model, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", toy.io, native=None)
    with pytest.raises(SlmcError, match=r"ONNX Runtime stopped: .*Gather") as caught:
        session.step(2)
    assert "\n" not in str(caught.value)
    assert session.step(0).tolist() == [1.5 - 10, 0.5 - 10, 2.0 - 10]


def test_no_threads(toy):
    with pytest.raises(SlmcError, match="threads is 0"):
        open_session(toy.artifact / "model.onnx", toy.io, native=None, threads=0)


def test_two_threads_say_the_same(toy):
    session = open_session(toy.artifact / "model.onnx", toy.io, native=None, threads=2)
    np.testing.assert_array_equal(session.run(np.array([toy.tokens]))[0], toy.logits)


def test_an_artifact_may_be_moved(toy, tmp_path: Path):
    moved = shutil.move(toy.artifact, tmp_path / "elsewhere with spaces")
    session = open_session(Path(moved) / "model.onnx", toy.io, native=None)
    np.testing.assert_array_equal(session.step(2), toy.logits[0])


def test_a_text_ends_with_its_context(toy):
    io = dataclasses.replace(toy.io, context=3)
    session = open_session(toy.artifact / "model.onnx", io, native=None)
    assert opened(toy).room is None and session.room == 3
    np.testing.assert_array_equal(session.run(np.array([[2, 0]])), toy.logits[None, :2])
    with pytest.raises(SlmcError, match="4 tokens do not fit into its context of 3; begin a new text"):
        session.run(np.array([[1, 1]]))
    np.testing.assert_array_equal(session.step(1), toy.logits[2])
    with pytest.raises(SlmcError, match="4 tokens do not fit into its context of 3"):
        session.step(1)
    session.reset()
    assert session.room == 3
    np.testing.assert_array_equal(session.prefill(np.array([toy.tokens]), 2), toy.logits[2])


def test_a_state_in_place_is_one_memory(tmp_path):
    """The doubled state is read by nothing else, so that it may be overwritten."""
    nodes = [
        helper.make_node("Add", ["sum_in", "sum_in"], ["sum_out"]),
        helper.make_node("Cast", ["tokens"], ["t"], to=1),
        helper.make_node("Unsqueeze", ["t", "two"], ["t3"]),
        helper.make_node("Mul", ["t3", "sum_out"], ["logits_one"]),
        helper.make_node("Concat", ["logits_one", "t3"], ["logits"], axis=2),
    ]
    info = helper.make_tensor_value_info
    inputs = [info("tokens", 7, [1, "T"]), info("sum_in", 1, [1])]
    outputs = [info("logits", 1, [1, "T", 2]), info("sum_out", 1, [1])]
    graph = helper.make_graph(nodes, "doubling", inputs, outputs, [helper.make_tensor("two", 7, [1], [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    state = State("sum_in", "sum_out", (1,), "float32", 3.0, in_place=True)
    session = open_session(tmp_path / "model.onnx", Io("tokens", "logits", (state,)), native=None)
    assert [session.step(1).tolist() for _ in range(3)] == [[6, 1], [12, 1], [24, 1]]
    session.reset()
    assert session.step(1).tolist() == [6, 1]
