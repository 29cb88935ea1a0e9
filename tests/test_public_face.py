"""The public face: small, deliberate, and light to import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import resilient
from resilient import errors

# What PyPI's supervisord has in its package of the same name as ours.
SUPERVISORDS = set(
    """
    childutils compat confecho datatypes dispatchers events http http_client loggers options pidproxy
    poller process rpcinterface socket_manager states supervisorctl supervisord templating web xmlrpc
    """.split()  # noqa: SIM905 - a list of words reads best as words
)


def test_the_public_names_are_these():
    """Three names, each of which is there; nothing else is promised."""
    assert resilient.__all__ == ["CheckpointMonitor", "errors", "training"]
    assert all(getattr(resilient, name) is not None for name in resilient.__all__)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = resilient.nothing_of_ours


def test_importing_it_imports_no_framework():
    """Neither MindSpore nor NumPy is loaded before a name that needs them is used."""
    program = "import sys, resilient; print(sorted({'mindspore', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_errors_are_as_drawn():
    """The tree in the docstring is the hierarchy of the classes, with nothing left out."""
    drawn, parents = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            drawn[found[2]] = parents[depth - 1] if depth else "Exception"
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, Exception)}
    assert drawn == {name: c.__bases__[0].__name__ for name, c in classes.items()}


def test_supervisords_package_can_lie_beside_ours():
    """Its modules and ours have different names, and our __init__ holds a docstring and nothing else."""
    import supervisor

    folder = Path(supervisor.__file__).parent
    assert not SUPERVISORDS & {path.stem for path in folder.glob("*.py")}
    assert len((folder / "__init__.py").read_text().strip().splitlines()) == 1
