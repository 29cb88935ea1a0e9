"""One name, one thing: class names are unique, and no two modules have names that differ by an ending."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resilient", "supervisor", "chaos")
# A file of a command is named as the command is typed.
COMMANDS = {"resilient.tools.key", "resilient.tools.pin", "resilient.tools.rekey"}
ENDINGS = ("ings", "ing", "ers", "er", "ed", "es", "s", "e")


def helpers():
    """Files with classes that others use: production, chaos, benchmarks, and what tests share."""
    for folder in (*PACKAGES, "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            # Programs under tests/mindspore are scripts of users; a test file's classes serve it alone.
            if "mindspore" not in path.parts and not path.name.startswith("test_"):
                yield path


def test_each_class_name_exists_once():
    """A leading underscore makes no other name of it."""
    places = defaultdict(list)
    for path in helpers():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def stem(name):
    """A module's name without the ending of each of its words."""
    return "_".join(map(_stem, name.split("_")))


def _stem(word):
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def modules():
    """Modules and packages by their full names."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__":
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_two_modules_have_names_that_differ_by_an_ending():
    """A package may have one chief module of its own name, which lies in it."""
    named = defaultdict(list)
    for module in modules():
        package, _, name = module.rpartition(".")
        chief = bool(package) and package.rpartition(".")[2] == name
        if module not in COMMANDS and not chief:
            named[stem(name)].append(module)
    assert {name: found for name, found in named.items() if len(found) > 1} == {}


def test_endings_are_told_from_words():
    """Names of one stem are found, and names that only begin alike are not."""
    assert stem("keeper") == stem("keeping") == stem("keeps") == stem("keep")
    assert stem("saves") == stem("saving") == stem("saver")
    assert stem("store") != stem("story")
