"""Messages as bytes: what a link sends, and what it makes of what it receives."""

from __future__ import annotations

import json
from typing import Any

from resilient.errors import NonsenseError, OtherVersionError, TooLargeError
from resilient.wire.encoding import shape
from resilient.wire.messages import PROTOCOL, WORDS, Configure, Hello, Message, UnknownMessage
from resilient.wire.parts import MOST_BYTES

_WORD_CHARACTERS = 40
_LEAST_CHARACTERS = 64


def encode(message: Message, limit_bytes: int = MOST_BYTES) -> bytes:
    """A message as bytes. Texts that are too long for their field, or for the message, are cut, with a mark.

    Raises TooLargeError for one that is not large because of its texts.
    """
    form: Any = shape(type(message))
    data = _packed(message, form)
    most = limit_bytes
    while len(data) > limit_bytes and most >= _LEAST_CHARACTERS:
        data = _packed(form.cut(message, most), form)
        most //= 2
    if len(data) > limit_bytes:
        raise TooLargeError(f"a {message.word} message of {len(data)} bytes is too large for the link")
    return data


def _packed(message: Message, form: Any) -> bytes:
    assert message.word, f"{type(message).__name__} is nothing to be said"
    return json.dumps({"type": message.word, **form.write(message)}).encode()


def decode(data: bytes) -> Message:
    """The inverse of :func:`encode`. Raises NonsenseError, and OtherVersionError for a first word."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NonsenseError(f"a message on the link is no JSON: {type(error).__name__}") from None
    if type(content) is not dict or type(content.get("type")) is not str:
        raise NonsenseError("a message on the link has no type")
    word = content["type"]
    if word not in WORDS:
        return UnknownMessage(word[:_WORD_CHARACTERS])
    kind: type[Message] = WORDS[word]
    if kind in (Hello, Configure) and _protocol(content) != PROTOCOL:
        raise OtherVersionError(of=kind)
    message: Message = shape(kind).read(content, word)
    return message


def _protocol(content: dict[str, Any]) -> int:
    """The other side's protocol; 0 for one that names none."""
    named = content.get("protocol")
    return named if type(named) is int else 0
