"""The vocabulary of the journal: what is written is read, and whatever is written there, it is read."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.stepped_clock import SteppedClock
from resilient.journal.base import EVENTS, UnknownEvent
from resilient.journal.events import (
    StepNotSaved,
    StepSaved,
    SupervisorEnded,
    SupervisorStarted,
    WarningGiven,
    WorkerEvent,
)
from resilient.journal.fields import Answer, Count, Flag, Number, Text, Texts
from resilient.journal.lines import _fields, content_of, decode
from resilient.journal.table import table
from resilient.wire.messages import WORDS, SaveFailed, Warned, WorkerNews
from supervisor.edges.journal_writer import JournalWriter
from supervisor.telling.news import event_of

ARCHITECTURE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"
KINDS = list(dict.fromkeys(EVENTS.values()))
EXAMPLES = {
    "Count": (7, None),
    "Number": (2.5, None),
    "Flag": (True, False),
    "Answer": (False, None),
    "Text": ("a b", ""),
    "Texts": (("a", "b"), ()),
}
ABSENT = {
    hint.__metadata__[0].read: (EXAMPLES[name][1], EXAMPLES[name][0])
    for name, hint in {
        "Count": Count,
        "Number": Number,
        "Flag": Flag,
        "Answer": Answer,
        "Text": Text,
        "Texts": Texts,
    }.items()
}
"""Of each type of field: what stands for an absent one, and an example."""


def examples(kind):
    """The event with a value in each field, and with nothing in any of them."""
    for which in (1, 0):
        yield kind(**{field.name: ABSENT[field.read][which] for field in _fields(kind)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_that_is_written_is_read(tmp_path, kind):
    """With the time of its writing, and whether its fields are full or empty."""
    clock = SteppedClock()
    journal = JournalWriter(tmp_path / "journal.jsonl", clock, pytest.fail)
    for event in examples(kind):
        journal.write(event)
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    for line, event in zip(lines, examples(kind), strict=True):
        found = decode(line)
        assert (found.time, found.monotonic) == (clock.now(), clock.monotonic())
        assert type(found) is kind
        assert content_of(found) == content_of(event)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_says_what_it_is(kind):
    """Each has a text of its own, and each of its fields has a type that says how it is read."""
    assert kind.__doc__
    assert kind.__doc__ != kind.__mro__[1].__doc__
    assert len(_fields(kind)) == len(fields(kind))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_of_an_earlier_version_may_lack_every_field(kind):
    """It is there as soon as its line names it; an absent field is None, empty or False."""
    bare = {field.name: ABSENT[field.read][0] for field in _fields(kind)}
    assert decode(json.dumps({"event": kind.word}).encode()) == kind(**bare)


@pytest.mark.parametrize(
    ("value", "number", "count"),
    [
        (3, 3.0, 3),
        (3.5, 3.5, None),
        (-1, -1.0, None),
        (True, None, None),
        ("3", None, None),
        (10**400, None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (None, None, None),
        ([1], None, None),
    ],
)
def test_a_field_of_another_type_is_as_good_as_missing(value, number, count):
    """Numbers are finite and no booleans; counts are whole and not negative."""
    event = decode(json.dumps({"event": "saved", "step": value, "seconds": value}).encode())
    assert (event.seconds, event.step) == (number, count)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = sorted({field.name for kind in EVENTS.values() for field in fields(kind)})


@given(
    st.sampled_from([*EVENTS, "another"]),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=10),
)
def test_whatever_its_fields_hold_an_event_is_harmless(word, content):
    """Each value has the type of its field, and no text has a character that a terminal would obey."""
    event = decode(json.dumps({**content, "event": word}).encode())
    assert type(event) is EVENTS.get(word, UnknownEvent)
    for field in fields(event):
        value = getattr(event, field.name)
        texts = value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()
        assert all(c.isprintable() or c == "\n" for text in texts for c in text)
        assert isinstance(value, str | tuple | bool | int | float | None)


@pytest.mark.parametrize(
    "line",
    [b"", b"3", b"[1]", b"{}", b'{"event": null}', b'{"event": 3}', b'{"event": ["saved"]}', b"[" * 100_000],
)
def test_a_line_without_the_word_of_an_event_is_none(line):
    """Whether it is JSON or not."""
    assert decode(line) is None


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_an_event_or_none(line):
    """Reading never fails."""
    event = decode(line)
    assert event is None or isinstance(event, UnknownEvent) or event.word in EVENTS


def test_an_event_of_another_version_has_its_name_alone():
    """And its time; nobody reads what else its line holds. It is none that this version writes."""
    event = decode(b'{"event": "rank_lost\\u001b[2J", "rank": 3, "time": 5, "monotonic": 6.5}')
    assert event == UnknownEvent("rank_lost\\x1b[2J", time=5.0, monotonic=6.5)
    with pytest.raises(AssertionError):
        content_of(event)


def test_a_field_with_a_default_is_written_where_it_says_something():
    """All others always are, so that who reads the file with other tools finds them."""
    assert content_of(SupervisorEnded(0)) == {"status": 0}
    assert content_of(SupervisorEnded(70, 5, "step 7")) == {"status": 70, "step": 5, "lost": "step 7"}
    assert content_of(StepSaved(None, None, "", "")) == {
        "step": None,
        "epoch": None,
        "file": "",
        "reason": "",
    }


NEWS = [kind for kind in WORDS.values() if issubclass(kind, WorkerNews)]


@pytest.mark.parametrize("news", NEWS, ids=lambda kind: kind.word)
def test_each_piece_of_news_of_a_worker_is_an_event(news):
    """Of its word and about a worker, with each of its fields: nothing that a worker says is lost."""
    kind = EVENTS[news.word]
    assert issubclass(kind, WorkerEvent)
    own = {
        field.name: field.default
        for field in fields(kind)
        if field.name not in ("time", "monotonic", "attempt")
    }
    said = {field.name for field in fields(news)}
    assert said <= set(own)
    assert {name for name, default in own.items() if default is MISSING} <= said


def test_news_of_a_worker_that_lives_is_its_attempts():
    """And what is said of a dead one is nobody's."""
    assert event_of(Warned("a"), 2) == WarningGiven("a", attempt=2)
    assert event_of(SaveFailed(3, "full", left_behind=True)) == StepNotSaved(3, "full", left_behind=True)


def test_a_supervisor_without_a_version_is_an_earlier_one():
    """As the journals that were written before there was one."""
    assert decode(b'{"event": "run", "pid": 4}') == SupervisorStarted("", (), 4, None)


def test_architecture_shows_this_vocabulary():
    """The table in ARCHITECTURE.md is made of the events that the code knows."""
    text = ARCHITECTURE.read_text()
    shown = text.partition("<!-- events:begin -->\n")[2].partition("\n<!-- events:end -->")[0]
    assert shown == table()
