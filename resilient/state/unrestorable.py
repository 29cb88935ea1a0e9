"""Finds what a resume cannot put back, so that the user is told before it matters.

Three things: random streams that a kernel keeps to itself (on CPU: Dropout and the random operators); data
pipelines whose Python code draws random numbers in several workers at once; and two drawing pipelines that
run at the same time, as those of ``fit`` do: the one for training runs ahead while the other one evaluates.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import mindspore
from mindspore import nn

from resilient.state.pipeline import node_functions, pipeline_nodes

_DROPOUTS = re.compile(r"(Feature|Alpha)?Dropout(1d|2d|3d|Ext)?")
_RANDOM_CALL = re.compile(
    r"\b(?:ops|mint|F|P|functional|nn\.functional)\.(?:\w+\.)*"
    r"(dropout\w*|rand\w*|Random\w*|[Ss]tandard_?[Nn]ormal|[Ss]tandard_?[Ll]aplace|normal|uniform\w*|Uniform\w*"
    r"|gamma|Gamma|poisson|Poisson|multinomial\w*|Multinomial|bernoulli|Bernoulli|laplace|gumbel_softmax)\s*\("
)


def network_findings(network: nn.Cell) -> Iterator[str]:
    """A sentence for each kind of random draw inside the network that a resume cannot repeat."""
    found: dict[str, str] = {}
    for name, cell in network.cells_and_names():
        what = _draws(cell)
        if what is not None:
            found.setdefault(what, _as_written(name) or type(cell).__name__)
    for what, name in found.items():
        yield (
            f"{what} (in {name}) keeps its random stream in its kernel, where MindSpore cannot restore it: "
            "where the training runs it, its draws after a restart differ from those of an uninterrupted run"
        )


def _as_written(name: str) -> str:
    """A cell's name without the cells that Model has put around the user's network."""
    return name.removeprefix("network.").removeprefix("_backbone.")


def _draws(cell: nn.Cell) -> str | None:
    kind = type(cell)
    if _DROPOUTS.fullmatch(kind.__name__):
        return None if _never_drops(cell) else kind.__name__
    if (kind.__module__ or "").startswith("mindspore."):
        return None
    call = _RANDOM_CALL.search(_source(kind.construct))
    return call.group(0).rstrip("( ") if call else None


def _never_drops(cell: nn.Cell) -> bool:
    return getattr(cell, "p", None) == 0 or getattr(cell, "keep_prob", None) == 1


def pipeline_findings(dataset: Any) -> Iterator[str]:
    """A sentence for each node whose Python code draws random numbers in several workers at once."""
    for node in pipeline_nodes(dataset):
        workers = getattr(node, "num_parallel_workers", None)
        workers = workers or mindspore.dataset.config.get_num_parallel_workers()
        if workers < 2:
            continue
        for function in node_functions(node):
            if _is_python(function) and "random" in _source(function):
                yield (
                    f"{_name(function)} draws random numbers in {workers} workers of {type(node).__name__}: "
                    "their order changes from run to run; num_parallel_workers=1 makes it reproducible"
                )


def pair_findings(training: Any, validation: Any) -> Iterator[str]:
    """A sentence where the Python code of both pipelines of one ``fit`` draws random numbers.

    ``validation`` is None without one.
    """
    drawing = [next(_drawing(dataset), None) for dataset in (training, validation) if dataset is not None]
    if len(drawing) == 2 and None not in drawing:
        yield (
            f"{drawing[1]} of the validation data draws random numbers while the training's pipeline "
            f"runs ahead ({drawing[0]}): their order changes from run to run; evaluate data that draw nothing"
        )


def _drawing(dataset: Any) -> Iterator[str]:
    """The names of the functions of a pipeline whose Python code draws random numbers."""
    for node in pipeline_nodes(dataset):
        for function in node_functions(node):
            if _is_python(function) and "random" in _source(function):
                yield _name(function)


def _is_python(function: Any) -> bool:
    kind = type(function)
    return not (kind.__module__ or "").startswith("mindspore.dataset")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return ""
