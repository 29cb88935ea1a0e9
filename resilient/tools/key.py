"""resilient key: makes a key, and tells which one a file holds. A key itself is never shown."""

from __future__ import annotations

import argparse
from pathlib import Path

from resilient.codec import keys
from resilient.command_parser import CommandParser
from resilient.config import ENC_MODES, Environment
from resilient.errors import UsageError
from resilient.host.directories import is_directory, is_there
from resilient.tools.command_line import Commands, add_command, say

_MORE = """\
A key file holds 32 bytes (16 for SM4-CBC) as hexadecimal digits, and only you
can read it. Whoever loses it loses the checkpoints: keep a copy in another
place. The id of a key names it without telling anything about it; `resilient
ls` shows which key each checkpoint was sealed with."""


def add(commands: Commands) -> None:
    """The command and its parts."""
    parser: CommandParser = commands.add_parser(
        "key", help="make a key; tell which key a file holds", description=_MORE
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="make|id")
    making = add_command(parts, "make", _make, "make a new key in a new file, readable by you alone", _MORE)
    making.add_argument("file", metavar="FILE", help="the file, which must not exist yet")
    making.add_argument("--sm4", action="store_true", help="16 bytes, for SM4-CBC (default: 32, for AES)")
    showing = add_command(parts, "id", _show, "tell the ids of keys, never the keys", _MORE)
    showing.add_argument("files", metavar="FILE", nargs="*", help="a key file (default: your own key)")


def _make(options: argparse.Namespace) -> int:
    path = Path(options.file)
    if not path.name:
        raise UsageError(f"{options.file!r} is no name of a file")
    if not is_directory(path.parent):
        raise UsageError(f"there is no directory {path.parent}")
    made = keys.make_file(path, "SM4-CBC" if options.sm4 else ENC_MODES[0])
    line = f"{path}: {_words(made)}; keep a copy of it: without it nobody reads what it has sealed"
    say(options, _facts(path, made), line)
    return 0


def _show(options: argparse.Namespace) -> int:
    for path in map(Path, options.files or _own()):
        found = keys.from_any_file(path)
        say(options, _facts(path, found), f"{path}: {_words(found)}")
    return 0


def _own() -> list[Path]:
    home = Environment.read().config_home
    paths = dict.fromkeys(keys.default_path(home, mode) for mode in ENC_MODES)
    found = [path for path in paths if is_there(path)]
    if not found:
        raise UsageError(
            "you have no key yet", hint="resilient key make FILE, or the first encrypted run makes one"
        )
    return found


def _facts(path: Path, key: bytes) -> dict[str, object]:
    return {"file": str(path), "key_id": keys.key_id(key), "bytes": len(key)}


def _words(key: bytes) -> str:
    return f"key {keys.key_id(key)}, {len(key)} bytes"
