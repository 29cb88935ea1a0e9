"""Frozen dataclasses as JSON and back, by their annotations: nothing else gets through.

    bool  int  float  str  an enum        as they are (an enum's value)
    bytes                                 base64
    Path                                  text without NUL
    X | None   tuple[X, ...]   tuple[X, Y]
    another dataclass                     an object by the names of its fields

Every value has a bound: that of its annotation (``bounds``), or one of those below. A field that is missing
has its default, and one without a default makes the whole nonsense. A field that is not known is left out: a
later version may have added it. An error names the field and repeats no value: there may be a key in it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import json
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from resilient.errors import NonsenseError, TooLargeError
from resilient.wire.bounds import Cut, Named, Within
from resilient.wire.shorten import shortened

_WHOLE = Within(-(2**63), 2**63 - 1)
_NUMBER = Within(-1e300, 1e300)
_MOST_CHARACTERS = 2**20
_MOST_BYTES = 2**20
_MOST_ENTRIES = 2**20
_MARK_CHARACTERS = 100
"""For the mark in a text that was cut."""

T = TypeVar("T")


class _WrongError(ValueError):
    """A value is not what its annotation says; ``where`` is the way to it, from within."""

    def __init__(self, where: str = "") -> None:
        super().__init__(where)
        self.where = where


class _Form(NamedTuple):
    """A field's values: to JSON, from JSON (raises _WrongError), and cut to a number of characters."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    cut: Callable[[Any, int], Any] | None = None


class Shape(Generic[T]):
    """How the values of one dataclass travel."""

    def __init__(self, kind: type[T]) -> None:
        hints = get_type_hints(kind, include_extras=True)
        self.kind = kind
        self._forms = [(field.name, _form(hints[field.name])) for field in fields(kind)]  # type: ignore[arg-type]
        self._write = [(name, form.write) for name, form in self._forms]
        self._read = [(name, form.read) for name, form in self._forms]
        self._needed = {
            field.name
            for field in fields(kind)  # type: ignore[arg-type]
            if field.default is MISSING and field.default_factory is MISSING
        }

    def write(self, value: T) -> dict[str, Any]:
        """A value as JSON. Raises TooLargeError, and ValueError where it is out of its bounds."""
        try:
            return {name: write(getattr(value, name)) for name, write in self._write}
        except _WrongError:
            raise ValueError(f"a {self.kind.__name__} has a field of a wrong type or size") from None

    def read(self, content: object, title: str) -> T:
        """The inverse of :meth:`write`. Raises NonsenseError, which calls it by this ``title``."""
        try:
            return self.read_strictly(content)
        except _WrongError as error:
            raise NonsenseError(f"{title} {error.where or 'makes no sense'}", of=self.kind) from None

    def read_strictly(self, content: Any) -> T:
        if type(content) is not dict:
            raise _WrongError
        values = {}
        name = ""
        try:
            for name, read in self._read:
                if name in content:
                    values[name] = read(content[name])
                elif name in self._needed:
                    raise _WrongError(f"has no {name}")
        except _WrongError as error:
            raise _WrongError(error.where or f"has a {name} of a wrong type or size") from None
        try:
            return self.kind(**values)
        except (AssertionError, ValueError, TypeError):
            # Each field is right, and they do not go together.
            raise _WrongError from None

    def cut(self, value: T, most: int) -> T:
        """The same with its texts, and its tuples of texts, cut to about ``most`` characters."""
        cut = {name: form.cut(getattr(value, name), most) for name, form in self._forms if form.cut}
        return replace(value, **cut)  # type: ignore[type-var]


_SHAPES: dict[type, Shape[Any]] = {}


def shape(kind: type[T]) -> Shape[T]:
    """How the values of this dataclass travel."""
    if kind not in _SHAPES:
        _SHAPES[kind] = Shape(kind)
    return _SHAPES[kind]


def to_bytes(value: Any) -> bytes:
    """A value as JSON, for where one dataclass alone is sent. Raises as ``Shape.write`` does."""
    return json.dumps(shape(type(value)).write(value)).encode()


def from_bytes(kind: type[T], data: bytes) -> T:
    """The inverse of :func:`to_bytes`. Raises NonsenseError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NonsenseError(f"{kind.__name__} is no JSON: {type(error).__name__}") from None
    return shape(kind).read(content, kind.__name__)


def _form(annotation: Any) -> _Form:
    """How values of this annotation travel."""
    bound: Within | Cut | Named | None = None
    if get_origin(annotation) is Annotated:
        annotation, bound = get_args(annotation)
    if isinstance(annotation, type) and annotation in _PLAIN:
        return _PLAIN[annotation](bound)
    if isinstance(annotation, type) and is_dataclass(annotation):
        # Not at once: it takes time, and most processes need few of them.
        return _Form(lambda v: shape(annotation).write(v), lambda v: shape(annotation).read_strictly(v))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _Form(lambda v: v.value, functools.partial(_read_enum, annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = [one for one in get_args(annotation) if one is not type(None)]
        return _optional(_form(inner))
    assert get_origin(annotation) is tuple, f"{annotation} cannot travel"
    first, *others = get_args(annotation)
    if others == [...]:
        return _series(_form(first), bound if isinstance(bound, Cut) else None)
    return _group([_form(one) for one in (first, *others)])


def _flag(bound: object) -> _Form:
    def check(value: Any) -> bool:
        if type(value) is bool:
            return value
        raise _WrongError

    return _Form(check, check)


def _whole(bound: Within | Cut | None) -> _Form:
    assert not isinstance(bound, Cut)
    least, most = (bound or _WHOLE).least, (bound or _WHOLE).most

    def check(value: Any) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise _WrongError

    return _Form(check, check)


def _number(bound: Within | Cut | None) -> _Form:
    assert not isinstance(bound, Cut)
    least, most = (bound or _NUMBER).least, (bound or _NUMBER).most

    def check(value: Any) -> float:
        # A comparison with what is no number is false.
        if isinstance(value, (int, float)) and type(value) is not bool and least <= value <= most:
            return value
        raise _WrongError

    return _Form(check, check)


def _text(bound: Within | Cut | Named | None) -> _Form:
    if isinstance(bound, Named):
        return _Form(_short_enough, _read_path)
    if not isinstance(bound, Cut):
        return _Form(_short_enough, functools.partial(_read_text, _MOST_CHARACTERS))
    most = bound.most
    return _Form(
        lambda v: v if len(v) <= most else shortened(v, most),
        functools.partial(_read_text, most + _MARK_CHARACTERS),
        shortened,
    )


def _short_enough(value: str) -> str:
    if len(value) > _MOST_CHARACTERS:
        raise TooLargeError(f"a text of {len(value)} characters is too large for the link")
    return value


def _read_text(most: int, value: Any) -> str:
    if type(value) is str and len(value) <= most:
        return value
    raise _WrongError


def _bytes(bound: object) -> _Form:
    def write(value: bytes) -> str:
        if len(value) > _MOST_BYTES:
            raise TooLargeError(f"{len(value)} bytes in one field are too large for the link")
        return base64.b64encode(value).decode("ascii")

    def read(value: Any) -> bytes:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise _WrongError from None
        if type(value) is not str or len(data) > _MOST_BYTES:
            raise _WrongError
        return data

    return _Form(write, read)


def _read_path(value: Any) -> str:
    text = _read_text(_MOST_CHARACTERS, value)
    if "\0" in text:
        raise _WrongError
    return text


def _path(bound: object) -> _Form:
    return _Form(lambda v: _short_enough(os.fspath(v)), lambda v: Path(_read_path(v)))


_PLAIN: dict[type, Callable[[Any], _Form]] = {
    bool: _flag,
    int: _whole,
    float: _number,
    str: _text,
    bytes: _bytes,
    Path: _path,
}


def _read_enum(kind: type[enum.Enum], value: Any) -> enum.Enum:
    try:
        return kind(value)
    except (ValueError, TypeError):
        raise _WrongError from None


def _optional(inner: _Form) -> _Form:
    return _Form(
        lambda v: None if v is None else inner.write(v), lambda v: None if v is None else inner.read(v)
    )


def _series(inner: _Form, bound: Cut | None) -> _Form:
    most = bound.most if bound is not None else _MOST_ENTRIES

    def write(values: Sequence[Any]) -> list[Any]:
        if len(values) > most:
            if bound is None:
                raise TooLargeError(f"{len(values)} entries in one field are too large for the link")
            values = _fewer(values, most)
        return [inner.write(value) for value in values]

    def read(values: Any) -> tuple[Any, ...]:
        if type(values) is not list or len(values) > most + 1:
            raise _WrongError
        return tuple([inner.read(value) for value in values])

    def cut(values: Sequence[Any], characters: int) -> tuple[Any, ...]:
        assert inner.cut is not None
        # A series costs what its entries cost: it has fewer of them than a text has characters.
        fewer = _fewer(values, max(2, characters // _ENTRY_CHARACTERS))
        return tuple([inner.cut(value, characters) for value in fewer])

    return _Form(write, read, cut if bound is not None else None)


_ENTRY_CHARACTERS = 64


def _fewer(values: Sequence[Any], most: int) -> Sequence[Any]:
    if len(values) <= most:
        return values
    return [*values[:most], f"[... {len(values) - most} more left out ...]"]


def _group(inner: Sequence[_Form]) -> _Form:
    def read(values: Any) -> tuple[Any, ...]:
        if type(values) is not list or len(values) != len(inner):
            raise _WrongError
        return tuple([form.read(value) for form, value in zip(inner, values, strict=True)])

    return _Form(lambda values: [form.write(value) for form, value in zip(inner, values, strict=True)], read)
