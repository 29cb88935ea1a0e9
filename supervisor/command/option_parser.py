"""The options of ``resilient-run``: names, kinds and help; and where they end and the program begins."""

from __future__ import annotations

import argparse

from resilient.command_parser import CommandParser, ShowVersion
from resilient.config import ENC_MODES
from supervisor.command import acceptance
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
from supervisor.verdict.ledger import Poison

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


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our options, and the program with its own: everything from the first word that is not ours."""
    parser = option_parser()
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


def option_parser() -> argparse.ArgumentParser:
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
