"""run.py and slmc generate: one text, one way to end, on any console, and one line for whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chatty import Document, Run, alone, change, one_line
from tokenizers import Tokenizer

from exporters.artifact.manifest import read_manifest
from toolchain.delivery.validate import artifact_session


def test_the_artifact_carries_the_rules(chatty: Path) -> None:
    rules = read_manifest(chatty).text
    assert rules is not None and rules.chat is not None
    assert (rules.begin, rules.end, rules.stop, rules.start) == ((300,), (0,), ("STOP!",), 300)
    assert rules.chat.user == ("<|turn|>user: ", "\n<|turn|>assistant: ")
    assert rules.chat.system == ("<|turn|>system: ", "\n<|turn|>user: ", "\n<|turn|>assistant: ")


def test_a_classifier_or_a_model_without_a_template_says_nothing_of_chats(artifact: Path) -> None:
    rules = read_manifest(artifact).text
    assert rules is not None and rules.chat is None and rules.begin == ()


SAME = {
    "greedy": ("-p", "The old", "-n", "20", "--temp", "0"),
    "drawn": ("-p", "The old", "-n", "20", "--temperature", "0.9", "--seed", "3", "--top-k", "9"),
    "nothing": ("-p", "The old", "-n", "0"),
    "from nothing": ("-p", "", "-n", "8"),
    "until the context is full": ("-p", "The old", "-n", "500", "--seed", "2"),
    "a string ends it": ("-p", "The old", "-n", "40", "--temp", "0", "--stop", "e", "--stop", "a"),
    "a question": ("--chat", "-p", "Who?", "-n", "12", "--temp", "0"),
    "a question with a system message": ("--chat", "-p", "Who?", "--system", "Be brief.", "-n", "12", "--temp", "0"),
    "without the operators": ("-p", "The old", "-n", "20", "--temp", "0", "--no-native"),
}


@pytest.mark.parametrize("name", SAME)
def test_run_py_and_generate_write_one_text(chatty: Path, document: Document, run: Run, name: str) -> None:
    told = document("generate", chatty, *SAME[name])
    code, out, err = run(chatty, *SAME[name])
    assert code == 0, err
    assert out == told["text"] + "\n"
    assert f"{told['tokens']} tokens written" in err and f"prompt of {told['prompt_tokens']} tokens" in err
    assert ("context of 48 tokens is full" in err) == (told["ended"] == "context")


def test_the_file_that_is_shipped_runs_by_itself(chatty: Path, document: Document) -> None:
    done = alone(chatty, *SAME["a question"])
    assert (done.returncode, done.stdout.decode()) == (
        0,
        document("generate", chatty, *SAME["a question"])["text"] + "\n",
    )
    assert not (chatty / "__pycache__").exists()


def test_every_end_token_ends_a_text_unless_told_otherwise(copy: Path, document: Document, run: Run) -> None:
    """The tokens are those that the model writes; one of them is then said to end texts, and answers another one."""
    asked = ("-p", "The old", "-n", "20", "--temp", "0")
    whole = document("generate", copy, *asked)["text"]
    written = greedy(copy, "The old", 20)
    end = next(token for token in written[3:] if token not in written[:3])
    change(copy, lambda manifest: manifest["text"].update(end=[301, end]))
    short = document("generate", copy, *asked)
    assert (short["ended"], short["tokens"]) == ("end", written.index(end))
    assert whole.startswith(short["text"]) and len(short["text"]) < len(whole)
    assert run(copy, *asked)[1] == short["text"] + "\n"
    for text in (document("generate", copy, *asked, "--no-stop")["text"], run(copy, *asked, "--no-stop")[1][:-1]):
        assert text == whole
    change(copy, lambda manifest: (manifest["text"].update(end=[301]), manifest["text"]["chat"].update(end=[end])))
    assert document("generate", copy, *asked)["text"] == whole, "an answer's end token ends no other text"
    assert run(copy, *asked)[1] == whole + "\n"


def test_an_answer_ends_where_the_template_ends_it(copy: Path, document: Document, run: Run) -> None:
    asked = ("--chat", "-p", "Who?", "-n", "16", "--temp", "0")
    whole = document("generate", copy, *asked)["text"]
    question = "<|turn|>user: Who?\n<|turn|>assistant: "
    written = greedy(copy, question, 16)
    end = next(token for token in written[3:] if token not in written[:3])
    change(copy, lambda manifest: manifest["text"]["chat"].update(end=[end]))
    short = document("generate", copy, *asked)
    assert (short["ended"], short["tokens"]) == ("end", written.index(end))
    assert whole.startswith(short["text"])
    assert run(copy, *asked)[1] == short["text"] + "\n"


def greedy(artifact: Path, prompt: str, count: int) -> list[int]:
    """The best tokens that follow a prompt, which is read behind the begin token unless it is a conversation."""
    session = artifact_session(artifact, read_manifest(artifact).io)
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    logits = session.prefill(np.array([ids if prompt.startswith("<|turn|>") else [300, *ids]]))
    written: list[int] = []
    for _ in range(count):
        written.append(int(logits.argmax()))
        logits = session.step(written[-1])
    return written


def test_an_artifact_from_before_texts_had_rules_is_read(copy: Path, document: Document, run: Run) -> None:
    asked = ("-p", "The old", "-n", "8", "--temp", "0")
    change(copy, lambda manifest: manifest.pop("text"))
    code, out, err = run(copy, *asked)
    assert code == 0, err
    assert out == document("generate", copy, *asked)["text"] + "\n"


@pytest.mark.parametrize("name", ["no template", "no pieces"])
def test_chats_that_a_board_cannot_write(copy: Path, fails: Callable[..., None], run: Run, name: str) -> None:
    asked = ("--chat", "-p", "Who?")
    if name == "no template":
        change(copy, lambda manifest: manifest["text"].update(chat=None))
        fails(("generate", copy, *asked), 2, "no chat template")
        one_line(run(copy, *asked), "no chat template")
        return
    change(copy, lambda manifest: manifest["text"]["chat"].update(user=None, system=None, refusal="it writes the date"))
    one_line(run(copy, *asked), "it writes the date", "slmc generate --chat")
