"""Every error of ours. The class says what the caller does next; the hint says what the user does next.

ResilientError
├── UsageError            fix the input            (exit status 64)
│   └── KeySourceError    the key cannot be used: missing, wrong length, readable by others
├── BusyError             somebody alive owns this run: stop it, or wait
├── StorageError          the disk or the file system failed: try again later; nothing is quarantined
├── CheckpointError       a checkpoint cannot be used
│   ├── CorruptError      the bytes are not what was committed: quarantine, fall back to an older one
│   ├── WrongKeyError     intact as far as can be told, sealed with another key: keep, ask for the key
│   │   └── UnprovenError not encrypted where encryption is on: anybody could have written it
│   ├── ForeignError      belongs to another run or rank: leave it alone
│   ├── MismatchError     does not fit the network of the script: keep, tell the first differences
│   ├── ShunnedError      what could be used is not to be gone on from: the supervisor has set it aside
│   └── UnusableError     checkpoints exist, and none of them can be used   (exit status 65)
│       └── LostError     they are gone, or damaged: restore them, or have the user accept a start from zero
├── MirrorError           memory of a worker that cannot be used: do without it
│   ├── NoSlotError       every slot is being committed: wait for a commit
│   └── MirrorFullError   there is no memory for what has grown: leave it out
├── LinkError             the other side of the link is gone: do without it
│   └── NonsenseError     one message made no sense: leave it out, and go on listening
│       └── OtherVersionError  the other side is of another version: end, and say so
├── TooLargeError         a message is too large for the link: shorten it
└── StalledError          the other side of the link lives and does not read: try later
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
"""A disk, a server or a limit that fails whatever was asked for; others may be the fault of a name."""


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
    """The run belongs to a living process; ``pid`` says which (0 when it cannot be told)."""

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class StorageError(ResilientError):
    """The operating system refused to read or write; ``errno`` is its reason.

    ``in_the_way`` says that something of another kind has the name of a file or a folder of ours: that lasts
    until a person moves it away. Says nothing about the bytes on disk: they are neither trusted nor
    quarantined because of it.
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
    """What was read is not what was committed. The only error that quarantines a file."""


class WrongKeyError(CheckpointError):
    """The checkpoint was sealed with a key that we were not given."""


class UnprovenError(WrongKeyError):
    """The checkpoint is not encrypted although the run is: no key vouches for it."""


class ForeignError(CheckpointError):
    """The checkpoint belongs to another run or another rank."""


class MismatchError(CheckpointError):
    """The checkpoint's parameters differ from the network's in names, shapes or dtypes."""


class UnusableError(CheckpointError):
    """Checkpoints exist but none can be used; starting from zero would silently lose them."""


class LostError(UnusableError):
    """The run has saved, and all of it is gone or damaged: no other key can help."""


class ShunnedError(CheckpointError):
    """Every state that could be gone on from has been set aside, because attempts have ended on it."""


class MirrorError(ResilientError):
    """The memory is no mirror, or not one that can be used."""


class NoSlotError(MirrorError):
    """Every slot that could be written is pinned."""


class MirrorFullError(MirrorError):
    """There is no memory for a mirror that holds what a boundary consists of."""


class LinkError(ResilientError):
    """The link between worker and supervisor broke."""


class NonsenseError(LinkError):
    """A message on the link made no sense. The link itself is as it was.

    ``of`` is the class of the message, where its word was understood: its sender may wait for an answer.
    """

    def __init__(self, message: str, *, of: type | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.of = of


class OtherVersionError(NonsenseError):
    """The other side of the link speaks another protocol: it is of another version of ours."""

    def __init__(self, *, of: type | None = None) -> None:
        super().__init__(
            "resilient was exchanged for another version while the supervisor of this run was at work",
            of=of,
            hint="stop the run, then run the same command again: it resumes",
        )


class TooLargeError(ResilientError):
    """A message has more bytes than any link takes."""


class StalledError(ResilientError):
    """The other side of the link lives, and has read nothing for too long."""
