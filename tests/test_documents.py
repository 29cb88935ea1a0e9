"""Documents and docstrings name files, folders, classes, functions and options that exist.

In ARCHITECTURE.md ``resilient/`` and ``supervisor/`` may be left out of a file's name. A file without its
folder is in that of the file named before it in the same cell of a table; elsewhere its name is enough.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCTION = ("resilient", "supervisor", "chaos")
ELSEWHERE = ("tests", "examples", "benchmarks")
QUOTED = re.compile(r"`([^`\n]+)`")
# Classes of MindSpore's that ARCHITECTURE.md speaks of.
STOCK = {"Model", "ModelCheckpoint", "EarlyStopping"}
# Files of users, and of MindSpore, that docstrings speak of.
FOREIGN_FILES = {"secrets.py", "queue.py", "resilient.py", "serialization.py"}
# Options of other programs, and those that argparse makes by itself.
FOREIGN_OPTIONS = {"--help"}


def read(name):
    return (ROOT / name).read_text()


@cache
def files(*folders):
    return [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def candidates(name):
    """The files that a name with some of its folders may stand for."""
    where = ELSEWHERE if name.startswith(ELSEWHERE) else PRODUCTION
    return [path for path in files(*where) if f"/{path.as_posix()}".endswith(f"/{name}")]


def resolved(name, folder):
    """The one file that is meant, where ``folder`` is that of the file named before it."""
    beside = folder / name if folder is not None else None
    found = [beside] if beside in files(*PRODUCTION) else candidates(name)
    assert len(found) == 1, f"`{name}` stands for {[str(path) for path in found] or 'no file'}"
    if folder is not None and "/" not in name:
        assert found == [beside], f"`{name}` stands behind a file of {folder}, and is in {found[0].parent}"
    return found[0]


def named(text, *, in_a_cell):
    """The quoted words of a text, each with the file that was named last; None before the first."""
    last = None
    for quoted in QUOTED.findall(text):
        if quoted.endswith(".py"):
            last = resolved(quoted, last.parent if last is not None and in_a_cell else None)
        yield quoted, last


def section(heading):
    """The lines of one section of ARCHITECTURE.md."""
    text = read("ARCHITECTURE.md").partition(f"\n## {heading}\n")[2]
    assert text, f"there is no section {heading}"
    return text.partition("\n## ")[0].splitlines()


def cells(lines):
    return [cell for line in lines if line.startswith("|") for cell in line.split("|")]


def steps(lines):
    """The numbered steps of a walk, each as one text."""
    found = []
    for line in lines:
        if re.match(r"\d+\. ", line):
            found.append(line)
        elif found and line.startswith("   "):
            found[-1] += " " + line.strip()
    return found


@cache
def defined(path):
    """The functions and methods of a file, with their class."""
    names = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)
            }
    return names


def test_each_file_that_the_architecture_names_exists():
    """Each stands for exactly one file, in a table and elsewhere."""
    lines = read("ARCHITECTURE.md").splitlines()
    rest = "\n".join(line for line in lines if not line.startswith("|"))
    assert len([word for word, _ in named(rest, in_a_cell=False) if word.endswith(".py")]) > 50
    for cell in cells(lines):
        list(named(cell, in_a_cell=True))


def test_each_folder_has_a_row_in_the_architecture():
    """The table of the folders has every package, and nothing else."""
    first = [line.split("|")[1] for line in section("The folders") if line.startswith("|")]
    rows = {quoted for cell in first for quoted in QUOTED.findall(cell) if not quoted.endswith(".py")}
    packages = {path.parent.as_posix() for path in files(*PRODUCTION) if path.name == "__init__.py"}
    assert rows == packages - {"resilient", "supervisor"}


@pytest.mark.parametrize(
    "walk",
    ["Walk 1: a step boundary becomes a durable checkpoint", "Walk 2: a killed worker resumes from memory"],
)
def test_each_function_on_a_walk_is_in_a_file_that_its_step_names(walk):
    """The steps are numbered, and each begins with a file."""
    found = steps(section(walk))
    assert len(found) >= 10
    assert [int(step.partition(".")[0]) for step in found] == list(range(1, len(found) + 1))
    for step in found:
        assert re.match(r"\d+\. `[\w/]+\.py`", step), step
        _check_functions(named(step, in_a_cell=False), step)


def test_each_of_the_ten_questions_is_answered_by_a_file():
    """A function in the answer is in a file that the answer names."""
    rows = [line for line in section("Ten questions") if line.startswith("|") and "`" in line]
    assert len(rows) == 10
    for row in rows:
        words = list(named(row.split("|")[2], in_a_cell=True))
        assert words[0][0].endswith(".py"), row
        _check_functions(words, row)


def _check_functions(words, text):
    words = list(words)
    there = set().union(*(defined(path) for _, path in words if path is not None))
    missing = {word for word, _ in words if word.endswith("()")} - {f"{name}()" for name in there}
    assert not missing, f"{missing}: in no file that is named here: {text}"


def test_each_class_that_the_architecture_names_exists():
    """Of ours, or of MindSpore's."""
    known = {
        node.name
        for path in files(*PRODUCTION)
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.ClassDef)
    }
    quoted = set(QUOTED.findall(read("ARCHITECTURE.md")))
    classes = {
        word.partition(".")[0] for word in quoted if re.fullmatch(r"_?([A-Z][a-z]+)+(\.\w+(\(\))?)?", word)
    }
    assert len(classes) > 20
    assert classes - known - STOCK == set()


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_each_option_that_a_document_names_exists(document):
    """Some command of ours, or a benchmark, has it."""
    source = "\n".join(read(path) for path in files(*PRODUCTION, "benchmarks", "examples"))
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"<!--|-->", "", read(document))))
    assert options
    assert {
        option for option in options - FOREIGN_OPTIONS if not re.search(rf'"{option}["= ]', source)
    } == set()


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_each_link_of_a_document_leads_somewhere(document):
    """A link within the repository leads to a file, and to one of its headings where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        path, _, anchor = target.partition("#")
        assert (ROOT / (path or document)).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(path or document), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_each_target_of_make_that_a_document_names_exists():
    """And the comment that opens the Makefile explains each of them."""
    makefile = read("Makefile")
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split())
    explained = set(re.findall(r"^# make ([a-z-]+) {2,}", makefile, re.M))
    named_elsewhere = set()
    for document in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        named_elsewhere |= set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", read(document), re.M))
    assert explained == targets
    assert {name for pair in named_elsewhere for name in pair if name} - targets == set()


def remarks(path):
    """The docstrings and comments of a file."""
    source = read(path)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and token.string.startswith('"""')
        ):
            yield token.string


def test_each_module_that_a_docstring_names_exists():
    """By its file (``snapshot.py``), or after its folder (``state.snapshot``)."""
    known = {path.name for path in files(*PRODUCTION, *ELSEWHERE)} | FOREIGN_FILES
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files(*PRODUCTION)]
    folders = {path.parent.name for path in files(*PRODUCTION)} - {"resilient"}
    missing = []
    for path in files(*PRODUCTION, "benchmarks", "examples"):
        for text in remarks(path):
            missing += [
                (str(path), name) for name in re.findall(r"\b[a-z_]+\.py\b", text) if name not in known
            ]
            for name in re.findall(r"``([a-z_]+\.[a-z_]+)(?:\.\w+)*(?:\(\))?``", text):
                is_ours = name.partition(".")[0] in folders and name != "journal.jsonl"
                if is_ours and not any(f".{module}".endswith(f".{name}") for module in modules):
                    missing.append((str(path), name))
    assert missing == []
