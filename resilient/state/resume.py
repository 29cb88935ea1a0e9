"""Puts a recovered state back into a network.

Writing through ``asnumpy()`` on CPU is seen by the next step, before the first compile and after it, and
leaves the parameter's own memory in place (MindSpore 2.10, see tests/mindspore); elsewhere ``set_data`` is
the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter

from resilient.errors import MismatchError
from resilient.state import capture
from resilient.state.snapshot import TensorValue

_SHOWN_DIFFERENCES = 3
_HINT = "restore the script as it was, or start anew with --fresh --archive; nothing was changed or deleted"


def restore_network(
    cells: capture.Cells, state: Mapping[str, TensorValue], left: Collection[str] = ()
) -> None:
    """Writes the state's values into the parameters of these cells, except those ``left`` as they are.

    Raises MismatchError, naming the first differences, before anything is written when names, shapes or
    dtypes differ.
    """
    targets = {name: parameter for name, parameter in capture.named(cells).items() if name not in left}
    state = {name: tensor for name, tensor in state.items() if name not in left}
    differences = list(_differences(targets, state))
    if differences:
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        more = len(differences) - _SHOWN_DIFFERENCES
        ending = f"; and {more} more" if more > 0 else ""
        raise MismatchError(f"the network differs from the checkpoint's: {shown}{ending}", hint=_HINT)
    for name, parameter in targets.items():
        write_parameter(parameter, state[name])


def put_back(shadow: capture.Shadow) -> None:
    """Gives parameters the values of their copies again, where they have changed."""
    for parameter in shadow.changed():
        _put(parameter, shadow.values(parameter))


def _differences(targets: Mapping[str, Parameter], state: Mapping[str, TensorValue]) -> Iterator[str]:
    for name, parameter in targets.items():
        if name not in state:
            yield f"the checkpoint has no {name!r}"
        elif tuple(parameter.shape) != state[name].shape:
            yield f"{name!r} has shape {tuple(parameter.shape)}, the checkpoint's has {state[name].shape}"
        elif str(parameter.dtype) != state[name].dtype:
            yield f"{name!r} is {parameter.dtype}, the checkpoint's is {state[name].dtype}"
    for name in state:
        if name not in targets:
            yield f"the network has no {name!r}"


def write_parameter(parameter: Parameter, tensor: TensorValue) -> None:
    """Writes a value into a parameter, which stays where it is in memory wherever that can be."""
    target = capture.values(parameter)
    _put(parameter, np.frombuffer(tensor.data, dtype=np.uint8).view(target.dtype).reshape(target.shape))


def _put(parameter: Parameter, source: np.ndarray[Any, Any]) -> None:
    target = capture.values(parameter)
    if mindspore.get_context("device_target") == "CPU" and target.flags.writeable:
        target[...] = source
    else:
        parameter.set_data(mindspore.Tensor(source.copy(), parameter.dtype))
