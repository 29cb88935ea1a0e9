"""Reading takes no more memory than the file has bytes plus a few blocks, whatever its lengths claim."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import tracemalloc

import pytest
from bytes_reader import BytesReader
from hostile import LENGTHS, varint

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import container
from resilient.codec.cipher import BLOCK_BYTES, Cipher
from resilient.errors import CheckpointError, CorruptError
from resilient.store import layout, manifest
from resilient.store.manifest import Manifest, Owner

FEW_BLOCKS = 8 * BLOCK_BYTES
MEBIBYTE = 1024 * 1024
KEYS = {"AES-GCM": bytes(32), "AES-CBC": bytes(32), "SM4-CBC": bytes(16)}
HUGE = [number for number in LENGTHS if number > 1]


def taken(read):
    """The peak of Python's memory during this call, beyond what it held before."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(read, *arguments, **options):
    def run():
        with pytest.raises(CheckpointError):
            read(*arguments, **options)

    return run


def keep_all():
    """A sink that allocates memory for every tensor, as loading does."""
    kept = []

    def sink(name, dtype, dims, size_bytes, section):
        kept.append(bytearray(size_bytes))
        return memoryview(kept[-1])

    return sink


def test_the_measure_sees_what_is_taken():
    """Memory that is allocated and released counts, and so do untouched zeros."""
    assert taken(lambda: len(bytearray(50 * MEBIBYTE))) >= 50 * MEBIBYTE
    assert taken(lambda: None) < MEBIBYTE


@pytest.mark.parametrize("mode", KEYS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_blocks_lengths_are_not_believed(mode, length):
    """A sealed block that claims any length costs a few blocks, whatever the cipher."""
    cipher = Cipher(mode, KEYS[mode], SeededEntropy())
    (block,) = [(bytes(b.data), b.tag) for b in cipher.seal([bytes(100_000)])]
    data = bytearray(block[0])
    total_at, size_at = {"AES-GCM": (20, 44)}.get(mode, (4, 28))
    struct.pack_into("<I", data, size_at, length % 2**32)
    struct.pack_into("<I", data, total_at, (length + 24) % 2**32)
    peak = taken(refused(lambda: list(cipher.open(BytesReader(data), [block[1]]))))
    assert peak <= len(data) + FEW_BLOCKS


def tensor(name=b"w", dims=(1,), dtype=b"Int8", content=b"x", *, claims=None, name_claims=None):
    """A record; ``claims`` is the length it gives its content, ``name_claims`` its name."""
    size = len(content) if claims is None else claims
    head = b"".join(b"\x08" + varint(dim) for dim in dims)
    head += b"\x12" + varint(len(dtype)) + dtype + b"\x1a" + varint(size)
    value = b"\x0a" + varint(len(name) if name_claims is None else name_claims) + name
    value += b"\x12" + varint(len(head) + size) + head
    return b"\x0a" + varint(len(value) + size) + value + content


def hostile_streams(number):
    yield "extra", b"\xc2\x3e" + varint(number) + b"abc"
    yield "name", tensor(name_claims=number)
    yield "content", tensor(claims=number)
    yield "dims", tensor(dims=(number,))
    yield "product", tensor(dims=(number,) * 3)
    yield "many", tensor(dims=(number,) * 64)
    yield "text", tensor(dims=(0,), dtype=b"str", claims=number)
    yield "unknown", tensor(dtype=b"Float4", claims=number)


@pytest.mark.parametrize("size_is_known", [True, False])
@pytest.mark.parametrize("number", HUGE)
def test_a_streams_lengths_are_not_believed(number, size_is_known):
    """An extra, a name, a content or dims that claim more than the stream has allocate nothing."""
    for what, data in hostile_streams(number):
        if not size_is_known and what in ("dims", "product", "many", "text", "unknown", "content"):
            # Without the stream's size, the sink decides about a tensor by its claimed size.
            continue
        read = refused(container.decode, [data], keep_all(), len(data) if size_is_known else None)
        assert taken(read) <= len(data) + BLOCK_BYTES, what


def test_tensors_together_claim_no_more_than_there_is():
    """After one real tensor, the next one cannot claim the whole file again."""
    first = tensor(dims=(10 * MEBIBYTE,), content=bytes(10 * MEBIBYTE))
    data = first + tensor(b"v", dims=(len(first),), content=b"x")
    assert taken(refused(container.decode, [data], keep_all(), len(data))) <= 10 * MEBIBYTE + BLOCK_BYTES
    with pytest.raises(CorruptError, match="more than there are"):
        container.decode([data], keep_all(), len(data))


def test_a_large_extra_is_there_once():
    """An extra as large as the file is read into memory once."""
    size = 40 * MEBIBYTE
    chunks = [b"\xc2\x3e" + varint(size)] + [bytes(BLOCK_BYTES)] * 10
    assert taken(lambda: container.decode(chunks, keep_all(), sum(map(len, chunks)))) <= size + BLOCK_BYTES


PLAIN = {
    **dict.fromkeys(("world_size", "step", "epoch", "step_in_epoch", "generation"), 1),
    **{"run_id": "run-1", "rank": 0, "parent": "", "file_name": "CKP_rank_0-1_1.ckpt", "prefix": "CKP"},
    **{"mode": None, "key_id": None, "reason": "schedule", "failure": False, "created": 1.5, "info": {}},
    **{"file_bytes": 32, "plain_bytes": 32, "tags": bytes(32).hex(), "blocks": 1, "format": 1},
}


def forged(**changes):
    """An unencrypted manifest of any fields, with the right checksum."""
    inner = {**PLAIN, **changes}
    return manifest._file_of(inner, manifest._mac(inner, None).hex())


@pytest.mark.parametrize("number", [*HUGE, 10**400])
@pytest.mark.parametrize("field", ["blocks", "file_bytes", "plain_bytes", "generation", "rank", "created"])
def test_a_manifests_numbers_are_not_believed(field, number):
    """A manifest that claims any number of blocks or bytes takes memory only for its own bytes."""
    data = forged(**{field: number})
    assert taken(lambda: _decode(data)) <= BLOCK_BYTES


@pytest.mark.parametrize("what", [[0] * 300_000, [[]] * 200_000, {str(n): {} for n in range(50_000)}])
def test_a_manifest_of_very_many_values_is_not_read(what):
    """A manifest of too many values is rejected: each JSON value costs a hundred times its bytes."""
    data = forged(blocks=what)
    assert taken(refused(manifest.decode, data, [], Owner("run-1", 0))) <= len(data) + BLOCK_BYTES


@pytest.mark.parametrize("field", ["tags", "run_id", "reason", "info"])
def test_a_long_manifest_costs_a_few_times_its_length(field):
    """A manifest of any accepted length, in any field, costs a few times its length."""
    text = "00" * 32 * 100_000
    data = forged(**{field: {"a": text} if field == "info" else text})
    assert taken(lambda: _decode(data)) <= 8 * len(data)
    assert manifest.LIMIT_BYTES <= 16 * BLOCK_BYTES


def test_a_manifest_above_the_limit_is_refused():
    """A manifest above the limit is rejected, from a file or from memory."""
    with pytest.raises(CorruptError, match="too large"):
        manifest.decode(b" " * (manifest.LIMIT_BYTES + 1), [], Owner("run-1", 0))


def _decode(data):
    try:
        return manifest.decode(data, [], Owner("run-1", 0))
    except CheckpointError:
        return None


CHILD = """
import json, resource, sys
from pathlib import Path
from resilient.config import Sealing
from resilient.errors import ResilientError
from resilient.host.world import World
from resilient.store.opening import open_store

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

kept = []
def make_sink(entry):
    kept.clear()
    def sink(name, dtype, dims, size_bytes, section):
        kept.append(bytearray(size_bytes))
        return memoryview(kept[-1])
    return sink

store = open_store(Path(sys.argv[1]), World(), Sealing(), "run-1")
before, limit = status("VmHWM"), status("VmSize") + int(sys.argv[2]) + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    loaded = store.load_newest(make_sink)
    outcome = len(loaded.extra) + sum(map(len, kept))
except ResilientError as error:
    outcome = type(error).__name__
print(json.dumps([outcome, status("VmHWM") - before]))
"""


def put_checkpoint(root, head, size, **claims):
    """Writes an unencrypted checkpoint: this head, then zeros up to a size, under an authentic manifest."""
    folder = layout.checkpoint_directory(root, 0)
    folder.mkdir(parents=True)
    with open(folder / PLAIN["file_name"], "wb") as file:
        file.write(head)
        file.truncate(size)
    with open(folder / PLAIN["file_name"], "rb") as file:
        blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
        tags = tuple(hashlib.sha256(block).digest() for block in blocks)
    values = {name: value for name, value in PLAIN.items() if name not in ("blocks", "format")}
    values |= {"tags": tags, "file_bytes": size, "plain_bytes": size, **claims}
    data = manifest.encode(Manifest(**values), None)
    (folder / layout.manifest_of(PLAIN["file_name"])).write_bytes(data)


SIZE = 96 * MEBIBYTE
WHOLE = {
    "extra": b"\xc2\x3e" + varint(SIZE - 6),
    "tensor": tensor(dims=(SIZE - 29,), content=b"", claims=SIZE - 29),
}
LIES = {
    "extra": (b"\xc2\x3e" + varint(2**40), {}),
    "dims": (tensor(dims=(2**40,)), {}),
    "second tensor": (
        tensor(dims=(SIZE // 2,), content=bytes(SIZE // 2)) + tensor(b"v", dims=(SIZE - 200,), claims=100),
        {},
    ),
    "sizes": (b"", {"file_bytes": 2**50, "plain_bytes": 2**50}),
}


def load(root):
    """The result of a process that loads this, and how much its memory grew at most."""
    command = [sys.executable, "-c", CHILD, str(root), str(SIZE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("what", WHOLE)
def test_a_large_checkpoint_is_loaded_in_its_own_size(tmp_path, what):
    """A process that loads 96 MiB, in one tensor or one extra, grows by that and a few blocks."""
    assert len(WHOLE[what]) == {"extra": 6, "tensor": 29}[what]
    put_checkpoint(tmp_path, WHOLE[what], SIZE)
    outcome, grown = load(tmp_path)
    assert outcome == SIZE - len(WHOLE[what])
    assert SIZE // 2 < grown <= SIZE + FEW_BLOCKS


@pytest.mark.parametrize("what", LIES)
def test_a_large_checkpoint_that_lies_costs_no_more(tmp_path, what):
    """A process that reads a checkpoint with false lengths reports it, and grows by no more than the file."""
    head, claims = LIES[what]
    put_checkpoint(tmp_path, head, SIZE, **claims)
    outcome, grown = load(tmp_path)
    assert outcome == "LostError"
    assert grown <= SIZE // 2 + FEW_BLOCKS
