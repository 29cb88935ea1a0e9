"""Faults seeded into the store's own source: one line changed, in the running process, and taken back."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from dataclasses import dataclass
from types import CodeType, FunctionType


@dataclass(frozen=True)
class Mutant:
    """In ``module`` the text ``old`` becomes ``new``; ``invariants`` are those that may notice it first.

    ``also`` is a second change that goes with it.
    """

    name: str
    module: str
    old: str
    new: str
    invariants: tuple[str, ...] = ()
    also: Mutant | None = None


@contextlib.contextmanager
def alive(mutant):
    """While entered, the module's functions run the mutated code."""
    module = importlib.import_module(mutant.module)
    source = inspect.getsource(module)
    assert mutant.old in source, f"{mutant.name}: its text is no longer there"
    mutated = dict(_codes(compile(source.replace(mutant.old, mutant.new), module.__file__, "exec")))
    swapped = []
    for name, function in _functions(module):
        code = mutated.get(name)
        if code is not None and _differ(code, function.__code__):
            swapped.append((function, function.__code__))
            function.__code__ = code
    assert swapped, f"{mutant.name} changes nothing"
    try:
        with alive(mutant.also) if mutant.also else contextlib.nullcontext():
            yield
    finally:
        for function, code in swapped:
            function.__code__ = code


def _differ(code, other):
    return (code.co_code, code.co_consts, code.co_names) != (other.co_code, other.co_consts, other.co_names)


def _codes(code, prefix=""):
    """The code objects of a module's functions and methods, by qualified name."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield prefix + constant.co_name, constant
            yield from _codes(constant, f"{prefix}{constant.co_name}.")


def _functions(module):
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield name, _bare(value)
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for inner, method in vars(value).items():
                method = method.fget if isinstance(method, property) else method
                if isinstance(method, FunctionType):
                    yield f"{name}.{inner}", method


def _bare(function):
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function
