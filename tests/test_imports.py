"""Imports go one way, and the environment is read in one place. Held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each layer may import those before it, and itself.
LAYERS = [
    ["resilient.isolated", "resilient.__main__"],
    ["resilient.errors", "resilient.version"],
    ["resilient.config"],
    ["resilient.host"],
    ["resilient.codec"],
    ["resilient.store"],
    ["resilient.retention", "resilient.schedule"],
    ["resilient.shared_memory", "resilient.mirror", "resilient.heartbeat"],
    ["resilient.parts", "resilient.link", "resilient.shorten", "resilient.outbox"],
    ["resilient.signals", "resilient.stacks", "resilient.dataset_workers", "resilient.phases"],
    ["resilient.settings", "resilient.state", "resilient.belongings", "resilient.seen"],
    ["resilient.saving", "resilient.mirrored", "resilient.process_saver"],
    ["resilient.remote", "resilient.shared"],
    ["resilient.open_places"],
    ["resilient.session"],
    ["resilient.mirroring", "resilient.pace", "resilient.evaluating"],
    ["resilient.interception"],
    ["resilient.early_use", "resilient.extension", "resilient.stock_names", "resilient.unseen"],
    ["resilient.timeline", "resilient.entries", "resilient.composition"],
    ["resilient.keeping", "resilient.mirror_keeper", "resilient.recorder"],
    ["resilient.watch"],
    ["resilient.monitor", "resilient.passage", "resilient.loops"],
    ["resilient.calls"],
    ["resilient.attach", "resilient.children", "resilient.shadows"],
    ["resilient.tools"],
]
SUPERVISOR_MAY_IMPORT = [name for layer in LAYERS[:10] for name in layer]
MAY_READ_ENVIRONMENT = {"resilient/config.py", "supervisor/workers.py"}
FRAMEWORKS = {"mindspore", "numpy"}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Every module that a file imports, also inside its functions; `from a import b` counts as a.b."""
    names = set()
    tree = ast.parse(path.read_text())
    only_for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_for_types:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def within(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def layer_of(name):
    return next((i for i, layer in enumerate(LAYERS) if within(name, layer)), None)


def ours(path):
    return sorted(name for name in imported(path) if within(name, ["resilient", "supervisor", "chaos"]))


@pytest.mark.parametrize("path", sources("resilient"), ids=module_name)
def test_imports_go_one_way(path):
    """A module imports only from its own layer and those below."""
    layer = layer_of(module_name(path))
    if module_name(path) == "resilient":
        return
    assert layer is not None, f"{module_name(path)} has no layer"
    for name in ours(path):
        assert layer_of(name) is not None, f"{name} has no layer"
        assert layer_of(name) <= layer, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", sources("supervisor"), ids=module_name)
def test_the_supervisor_imports_no_training_side(path):
    """The supervisor uses the layers that need neither MindSpore nor NumPy."""
    for name in ours(path):
        assert within(name, [*SUPERVISOR_MAY_IMPORT, "supervisor"]), name


@pytest.mark.parametrize("path", [*sources("resilient"), *sources("supervisor")], ids=module_name)
def test_production_never_imports_chaos(path):
    """Fault injection stays out of what people run."""
    assert not any(within(name, ["chaos"]) for name in imported(path))


@pytest.mark.parametrize("path", [*sources("resilient"), *sources("supervisor")], ids=module_name)
def test_the_environment_is_read_in_one_place(path):
    """Only config reads the environment; the supervisor's workers pass it on to their children."""
    if path.relative_to(ROOT).as_posix() in MAY_READ_ENVIRONMENT:
        return
    reads = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Attribute, ast.Name))
    } & {"environ", "environb", "getenv", "getenvb"}
    assert not reads


def light_modules():
    """Everything that must be importable without the framework, by name."""
    names = [module_name(path) for path in sources("resilient")]
    light = [name for name in names if name == "resilient" or within(name, SUPERVISOR_MAY_IMPORT)]
    return [*light, *(module_name(path) for path in sources("supervisor"))]


def test_the_supervisor_side_loads_no_framework():
    """Importing all of the supervisor's side, transitively, loads neither MindSpore nor NumPy."""
    program = f"import sys, {', '.join(light_modules())}; print(*{FRAMEWORKS!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_each_file_of_tests_has_a_name_of_its_own():
    """pytest imports them by their last name alone: of two with one name it runs the first and fails."""
    names = [path.name for path in sources("tests") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
