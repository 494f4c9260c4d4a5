"""ONNX Runtime as a service to another process: objects are made, read, set and called by request.

    python child.py LIBRARY         requests on stdin, answers on stdout, each a pickle with its length before it

Needs numpy and onnxruntime alone, so that it runs under emulation, or with a sanitizer loaded into it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Reference:
    """An object that stays in the child, by number."""

    number: int


@dataclass(frozen=True)
class Method:
    """What reading an attribute gives where the attribute is to be called."""


def send(stream: BinaryIO, message: object) -> None:
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """The next message; EOFError where the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


class Service:
    """Answers requests: (verb, arguments...)."""

    def __init__(self, library: str) -> None:
        import onnxruntime

        self._module = onnxruntime
        self._library = library
        self._objects: dict[int, object] = {}
        self._next = 0

    def answer(self, verb: str, *arguments: Any) -> Any:
        return self._kept(getattr(self, f"do_{verb}")(*arguments))

    def do_make(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        known = {key: self._found(value) for key, value in kwargs.items()}
        return getattr(self._module, kind)(*map(self._found, args), **known)

    def do_get(self, number: int, name: str) -> Any:
        value = getattr(self._objects[number], name)
        return Method() if callable(value) else value

    def do_set(self, number: int, name: str, value: Any) -> None:
        setattr(self._objects[number], name, value)

    def do_call(self, number: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return getattr(self._objects[number], name)(*map(self._found, args), **kwargs)

    def do_drop(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._objects[number]

    def do_native(self, function: str, text: bool, args: tuple[int, ...]) -> Any:
        called = getattr(ctypes.CDLL(self._library), function)
        called.restype = ctypes.c_char_p if text else ctypes.c_int
        return called(*args)

    def _found(self, value: Any) -> Any:
        return self._objects[value.number] if isinstance(value, Reference) else value

    def _kept(self, value: Any) -> Any:
        """The value where it can be sent, else a reference to it."""
        if isinstance(value, (list, tuple)):
            return [self._kept(item) for item in value]
        try:
            pickle.dumps(value)
        except Exception:  # whatever a foreign class raises
            self._next += 1
            self._objects[self._next] = value
            return Reference(self._next)
        return value


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print must not get between the answers
    service = Service(sys.argv[1])
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            answer = (True, service.answer(*request))
        except Exception as error:  # belongs to whoever asked
            answer = (False, error)
        send(answers, answer)


if __name__ == "__main__":
    import child  # so that messages are of classes that the other side knows by this name

    child.main()
