"""All our errors. The class says what the caller does next; the hint says what the user does next.

ResilientError
├── UsageError            fix the input            (exit status 64)
│   └── KeySourceError    the key cannot be used: missing, wrong length, readable by others
├── BusyError             a living process owns this run: stop it, or wait
├── StorageError          the disk or the file system failed: retry later; nothing is quarantined
├── CheckpointError       a checkpoint cannot be used
│   ├── CorruptError      the bytes are not those that were committed: quarantine, fall back to an older one
│   ├── WrongKeyError     no damage found, sealed with another key: keep it, ask for the key
│   │   └── UnprovenError not encrypted although encryption is on: anybody could have written it
│   ├── ForeignError      belongs to another run or rank: leave it alone
│   ├── MismatchError     does not fit the network of the script: keep it, report the first differences
│   ├── ShunnedError      the supervisor forbids every usable state: stop
│   └── UnusableError     checkpoints exist, and none of them can be used   (exit status 65)
│       └── LostError     they are gone or damaged: restore them, or let the user accept a start from zero
├── MirrorError           the mirror of a worker cannot be used: work without it
│   ├── NoSlotError       every slot is being committed: wait for a commit
│   └── MirrorFullError   no memory for parts that the state has gained: leave them out
├── LinkError             the other side of the link is gone: work without it
│   └── NonsenseError     one message made no sense: drop it, and keep listening
│       └── OtherVersionError  the other side has another version: report that and exit
├── TooLargeError         a message is too large for the link: shorten it
└── StalledError          the other side of the link is alive but does not read: retry later
"""

from __future__ import annotations

import errno

EXIT_USAGE = 64
EXIT_UNUSABLE = 65
EXIT_BROKEN = 70
EXIT_IO = 74
EXIT_STOPPED = 75
EXIT_INTERRUPTED = 130

SYSTEM_FAILURES = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO),
        *(errno.EUCLEAN, errno.EBADMSG, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENETUNREACH, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""Errors of a disk, a server or a limit, which fail every request; others may be the fault of one name."""


class ResilientError(Exception):
    """Base of all our errors.

    ``hint`` is one sentence on what the user can do about it; it is printed after the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class UsageError(ResilientError):
    """An argument, an option or a file the user named cannot be used as it is."""


class KeySourceError(UsageError):
    """A key could not be obtained from its source."""


class BusyError(ResilientError):
    """The run belongs to a living process; ``pid`` says which (0 when unknown)."""

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class StorageError(ResilientError):
    """The operating system refused to read or write; ``errno`` is its reason.

    ``in_the_way``: something of another kind has the name of a file or a folder of ours, and stays until a
    person moves it away. The error says nothing about the bytes on disk: it makes them neither trusted nor
    quarantined.
    """

    def __init__(
        self, message: str, *, errno: int | None = None, hint: str = "", in_the_way: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.in_the_way = in_the_way


class CheckpointError(ResilientError):
    """A checkpoint cannot be used."""


class CorruptError(CheckpointError):
    """The bytes are not those that were committed. The only error that quarantines a file."""


class WrongKeyError(CheckpointError):
    """The checkpoint is sealed with a key that we do not have."""


class UnprovenError(WrongKeyError):
    """The checkpoint is not encrypted although the run is: no key vouches for it."""


class ForeignError(CheckpointError):
    """The checkpoint belongs to another run or another rank."""


class MismatchError(CheckpointError):
    """The checkpoint's parameters differ from the network's in names, shapes or dtypes."""


class UnusableError(CheckpointError):
    """Checkpoints exist but none can be used; starting from zero would silently lose them."""


class LostError(UnusableError):
    """All checkpoints that the run has saved are gone or damaged: no other key can help."""


class ShunnedError(CheckpointError):
    """The supervisor forbids every state that the run could resume from, because attempts failed there."""


class MirrorError(ResilientError):
    """The memory is not a mirror, or not a usable one."""


class NoSlotError(MirrorError):
    """Every slot that could be written is pinned."""


class MirrorFullError(MirrorError):
    """There is not enough memory for a mirror that holds all of the training state."""


class LinkError(ResilientError):
    """The link between worker and supervisor broke."""


class NonsenseError(LinkError):
    """A message on the link made no sense. The link itself still works.

    ``of`` is the class of the message, if its type was readable: its sender may wait for an answer.
    """

    def __init__(self, message: str, *, of: type | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.of = of


class OtherVersionError(NonsenseError):
    """The other side of the link speaks another protocol, because it has another version."""

    def __init__(self, *, of: type | None = None) -> None:
        super().__init__(
            "another version of resilient was installed while the supervisor of this run was running",
            of=of,
            hint="stop the run, then run the same command again: it resumes",
        )


class TooLargeError(ResilientError):
    """A message has more bytes than a link accepts."""


class StalledError(ResilientError):
    """The other side of the link is alive, but has read nothing for too long."""
