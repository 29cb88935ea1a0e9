"""Settings of MindSpore's context that decide about numbers: how a step is executed, and how exactly.

A library may change them in the middle of a training (a loss monitor that builds a context flips graph and
PyNative mode in the first step). So they belong to a state as JSON, {name: value}, and a resumed process has
them again before its first step. Where MindSpore takes no other value any more, the difference is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore
from mindspore._c_expression import MSContext, ms_ctx_param

MODE = "mode"
DETERMINISTIC = "deterministic"
_JIT = ("jit_level", "infer_boost")
# On CPU, on Ascend, on a GPU: how steps are compiled, and which precision kernels may drop to.
_NAMES = (
    MODE,
    DETERMINISTIC,
    *_JIT,
    "jit_syntax_level",
    "enable_graph_kernel",
    "enable_reduce_precision",
    "precision_mode",
    "op_precision_mode",
    "jit_compile",
    "matmul_allow_hf32",
    "conv_allow_hf32",
    "matmul_allow_tf32",
    "conv_allow_tf32",
    "conv_fprop_algo",
    "conv_dgrad_algo",
    "conv_wgrad_algo",
    "runtime_num_threads",
)
# Versions of MindSpore differ in what they know.
_MEMBERS = {name: ms_ctx_param.__members__[name] for name in _NAMES if name in ms_ctx_param.__members__}
_WORDS = {
    (MODE, mindspore.GRAPH_MODE): "graph mode",
    (MODE, mindspore.PYNATIVE_MODE): "PyNative mode",
}


def capture() -> dict[str, Any]:
    """The settings as they are; cheap enough for every step (``get_context`` takes ten times as long)."""
    context = MSContext.get_instance()
    return {name: context.get_param(member) for name, member in _MEMBERS.items()}


def restore(settings: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Makes the settings those of :func:`capture`; ``tell`` hears a sentence of each that was another.

    What a state of an earlier version does not hold stays as it is.
    """
    now = capture()
    for name, value in settings.items():
        if name not in now or now[name] == value:
            continue
        wanted, found = _worded(name, value), _worded(name, now[name])
        if _set(name, value):
            tell(f"MindSpore's context has {wanted} again, as it was in the state; it had {found}")
        else:
            tell(
                f"the state was made with {wanted} in MindSpore's context; now it has {found}, and MindSpore "
                "takes no other value any more: the numbers may differ in their last bits"
            )


def _set(name: str, value: Any) -> bool:
    """Whether the context takes the value."""
    try:
        if name in _JIT:
            mindspore.set_context(jit_config={name: value})
        else:
            mindspore.set_context(**{name: value})
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return False
    return bool(capture()[name] == value)


def _worded(name: str, value: Any) -> str:
    return _WORDS.get((name, value), f"{name}={value!r}")
