"""What the heartbeat hears of evaluations: of ``Model.eval``, wherever it is called, and of ``fit``'s own."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from mindspore.train import Callback, Model

from resilient.wire.heartbeat import Heartbeat, Phase


class EvaluationBeats(Callback):  # type: ignore[misc]
    """Beats at every step of an evaluation, the first of which may compile."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._before = Phase.SCRIPT
        self._computing = Phase.COMPILING

    def on_eval_begin(self, run_context: Any) -> None:
        self._before = self._heartbeat.phase
        self._computing = Phase.COMPILING
        self._heartbeat.beat(Phase.EVALUATING)

    def on_eval_step_begin(self, run_context: Any) -> None:
        self._heartbeat.beat(self._computing)

    def on_eval_step_end(self, run_context: Any) -> None:
        if self._computing is Phase.COMPILING:
            self._computing = Phase.EVALUATING
            self._heartbeat.beat(Phase.EVALUATING)

    def on_eval_end(self, run_context: Any) -> None:
        self._heartbeat.beat(self._before)


def watch_evaluations(heartbeat: Heartbeat) -> None:
    """Wraps ``Model.eval``: from now on each of its calls beats."""
    original = Model.eval
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            # Arguments that make no sense: MindSpore says so better than we would.
            return original(*args, **kwargs)
        beats = EvaluationBeats(heartbeat)
        bound.arguments["callbacks"] = [beats, *as_list(bound.arguments.get("callbacks"))]
        with heartbeat.during(Phase.EVALUATING):
            return original(*bound.args, **bound.kwargs)

    Model.eval = method


def as_list(callbacks: Any) -> list[Any]:
    """The callbacks that ``Model`` was given: none, one, or a list of them."""
    if isinstance(callbacks, (list, tuple)):
        return list(callbacks)
    return [callbacks] if callbacks else []
