"""python .../resilient/isolated.py MODULE [ARGS...]: runs a module of ours without the user's files.

``python -m`` puts the working directory first on ``sys.path``: a ``secrets.py`` there would run instead of
the interpreter's, with access to the key. ``-P`` prevents that, but Python 3.10 does not have it, and ``-I``
also hides the folders in which we and our requirements may be installed (``pip install --user``, PYTHONPATH).
So our processes start by this file's name. It removes this folder from ``sys.path``, and the entries before
the standard library (PYTHONPATH) too; if our requirements are only there, those entries come last instead. It
imports our packages from beside this file, whatever the working directory holds under their names.

A worker gives its script the path that plain Python gives it: ``give_back_path``.
"""

# Import nothing else here: the interpreter has loaded these two already, and any module imported before the
# path is guarded may be the user's.
import os
import sys

FILE = os.path.abspath(__file__)
_ROOT = os.path.dirname(os.path.dirname(FILE))
_LIBRARY = (f"python{sys.version_info[0]}{sys.version_info[1]}.zip", os.path.dirname(os.__file__))

_REQUIREMENTS = ("Crypto", "cryptography", "psutil", "structlog", "tenacity")

_at_start: frozenset[str] = frozenset()
"""The names of the modules that the interpreter itself had imported."""

_plain_path: list[str] | None = None
"""``sys.path`` as the interpreter made it, without the folder of the program."""


def command(module: str, flags: tuple[str, ...] = ()) -> list[str]:
    """The start of a command line that runs a module of ours; append its arguments."""
    return [sys.executable, *flags, FILE, module]


def resilient_run() -> int:
    """The console script ``resilient-run``."""
    return _run_console("supervisor.command.cli")


def resilient_tools() -> int:
    """The console script ``resilient``."""
    return _run_console("resilient.tools")


def resilient_chaos() -> int:
    """The console script ``resilient-chaos``."""
    return _run_console("chaos.drill")


def _run_console(module: str) -> int:
    guard()
    from importlib import import_module

    try:
        status: int = import_module(module).main()
    except KeyboardInterrupt:
        print("resilient: interrupted", file=sys.stderr)
        return 130
    return status


def run() -> None:
    """Runs the module that the command line names; it sees its own arguments only."""
    guard()
    from importlib import import_module

    del sys.argv[0]
    module = sys.argv[0]
    _drop_ourselves(sys.orig_argv, module)
    _load("resilient")
    # This file runs as __main__. An import of it must find this very module, with its state.
    sys.modules["resilient.isolated"] = sys.modules[__name__]
    _load(module.partition(".")[0])
    sys.exit(import_module(module).main())


def guard() -> None:
    """Guards ``sys.path``: from here on, the user's folders shadow no other module."""
    global _at_start, _plain_path
    _at_start = frozenset(sys.modules)
    if not has_no_folder() and sys.path:
        # The folder of this file, of the console script, or (python -m) the working directory.
        del sys.path[0]
    _plain_path = list(sys.path)
    start = next((i for i, entry in enumerate(sys.path) if entry.endswith(_LIBRARY)), 0)
    users = sys.path[:start]
    del sys.path[:start]
    if not _has_requirements():
        sys.path += users


def _has_requirements() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in _REQUIREMENTS)


def give_back_path(folder: str | None = None) -> None:
    """Sets ``sys.path`` to what plain Python gives a program in this folder."""
    global _plain_path
    if _plain_path is None:
        # The process started another way, so ``guard`` did not run.
        _plain_path = sys.path[:] if has_no_folder() else sys.path[1:]
    sys.path[:] = _plain_path if has_no_folder() or folder is None else [folder, *_plain_path]


def has_no_folder() -> bool:
    """Whether this interpreter puts no program's folder on ``sys.path`` (-P, -I)."""
    return bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def modules_at_start() -> frozenset[str]:
    """The names of the modules that the interpreter had imported before us."""
    return _at_start


def _drop_ourselves(words: list[str], module: str) -> None:
    """Removes our words, so that a script that runs ``sys.orig_argv`` again starts itself."""
    for i in range(1, len(words) - 1):
        if os.path.abspath(words[i]) == FILE and words[i + 1] == module:
            del words[i : i + 2]
            return


def _load(package: str) -> None:
    """Imports a package of ours from beside this file, without its folder on ``sys.path``."""
    if package in sys.modules:
        return
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec(package, [_ROOT])
    if spec is None or spec.loader is None:
        raise ImportError(f"{package} is not in {_ROOT}")
    sys.modules[package] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    run()
