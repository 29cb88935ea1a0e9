"""The vocabulary of the link: each message comes as it was sent, and nothing else is taken for one."""

from __future__ import annotations

import ast
import dataclasses
import json
import types
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilient.config import (
    ENC_MODES,
    Best,
    KeepPolicy,
    MirrorPolicy,
    Origin,
    SavePolicy,
    Sealing,
    Shun,
    WorkerConfig,
)
from resilient.errors import NonsenseError, OtherVersionError, TooLargeError
from resilient.wire import messages
from resilient.wire.bounds import Cut, Named, Within
from resilient.wire.messages import (
    PROTOCOL,
    WORDS,
    CheckpointSaved,
    Configure,
    Hello,
    KeepsIn,
    PlaceOpened,
    Remarked,
    SlotCommitted,
    UnknownMessage,
)
from resilient.wire.packing import decode, encode

ROOT = Path(__file__).resolve().parents[2]
KINDS = sorted(WORDS.values(), key=lambda kind: kind.word)
COUNTS = st.integers(1, 2**40)
TEXTS = st.text(st.characters(), max_size=20)
PATHS = st.lists(st.sampled_from(["a", "ü", "\udcff", ".b"]), max_size=3).map(lambda names: Path("/", *names))
SEALINGS = st.builds(
    lambda mode, key, old: Sealing(mode, key if mode else None, tuple(old)),
    st.sampled_from([None, *ENC_MODES]),
    st.binary(min_size=16, max_size=32),
    st.lists(st.binary(max_size=32), max_size=2),
)
KEEPS = st.builds(
    KeepPolicy,
    max_count=st.none() | COUNTS,
    every_steps=st.none() | COUNTS,
    best=st.none()
    | st.builds(Best, COUNTS, st.text(min_size=1, max_size=5), st.sampled_from(["min", "max"])),
)
TEXT_TUPLES = st.lists(TEXTS, max_size=3).map(tuple)
CONFIGS = st.builds(
    WorkerConfig,
    run_id=TEXTS,
    directory=PATHS,
    seed=COUNTS,
    attempt=COUNTS,
    save=st.builds(SavePolicy, every_s=st.none() | st.floats(0.1, 1e9)),
    keep=KEEPS,
    sealing=SEALINGS,
    accepted=TEXT_TUPLES,
    saved_in=TEXT_TUPLES,
    mirror=st.builds(MirrorPolicy, st.booleans(), st.none() | COUNTS, st.sampled_from([None, 2, 3])),
    origin=st.builds(
        Origin,
        st.lists(st.builds(Shun, COUNTS, COUNTS), max_size=3).map(tuple),
        st.booleans(),
        st.lists(COUNTS, max_size=3).map(tuple),
    ),
    take_from_script=TEXT_TUPLES,
    extend=st.booleans(),
)
GIVEN = {WorkerConfig: CONFIGS, Sealing: SEALINGS, KeepPolicy: KEEPS, Path: PATHS, bool: st.booleans()}


def values_of(annotation):
    """Any value that a field of this annotation may have."""
    bound = None
    if get_origin(annotation) is Annotated:
        annotation, bound = get_args(annotation)
    if annotation in GIVEN:
        return GIVEN[annotation]
    if annotation is int:
        assert isinstance(bound, Within)
        return st.integers(int(bound.least), int(bound.most))
    if annotation is float:
        return st.floats(bound.least, bound.most)
    if isinstance(bound, Named):
        return st.text(st.characters(exclude_characters="\0"), max_size=200)
    if annotation is str:
        return st.text(max_size=min(200, bound.most) if isinstance(bound, Cut) else 200)
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = [one for one in get_args(annotation) if one is not type(None)]
        return st.none() | values_of(inner)
    if get_origin(annotation) is tuple:
        return st.lists(values_of(get_args(annotation)[0]), max_size=5).map(tuple)
    return said(annotation)


def said(kind):
    """Any value of this dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: values_of(hints[field.name]) for field in dataclasses.fields(kind)}
    if kind in (Hello, Configure):
        fields["protocol"] = st.just(PROTOCOL)
    return st.builds(kind, **fields)


MESSAGES = st.sampled_from(KINDS).flatmap(said)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\x00\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(MESSAGES)
def test_every_message_comes_as_it_was_sent(message):
    """Each field of each message, at its bounds as well."""
    assert decode(encode(message)) == message


@given(MESSAGES, st.data())
def test_a_message_with_any_other_field_is_one_or_nonsense(message, data):
    """Whatever JSON stands in the place of one field: a message within its bounds, or NonsenseError."""
    content = json.loads(encode(message))
    name = data.draw(st.sampled_from(sorted(content)))
    content[name] = data.draw(JSON)
    try:
        found = decode(json.dumps(content).encode())
    except NonsenseError:
        return
    assert isinstance(found, UnknownMessage) or decode(encode(found)) == found


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"type": "saved"}')
@example(b'{"type": "' + b"long" * 20 + b'"}')
@example(b'{"type": ["saved"]}')
@example(b'{"type": "saved", "step": NaN}')
def test_nothing_else_is_taken_for_a_message(data):
    """Any bytes, any JSON: NonsenseError, a message, or the word of one that is not known."""
    try:
        found = decode(data)
    except NonsenseError:
        return
    if isinstance(found, UnknownMessage):
        assert len(found.name) <= 40
    else:
        assert decode(encode(found)) == found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_each_message_says_what_it_means(kind):
    """A docstring of its own, a word that is its own, and fields that nobody changes."""
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")
    assert WORDS[kind.word] is kind
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_a_field_that_is_missing_is_named_and_no_value_is(kind):
    """The error says which message and which field: of the other values, a key may be among them, none."""
    needed = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    content = {"type": kind.word, "protocol": PROTOCOL, "secret": "s3cret"}
    if not needed:
        assert decode(json.dumps(content).encode()) == kind()
        return
    with pytest.raises(NonsenseError, match=f"{kind.word} has no {needed[0]}") as caught:
        decode(json.dumps(content).encode())
    assert caught.value.of is kind
    assert "s3cret" not in str(caught.value)


def test_no_key_is_in_an_error():
    """A configuration whose parts do not go together: neither the error nor its causes repeat the key."""
    config = WorkerConfig("r", Path("/run"), 1, sealing=Sealing("AES-GCM", b"k" * 32))
    content = json.loads(encode(Configure(config)))
    for name, value in (("mode", None), ("mode", 3), ("old_keys", 3), ("key", "*")):
        spoilt = json.loads(json.dumps(content))
        key = spoilt["config"]["sealing"]["key"]
        spoilt["config"]["sealing"][name] = value
        with pytest.raises(NonsenseError) as caught:
            decode(json.dumps(spoilt).encode())
        assert key not in repr(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("protocol", [None, 0, PROTOCOL + 1, str(PROTOCOL), True])
@pytest.mark.parametrize("word", ["hello", "config"])
def test_another_version_is_refused_with_a_clear_word(word, protocol):
    """Also where nothing else of its message can be understood; what to do stands there."""
    for more in ({"pid": 3}, {"config": {"later": "fields"}}):
        with pytest.raises(OtherVersionError, match=r"another version.*run the same command"):
            decode(json.dumps({"type": word, "protocol": protocol, **more}).encode())


def test_texts_that_are_too_long_are_cut_and_names_are_not():
    """No text of a script keeps a message from being sent; a name that is cut would be another name."""
    sent = decode(encode(Remarked("a" + "x" * 2**21 + "z")))
    assert sent.text.startswith("ax")
    assert sent.text.endswith("xz")
    assert "characters left out" in sent.text
    many = decode(encode(SlotCommitted(remarks=("r",) * 100_001)))
    assert many.remarks[-1] == "[... 1 more left out ...]"
    with pytest.raises(TooLargeError):
        encode(CheckpointSaved(1, 1, "n" * 2**21, "end", 0.1, "/run", 1))


@pytest.mark.parametrize("kind", [PlaceOpened, KeepsIn])
def test_a_place_that_no_system_has_is_refused(kind):
    """Nobody behind the link has to think of a path with a NUL, which raises wherever it is used."""
    with pytest.raises(NonsenseError, match="directory"):
        decode(encode(kind("/run/\0")))


@pytest.mark.parametrize("value", [-1, 2**63, True, 1.5])
def test_a_number_out_of_bounds_is_not_sent_either(value):
    """The sender notices it first."""
    with pytest.raises(ValueError, match="Hello"):
        encode(Hello(value))


def production():
    return [
        path for package in ("resilient", "supervisor") for path in sorted((ROOT / package).rglob("*.py"))
    ]


# Where "type" is a word of a file's format, and no message is near.
OTHER_TYPES = {"resilient/state/nest_reader.py", "resilient/state/nest_writer.py", "resilient/tools/ls.py"}


def test_nobody_behind_the_link_looks_up_the_type_of_a_message():
    """``["type"]``, ``.get("type")`` and ``{"type": ...}`` stand in the link's own packing alone."""
    found = set()
    for path in production():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value == "type":
                found.add(path.relative_to(ROOT).as_posix())
    assert found - OTHER_TYPES == {"resilient/wire/packing.py"}


def test_the_vocabulary_is_one_file():
    """No message is made known anywhere else."""
    assert {kind.__module__ for kind in KINDS} == {messages.__name__}
