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

from resilient.command_parser import CommandParser, ShowVersion
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
from supervisor.command.option_values import (
    count,
    count_or_auto,
    count_or_zero,
    interval,
    memory,
    names,
    path,
    positive,
    seconds_or_auto,
    text,
)
from supervisor.command.start import supervise
from supervisor.edges import wakeup
from supervisor.group.worker_processes import Program
from supervisor.telling.console import Console
from supervisor.verdict.ledger import Poison
from supervisor.verdict.restart import RestartPolicy
from supervisor.watching.watchman import Limits

_EPILOG = """\
examples:
  resilient-run train.py --epochs 3            run it; run the same command again to resume
  resilient-run --save-steps 500 train.py      a checkpoint every 500 steps, instead of every 300 s
  resilient-run --fresh --archive train.py     start anew, keep the old run aside
  resilient-run -m package.train               run a module

exit status: 0 the run is complete, 64 bad usage, 65 checkpoints exist and none can be used,
70 resilient-run itself has failed, 74 the machine has failed (a disk, a server, a limit), 75 stopped
by request (the same command resumes), 130 Ctrl-C before anything was launched; otherwise the script's
own (128+N for signal N).
"""


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
    ours, words = _split(argv)
    values = _parser().parse_args(ours)
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


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our options, and the program with its own: everything from the first word that is not ours."""
    parser = _parser()
    takes_value = {name for action in parser._actions if action.nargs != 0 for name in action.option_strings}
    position = 0
    while position < len(argv):
        word = argv[position]
        if word == "--":
            return argv[:position], argv[position + 1 :]
        if word in ("-m", "--no-python"):
            return argv[: position + 1], argv[position + 1 :]
        if not word.startswith("-") or word == "-":
            return argv[:position], argv[position:]
        position += 2 if word in takes_value else 1
    return argv, []


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        hint="resilient-run --help lists the options",
        prog="resilient-run",
        usage="resilient-run [OPTIONS] SCRIPT | -m MODULE | --no-python COMMAND  [ARGS...]",
        description="Runs a MindSpore training script so that no failure loses work.",
        epilog=_EPILOG,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    what.add_argument("--no-python", action="store_true", help="run any command; restarted, not resumed")
    what.add_argument(
        "--run-dir",
        type=path,
        metavar="DIR",
        help="where the run lives (default: runs/<script name>)",
    )
    what.add_argument("--fresh", action="store_true", help="start anew; refuses where a run is in the way")
    what.add_argument("--archive", action="store_true", help="with --fresh: move the run in the way aside")
    what.add_argument(
        "--extend",
        action="store_true",
        help="train a complete run further, where the script asks for more epochs now",
    )
    what.add_argument(
        "--take-from-script",
        type=names,
        default=(),
        metavar="NAMES",
        help="use the script's value of these instead of the saved one, where it has changed: "
        "lr,weight_decay or all",
    )
    saving = parser.add_argument_group("saving")
    saving.add_argument("--save-steps", type=count, metavar="N", help="a checkpoint every N steps")
    saving.add_argument("--save-seconds", type=positive, metavar="S", help="every S seconds (default: 300)")
    saving.add_argument("--keep-max", type=count, metavar="N", help="keep the newest N (default: 5)")
    saving.add_argument("--keep-per-n-minutes", type=count, metavar="M", help="keep one per M minutes")
    saving.add_argument(
        "--keep-every-steps",
        type=count,
        metavar="K",
        help="also keep one at each multiple of K steps",
    )
    saving.add_argument("--keep-best", type=count, metavar="N", help="also keep the best N, by loss or ...")
    saving.add_argument(
        "--keep-best-by",
        type=text,
        metavar="METRIC:DIRECTION",
        help="... by this metric of its evaluations, accuracy:max or error:min; each of them is saved",
    )
    _add_mirror_options(parser.add_argument_group("memory"))
    _add_key_options(parser.add_argument_group("encryption"))
    acceptance.add_options(parser.add_argument_group("accepting what a start refuses"))
    failing = parser.add_argument_group("failures")
    failing.add_argument("--max-restarts", type=count_or_zero, default=10, metavar="N", help="default: 10")
    failing.add_argument(
        "--restart-window",
        type=positive,
        default=3600.0,
        metavar="S",
        help="... within S seconds (3600)",
    )
    failing.add_argument(
        "--backoff",
        type=interval,
        default=(1.0, 60.0),
        metavar="MIN:MAX",
        help="wait before a restart (1:60 s)",
    )
    failing.add_argument(
        "--grace",
        type=positive,
        default=30.0,
        metavar="S",
        help="from a stop request to SIGKILL (30 s)",
    )
    failing.add_argument(
        "--on-poison",
        choices=[poison.value for poison in Poison],
        default=Poison.ROLLBACK.value,
        help="a step that fails twice in the same way: end the run, go back to an older checkpoint, "
        "or leave its batch out (default: rollback)",
    )
    failing.add_argument(
        "--hang-timeout",
        type=seconds_or_auto,
        metavar="S|auto",
        help="a step may take S seconds; auto (default): as the run itself teaches; 0: for ever (debugging)",
    )
    failing.add_argument(
        "--memory-limit",
        type=memory,
        metavar="SIZE",
        help="a training above this, 12G or 800M, is saved and restarted before the kernel kills it",
    )
    failing.add_argument(
        "--standby",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep a second interpreter ready, so that a restart need not import (default: off)",
    )
    failing.add_argument(
        "--core-dumps",
        action="store_true",
        help="let the training leave core dumps, with the key in them (default: none)",
    )
    telling = parser.add_argument_group("telling")
    telling.add_argument("--log-format", choices=("pretty", "json"), default="pretty")
    telling.add_argument("--quiet", action="store_true", help="only warnings and the last line")
    telling.add_argument("--version", action=ShowVersion)
    return parser


def _add_mirror_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the newest steps in memory that survives a killed worker (default: on)",
    )
    group.add_argument(
        "--mirror-every",
        type=count_or_auto,
        metavar="N",
        help="every N steps; auto (default): as often as takes at most 2%% of the time",
    )
    group.add_argument(
        "--mirror-slots",
        type=int,
        choices=(2, 3),
        help="copies of the state in memory; 3 let the training go on during every save",
    )


def _add_key_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--enc-mode", choices=ENC_MODES, default=None, help="default: AES-GCM")
    group.add_argument(
        "--key-file",
        type=path,
        metavar="F",
        help="the key: raw, hexadecimal or base64; private to you",
    )
    group.add_argument("--key-command", type=text, metavar="C", help="a command that prints the key")
    group.add_argument(
        "--passphrase-file", type=path, metavar="F", help="a passphrase the key is derived from"
    )
    group.add_argument(
        "--old-key-file",
        type=path,
        metavar="F",
        action="append",
        default=[],
        help="opens older checkpoints; repeatable",
    )
    group.add_argument("--no-encrypt", action="store_true", help="write checkpoints unencrypted")


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
