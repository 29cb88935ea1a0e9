"""The seal of a record: which keys vouch for a JSON document in a place where others may write.

    {..., "seal": {"<key id>": "<64 hexadecimal digits>", ...}}

Each entry is an HMAC-SHA256 under the document key of one key (``codec.keys``). It covers the kind of the
document and the canonical JSON of everything but the seal. So a document of one kind does not pass as another
kind, and the seal covers fields of later versions too. A document has an entry for each key that the writer
held: while a run changes its key, the old and the new one can both check it. Without a key there is no seal.

A seal says who wrote a document. It does not say that no newer one exists: the floor does (``floor``).
"""

from __future__ import annotations

import enum
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from resilient.codec.keys import document_key, key_id

FIELD = "seal"


class Seal(enum.Enum):
    """The state of a document's seal under certain keys."""

    SEALED = "sealed with one of the keys"
    UNSEALED = "there is no seal"
    LOCKED = "sealed with other keys only"
    BROKEN = "it was changed by somebody without the key"


def seal(content: Mapping[str, Any], keys: Iterable[bytes], kind: str) -> dict[str, Any]:
    """The document with a seal under each key; without one when there is no key."""
    bare = {name: value for name, value in content.items() if name != FIELD}
    macs = {key_id(key): _mac(bare, key, kind).hex() for key in keys}
    return {**bare, FIELD: macs} if macs else bare


def check(content: Mapping[str, Any], keys: Iterable[bytes], kind: str) -> Seal:
    """Checks the seal; the first key that has an entry decides."""
    if FIELD not in content:
        return Seal.UNSEALED
    macs = content[FIELD]
    if not isinstance(macs, dict) or not macs:
        return Seal.BROKEN
    bare = {name: value for name, value in content.items() if name != FIELD}
    for key in keys:
        if key_id(key) in macs:
            right = _is_same(macs[key_id(key)], _mac(bare, key, kind))
            return Seal.SEALED if right else Seal.BROKEN
    return Seal.LOCKED


def sealed_by(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The key ids that a document claims to be sealed with."""
    macs = content.get(FIELD)
    return tuple(sorted(name for name in macs if isinstance(name, str))) if isinstance(macs, dict) else ()


def _mac(bare: Mapping[str, Any], key: bytes, kind: str) -> bytes:
    canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.digest(document_key(key), f"{kind}\n{canonical}".encode("ascii"), "sha256")


def _is_same(found: object, wanted: bytes) -> bool:
    return isinstance(found, str) and hmac.compare_digest(
        found.encode("utf-8", "replace"), wanted.hex().encode()
    )
