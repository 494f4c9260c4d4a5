"""slmc generate: text from an artifact, token by token, or the answer to a question."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.artifact.opening import is_unicode
from exporters.artifact.runtimes import ONNXRUNTIME
from exporters.artifact.text_rules import TextRules
from targets.device.continuation import ArtifactError, Continuation, ending_note
from targets.device.session import Session
from targets.device.verify import open_artifact
from targets.runtime.session import ServedSession
from toolchain.cli.console import Console
from toolchain.cli.execution import artifact_native, runtime_option, say_whose_operators
from toolchain.cli.options import PATH, THREADS, command, signature_option
from toolchain.delivery.generation import Ending, Sampling, chat_ids, continuation, prompt_ids
from toolchain.delivery.validate import runtime_session
from toolchain.model.text_rules import artifact_tokenizer


@click.command("generate")
@click.argument("artifact", type=PATH)
@click.option("-p", "--prompt", default="The ", help="Text to go on from, or a question with --chat.")
@click.option("-n", "--tokens", type=click.IntRange(min=0), default=128, help="Maximum number of tokens to write.")
@click.option(
    "--temp",
    "--temperature",
    "temperature",
    type=click.FloatRange(min=0),
    default=0.7,
    help="0 always takes the best token.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=40)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--threads", type=THREADS, default=1)
@click.option("--chat", is_flag=True, help="The prompt is a question; answer it as the chat template asks for.")
@click.option("--system", help="A system message, with --chat.")
@click.option("--stop", multiple=True, help="A string that ends the text. Repeatable.")
@click.option("--no-stop", is_flag=True, help="Continue past the model's end tokens and stop strings.")
@runtime_option
@artifact_native
@signature_option
@command
def generate_command(
    console: Console, artifact: Path, prompt: str, tokens: int, temperature: float, top_k: int, seed: int,
    threads: int, chat: bool, system: str | None, stop: tuple[str, ...], no_stop: bool, runtime: str,
    artifact_native: bool,
) -> int:  # fmt: skip
    """Write text with an ARTIFACT, token by token."""
    if not math.isfinite(temperature):
        raise SlmcError(f"--temperature {temperature}: expected a number of 0 or more")
    _check_texts(prompt, system, stop, chat=chat)
    manifest = open_artifact(artifact)
    _refuse_kind(artifact, manifest, chat=chat)
    say_whose_operators(console, artifact, native=runtime == ONNXRUNTIME, trusted=artifact_native)
    session = runtime_session(artifact, manifest, runtime, own=artifact_native, threads=threads)
    tokenizer = artifact_tokenizer(artifact, manifest, session.vocabulary)
    rules = manifest.text or TextRules()
    template = rules.chat if chat else None
    if template is not None:
        ids, shown = chat_ids(tokenizer, template, prompt, system), ""
    else:
        ids = prompt_ids(tokenizer, rules, prompt)
        shown = tokenizer.decode(ids)
    sampling, ending = Sampling(temperature, top_k, seed), Ending(not no_stop, stop)
    text = continuation(session, tokenizer, ids, tokens, sampling, rules, ending, template)
    written = _written(console, shown, text)
    console.result(_document(prompt, written, len(ids), text) | {"runtime": runtime}, "")
    _note_figures(console, session, text)
    return 0


def _written(console: Console, shown: str, text: Continuation) -> str:
    """The whole text, after every piece of it was shown."""
    pieces = []
    try:
        for piece in itertools.chain([shown], text):
            pieces.append(piece)
            if not console.as_json:
                click.echo(piece, nl=False)
    except ArtifactError as error:
        raise SlmcError(str(error)) from error
    return "".join(pieces)


def _document(prompt: str, written: str, prompt_tokens: int, text: Continuation) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": written,
        "ended": text.ended,
        "prompt_tokens": prompt_tokens,
        "tokens": text.tokens,
        "tokens_per_second": text.rate,
    }


def _note_figures(console: Console, session: Session | ServedSession, text: Continuation) -> None:
    if early := ending_note(text.ended, session.io.context):
        console.note(early)
    console.note(text.figures())


def _check_texts(prompt: str, system: str | None, stop: tuple[str, ...], *, chat: bool) -> None:
    for option, text in (("-p", prompt), ("--system", system or ""), *(("--stop", text) for text in stop)):
        if not is_unicode(text):
            raise SlmcError(f"{option} {text!r}: not UTF-8 text; give plain text")
    if system is not None and not chat:
        raise SlmcError("--system needs --chat; leave it out, or add --chat")
    if system is not None and not system.strip():
        raise SlmcError("--system: an empty message says nothing; leave it out")
    if chat and not prompt.strip():
        raise SlmcError("--chat answers a question: give one with -p")
    if "" in stop:
        raise SlmcError("--stop '': an empty string ends every text; give some characters")


def _refuse_kind(artifact: Path, manifest: Manifest, *, chat: bool) -> None:
    """What the artifact's model cannot do."""
    if manifest.io.classes:
        raise SlmcError(
            f"{artifact}: a classifier ({', '.join(manifest.io.classes.labels)}), which writes no text; label a "
            f"sentence with 'python {artifact / 'run.py'} -p SENTENCE'"
        )
    if chat and (manifest.text is None or manifest.text.chat is None):
        raise SlmcError(
            f"{artifact}: --chat: this model has no chat template; leave it out and give a text to go on from"
        )
