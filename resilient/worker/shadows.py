"""Modules of the user's with names that we have imported already: the script gets its own, as ever.

Before a script begins, a worker has imported a part of the standard library and of what it needs. Were a
``queue.py`` beside the script, ``import queue`` would now give it the library's, and under plain Python its
own. So what the script's path has under such a name is uncovered: ours is taken out of ``sys.modules``. Our
own modules keep theirs, also those that are imported later.
"""

from __future__ import annotations

import builtins
import importlib.abc
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_OURS = "resilient"


def uncover(at_start: Collection[str], path: Sequence[str]) -> list[str]:
    """Has imports find what this ``sys.path`` says; the names for which that is another module than ours.

    ``at_start`` are the modules that plain Python has imported by now as well.
    """
    ours = {name.partition(".")[0] for name in sys.modules if name not in at_start}
    kept = {name.partition(".")[0] for name in at_start} | {_OURS, "__main__"}
    covered = sorted(name for name in ours - kept if _leads_elsewhere(name, path))
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in covered}
    for name in hidden:
        del sys.modules[name]
    if hidden:
        sys.meta_path.insert(0, _OurImports(hidden))
    return covered


def _leads_elsewhere(name: str, path: Sequence[str]) -> bool:
    if BuiltinImporter.find_spec(name) is not None or FrozenImporter.find_spec(name) is not None:
        return False
    spec = PathFinder.find_spec(name, path)
    # A folder without __init__ hides nothing that comes later on the path.
    found = spec.origin if spec is not None and spec.has_location else None
    return found is not None and found != getattr(sys.modules[name], "__file__", found)


class _OurImports(importlib.abc.MetaPathFinder):
    """Loads modules of ours so that they import what is hidden from the script."""

    def __init__(self, hidden: Mapping[str, ModuleType]) -> None:
        self._hidden = hidden

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds our modules only, as everybody else does."""
        if not fullname.startswith(f"{_OURS}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._equip(spec.loader)
        return spec

    def _equip(self, loader: Any) -> None:
        original = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            # Whatever runs in this module looks for __import__ there.
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
            original(module)

        loader.exec_module = exec_module

    def _import(self, name: str, *rest: Any, **more: Any) -> Any:
        with self._uncovered(name.partition(".")[0]):
            return builtins.__import__(name, *rest, **more)

    @contextmanager
    def _uncovered(self, top: str) -> Iterator[None]:
        """While this is entered, one of the hidden packages is what everybody finds."""
        ours = {name: module for name, module in self._hidden.items() if name.partition(".")[0] == top}
        theirs = {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if ours and name.partition(".")[0] == top
        }
        sys.modules.update(ours)
        try:
            yield
        finally:
            for name in ours:
                sys.modules.pop(name, None)
            sys.modules.update(theirs)
