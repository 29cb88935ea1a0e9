"""Processes that a script starts with ``multiprocessing``, by "spawn" or "forkserver".

Such a child is a new interpreter, which nothing of ours is in. One that trains would begin from zero after
each restart, without a word. So ``multiprocessing`` sends each child a few words more before anything else.
They have the child look out for training of its own, and say on its stderr, which is the run's, that nothing
is saved. A child that cannot load us runs as it would without them. (A forked child has us already.)

The folder of the script may hold a ``resilient.py``, and a child is as plain Python makes it: so this file is
loaded by its path, under no name, and imports nothing but what every interpreter has.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing has it, which is not in every interpreter
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NOTHING_IS_SAVED = (
    "NOTHING IS SAVED of the training that begins now in process {pid}, which the script has started: only "
    "the script's own process is watched, and after a failure this training begins anew; train in the "
    "script's own process, or start each training with a resilient-run of its own"
)

_WORDS = """
import sys
known = set(sys.modules)
try:
    from importlib.util import module_from_spec, spec_from_file_location
    spec = spec_from_file_location("resilient.worker.children", file)
    children = module_from_spec(spec)
    spec.loader.exec_module(children)
    children.look_out()
except KeyboardInterrupt:
    raise
except BaseException:
    pass
for name in set(sys.modules) - known:
    del sys.modules[name]
"""
_FILE = os.path.abspath(__file__)


class _StartupOrder:
    """Runs the words above where it is unpickled, with nothing but what every interpreter has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_WORDS, {"file": _FILE})


def install(spawn: Any) -> None:
    """Has the children that ``multiprocessing.spawn`` starts look out for training of their own."""
    original = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**original(name), "resilient": _StartupOrder()}

    spawn.get_preparation_data = get_preparation_data


def look_out() -> None:
    """In a child: tells when it begins to train. A child of its own does the same."""
    install(sys.modules["multiprocessing.spawn"])
    if "mindspore" in sys.modules:
        _watch()
    else:
        sys.meta_path.insert(0, _AfterChildImport("mindspore", _watch))


class _AfterChildImport:
    """Calls a function once a module has been imported. It finds nothing by itself."""

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self._name = name
        self._function = function

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """What the finders behind us find; its execution is ours to see."""
        if name != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            self._stand_before(spec.loader)
        return spec

    def _stand_before(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._function()

        loader.exec_module = exec_module


def _watch() -> None:
    def tell() -> None:
        print(f"resilient: warning: {NOTHING_IS_SAVED.format(pid=os.getpid())}", file=sys.stderr, flush=True)

    try:
        _ours("worker.call.unsaved_training").UnsavedTraining(tell, lambda: False).install()
    except Exception:  # noqa: BLE001 - the child goes on as it would without us
        return


def _ours(name: str) -> Any:
    """A module of ours, whatever else has our name. Nothing of it stays in ``sys.modules``."""
    from importlib import import_module

    aside = {other: sys.modules.pop(other) for other in _with_our_name()}
    package = type(sys)("resilient")
    package.__path__ = [os.path.dirname(os.path.dirname(_FILE))]
    sys.modules["resilient"] = package
    try:
        return import_module(f"resilient.{name}")
    finally:
        for other in _with_our_name():
            del sys.modules[other]
        sys.modules.update(aside)


def _with_our_name() -> list[str]:
    return [name for name in list(sys.modules) if name.partition(".")[0] == "resilient"]
