"""resilient: looks at a run and its checkpoints, and does with them what a run itself does not.

    resilient ls RUN          every checkpoint: step, epoch, reason, size, age, whether it is valid, key
    resilient verify RUN      reads every byte of each; exit status 1 names the bad ones and why
    resilient status RUN      how it stands: running or not, attempt, step, last checkpoint, last failure
    resilient explain RUN     its story in plain words: what happened, why, what was saved, what to do next
    resilient stop RUN        asks it to save and end; the same command goes on later
    resilient save RUN        asks it for a checkpoint now
    resilient export RUN      one checkpoint as a plain .ckpt or .safetensors
    resilient pin RUN STEP    keeps a checkpoint whatever the keep policy says; unpin takes that back
    resilient rekey RUN       seals everything anew under another key
    resilient key make FILE   makes a key; key id FILE tells which one it is
    resilient adopt FOLDER    makes a resumable run of what stock MindSpore or MindFormers has saved

RUN is a run's directory (run.json is in it). One file a command; ``opened_run`` opens a run,
``command_line`` and ``progress`` tell. Nothing here imports MindSpore or NumPy.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from resilient.command_parser import CommandParser, ShowVersion
from resilient.errors import EXIT_USAGE, BusyError, ResilientError, UsageError
from resilient.host import core_dumps, python_warnings, standard_streams
from resilient.tools import adopt, control, explain, export, key, ls, pin, rekey, status, verify
from resilient.tools.command_line import EXIT_BAD, close_quietly, note, prepared

_EPILOG = """\
exit status: 0 all is well, 1 something is wrong with a checkpoint or a disk
(it is named), or there is nobody to stop or to ask, 64 bad usage: an option, a
key, a directory, or a run that is in use. Every command has --json: one object
a line.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    if argv is None:
        python_warnings.silence()
    standard_streams.hold()
    core_dumps.forbid()
    if argv is None:
        # What a stopped command leaves behind is cleared away, as after Ctrl-C.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (UsageError, BusyError) as error:
        note(str(error))
        return EXIT_USAGE
    except ResilientError as error:
        note(str(error))
        return EXIT_BAD
    except KeyboardInterrupt:
        note("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        close_quietly()
        return 128 + signal.SIGPIPE
    except OSError as error:
        # A path that the system refuses where nobody foresaw it.
        note(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        return EXIT_BAD


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    if not argv:
        parser.print_help()
        return EXIT_USAGE
    options = parser.parse_args(argv)
    with prepared(options):
        command: Callable[..., int] = options.function
        return command(options)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="resilient",
        description="Looks at a run and its checkpoints, and works on them. COMMAND --help tells more.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action=ShowVersion)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (ls, verify, status, explain, control, export, pin, rekey, key, adopt):
        command.add(commands)
    return parser
