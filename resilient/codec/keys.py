"""Keys: their sources, and the keys derived from them.

From the encryption key K, by HKDF-SHA256 (RFC 5869) with the salt "resilient-run":

    manifest key   32 bytes, context "manifest 1": authenticates manifests and the blocks of the CBC modes
    key id          8 bytes, context "key id 1": public; tells which key sealed a file, nothing else
    document key   32 bytes, context "document 1": authenticates other records (``run.record_seal``)

The numbers are versions: another use, or another meaning, gets another context.

A key file holds the key raw, in hexadecimal or in base64. We reject a file that can be read in two ways:
after a wrong guess nobody could ever open the checkpoints again. We also reject files that others can read.
No message here ever contains a key, or the output of a command.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import functools
import os
import secrets
import shlex
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF, scrypt

from resilient.errors import KeySourceError
from resilient.host import inside

KEY_BYTES = {"AES-GCM": (32, 24, 16), "AES-CBC": (32, 24, 16), "SM4-CBC": (16,)}
COMMAND_TIMEOUT_S = 60.0
SALT_BYTES = 16

_SALT = b"resilient-run"
_SCRYPT_N = 2**17
_SCRYPT_R = 8
_SCRYPT_P = 1
_LIMIT_BYTES = 4096
_NAMED_S = 2.0
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EACCES)
"""The errors of link(2) when a file system has no hard links, or a container's rules forbid them."""


def check_key_length(mode: str, key: bytes) -> None:
    """Raises KeySourceError unless ``key`` is 16, 24 or 32 bytes long for an AES mode, 16 for SM4."""
    if mode not in KEY_BYTES:
        raise KeySourceError(f"unknown encryption mode {mode}", hint=f"one of {', '.join(KEY_BYTES)}")
    if len(key) not in KEY_BYTES[mode]:
        lengths = " or ".join(str(length) for length in sorted(KEY_BYTES[mode]))
        raise KeySourceError(f"the key has {len(key)} bytes; {mode} takes {lengths}")


def manifest_key(key: bytes) -> bytes:
    """The 32-byte key that authenticates manifests and CBC blocks."""
    return _derive(key, 32, b"manifest 1")


def document_key(key: bytes) -> bytes:
    """The 32-byte key that authenticates records beside the checkpoints (see ``run.record_seal``)."""
    return _derive(key, 32, b"document 1")


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that name a key without revealing anything about it."""
    return _derive(key, 8, b"key id 1").hex()


def from_file(path: Path, mode: str) -> bytes:
    """The key in a file. Raises KeySourceError if it is missing, not private, or not a key for ``mode``."""
    return _parse(_read_private(path), mode, str(path))


def from_any_file(path: Path) -> bytes:
    """The key in a file, of any supported length: the checkpoints say which mode it is for.

    Raises KeySourceError as :func:`from_file`.
    """
    try:
        return from_file(path, "AES-GCM")
    except KeySourceError as error:
        try:
            return from_file(path, "SM4-CBC")
        except KeySourceError:
            raise error from None


def from_command(command: str, mode: str) -> bytes:
    """The key that a command prints. The command is split like in a shell, and runs without one.

    Raises KeySourceError if it cannot be started, fails, takes more than 60 s or prints no key.
    """
    arguments = _split(command)
    program = arguments[0]
    try:
        status, printed = _run(arguments)
    except subprocess.TimeoutExpired:
        # Not chained: the exception carries the command's output, which may be the key.
        raise KeySourceError(f"the key command {program} took more than {COMMAND_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise KeySourceError(f"the key command {program} cannot be run: {error.strerror}") from error
    if status != 0:
        raise KeySourceError(f"the key command {program} failed with status {status}")
    return _parse(printed, mode, f"the key command {program}")


def _run(arguments: Sequence[str]) -> tuple[int, bytes]:
    """The exit status and output of a command; any exception while it runs kills the command too."""
    process = None
    try:
        # On a Ctrl-C during the command's exec, Popen raises KeyboardInterrupt without returning: the command
        # would keep running, and we could not kill it.
        with _ctrl_c_afterwards():
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        printed, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
    finally:
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    return process.returncode, printed


@contextlib.contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Delays the KeyboardInterrupt of a Ctrl-C to the end of the block, in the main thread."""
    own = signal.getsignal(signal.SIGINT)
    if own is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
    if came:
        raise KeyboardInterrupt


def from_passphrase_file(path: Path, salt: bytes, mode: str) -> bytes:
    """A key stretched from a passphrase by scrypt (RFC 7914; N=2**17, r=8, p=1: 128 MiB, half a second).

    ``salt`` must be stored with the run: another salt gives another key. One trailing newline is not
    part of the passphrase. Raises KeySourceError as :func:`from_file`, and for an empty passphrase.
    """
    assert len(salt) >= SALT_BYTES
    passphrase = _without_newline(_read_private(path))
    if not passphrase:
        raise KeySourceError(f"the passphrase in {path} is empty")
    size = max(KEY_BYTES[mode])
    key = scrypt(passphrase, salt, key_len=size, N=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    assert isinstance(key, bytes)
    return key


def default_key(config_home: Path, mode: str) -> tuple[bytes, Path, bool]:
    """The key of this user, its file, and whether this call made it.

    Two processes that make it at the same moment get the same key.
    """
    path = default_path(config_home, mode)
    try:
        _make_folders(path.parent)
        created = not os.path.lexists(path) and _make_key_file(path, max(KEY_BYTES[mode]))
    except OSError as error:
        hint = "name a key with --key-file"
        raise KeySourceError(f"cannot make the key {path}: {error.strerror}", hint=hint) from error
    _await_content(path)
    return from_file(path, mode), path, created


def _await_content(path: Path) -> None:
    """Waits while the file is empty: another process may have created it and be about to write the key."""
    end_s = time.monotonic() + _NAMED_S
    with contextlib.suppress(OSError):
        while os.stat(path).st_size == 0 and time.monotonic() < end_s:
            time.sleep(0.02)


def default_path(config_home: Path, mode: str) -> Path:
    """The path of this user's key."""
    return config_home / "resilient" / ("key-sm4" if mode == "SM4-CBC" else "key")


def make_file(path: Path, mode: str) -> bytes:
    """Makes a new key for ``mode`` in a new file, durably, with permissions 0600; returns the key.

    Raises KeySourceError when the name is taken, or the file cannot be made.
    """
    try:
        made = _make_key_file(path, max(KEY_BYTES[mode]))
    except OSError as error:
        raise KeySourceError(f"cannot make the key {path}: {error.strerror}") from error
    if not made:
        raise KeySourceError(
            f"{path} exists already, and a key is never overwritten", hint="choose another name"
        )
    return from_file(path, mode)


# Each manifest needs the same few keys. The cache exposes no more than the key itself, which we hold anyway.
@functools.lru_cache(maxsize=64)
def _derive(key: bytes, size_bytes: int, context: bytes) -> bytes:
    derived = HKDF(key, size_bytes, _SALT, SHA256, context=context)
    assert isinstance(derived, bytes)
    return derived


def _split(command: str) -> Sequence[str]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise KeySourceError(f"the key command cannot be split into words: {error}") from error
    if not arguments:
        raise KeySourceError("the key command is empty")
    return arguments


def _read_private(path: Path) -> bytes:
    """The content of a regular file that only its owner, this user or root, can read."""
    try:
        # O_NONBLOCK: a FIFO is rejected, and must not block the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Checks the open file, not the path: nobody can swap it between the check and the reading.
            _demand_private(os.fstat(descriptor), path)
            return os.read(descriptor, _LIMIT_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeySourceError(f"cannot read {path}: {error.strerror}") from error


def _demand_private(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeySourceError(f"{path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise KeySourceError(f"{path} belongs to another user")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        hint = f"chmod 600 {shlex.quote(str(path))}"
        raise KeySourceError(f"others can read or change {path}", hint=hint)
    if status.st_size > _LIMIT_BYTES:
        raise KeySourceError(f"{path} is too large to be a key")


def _parse(data: bytes, mode: str, source: str) -> bytes:
    """The only key that ``data`` can mean; raises KeySourceError for none or several."""
    lengths = KEY_BYTES[mode]
    found = {key for key in _readings(data) if len(key) in lengths}
    if not found:
        wanted = " or ".join(str(length) for length in lengths)
        raise KeySourceError(f"{source} holds no key of {wanted} bytes", hint="raw, hexadecimal or base64")
    if len(found) > 1:
        raise KeySourceError(
            f"the key of {source} has more than one possible reading",
            hint=f"write its {max(lengths)} bytes as {2 * max(lengths)} hexadecimal digits",
        )
    return found.pop()


def _readings(data: bytes) -> list[bytes]:
    """All possible readings of ``data`` as a key."""
    text = _without_newline(data)
    readings = [data, text]
    with contextlib.suppress(binascii.Error):
        readings.append(binascii.unhexlify(text))
    with contextlib.suppress(binascii.Error):
        readings.append(base64.b64decode(text, validate=True))
    return readings


def _without_newline(data: bytes) -> bytes:
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _make_folders(folder: Path) -> None:
    """Makes a folder and its parents with 0700, whatever the umask: mkdir's ``parents`` would use 0777."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        with contextlib.suppress(FileExistsError):
            inside.make_directory(folder, 0o700)


def _make_key_file(path: Path, size_bytes: int) -> bool:
    """Makes a key file unless there is one; returns whether it did. A reader never sees a partial key."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        inside.give_owner(descriptor, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(size_bytes).hex().encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        _give_name(temporary, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_directory(path.parent)
    return True


def _give_name(temporary: Path, path: Path) -> None:
    """Raises FileExistsError when the name is taken: a rename would replace the key of another process."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # FAT, and many FUSE and network file systems. The process that created the empty file may replace it.
        # A crash in between leaves an empty file; the next start rejects it as a key and names it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(temporary, path)


def _sync_directory(directory: Path) -> None:
    """Makes the key's name durable: without the key every checkpoint is unreadable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
