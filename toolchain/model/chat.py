"""A model's chat template: rendered here with Jinja, and said in pieces of text for devices that have none."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from exporters.artifact.errors import SlmcError
from exporters.artifact.text_rules import Chat
from targets.device.continuation import chat_text

Messages = Sequence[Mapping[str, str]]

_QUESTION, _SYSTEM, _ANSWER, _FURTHER = "Qz7question", "Qz7system", "Qz7answer", "Qz7further"
_PROBES = (
    "Hello",
    'What is 2 + 2? Write "four" & <4>, {{ x }}, {% if %}.',
    "Zwei Zeilen:\n\n- größer\n- 日本語 😀\n",
    "\t indented, and with spaces behind  ",
    "[INST] <|im_start|> </s> [/INST]",
)
"""Messages that must come out of the pieces as the template writes them."""


class _Generation(Extension):
    """`{% generation %}` marks what a trainer learns from; text is written as if it were not there."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class Template:
    """A chat template and the names of special tokens that it may use, such as bos_token."""

    source: str
    tokens: Mapping[str, str]

    def render(self, messages: Messages, *, ask: bool = True, today: str | None = None) -> str:
        """The conversation as text; with `ask` it ends where the assistant is to write.

        Args:
            today: what the template is told of the date, if it asks; the date of this machine if not given.

        Raises:
            SlmcError: the template is not Jinja, or refuses the conversation.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: today or _now(form)}
        try:
            text: str = environment.from_string(self.source).render(
                messages=[dict(m) for m in messages], add_generation_prompt=ask, tools=None, documents=None,
                **self.tokens,
            )  # fmt: skip
        except SlmcError:
            raise
        except Exception as error:  # a template is a program of somebody else's and may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise SlmcError(f"the chat template cannot be rendered: {reason}") from error
        return text


def _refuse(message: str) -> None:
    raise SlmcError(f"the chat template refuses this conversation: {' '.join(str(message).split())[:200]}")


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def conversation(question: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages of a conversation that begins with a question."""
    asked = [{"role": "user", "content": question}]
    return asked if system is None else [{"role": "system", "content": system}, *asked]


def prompt_text(chat: Chat, question: str, system: str | None) -> str:
    """What the model reads for a question, as its template writes it.

    Raises:
        SlmcError: the template refuses it, or leaves the system message out.
    """
    question, system = _trimmed(chat, question), None if system is None else _trimmed(chat, system)
    text = Template(chat.template, chat.tokens).render(conversation(question, system))
    if system is not None and system not in text:
        raise SlmcError("--system: the model's chat template has no place for a system message; leave it out")
    return text


def chat_rules(template: Template, tokenizer: Tokenizer) -> Chat:
    """The template in pieces, proven on messages of several kinds, or the reason why it cannot be said so."""
    end = _end_tokens(template, tokenizer)
    refusal = ""
    for trim in (False, True):
        try:
            chat = _pieces(template, trim, end)
            _prove(template, chat)
        except SlmcError as error:
            refusal = str(error)
        else:
            return chat
    return Chat(template.source, dict(template.tokens), None, None, None, False, end, refusal)


def pieced(chat: Chat, question: str, system: str | None = None) -> str:
    """The same as `prompt_text` from the pieces alone, as run.py does it."""
    return chat_text(dataclasses.asdict(chat), question, system)


def _trimmed(chat: Chat, message: str) -> str:
    return message.strip() if chat.trim else message


def _pieces(template: Template, trim: bool, end: tuple[int, ...]) -> Chat:
    first = template.render(conversation(_QUESTION))
    user = _split(first, _QUESTION)
    if user is None:
        raise SlmcError("the chat template does not write a question exactly once")
    system, following = _system_pieces(template), _following(template, first)
    return Chat(template.source, dict(template.tokens), user, system, following, trim, end, None)


def _system_pieces(template: Template) -> tuple[str, ...] | None:
    try:
        text = template.render(conversation(_QUESTION, _SYSTEM))
    except SlmcError:
        return None
    return _split(text, _SYSTEM, _QUESTION)


def _following(template: Template, first: str) -> tuple[str, ...] | None:
    answered = [*conversation(_QUESTION), {"role": "assistant", "content": _ANSWER}]
    try:
        text = template.render([*answered, *conversation(_FURTHER)])
    except SlmcError:
        return None
    read = first + _ANSWER
    return _split(text.removeprefix(read), _FURTHER) if text.startswith(read) else None


def _split(text: str, *words: str) -> tuple[str, ...] | None:
    """What stands around the words, each of which must be there once, in this order."""
    pieces = []
    for word in words:
        if text.count(word) != 1:
            return None
        before, _, text = text.partition(word)
        pieces.append(before)
    return (*pieces, text)


def _prove(template: Template, chat: Chat) -> None:
    """Raise SlmcError where the pieces say something else than the template."""
    days = [template.render(conversation(_QUESTION), today=day) for day in ("01 Jan 1999", "31 Dec 2031")]
    if days[0] != days[1]:
        raise SlmcError("the chat template writes the date of the day")
    systems = (None,) if chat.system is None else (None, *_PROBES)
    for system in systems:
        for question in _PROBES:
            messages = (_trimmed(chat, question), None if system is None else _trimmed(chat, system))
            if template.render(conversation(*messages)) != pieced(chat, question, system):
                raise SlmcError(f"the chat template changes messages, such as {question!r}")


def _end_tokens(template: Template, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special token that the template writes behind an answer, if it writes one."""
    answered = [*conversation(_QUESTION), {"role": "assistant", "content": _ANSWER}]
    try:
        tail = template.render(answered, ask=False).rpartition(_ANSWER)[2].lstrip()
    except SlmcError:
        return ()
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return tuple(number for content, number in special.items() if content and tail.startswith(content))
