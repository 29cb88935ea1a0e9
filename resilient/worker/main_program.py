"""The program that a worker runs as ``__main__``: a script, a folder or an archive, or a module.

It is found, named and given its ``sys.path`` as plain Python does it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import pkgutil
import sys
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

from resilient import isolated
from resilient.errors import UsageError
from resilient.worker import shadows


class MainProgram:
    """Code to be run as ``__main__``."""

    def __init__(
        self, code: Callable[[], CodeType], name: str, argument: str, spec: Any, loader: Any
    ) -> None:
        self._code = code
        self._name = name
        self._argument = argument
        self._spec = spec
        self._loader = loader

    def run(self, arguments: list[str]) -> None:
        module = ModuleType("__main__")
        module.__dict__.update(
            __file__=self._name,
            __loader__=self._loader,
            __spec__=self._spec,
            __package__=self._spec.parent if self._spec is not None else None,
            __cached__=self._spec.cached if self._spec is not None else None,
            __annotations__={},
            __builtins__=__builtins__,
        )
        sys.argv[:] = [self._argument, *arguments]
        sys.modules["__main__"] = module
        exec(self._code(), module.__dict__)  # noqa: S102 - it is what we are for


def find_program(arguments: list[str]) -> MainProgram:
    """The program that the arguments begin with, which it takes off them."""
    if not arguments:
        raise UsageError("no script is named")
    first = arguments.pop(0)
    if first != "-m":
        return _application(first) if pkgutil.get_importer(first) is not None else _script(first)
    if not arguments:
        raise UsageError("-m needs the name of a module")
    return _module(arguments.pop(0))


def _take_path(folder: str) -> None:
    """From here on, everything is imported as plain Python imports it for a program in this folder."""
    isolated.give_back_path(folder)
    shadows.uncover(isolated.modules_at_start(), sys.path)


def _script(path: str) -> MainProgram:
    _take_path(os.path.dirname(os.path.realpath(path)))
    # As the interpreter names it (3.9 and newer): absolute, and otherwise as it was given.
    name = os.path.join(os.getcwd(), path)
    if path.endswith(".pyc"):
        compiled = importlib.machinery.SourcelessFileLoader("__main__", name)
        return MainProgram(lambda: _code_of(compiled, "__main__"), name, path, None, compiled)
    loader = importlib.machinery.SourceFileLoader("__main__", name)

    def code() -> CodeType:
        with io.open_code(name) as source:
            return compile(source.read(), name, "exec", dont_inherit=True)

    return MainProgram(code, name, path, None, loader)


def _application(path: str) -> MainProgram:
    """A folder or an archive with a ``__main__``: it is the program's first place to import from."""
    place = os.path.join(os.getcwd(), path)
    _take_path(place)
    if sys.path[:1] != [place]:
        # Not even -P keeps this one off.
        sys.path.insert(0, place)
    spec = importlib.machinery.PathFinder.find_spec("__main__", [place])
    if spec is None or not hasattr(spec.loader, "get_code"):
        raise UsageError(f"can't find '__main__' module in {path!r}")
    loader = spec.loader
    return MainProgram(lambda: _code_of(loader, "__main__"), spec.origin or place, path, spec, loader)


def _code_of(loader: Any, name: str) -> CodeType:
    # No InspectLoader: a zipimporter does not say that it is one.
    found: CodeType | None = loader.get_code(name)
    if found is None:
        raise ImportError(f"no code object available for {name}")
    return found


def _module(name: str) -> MainProgram:
    _take_path(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot find module {name}: {error}") from error
    loader = spec.loader if spec is not None else None
    if spec is None or not hasattr(loader, "get_code"):
        raise UsageError(f"there is no module named {name}")

    origin = spec.origin or name
    return MainProgram(lambda: _code_of(loader, name), origin, origin, spec, loader)
