"""The names that stock MindSpore's ModelCheckpoint gives its files, the same in each attempt of a run.

A ModelCheckpoint whose folder already holds files of its prefix takes another one (``net_1-...``), so that
two runs do not mix. Attempts of one run would take another each. A script that opens its own files by name
would find old ones, or none, and ``keep_checkpoint_max`` counts by prefix. The first one
chooses as stock does. Later ones get the same answers in the same order, from ``stock_names_rank_N.json``:

    [[directory, prefix, [the first answer, the second, ...]], ...]

Nobody vouches for the file. An answer that is not the prefix, with or without a number, is ignored.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilient.errors import StorageError
from resilient.host.world import World
from resilient.store import commit

_LIMIT_BYTES = 1024 * 1024
_FUNCTION = "_chg_ckpt_file_name_if_same_exist"


class StockNames:
    """The prefixes that one rank's callbacks have chosen in a run. ``complain`` hears what cannot be kept."""

    def __init__(self, path: Path, world: World, complain: Callable[[str], None]) -> None:
        self._path = path
        self._world = world
        self._complain = complain
        self._chosen = self._read()
        self._asked: dict[tuple[str, str], int] = {}

    def install(self, module: Any) -> None:
        """Has the module of stock's callback ask here first."""
        original = getattr(module, _FUNCTION, None)
        if original is None:
            return

        def choose(directory: Any, prefix: Any, exception: bool = False) -> Any:
            if exception or not isinstance(directory, str) or not isinstance(prefix, str):
                return original(directory, prefix, exception)
            return self.choose(directory, prefix, lambda: original(directory, prefix))

        setattr(module, _FUNCTION, choose)

    def choose(self, directory: str, prefix: str, anew: Callable[[], str]) -> str:
        """The prefix that the run uses: the one chosen before, or ``anew``, which is noted."""
        key = os.path.abspath(directory), prefix
        number = self._asked.get(key, 0)
        self._asked[key] = number + 1
        answers = self._chosen.setdefault(key, [])
        if number < len(answers):
            return answers[number]
        answers.append(anew())
        self._write()
        return answers[number]

    def _read(self) -> dict[tuple[str, str], list[str]]:
        try:
            found = json.loads(self._world.files.read(self._path, _LIMIT_BYTES))
            return {
                (directory, prefix): answers
                for directory, prefix, answers in found
                if all(re.fullmatch(re.escape(prefix) + r"(_\d+)?", answer) for answer in answers)
            }
        except FileNotFoundError:
            return {}
        except (StorageError, ValueError, TypeError, RecursionError) as error:
            self._complain(f"{self._path.name} cannot be read; ModelCheckpoint may rename its files: {error}")
            return {}

    def _write(self) -> None:
        found = [[directory, prefix, answers] for (directory, prefix), answers in self._chosen.items()]
        data = json.dumps(found).encode()
        try:
            commit.rewrite(self._world, self._path, data)
        except StorageError as error:
            self._complain(
                f"{self._path.name} cannot be written; a restart may rename stock's files: {error}"
            )
