"""How a model's texts begin and end: a section of the manifest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chat:
    """How a conversation is written as one text, which is read without the begin tokens of `TextRules`.

    template: the model's own Jinja template. tokens: the special tokens that it may name, such as bos_token.
    user: what stands before and after the first question where there is no system message.
    system: what stands before, between and after a system message and the first question; None if the template has
    no place for one.
    following: what stands before and after a further question, behind an answer; None if earlier turns are written
    otherwise than they were read.
    trim: whether messages lose white space at both ends before they are put in, here or into the template.
    end: tokens that end an answer, beside those of every text.
    refusal: why the template cannot be said in such pieces; `user` is then None.
    """

    template: str
    tokens: dict[str, str]
    user: tuple[str, ...] | None
    system: tuple[str, ...] | None
    following: tuple[str, ...] | None
    trim: bool
    end: tuple[int, ...]
    refusal: str | None


@dataclass(frozen=True)
class TextRules:
    """How the model was trained to begin and end a text.

    begin: tokens that every text begins with. end: tokens any of which ends it; they are not part of it. stop: strings
    any of which ends it, likewise. start: what to begin with where there are neither begin tokens nor a prompt.
    """

    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    start: int = 0
    chat: Chat | None = None
