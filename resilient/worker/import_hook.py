"""Calls a function once a module has been imported, whoever imports it."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

_Around = Callable[[], AbstractContextManager[None]]


def when_imported(
    name: str, function: Callable[[ModuleType], None], around: _Around = contextlib.nullcontext
) -> None:
    """Calls a function with a module: when the script imports it, or now where a standby has done so.

    ``around`` is entered while that happens.
    """
    if name in sys.modules:
        function(sys.modules[name])
    else:
        sys.meta_path.insert(0, _AfterImport(name, function, around))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function once, when a module has been imported for the first time.

    It stays until then: who asks only whether there is such a module (``importlib.util.find_spec``) imports
    nothing, and an import that failed may be tried again.
    """

    def __init__(self, name: str, function: Callable[[ModuleType], None], around: _Around) -> None:
        self._name = name
        self._function = function
        self._around = around

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds the one module as everybody else would, with a loader that tells us."""
        if fullname != self._name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            self._call_after(spec.loader)
        return spec

    def _call_after(self, loader: Any) -> None:
        original = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with self._around():
                original(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self._function(module)

        loader.exec_module = exec_module
