"""Imports go one way, folder by folder; the environment is read in one place. Held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each layer may import those before it, and itself.
FOUNDATION = [
    "resilient.isolated",
    "resilient.__main__",
    "resilient.errors",
    "resilient.sizes",
    "resilient.command_parser",
    "resilient.config",
    "resilient.host",
    "resilient.codec",
    "resilient.journal",
    "resilient.policy",
    "resilient.wire",
    "resilient.store",
    "resilient.run",
]
WORKER = [
    *FOUNDATION,
    "resilient.saving",
    "resilient.state",
    "resilient.worker.process",
    "resilient.worker.session",
    "resilient.worker.boundary",
    "resilient.worker.call",
    "resilient.worker",
]
# It needs neither MindSpore nor NumPy.
SUPERVISOR = [
    *FOUNDATION,
    "supervisor.edges",
    "supervisor.group",
    "supervisor.verdict",
    "supervisor.watching",
    "supervisor.checkpointing",
    "supervisor.telling",
    "supervisor.loop",
    "supervisor.command",
    "supervisor.__main__",
]
# A tool never trains, but it puts together what a training has saved.
TOOLS = [*FOUNDATION, "resilient.state", "resilient.tools"]
MAY_READ_ENVIRONMENT = {"resilient/config.py", "supervisor/group/worker_processes.py"}
FRAMEWORKS = {"mindspore", "numpy"}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PRODUCTION = {module_name(path): path for path in [*sources("resilient"), *sources("supervisor")]}
# Packages that hold no code of their own, and the public face, which imports lazily.
CODE = {name: path for name, path in PRODUCTION.items() if name not in ("resilient", "supervisor")}


@cache
def imported(path):
    """Every module that a file imports, for types or in a function too; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def ours(path):
    """Our own modules among those that a file imports."""
    found = set()
    for name in imported(path):
        if within(name, ["resilient", "supervisor", "chaos"]):
            found.add(name if name in PRODUCTION or name.startswith("chaos") else name.rpartition(".")[0])
    return sorted(found)


def layers_of(name):
    """The order that a module belongs to."""
    if within(name, ["supervisor"]):
        return SUPERVISOR
    return TOOLS if within(name, ["resilient.tools"]) else WORKER


def layer_of(name, layers):
    """The place of a module in this order: that of the longest name which fits. None if it has none."""
    return (
        max((len(layer), i) for i, layer in enumerate(["", *layers]) if not layer or within(name, [layer]))[1]
        or None
    )


@pytest.mark.parametrize("name", CODE)
def test_imports_go_one_way(name):
    """A module imports only from its own layer and those below."""
    layers = layers_of(name)
    layer = layer_of(name, layers)
    assert layer is not None, f"{name} has no layer"
    for other in ours(CODE[name]):
        if other != "resilient":
            below = layer_of(other, layers)
            assert below is not None, f"{name} imports {other}, which is not for it"
            assert below <= layer, f"{name} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    """There is no cycle, not even one that only types make."""
    imports = {name: [other for other in ours(path) if other in CODE] for name, path in CODE.items()}
    finished = set()

    def visit(name, way):
        assert name not in way, " imports ".join([*way[way.index(name) :], name])
        if name not in finished:
            for other in imports[name]:
                visit(other, [*way, name])
            finished.add(name)

    for name in imports:
        visit(name, [])


@pytest.mark.parametrize("name", PRODUCTION)
def test_production_never_imports_chaos(name):
    """Fault injection stays out of what people run."""
    assert not any(within(other, ["chaos"]) for other in imported(PRODUCTION[name]))


@pytest.mark.parametrize("name", PRODUCTION)
def test_the_environment_is_read_in_one_place(name):
    """Only config reads the environment; the supervisor's workers pass it on to their children."""
    path = PRODUCTION[name]
    if path.relative_to(ROOT).as_posix() in MAY_READ_ENVIRONMENT:
        return
    reads = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Attribute, ast.Name))
    } & {"environ", "environb", "getenv", "getenvb"}
    assert not reads


def test_the_supervisor_side_loads_no_framework():
    """Importing all of the supervisor's side, transitively, loads neither MindSpore nor NumPy."""
    light = [name for name in PRODUCTION if name == "resilient" or within(name, ["supervisor", *FOUNDATION])]
    program = f"import sys, {', '.join(light)}; print(*{FRAMEWORKS!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_each_file_of_tests_has_a_name_of_its_own():
    """pytest imports them by their last name alone: of two with one name it runs the first and fails."""
    names = [path.name for path in sources("tests") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
