"""resilient explain, of journals that anybody may have written: no terminal obeys them, no reading fails."""

from __future__ import annotations

import json
import re

from diaries import begin
from hypothesis import given
from hypothesis import strategies as st

from resilient.host.world import World
from resilient.journal.lines import decode
from resilient.tools.account import build
from resilient.tools.journal_reader import JournalReader
from resilient.tools.narrative import chapters, headline
from resilient.tools.outlook import Present, standing

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\r\u202egnp.exe\x00\ud800"


def test_no_terminal_is_driven_by_a_journal(tool, diary):
    """Escape sequences, control characters and marks that turn the text around reach no terminal."""
    begin(diary)("warning", text=HOSTILE)("resumed", step=1, file=HOSTILE)(
        "saved", step=2, file=HOSTILE, reason=HOSTILE
    )
    diary(
        "incident",
        kind=HOSTILE,
        exception=HOSTILE,
        message=HOSTILE,
        traceback=f"a\n{HOSTILE}\n",
        phase=HOSTILE,
    )
    diary("hang", phase=HOSTILE, silent_s=3, limit_s=2)("waiting", reason=HOSTILE)
    diary(
        "incident_judged",
        kind=HOSTILE,
        cause=HOSTILE,
        phase=HOSTILE,
        reason=HOSTILE,
        evidence=[HOSTILE],
        restart_in_s=1,
    )
    diary("stop_requested", signal=HOSTILE)("attempt", attempt=2)("left_behind", processes=[HOSTILE])(HOSTILE)
    for command in ("explain", "status"):
        for told in (tool(command, "run"), tool(command, "run", "--json")):
            assert not re.search(r"[^\n\x20-\x7e]", told), command
            assert "red" in told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "run",
        "attempt",
        "hello",
        "place",
        "fresh",
        "resumed",
        "progress",
        "saved",
        "save_failed",
        "warning",
        "incident",
        "finished",
        "unusable",
        "hang",
        "moves",
        "memory",
        "stop_requested",
        "transition",
        "incident_judged",
        "standby",
        "spawn_failed",
        "ended",
        "waiting",
        "ready",
        "poison",
        "shunned",
        "killed",
        "left_behind",
        "request",
        "nonsense",
    ]
)
FIELDS = st.sampled_from(
    [
        "attempt",
        "pid",
        "step",
        "epoch",
        "file",
        "reason",
        "error",
        "text",
        "kind",
        "cause",
        "status",
        "evidence",
        "restart_in_s",
        "phase",
        "silent_s",
        "limit_s",
        "bytes",
        "limit_bytes",
        "saved_step",
        "kept_step",
        "signal",
        "command",
        "exception",
        "message",
        "traceback",
        "complete",
        "at_start",
        "why",
        "action",
        "processes",
        "hint",
        "run_id",
    ]
)
SANE = st.integers(0, 5) | st.sampled_from(["a.ckpt", "finished", "killed by SIGSEGV"]) | st.booleans()
LINES = st.builds(
    lambda name, time, monotonic, fields: {**fields, "event": name, "time": time, "monotonic": monotonic},
    NAMES,
    JSON,
    st.floats(0, 100) | JSON,
    st.dictionaries(FIELDS, SANE | JSON, max_size=8),
)


@given(
    st.lists(LINES, max_size=12), st.sampled_from(["", "running", "complete", "failed"]), st.integers(0, 1)
)
def test_whatever_a_journal_says_there_is_a_story(lines, status, holder):
    """Any events in any order, with fields of any type: a story, printable, and never an error."""
    events = [decode(json.dumps(line).encode()) for line in lines]
    account = build(event for event in events if event is not None)
    present = Present("run", status, holder)
    story = "\n".join([headline(account, present), *chapters(account, present), standing(account, present)])
    assert all(c.isprintable() or c == "\n" for c in story)
    assert account.durable is None or account.durable.step >= 0


@given(
    st.lists(st.binary(max_size=30) | st.just(b'{"event": "saved", "step": 3}'), max_size=8),
    st.integers(1, 9),
)
def test_a_journal_that_grows_is_read_once(tmp_path_factory, lines, chunk):
    """Read while it is written, in pieces of any size: the events of one reading at the end, each once."""
    data = b"\n".join(lines) + b"\n"
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    path.write_bytes(b"")
    journal, found = JournalReader(World().files, path), []
    for start in range(0, len(data), chunk):
        with path.open("ab") as file:
            file.write(data[start : start + chunk])
        found += list(journal.events())
    whole = JournalReader(World().files, path)
    assert found == list(whole.events())
    assert journal.torn == whole.torn
