"""What a model goes on with after a prompt: sampling, decoding, stopping, rate. Part of run.py and of slmc alike.

It needs numpy and onnxruntime alone, and is copied into every artifact's run.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

PREFILL_TOKENS = 64
"""Tokens of a prompt that are read in one call: memory for so many rows of logits."""
AGAIN = "copy the artifact again"
COLDEST = 1e-5
"""Temperatures below this one take the best token, as 0 does."""
UNFINISHED = "\ufffd"
LONGEST_CHARACTER, WINDOW = 4, 32
"""Tokens that one character may be spread over; tokens that are decoded again with the next one."""


class ArtifactError(Exception):
    """What cannot be run, in one line, with the next step."""


class Decoder:
    """The text that each further token adds, whole characters only, in time that does not grow with the text."""

    def __init__(self, tokenizer: Any, ids: Sequence[int]) -> None:
        """ids: the tokens before, whose text is not given out again."""
        self._decode = tokenizer.decode
        self._ids, self._pending = list(ids), 0
        self._shown: str = self._decode(self._ids)

    def add(self, token: int) -> str:
        text: str = self._decode([*self._ids, token])
        if text == self._shown:  # a special token, which has no text and would only fill the window
            return ""
        self._ids.append(token)
        self._pending += 1
        if text.endswith(UNFINISHED) and self._pending <= LONGEST_CHARACTER:
            return ""
        fresh, self._shown, self._pending = text[len(self._shown) :], text, 0
        if len(self._ids) > WINDOW:
            self._shorten()
        return fresh

    def _shorten(self) -> None:
        """Forget early tokens where those left say the same as before, which half a character does not."""
        for size in range(WINDOW // 2, WINDOW):
            text = self._decode(self._ids[-size:])
            if text and self._shown.endswith(text):
                self._ids, self._shown = self._ids[-size:], text
                return


class Continuation:
    """What a model goes on with after a prompt, in pieces of text, to be iterated over once; then the figures of it.

    ended: 'tokens' (all that were asked for), 'context' (full), 'end' (an end token), 'stop' (a stop string); neither
    of the last two is part of the text. tokens: written. seconds: for `steps` of the model, sampling and decoding
    included; prompt_seconds: for reading the prompt.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: Sequence[int], *, tokens: int, temperature: float, top_k: int,
        seed: int, end: Sequence[int] = (), stop: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """model: `prefill` and `step` give logits [V], `room` the tokens that still fit, None without a limit."""
        self._model, self._prompt, self._asked, self._tokenizer = model, prompt, tokens, tokenizer
        self._decoder = Decoder(tokenizer, prompt)
        self._random, self._temperature, self._top_k = np.random.default_rng(seed), temperature, top_k
        self._end, self._stop = frozenset(end), tuple(stop)
        self.ended, self.tokens, self.steps, self.seconds, self.prompt_seconds = "tokens", 0, 0, 0.0, 0.0

    @property
    def rate(self) -> float | None:
        """Tokens per second of writing, the prompt apart; None if nothing was measured."""
        return self.steps / self.seconds if self.steps and self.seconds else None

    def figures(self) -> str:
        """Tokens, seconds and rate in a line."""
        rate = "" if self.rate is None else f", {self.rate:.0f} tokens per second"
        prompt = f"prompt of {len(self._prompt)} tokens in {self.prompt_seconds:.2f} s"
        return f"{prompt}; {self.tokens} tokens written in {self.seconds:.2f} s{rate}"

    def __iter__(self) -> Iterator[str]:
        held = ""
        for piece in self._pieces():
            held += piece
            at = min((held.find(text) for text in self._stop if text in held), default=-1)
            if at >= 0:
                self.ended = "stop"
                held = held[:at]
                break
            ready = len(held) - max((_begun(held, text) for text in self._stop), default=0)
            if ready:
                yield held[:ready]
                held = held[ready:]
        if held:
            yield held

    def _pieces(self) -> Iterator[str]:
        began = time.perf_counter()
        logits: Any = self._model.prefill(np.array([self._prompt], np.int64)) if self._asked else None
        self.prompt_seconds = time.perf_counter() - began
        room = self._model.room
        limit = self._asked if room is None else min(self._asked, room)
        rows = 0 if logits is None else rows_in_use(self._tokenizer, len(logits))
        while self.tokens < limit:
            began = time.perf_counter()
            token = pick(logits[:rows], self._temperature, self._top_k, self._random)
            if token in self._end:
                self.ended = "end"
                return
            text = self._decoder.add(token)
            self.tokens += 1
            if self.tokens < limit:
                logits = self._model.step(token)
                self.steps += 1
            self.seconds += time.perf_counter() - began
            yield text
        self.ended = "tokens" if limit == self._asked else "context"


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text may be the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def rows_in_use(tokenizer: Any, rows: int) -> int:
    """How many of the model's rows have a token; a vocabulary that was rounded up has more, which are never written."""
    return next((n for n in range(rows, 0, -1) if tokenizer.id_to_token(n - 1) is not None), rows)


def pick(logits: Any, temperature: float, top_k: int, random: np.random.Generator) -> int:
    """The next token: the best one at temperature 0, else drawn from the top_k best; the same for the same seed."""
    if not np.isfinite(logits.max()):
        raise ArtifactError(f"the model gives no finite numbers; {AGAIN}, or build it anew")
    if temperature < COLDEST:
        return int(logits.argmax())
    best = np.argpartition(logits, -top_k)[-top_k:] if top_k < len(logits) else np.arange(len(logits))
    return int(random.choice(best, p=softmax(logits[best] / temperature)))


def softmax(scores: Any) -> Any:
    """Probabilities of scores [n]."""
    shares = np.exp(scores.astype(np.float64) - scores.max())
    return shares / shares.sum()


def chat_text(chat: dict[str, Any], question: str, system: str | None) -> str:
    """A question, and a system message if there is one, in the pieces that the manifest has of a chat template."""
    if chat["user"] is None:
        raise ArtifactError(f"--chat: not without a template engine ({chat['refusal']}); use 'slmc generate --chat'")
    if chat["trim"]:
        question, system = question.strip(), None if system is None else system.strip()
    if system is None:
        before, after = chat["user"]
        return f"{before}{question}{after}"
    if chat["system"] is None:
        raise ArtifactError("--system: the model's chat template has no place for a system message; leave it out")
    before, between, after = chat["system"]
    return f"{before}{system}{between}{question}{after}"


def check_prompt(ids: Sequence[int], context: int | None) -> None:
    """Refuse a prompt that does not fit, before anything is written."""
    if context is not None and len(ids) > context:
        raise ArtifactError(f"the prompt has {len(ids)} tokens, and the context is {context}; shorten it")


def ending_note(ended: str, context: int | None) -> str | None:
    """What a reader has to know of a text that ended early."""
    return f"the context of {context} tokens is full: the text ends here" if ended == "context" else None


class Model:
    """The graph on ONNX Runtime with its states, which stay where they are: caches are written in place."""

    def __init__(self, inference: Any, io: dict[str, Any]) -> None:
        self._inference, self._io, self._read, self._now = inference, io, 0, 0
        self.context: int | None = io.get("context")
        sides = [self._values(), self._values()]
        held = dict(zip((s["input"] for s in io["states"]), sides[0], strict=True))
        self._sides = [
            [(s, held[s["input"]] if s.get("in_place") else v) for s, v in zip(io["states"], side, strict=True)]
            for side in sides
        ]

    def _values(self) -> list[Any]:
        return [
            ort.OrtValue.ortvalue_from_numpy(np.full(s["shape"], s["fill"], s["dtype"])) for s in self._io["states"]
        ]

    @property
    def room(self) -> int | None:
        return None if self.context is None else self.context - self._read

    def prefill(self, tokens: Any) -> Any:
        """The logits [V] after the last of tokens int64 [1, T]."""
        for at in range(0, tokens.shape[1], PREFILL_TOKENS):
            logits = self.run(tokens[:, at : at + PREFILL_TOKENS], last=True)[0, -1]
        return logits

    def step(self, token: int) -> Any:
        """The logits [V] after one more token."""
        return self.run(np.array([[token]], np.int64), last=True)[0, -1]

    def run(self, tokens: Any, last: bool = False) -> Any:
        """Logits float32 [1, T, V] of tokens int64 [1, T]; of a classifier scores [1, 1, classes].

        last: those of the last token are enough, [1, 1, V] where the graph can be asked.
        """
        binding = self._inference.io_binding()
        if self._io.get("logits_from"):
            binding.bind_cpu_input(self._io["logits_from"], np.array([-1 if last else 0], np.int64))
        binding.bind_cpu_input(self._io["tokens"], tokens)
        binding.bind_output(self._io["logits"], "cpu")
        for (state, before), (_, after) in zip(self._sides[self._now], self._sides[1 - self._now], strict=True):
            binding.bind_ortvalue_input(state["input"], before)
            binding.bind_ortvalue_output(state["output"], after)
        try:
            self._inference.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors share no base
            raise ArtifactError(f"ONNX Runtime {ort.__version__} stopped: {one_line(error)}") from error
        self._now, self._read = 1 - self._now, self._read + tokens.shape[1]
        return binding.get_outputs()[0].numpy()


def one_line(error: Exception) -> str:
    """The end of what a library said, on one line."""
    return " ".join(str(error).split())[-300:]
