"""Files without a manifest: those that open and parse whole are read, all others rejected."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_world import KEY, OTHER_KEY, SEALINGS, content

from chaos.seeded_entropy import SeededEntropy
from chaos.simulated_disk import SimulatedDisk
from resilient.codec import bare, container
from resilient.codec.tensors import Record, info_record
from resilient.errors import CorruptError, WrongKeyError
from resilient.store.bare_file import OpeningKey, plaintext, read_stock
from resilient.store.weights import write_weights

PATH = Path("/run/weights.ckpt")
RECORDS = [Record("w", "Int8", (len(content(3)),), content(3)), info_record("note", "héy")]
KEYS = [OTHER_KEY, KEY[:16], KEY]


def written(sealing):
    disk = SimulatedDisk()
    write_weights(disk, PATH, RECORDS, sealing, SeededEntropy(3))
    return disk


def read(disk, keys=KEYS):
    found = {}

    def sink(name, dtype, dims, size_bytes, section):
        found[name] = bytearray(size_bytes)
        return memoryview(found[name])

    return read_stock(disk, PATH, keys, sink), found


@pytest.mark.parametrize("mode", SEALINGS)
def test_the_key_that_fits_is_found(mode):
    """In every mode, among several keys, the reader returns the content and the opening key."""
    sealing = SEALINGS[mode]
    disk = written(sealing)
    opening, found = read(disk)
    assert opening == OpeningKey(sealing.mode, sealing.key)
    assert bytes(found["w"]) == content(3)
    assert str(found["note"], "utf-32-le") == "héy"
    with plaintext(disk, PATH, opening) as chunks:
        assert b"".join(chunks) == b"".join(map(bytes, container.encode(RECORDS, b"")))
    assert KEY.hex() not in repr(opening)


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_without_a_key_that_fits(mode):
    """A missing key and a wrong key raise different errors."""
    disk = written(SEALINGS[mode])
    with pytest.raises(WrongKeyError, match="no key for it was given"):
        read(disk, [])
    wrong = OTHER_KEY[: len(SEALINGS[mode].key)]
    with pytest.raises(CorruptError):
        read(disk, [wrong])


@pytest.mark.parametrize("mode", SEALINGS)
def test_a_cut_file_is_refused(mode):
    """A truncated file is rejected, unless it ends exactly at the end of a record."""
    whole = written(SEALINGS[mode]).content(PATH)
    for end in (len(whole) - 1, len(whole) // 2, 5, 20, 47):
        disk = SimulatedDisk()
        disk.make_directory(PATH.parent)
        disk.put(PATH, whole[:end])
        with pytest.raises((CorruptError, WrongKeyError)):
            read(disk)


@given(
    st.sampled_from([b"", b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f", b"\xda\x5e\x3a\x7f"]),
    st.binary(max_size=200),
)
def test_any_bytes_are_refused_or_read(magic, rest):
    """Any bytes give a typed error or a result, never another exception."""
    disk = SimulatedDisk()
    disk.make_directory(PATH.parent)
    disk.put(PATH, magic + rest)
    try:
        read(disk)
    except (CorruptError, WrongKeyError):
        return


@pytest.mark.parametrize("size", [2**31 - 25, -1, 0, 2**20])
def test_no_length_is_believed(size):
    """A block that claims more than the file has, or nothing, is rejected before memory is allocated."""
    disk = SimulatedDisk()
    disk.make_directory(PATH.parent)
    header = struct.pack("<4s16sii16si", b"\xd8\x5e\x3a\x7f", bytes(16), size + 24, 16, bytes(16), size)
    disk.put(PATH, header + bytes(40))
    with pytest.raises(CorruptError, match="makes no sense"):
        read(disk)


@pytest.mark.parametrize(("magic", "key"), [(b"\xd9\x5e\x3a\x7f", KEY), (b"\xda\x5e\x3a\x7f", KEY[:16])])
@pytest.mark.parametrize("size", [1, 15, 17, 40])
def test_a_block_that_is_no_multiple_of_the_ciphers_is_refused(magic, key, size):
    """In the CBC modes it counts as damage, before the cipher decrypts anything."""
    disk = SimulatedDisk()
    disk.make_directory(PATH.parent)
    header = struct.pack("<4sii16si", magic, size + 24, 16, bytes(16), size)
    disk.put(PATH, header + bytes(size))
    with pytest.raises(CorruptError, match="no multiple of 16 bytes"):
        read(disk, [key])


def test_a_tensor_larger_than_the_file_takes_no_memory():
    """A plain file that claims a tensor of an exabyte is rejected by that claim."""
    disk = SimulatedDisk()
    disk.make_directory(PATH.parent)
    tensor = b"\x08\x80\x80\x80\x80\x80\x80\x80\x40\x12\x04Int8\x1a\x02xy"
    value = b"\x0a\x01w\x12" + bytes([len(tensor)]) + tensor
    disk.put(PATH, b"\x0a" + bytes([len(value)]) + value)
    with pytest.raises(CorruptError, match="more than there are"):
        read(disk)


def test_stock_blocks_of_any_size():
    """The size of the blocks is the file's own: larger ones than ours open too."""
    one = written(SEALINGS["AES-GCM"]).content(PATH)
    assert one.count(b"\xd8\x5e\x3a\x7f") > 3

    class Whole:
        size_bytes = len(one)

        def read_into(self, target, offset):
            target[:] = one[offset : offset + len(target)]
            return len(target)

    assert len(list(bare.plaintext(Whole(), "AES-GCM", KEY))) == one.count(b"\xd8\x5e\x3a\x7f")


def test_what_stock_reads_alone():
    """Only the stock part of a stream with our sections and extra is left, the same bytes as without them."""
    plain = [Record("a", "Int8", (3,), b"abc"), info_record("n", 5), Record("b", "Float32", (), b"1234")]
    ours = [Record("void", "Float32", (0,), b""), Record("c", "Complex64", (1,), bytes(8))]
    hidden = [Record("a", "Int8", (2,), b"zz", section=1), Record("other", "Int8", (900,), bytes(900), 4)]
    stream = b"".join(
        map(bytes, container.encode([plain[0], ours[0], hidden[0], *plain[1:], ours[1], hidden[1]], b"extra"))
    )
    for size in (1, 7, 100, len(stream)):
        left_out = []
        chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
        part = b"".join(container.stock_part(chunks, left_out))
        assert part == b"".join(map(bytes, container.encode(plain, b"")))
        assert left_out == ["void", "c"]
    with pytest.raises(CorruptError, match="unexpected field 9"):
        list(container.stock_part([b"\x4a\x00"], []))
