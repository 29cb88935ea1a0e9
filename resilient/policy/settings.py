"""Checks the arguments of a CheckpointMonitor and turns them into one frozen value.

The constructor of the monitor has upstream's seventeen arguments; here they become ``Settings`` at once. Two
rules go beyond upstream, which silently ignores what the user said:

* ``save_checkpoint_steps`` and ``save_checkpoint_seconds`` together are an error; so are the two
  ``keep_checkpoint_*``. A default that the user did not touch never counts as given.
* ``config`` wins over the separate arguments, as upstream; a warning names those that it overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from resilient.codec.keys import check_key_length
from resilient.codec.tensors import info_record
from resilient.config import (
    DEFAULT_KEEP,
    DEFAULT_SAVE,
    ENC_MODES,
    LOSS,
    Best,
    KeepPolicy,
    SavePolicy,
    Sealing,
)
from resilient.errors import UsageError

OFFSETS = ("epoch_num", "step_num")


class Default(int):
    """A default value that differs from the same number given by the user."""


SAVE_STEPS = Default(1)
SAVE_SECONDS = Default(0)
KEEP_MAX = Default(5)
KEEP_MINUTES = Default(0)


@dataclass(frozen=True)
class Settings:
    """How one monitor saves.

    ``sealing`` and ``directory`` are None when the script names none: then the monitor uses those of the run,
    and without a run ``./output``, unencrypted. ``append`` are the entries of ``append_info``; an int called
    epoch_num or step_num in it is added to the counter of that name. ``asynchronous`` is None, "thread",
    "process", or "mirror": only if that costs no extra memory.
    """

    prefix: str = "CKP"
    directory: Path | None = None
    save: SavePolicy = DEFAULT_SAVE
    keep: KeepPolicy = DEFAULT_KEEP
    sealing: Sealing | None = None
    integrated_save: bool = True
    network_params: bool = False
    trainable_params: bool = False
    asynchronous: str | None = None
    saved_network: Any = None
    append: Mapping[str, Any] = field(default_factory=dict)
    exception_save: bool = True
    global_batch_size: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saving:
    """Upstream's arguments that a ``CheckpointConfig`` has too, as the user wrote them."""

    save_checkpoint_steps: Any = SAVE_STEPS
    save_checkpoint_seconds: Any = SAVE_SECONDS
    keep_checkpoint_max: Any = KEEP_MAX
    keep_checkpoint_per_n_minutes: Any = KEEP_MINUTES
    integrated_save: Any = True
    async_save: Any = False
    saved_network: Any = None
    append_info: Any = None
    enc_key: Any = None
    enc_mode: Any = "AES-GCM"
    exception_save: Any = False

    @classmethod
    def of_config(cls, config: Any) -> Saving:
        """The same arguments from a ``mindspore.train.CheckpointConfig``."""
        return cls(
            save_checkpoint_steps=config.save_checkpoint_steps,
            save_checkpoint_seconds=config.save_checkpoint_seconds,
            keep_checkpoint_max=config.keep_checkpoint_max,
            keep_checkpoint_per_n_minutes=config.keep_checkpoint_per_n_minutes,
            integrated_save=config.integrated_save,
            async_save=config.async_save,
            saved_network=config.saved_network,
            append_info=[config.append_dict] if config.append_dict else None,
            enc_key=config.enc_key,
            enc_mode=config.enc_mode,
            exception_save=config.exception_save,
        )


def resolve(
    separate: Saving,
    config: Any,
    *,
    prefix: Any,
    directory: Any,
    network_params: Any,
    trainable_params: Any,
    global_batch_size: Any,
) -> Settings:
    """The settings of a monitor. Raises ValueError and TypeError for invalid arguments."""
    chosen = separate if config is None else Saving.of_config(config)
    warning = None if config is None else overridden(separate)
    return Settings(
        prefix=check_prefix(prefix),
        directory=check_directory(directory),
        save=save_policy(chosen.save_checkpoint_steps, chosen.save_checkpoint_seconds),
        keep=keep_policy(chosen.keep_checkpoint_max, chosen.keep_checkpoint_per_n_minutes),
        sealing=sealing_of(chosen.enc_key, chosen.enc_mode),
        integrated_save=_switch("integrated_save", chosen.integrated_save),
        network_params=_switch("save_network_params", network_params),
        trainable_params=_switch("save_trainable_params", trainable_params),
        asynchronous=asynchronous(chosen.async_save),
        saved_network=chosen.saved_network,
        append=append_entries(chosen.append_info),
        exception_save=_switch("exception_save", chosen.exception_save),
        global_batch_size=_count("global_batch_size", global_batch_size) or None,
        warnings=(warning,) if warning else (),
    )


def overridden(separate: Saving) -> str | None:
    """A warning that names the separate arguments which ``config`` overrides; None when there are none."""
    pairs = [(f.name, getattr(separate, f.name), f.default) for f in fields(Saving)]
    names = [name for name, value, default in pairs if value is not default and value != default]
    if not names:
        return None
    return f"config is given, so these arguments of CheckpointMonitor have no effect: {', '.join(names)}"


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool; it is {type(value).__name__}")
    return value


def check_prefix(prefix: Any) -> str:
    """Raises ValueError for a prefix that cannot begin a file's name."""
    if not isinstance(prefix, str) or not prefix or "/" in prefix or "\0" in prefix:
        raise ValueError(f"prefix must be a str without '/', and not empty; it is {prefix!r}")
    return prefix


def check_directory(directory: Any) -> Path | None:
    """Raises ValueError for a value that is not a path. Upstream accepts only a str; a Path works too."""
    if directory is None:
        return None
    if not isinstance(directory, (str, Path)) or not str(directory):
        raise ValueError(f"directory must be a str, and not empty; it is {directory!r}")
    return Path(directory)


def save_policy(steps: Any, seconds: Any) -> SavePolicy:
    """The save policy of upstream's two arguments.

    Raises ValueError when the user gave both, or a negative number.
    """
    steps, seconds = _choose("save_checkpoint_steps", steps, "save_checkpoint_seconds", seconds)
    return SavePolicy(every_steps=steps) if steps else SavePolicy(every_s=float(seconds) if seconds else None)


def keep_policy(count: Any, minutes: Any) -> KeepPolicy:
    """The keep policy of upstream's two arguments; with neither, the newest one stays, as upstream.

    Raises ValueError when the user gave both, or a negative number.
    """
    count, minutes = _choose("keep_checkpoint_max", count, "keep_checkpoint_per_n_minutes", minutes)
    return KeepPolicy(per_minutes=minutes) if minutes else KeepPolicy(max_count=count or 1)


def keep_rules(given: KeepPolicy, count: Any, every_steps: Any, best: Any, best_by: str) -> KeepPolicy:
    """``given``, with those of the other rules that are not None in place of its own.

    ``best_by`` is "loss", or a metric with its direction, "accuracy:max". Raises ValueError for invalid
    numbers and words.
    """
    for name, value in (("max", count), ("every_steps", every_steps), ("best", best)):
        if value is not None and not _count(f"keep_{name}", value):
            raise ValueError(f"keep_{name} must be at least 1")
    if count is not None:
        given = replace(given, max_count=count, per_minutes=None)
    if every_steps is not None:
        given = replace(given, every_steps=every_steps)
    if best is not None:
        return replace(given, best=Best.parse(best, best_by))
    if best_by != LOSS:
        raise ValueError("keep_best_by does not say how many to keep: give keep_best as well")
    return given


def _choose(first_name: str, first: Any, second_name: str, second: Any) -> tuple[int, int]:
    numbers = _count(first_name, first), _count(second_name, second)
    if not all(numbers):
        return numbers
    if isinstance(first, Default):
        return 0, numbers[1]
    raise ValueError(
        f"{first_name}={first} and {second_name}={second} exclude each other; set one of them to 0"
    )


def _count(name: str, value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be an int and not negative; it is {value!r}")
    return int(value)


def sealing_of(key: Any, mode: Any) -> Sealing | None:
    """Upstream's ``enc_key`` and ``enc_mode``; None without a key.

    Raises TypeError for a key that is not bytes, ValueError for an unknown mode or a wrong length.
    """
    if mode not in ENC_MODES:
        raise ValueError(f"enc_mode must be one of {', '.join(ENC_MODES)}; it is {mode!r}")
    if key is None:
        return None
    if not isinstance(key, bytes):
        raise TypeError(f"enc_key must be bytes; it is {type(key).__name__}")
    try:
        check_key_length(mode, key)
    except UsageError as error:
        raise ValueError(f"enc_key: {error}") from None
    return Sealing(mode=mode, key=key)


def asynchronous(async_save: Any) -> str | None:
    """Upstream's ``async_save``: False, True (a thread), 'thread' or 'process'."""
    known = {False: None, True: "thread", "thread": "thread", "process": "process"}
    if not isinstance(async_save, (bool, str)) or async_save not in known:
        raise ValueError(f"async_save must be True, False, 'thread' or 'process'; it is {async_save!r}")
    return known[async_save]


def append_entries(append_info: Any) -> dict[str, Any]:
    """Upstream's ``append_info``: a list of "epoch_num", "step_num" and at most one dict.

    The counters are always saved, so the two names have no further effect. Raises TypeError and ValueError
    as upstream does, and ValueError for a number that no file can hold.
    """
    if append_info is None:
        return {}
    if not isinstance(append_info, (list, tuple)):
        raise TypeError(f"append_info must be a list; it is {type(append_info).__name__}")
    dicts = [item for item in append_info if isinstance(item, Mapping)]
    for item in append_info:
        if not isinstance(item, Mapping) and item not in OFFSETS:
            raise ValueError(f"append_info takes 'epoch_num', 'step_num' and one dict; it has {item!r}")
    if len(dicts) > 1:
        raise TypeError(f"append_info takes one dict; it has {len(dicts)}")
    entries = dict(dicts[0]) if dicts else {}
    for name, value in entries.items():
        _check_entry(name, value)
    return entries


def _check_entry(name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"append_info: a name must be a str; {name!r} is {type(name).__name__}")
    if isinstance(value, (bool, int, float, str)):
        try:
            info_record(name, value)
        except UsageError as error:
            raise ValueError(f"append_info: {error}") from None
        return
    if not callable(getattr(value, "asnumpy", None)):
        raise TypeError(
            f"append_info: {name!r} must be an int, float, bool, str, Parameter or Tensor; "
            f"it is {type(value).__name__}"
        )
