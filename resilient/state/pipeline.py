"""The position of a data pipeline, and what in it draws random numbers.

Facts this rests on (MindSpore 2.10, see tests/mindspore):

* ``dataset.set_init_step(n)`` makes the next iterator start after n batches, with the order of an
  uninterrupted run. It stays in the dataset object until it is set again.
* With ``set_fast_recovery(True)``, the default, skipped rows do not pass through the maps: random
  augmentations then start their streams anew. With False they do, and every draw repeats, at the price of
  running the pipeline over the skipped batches once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mindspore

# Transforms of MindSpore's own that draw random numbers without "Random" in their names.
_DRAWING_TRANSFORMS = (
    "AutoAugment",
    "RandAugment",
    "TrivialAugmentWide",
    "UniformAugment",
    "AugMix",
    "CutMix",
    "MixUp",
)


def pipeline_nodes(dataset: Any) -> Iterator[Any]:
    """The nodes of a dataset's pipeline, from its end to its sources."""
    yield dataset
    for child in getattr(dataset, "children", ()):
        yield from pipeline_nodes(child)


def node_functions(node: Any) -> Iterator[Any]:
    """The user's functions and MindSpore's transforms that a node applies to rows."""
    for attribute in ("operations", "per_batch_map", "predicate", "fn", "source", "dataset_generator"):
        value = getattr(node, attribute, None)
        if value is not None:
            yield from value if isinstance(value, (list, tuple)) else (value,)


def may_draw(function: Any) -> bool:
    """Whether a pipeline's function may draw random numbers.

    Python code may; of MindSpore's own transforms those whose names say so.
    """
    kind = type(function)
    if (kind.__module__ or "").startswith("mindspore.dataset"):
        nested = getattr(function, "transforms", None)
        inner = any(may_draw(item) for item in nested) if isinstance(nested, (list, tuple)) else False
        return inner or "Random" in kind.__name__ or kind.__name__.startswith(_DRAWING_TRANSFORMS)
    return True


def needs_replay(dataset: Any) -> bool:
    """Whether skipped batches must run through the pipeline for its random draws to repeat."""
    return any(may_draw(f) for node in pipeline_nodes(dataset) for f in node_functions(node))


@contextmanager
def positioned(dataset: Any, skipped_batches: int, replay: bool) -> Iterator[None]:
    """While entered, new iterators of ``dataset`` start ``skipped_batches`` later than they would."""
    config = mindspore.dataset.config
    first, fast = dataset.get_init_step(), config.get_fast_recovery()
    dataset.set_init_step(first + skipped_batches)
    config.set_fast_recovery(fast and not replay)
    try:
        yield
    finally:
        config.set_fast_recovery(fast)
        # The next training call on the same dataset starts where the script says, not where we resumed.
        dataset.set_init_step(first)
