"""The manifest: the authenticated record that makes a data file a checkpoint.

A manifest is one line of canonical JSON (ASCII, keys sorted, no spaces) and a newline:

    {"mac":"<64 hexadecimal digits>","manifest":{...the fields of Manifest...}}

``mac`` is HMAC-SHA256 over the canonical JSON of the inner object, under the manifest key (``codec.keys``).
Without encryption it is a plain SHA-256, which detects accidents but no tampering. Decoding and encoding
again must give the same bytes, so each manifest has one spelling and the mac covers every byte.

A manifest is rejected, checked in this order, when it

1. is too large, not canonical, or has a wrong mac under the right key          CorruptError
2. belongs to another run or rank                                               ForeignError
3. is sealed under a key that we do not have                                    WrongKeyError
4. is not encrypted while encryption is on: anybody could have written it       UnprovenError
5. has the format of a later version                                            ForeignError
6. has fields of another type, out of range, or contradicting each other        CorruptError

``parent`` is the SHA-256 of the file of the manifest before it, so the manifests of a run form a chain.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resilient.codec.keys import KEY_BYTES, key_id, manifest_key
from resilient.errors import CorruptError, ForeignError, UnprovenError, WrongKeyError

FORMAT = 1
LIMIT_BYTES = 64 * 1024 * 1024  # holds the tags of four terabytes, and is still quick to read

GCM_TAG_BYTES = 16
DIGEST_BYTES = 32
_MAX_NUMBER = 2**53
_MAX_PARTS = 10_000  # JSON values: each may cost a hundred times its bytes in the file


@dataclass(frozen=True)
class Owner:
    """The run and the rank that a checkpoint belongs to."""

    run_id: str
    rank: int


@dataclass(frozen=True)
class Manifest:
    """Everything that is bound to a checkpoint's data file.

    ``step`` counts over the run, ``step_in_epoch`` within ``epoch``, all from 1. ``generation`` counts the
    commits of the run and orders them. ``parent`` is the digest of the manifest before this one, "" for the
    first. ``file_bytes`` is the size on disk, ``plain_bytes`` that of the plaintext. ``mode`` and
    ``key_id`` are None without encryption. ``tags`` are those of the blocks, in order. ``reason`` says why
    the checkpoint was made, ``failure`` whether that was a failure of the run. ``created`` is wall time in
    seconds, for display only. ``info`` is a small JSON object with the caller's own content.
    """

    run_id: str
    rank: int
    world_size: int
    step: int
    epoch: int
    step_in_epoch: int
    generation: int
    parent: str
    file_name: str
    file_bytes: int
    plain_bytes: int
    mode: str | None
    key_id: str | None
    tags: tuple[bytes, ...] = field(repr=False)
    prefix: str
    reason: str
    failure: bool
    created: float
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for impossible values: anybody can write an unencrypted manifest."""
        _demand((self.mode is None) == (self.key_id is None), "a mode needs a key, and a key a mode")
        _demand(self.mode is None or self.mode in KEY_BYTES, "its mode is unknown")
        _demand(all(0 <= number < _MAX_NUMBER for number in self._numbers()), "a number is out of range")
        _demand(abs(self.created) < _MAX_NUMBER, "its time is out of range")
        _demand("/" not in self.file_name and self.file_name.endswith(".ckpt"), "its file name is not valid")
        _demand(all(len(tag) == _tag_bytes(self.mode) for tag in self.tags), "a tag has a wrong length")
        # No block is empty, and none is smaller than its plaintext. So a reader that allocates memory for
        # the plaintext never allocates more than the size of the file.
        _demand(len(self.tags) <= self.plain_bytes <= self.file_bytes, "its sizes contradict each other")

    def _numbers(self) -> tuple[int, ...]:
        return (
            self.rank,
            self.world_size,
            self.step,
            self.epoch,
            self.step_in_epoch,
            self.generation,
            self.file_bytes,
            self.plain_bytes,
        )


def encode(manifest: Manifest, key: bytes | None) -> bytes:
    """The bytes of a manifest's file, authenticated under ``key`` (None: without encryption)."""
    assert (key_id(key) if key is not None else None) == manifest.key_id
    inner = _to_json(manifest)
    return _file_of(inner, _mac(inner, key).hex())


def decode(data: bytes, keys: Sequence[bytes], owner: Owner, *, allow_plain: bool = False) -> Manifest:
    """The manifest in a file's bytes, if it is authentic and ``owner``'s.

    ``keys`` are all that may have sealed it. Without keys, only unencrypted manifests can be read; with
    keys, unencrypted ones are rejected unless ``allow_plain``. Raises CorruptError, WrongKeyError
    and ForeignError as the module's docstring says.
    """
    inner, mac = _parse(data)
    authentic = _authenticate(inner, mac, keys)
    if (inner.get("run_id"), inner.get("rank")) != (owner.run_id, owner.rank):
        raise ForeignError(f"belongs to run {inner.get('run_id')}, rank {inner.get('rank')}")
    if not authentic:
        raise WrongKeyError("sealed with another key", hint="give the key it was made with")
    if inner.get("key_id") is None and keys and not allow_plain:
        raise unproven()
    # To Python, true and 1.0 are equal to 1.
    if type(inner.get("format")) is not int or inner.get("format") != FORMAT:
        raise ForeignError(f"has format {inner.get('format')}", hint="made by a later version: update")
    return _from_json(inner)


def unproven() -> UnprovenError:
    """The error for a manifest that no key vouches for, where the run is encrypted."""
    return UnprovenError(
        "not encrypted, so anybody could have put it there",
        hint="encryption is on now: if it is this run's, give --accept-plain, here or to `resilient rekey`",
    )


def digest(data: bytes) -> str:
    """The SHA-256 of a manifest's file, by which the next manifest names it as its parent."""
    return hashlib.sha256(data).hexdigest()


def claims(data: bytes) -> Mapping[str, Any]:
    """The unproven content of a manifest; empty when it cannot be read at all."""
    try:
        return _parse(data)[0]
    except CorruptError:
        return {}


def claimed_generation(data: bytes) -> int:
    """The generation that a manifest claims without proof, 0 when it is not plausible."""
    try:
        generation = _parse(data)[0].get("generation")
    except CorruptError:
        return 0
    # A forged claim must not exhaust the numbers.
    return generation if isinstance(generation, int) and 0 < generation < 2**40 else 0


def _canonical(value: Any) -> bytes:
    # NaN is allowed: a loss of NaN must not prevent the checkpoint.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _file_of(inner: Mapping[str, Any], mac: str) -> bytes:
    return _canonical({"mac": mac, "manifest": inner}) + b"\n"


def _mac(inner: Mapping[str, Any], key: bytes | None) -> bytes:
    message = _canonical(inner)
    if key is None:
        return hashlib.sha256(message).digest()
    return hmac.digest(manifest_key(key), message, "sha256")


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _parse(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) > LIMIT_BYTES or sum(map(data.count, (b",", b"[", b"{"))) > _MAX_PARTS:
        raise CorruptError("the manifest is far too large")
    try:
        outer = json.loads(data)
        inner, mac = outer["manifest"], bytes.fromhex(outer["mac"])
        canonical = _file_of(inner, mac.hex()) == data
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError("the manifest is not readable") from error
    if not canonical or not isinstance(inner, dict):
        raise CorruptError("the manifest has been changed")
    return inner, mac


def _authenticate(inner: Mapping[str, Any], mac: bytes, keys: Sequence[bytes]) -> bool:
    """True when authentic, False when its key is not among ours; CorruptError otherwise."""
    wanted = inner.get("key_id")
    if wanted is None:
        if not hmac.compare_digest(_mac(inner, None), mac):
            raise CorruptError("the manifest has been changed")
        return True
    for key in keys:
        if hmac.compare_digest(_mac({**inner, "key_id": key_id(key)}, key), mac):
            if wanted != key_id(key):
                # Our key sealed it, and only the key's id is damaged: corruption, not a missing key.
                raise CorruptError("the manifest has been changed")
            return True
        if wanted == key_id(key):
            raise CorruptError("the manifest has been changed")
    return False


def _to_json(manifest: Manifest) -> dict[str, Any]:
    inner = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
    inner.update(
        format=FORMAT,
        blocks=len(manifest.tags),
        tags=b"".join(manifest.tags).hex(),
        info=dict(manifest.info),
    )
    return inner


def _from_json(inner: Mapping[str, Any]) -> Manifest:
    fields = dict(inner)
    try:
        del fields["format"]
        _check_types(fields)
        fields["tags"] = _split_tags(fields["tags"], fields["mode"], fields.pop("blocks"))
        return Manifest(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"the manifest makes no sense: {error}") from error


def _split_tags(text: str, mode: str | None, blocks: int) -> tuple[bytes, ...]:
    joined, size = bytes.fromhex(text), _tag_bytes(mode)
    # fromhex accepts capitals and spaces too.
    if joined.hex() != text or len(joined) != size * blocks:
        raise ValueError("its tags are incomplete")
    return tuple(joined[start : start + size] for start in range(0, len(joined), size))


def _tag_bytes(mode: str | None) -> int:
    return GCM_TAG_BYTES if mode == "AES-GCM" else DIGEST_BYTES


def _check_types(fields: Mapping[str, Any]) -> None:
    """Checks every type before use: anybody can write an unencrypted manifest."""
    wanted: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("run_id", "parent", "file_name", "prefix", "reason", "tags"), str),
        **dict.fromkeys(("rank", "world_size", "step", "epoch", "step_in_epoch", "generation"), int),
        **dict.fromkeys(("file_bytes", "plain_bytes", "blocks"), int),
        **dict.fromkeys(("mode", "key_id"), (str, type(None))),
        "failure": bool,
        "created": (int, float),
        "info": dict,
    }
    for name, kind in wanted.items():
        # Python counts a bool as an int.
        if not isinstance(fields[name], kind) or (isinstance(fields[name], bool) and kind is not bool):
            raise TypeError(f"{name} is a {type(fields[name]).__name__}")
