"""The source archive and the wheel: complete, with nothing else in them, and they train.

Both are built from a copy of the checkout with leftovers in it. The wheel is installed into an environment of
its own, in a folder with a space in its name. That environment borrows MindSpore and the other requirements
from the one that runs the tests; only the wheel is new.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pip
import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resilient", "supervisor", "chaos")
COMMANDS = {"resilient-run": "supervisor", "resilient": "resilient", "resilient-chaos": "chaos"}
# Each of them lies about in some checkout and belongs in no archive.
LEFTOVERS = (
    "build/lib/resilient/removed.py",
    "resilient/__pycache__/removed.cpython-311.pyc",
    "resilient/rank_0/notes.py",
    "resilient_old/__init__.py",
    "runs/train/run.json",
    "tests/__pycache__/removed.cpython-311.pyc",
)


@dataclass(frozen=True)
class Archives:
    """What was built, and the files that it was built from (relative, with slashes)."""

    sources: set[str]
    wheel: Path
    unpacked: Path

    @property
    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
            return Parser().parsestr(wheel.read(name).decode())


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def names_of_the_checkout() -> list[str]:
    """The names at its top. An unpacked source archive is no repository, and has nothing else in it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = {line.partition("/")[0] for line in listed.stdout.splitlines()} or set(os.listdir(ROOT))
    return sorted(name for name in names if not name.startswith("."))


def copy_checkout(target: Path) -> None:
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in names_of_the_checkout():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, target / name)


def plain_environment(**more: str) -> dict[str, str]:
    """Ours without what leads an interpreter to other folders."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_"))}
    return {**kept, **more}


def run(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    more = {"env": plain_environment(), **more}
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, **more)


def run_well(*words: object, **more: object) -> str:
    done = run(*words, **more)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Archives:
    """The source archive, and the wheel that is built from it; what is installed here builds them."""
    folder = tmp_path_factory.mktemp("archives")
    checkout, built = folder / "checkout", folder / "built"
    checkout.mkdir()
    copy_checkout(checkout)
    sources = files_under(checkout)
    for name in LEFTOVERS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("")
    run_well(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, checkout, env=None)
    (wheel,) = built.glob("*.whl")
    (archive,) = built.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return Archives(sources, wheel, folder / archive.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="module")
def environment(archives, tmp_path_factory) -> Path:
    """An environment with nothing in it but the wheel. It is installed before anything is borrowed."""
    folder = tmp_path_factory.mktemp("installed") / "an environment"
    run_well(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    # pip runs from its folder under any interpreter, and installs for that one.
    run_well(python, Path(pip.__file__).parent, "install", "--no-deps", "--no-index", archives.wheel)
    borrowed = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return folder


def test_the_wheel_holds_the_packages_and_nothing_else(archives):
    """Every module, the marker of its types, the metadata with the license; no test, example or leftover."""
    with zipfile.ZipFile(archives.wheel) as opened:
        found = {name for name in opened.namelist() if not name.endswith("/")}
    modules = {name for name in archives.sources if name.partition("/")[0] in PACKAGES}
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= modules
    info = f"resilient_run-{archives.metadata['Version']}.dist-info"
    assert found == modules | {f"{info}/{name}" for name in metadata}


def test_the_source_archive_holds_all_that_builds_and_tests_it(archives):
    """The checkout as it is, what the build adds, and no leftover. The wheel was built from it."""
    found = files_under(archives.unpacked)
    added = {name for name in found if name.startswith("resilient_run.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert found - added == archives.sources
    assert {"Makefile", "LICENSE", "tests/kernel/shim.c"} <= found


def test_the_metadata_says_what_a_registry_shows(archives):
    """The license as an expression and with its text, no addresses, and the extras."""
    metadata = archives.metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata.get_all("Project-URL") is None
    assert metadata["Home-page"] is None
    assert metadata.get_all("Provides-Extra") == ["examples", "dev"]
    assert 'scikit-learn>=1.4; extra == "examples"' in metadata.get_all("Requires-Dist")
    assert "Typing :: Typed" in metadata.get_all("Classifier")


@pytest.mark.parametrize("by_module", [False, True], ids=["script", "module"])
def test_each_command_prints_its_version_and_help_without_mindspore(
    archives, environment, tmp_path, by_module
):
    """As a console script and by python -m."""
    listing = plain_environment(PYTHONPROFILEIMPORTTIME="1")
    for command, package in COMMANDS.items():
        start = (
            [environment / "bin" / "python", "-m", package] if by_module else [environment / "bin" / command]
        )
        done = run(*start, "--version", cwd=tmp_path, env=listing)
        assert (done.returncode, done.stdout) == (0, f"{command} {archives.metadata['Version']}\n"), (
            done.stderr
        )
        assert "resilient.isolated" in done.stderr
        assert "mindspore" not in done.stderr
        assert f"usage: {command} " in run_well(*start, "--help", cwd=tmp_path)


def test_what_is_installed_is_what_runs(environment, tmp_path):
    """A supervised script finds the wheel's packages, and no checkout on its path."""
    names = ", ".join(PACKAGES)
    program = f"import sys, {names}\nfor module in ({names}): print(module.__file__)\nprint(sys.path)\n"
    (tmp_path / "where.py").write_text(program)
    command = [environment / "bin" / "resilient-run", "--no-encrypt", "--run-dir", "run", "where.py"]
    *files, path = run_well(*command, cwd=tmp_path).splitlines()
    assert len(files) == len(PACKAGES)
    assert all(Path(file).is_relative_to(environment) for file in files), files
    assert repr(str(ROOT)) not in path


@pytest.mark.mindspore
def test_the_digits_are_trained_by_what_is_installed(archives, environment, tmp_path):
    """The example of the source archive, in another folder: one epoch, saved, every byte verified."""
    shutil.copy(archives.unpacked / "examples" / "digits.py", tmp_path)
    scripts = environment / "bin"
    done = run(scripts / "resilient-run", "--run-dir", "run", "digits.py", "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run complete: 1 attempt, 60 steps" in done.stderr
    assert "all ok" in run_well(scripts / "resilient", "verify", "run", cwd=tmp_path)
