"""resilient-run: the command line. argv → options → the run's directory, key and record → the loop."""

from __future__ import annotations

from resilient import isolated

if __name__ == "__main__":
    # python -m supervisor.command.cli: what is imported next must not come from the working directory.
    isolated.guard()

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resilient.config import (
    DEFAULT_KEEP,
    DEFAULT_SAVE,
    ENC_MODES,
    LOSS,
    Best,
    KeepPolicy,
    MirrorPolicy,
    SavePolicy,
)
from resilient.errors import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_IO,
    EXIT_UNUSABLE,
    EXIT_USAGE,
    SYSTEM_FAILURES,
    BusyError,
    ResilientError,
    StorageError,
    UnusableError,
    UsageError,
)
from resilient.host import core_dumps, python_warnings, standard_streams
from supervisor.command import acceptance
from supervisor.command.arguments import KeySource, Options
from supervisor.command.naming import directory_of
from supervisor.command.option_parser import option_parser, split
from supervisor.command.start import supervise
from supervisor.edges import wakeup
from supervisor.group.program import Program
from supervisor.telling.console import Console
from supervisor.verdict.ledger import Poison
from supervisor.verdict.restart import RestartPolicy
from supervisor.watching.watchman import Limits


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point: ends the process with the exit status; with words of a caller's, returns it."""
    if argv is None:
        python_warnings.silence()
        wakeup.leave(_main(sys.argv[1:]))
    with wakeup.restored():
        return _main(list(argv))


def _main(arguments: list[str]) -> int:
    standard_streams.hold()
    core_dumps.forbid()
    console = Console()
    try:
        options = parse(arguments)
        console = Console(options.log_format, options.quiet)
        return supervise(options, console)
    except UnusableError as error:
        console.warn(str(error))
        return EXIT_UNUSABLE
    except (StorageError, OSError) as error:
        if error.errno not in SYSTEM_FAILURES:
            console.warn(str(error))
            return EXIT_USAGE
        # What the user has named may be as good as ever.
        console.warn(f"{error}; this is a failure of the machine: mend it, and run the same command again")
        return EXIT_IO
    except (UsageError, BusyError, ResilientError) as error:
        console.warn(str(error))
        return EXIT_USAGE
    except KeyboardInterrupt:
        # Once the loop runs, a Ctrl-C is one of its events.
        console.warn("stopped by SIGINT before anything was launched; the same command begins or resumes")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not the script's
        traceback.print_exc()
        words = f"{type(error).__name__}: {error}"
        console.warn(f"resilient-run itself has failed ({words}); please report it, with the traceback above")
        return EXIT_BROKEN


def parse(argv: list[str]) -> Options:
    """The options of a command line. Raises UsageError for what cannot be used."""
    ours, words = split(argv)
    values = option_parser().parse_args(ours)
    program = _program(values, words)
    return Options(
        program=program,
        run_dir=values.run_dir or directory_of(program),
        is_named=values.run_dir is not None,
        save=_save_policy(values),
        keep=_keep_policy(values),
        mirror=MirrorPolicy(values.mirror, values.mirror_every, values.mirror_slots),
        key=_key_source(values),
        restart=RestartPolicy(
            values.max_restarts,
            values.restart_window,
            min_s=values.backoff[0],
            max_s=values.backoff[1],
            poison=Poison(values.on_poison),
        ),
        grace_s=values.grace,
        limits=Limits(values.hang_timeout, values.memory_limit),
        standby=values.standby,
        fresh=values.fresh,
        archive=values.archive,
        take_from_script=values.take_from_script,
        extend=values.extend,
        log_format=values.log_format,
        quiet=values.quiet,
        accept=acceptance.of(values),
    )


def _program(values: argparse.Namespace, words: list[str]) -> Program:
    if values.module and values.no_python:
        raise UsageError("-m and --no-python exclude each other")
    if not words or not words[0].strip():
        missing = "module" if values.module else "command" if values.no_python else "script"
        raise UsageError(f"no {missing} is named", hint="resilient-run SCRIPT [ARGS...]")
    if values.module or values.no_python:
        return Program("module" if values.module else "command", tuple(words), values.core_dumps)
    _demand_script(Path(words[0]))
    return Program("script", tuple(words), values.core_dumps)


def _demand_script(script: Path) -> None:
    try:
        there, is_folder = script.exists(), script.is_dir()
    except PermissionError as error:
        raise UsageError(
            f"{script} cannot be reached: {error.strerror}", hint="check its permissions"
        ) from error
    if not there:
        raise UsageError(f"there is no script {script}")
    if not os.access(script, os.R_OK):
        raise UsageError(f"{script} cannot be read", hint="check its permissions")
    if is_folder and not any((script / name).exists() for name in ("__main__.py", "__main__.pyc")):
        raise UsageError(f"{script} is not a file, nor a folder with a __main__.py")
    if not is_folder and not script.is_file():
        raise UsageError(f"{script} is not a file")


def _save_policy(values: argparse.Namespace) -> SavePolicy:
    _exclude(values, "save_steps", "save_seconds")
    if values.save_steps is None and values.save_seconds is None:
        return DEFAULT_SAVE
    return SavePolicy(every_steps=values.save_steps, every_s=values.save_seconds)


def _keep_policy(values: argparse.Namespace) -> KeepPolicy:
    _exclude(values, "keep_max", "keep_per_n_minutes")
    newest = KeepPolicy(max_count=values.keep_max, per_minutes=values.keep_per_n_minutes)
    if newest == KeepPolicy():
        newest = DEFAULT_KEEP
    return replace(newest, every_steps=values.keep_every_steps, best=_best(values))


def _best(values: argparse.Namespace) -> Best | None:
    if values.keep_best is None:
        if values.keep_best_by is not None:
            raise UsageError("--keep-best-by says by what, and not how many", hint="add --keep-best N")
        return None
    try:
        return Best.parse(values.keep_best, values.keep_best_by or LOSS)
    except ValueError as error:
        raise UsageError(f"--keep-best-by: {error}") from error


def _key_source(values: argparse.Namespace) -> KeySource:
    names = ["key_file", "key_command", "passphrase_file", "no_encrypt"]
    _exclude(values, *names)
    if values.no_encrypt and values.enc_mode:
        raise UsageError("--enc-mode and --no-encrypt exclude each other")
    return KeySource(
        mode=None if values.no_encrypt else values.enc_mode or ENC_MODES[0],
        file=values.key_file,
        command=values.key_command,
        passphrase_file=values.passphrase_file,
        old_files=tuple(values.old_key_file),
    )


def _exclude(values: argparse.Namespace, *names: str) -> None:
    given = [name for name in names if getattr(values, name) not in (None, False)]
    if len(given) > 1:
        options = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{options} exclude each other", hint="give one of them")


if __name__ == "__main__":
    sys.exit(main())
