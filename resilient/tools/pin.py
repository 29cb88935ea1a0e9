"""resilient pin and unpin: checkpoints that stay, whatever the keep policy says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from resilient.errors import UsageError
from resilient.store import layout, pins
from resilient.store.entry import Entry
from resilient.tools.command_line import Commands, add_command, say
from resilient.tools.opened_run import OpenedRun, add_keys, add_run, open_run

_MORE = """\
WHICH is a step (the newest checkpoint of that step) or the name of a file, as
`resilient ls` shows it. A pinned checkpoint is never removed by the keep
policy, and takes the place of no other one. The run must not be running
meanwhile."""


def add(commands: Commands) -> None:
    """The two commands."""
    for name, function, words in (
        ("pin", _pin, "keep a checkpoint, whatever the keep policy says"),
        ("unpin", _unpin, "leave a pinned checkpoint to the keep policy again"),
    ):
        parser = add_command(commands, name, _command(function), words, _MORE)
        add_run(parser)
        parser.add_argument("which", metavar="WHICH", nargs="+", help="a step, or a file's name")
        add_keys(parser)


Change = Callable[[OpenedRun, Entry, bool], str]


def _command(change: Change) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        with open_run(options).locked() as run:
            # All of them are found before anything is changed.
            for entry in [e for word in options.which for e in chosen(run, word)]:
                pinned = entry.name in pins.pinned(run.world.files, [entry])
                outcome = change(run, entry, pinned)
                facts = {"file": str(entry.path), "step": entry.step, "pinned": change is _pin}
                say(options, facts, f"step {entry.step}, {entry.name}: {outcome}")
        return 0

    return command


def _pin(run: OpenedRun, entry: Entry, pinned: bool) -> str:
    if pinned:
        return "was pinned already"
    pins.pin(run.world.files, entry, run.world.entropy.token(layout.TOKEN_BYTES).hex())
    return "pinned"


def _unpin(run: OpenedRun, entry: Entry, pinned: bool) -> str:
    pins.unpin(run.world.files, entry)
    return "no longer pinned" if pinned else "was not pinned"


def chosen(run: OpenedRun, word: str) -> list[Entry]:
    """The checkpoints that a word of the user's means: one for each rank. Raises UsageError for none."""
    surveys = [store.survey() for store in run.stores()]
    found = [entry for survey in surveys for entry in _matching(survey.entries, word)]
    if not found:
        entries = [entry for survey in surveys for entry in survey.entries]
        failures = [failure for survey in surveys for failure in survey.failures]
        raise UsageError(_why_not(word, entries, {f.name: str(f.error) for f in failures}))
    return found


def _matching(entries: Sequence[Entry], word: str) -> list[Entry]:
    if word.isdecimal():
        # As text: Python makes no number of thousands of digits.
        return [entry for entry in entries if str(entry.step) == (word.lstrip("0") or "0")][:1]
    name = word.rpartition("/")[2]
    return [entry for entry in entries if name in (entry.name, entry.name.removesuffix(layout.DATA_SUFFIX))]


def _why_not(word: str, entries: Sequence[Entry], failures: dict[str, str]) -> str:
    name = word.rpartition("/")[2]
    if name in failures:
        return f"{name} cannot be used: {failures[name]}"
    what = f"of step {word}" if word.isdecimal() else f"called {word}"
    steps = sorted({entry.step for entry in entries})
    there = f"there are the steps {', '.join(map(str, steps))}" if steps else "there is none that can be used"
    more = f" ({len(failures)} more cannot: see `resilient ls`)" if failures else ""
    return f"no checkpoint {what}; {there}{more}"
