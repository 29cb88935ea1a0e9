"""Stock MindSpore opens what we write, bit for bit, and we open what stock writes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import bare, container
from resilient.codec.cipher import BLOCK_BYTES, Cipher
from resilient.codec.container import decode
from resilient.codec.tensors import Record, info_record
from resilient.errors import CorruptError
from resilient.host.files import DiskFiles

KEYS = {
    "AES-GCM": b"0123456789abcdef" * 2,
    "AES-CBC": b"0123456789abcdef" * 2,
    "SM4-CBC": b"0123456789abcdef",
}
MODES = [None, *KEYS]
INFO = {"epoch_num": 2, "step_num": -7, "lr": 0.1, "flag": True, "off": False, "note": "héy 𝄞", "empty": ""}

generator = np.random.default_rng(1)
ARRAYS = {
    "large": generator.standard_normal((3, BLOCK_BYTES // 4 + 77)).astype(np.float32),
    "half": generator.standard_normal((5, 3)).astype(np.float16),
    "double": np.array([1 / 3, np.nan, np.inf]),
    "brain": Tensor(generator.standard_normal((4,)), ms.bfloat16).asnumpy(),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "uint64": np.array([2**64 - 1], dtype=np.uint64),
    "bool": np.array([True, False, True]),
    "scalar": np.array(2.5, dtype=np.float32),
    "nothing": np.zeros((0, 3), dtype=np.float32),
}


def dtype_name(array):
    names = {"bool": "Bool", "uint64": "UInt64", "int8": "Int8", "bfloat16": "BFloat16"}
    return names.get(str(array.dtype), str(array.dtype).capitalize())


def records():
    for name, array in ARRAYS.items():
        yield Record(name, dtype_name(array), array.shape, array.tobytes())
    for name, entry in INFO.items():
        yield info_record(name, entry)
    yield Record("hidden", "Complex64", (1,), bytes(8))
    yield Record("void", "Float32", (0,), b"")
    yield Record("large", "Float32", (1,), b"\xff" * 4, section=3)


def write(path, mode):
    cipher = Cipher(mode, KEYS.get(mode), SeededEntropy(1))
    with open(path, "wb") as file:
        for block in cipher.seal(container.encode(records(), b"our own extra")):
            file.write(block.data)


def same(parameter, array):
    return parameter.asnumpy().tobytes() == array.tobytes() and parameter.shape == array.shape


@pytest.mark.parametrize("mode", MODES)
def test_stock_opens_ours(tmp_path, mode):
    """In each mode stock reads every tensor and entry bit for bit, and skips our extra and sections."""
    path = str(tmp_path / "ours.ckpt")
    write(path, mode)
    arguments = {"dec_key": KEYS[mode], "dec_mode": mode} if mode else {}
    loaded = ms.load_checkpoint(path, **arguments)
    assert set(loaded) == {*ARRAYS, *INFO}
    for name, array in ARRAYS.items():
        assert same(loaded[name], array), name
    assert (loaded["note"], loaded["empty"]) == (INFO["note"], "")
    assert [int(loaded[name].asnumpy()) for name in ("epoch_num", "step_num")] == [2, -7]
    assert (bool(loaded["flag"].asnumpy()), bool(loaded["off"].asnumpy())) == (True, False)
    assert loaded["lr"].asnumpy() == np.float32(0.1)


@pytest.mark.parametrize(("name", "entry"), INFO.items())
def test_info_entries_are_stocks_bytes(tmp_path, name, entry):
    """An entry of append_info encodes to exactly the bytes that stock writes."""
    path = str(tmp_path / "stock.ckpt")
    ms.save_checkpoint([{"name": "w", "data": Tensor(np.float16(1))}], path, append_dict={name: entry})
    ours = [Record("w", "Float16", (), np.float16(1).tobytes()), info_record(name, entry)]
    with open(path, "rb") as file:
        assert file.read() == b"".join(bytes(piece) for piece in container.encode(ours, b""))


def test_we_open_stocks(tmp_path):
    """A plain stock file decodes to the same tensors."""
    path = str(tmp_path / "stock.ckpt")
    full = {name: array for name, array in ARRAYS.items() if array.size}
    ms.save_checkpoint([{"name": n, "data": Tensor(a)} for n, a in full.items()], path)
    found = {}

    def sink(name, dtype, dims, size_bytes, section):
        found[name] = (dims, bytearray(size_bytes))
        return memoryview(found[name][1])

    with open(path, "rb") as file:
        assert decode([file.read()], sink) == b""
    assert {n: (dims, bytes(data)) for n, (dims, data) in found.items()} == {
        n: (a.shape, a.tobytes()) for n, a in full.items()
    }


# (Encrypted and with a CRC, stock cannot read its own files.)
@pytest.mark.parametrize(("mode", "crc"), [*((mode, False) for mode in MODES), (None, True)])
def test_we_open_stocks_files_from_disk(tmp_path, mode, crc):
    """Stock files in each mode, or plain with and without a CRC, give the same plaintext."""
    path = tmp_path / "stock.ckpt"
    full = [{"name": n, "data": Tensor(a)} for n, a in ARRAYS.items() if a.size]
    ms.save_checkpoint(full, str(tmp_path / "plain.ckpt"))
    key = {"enc_key": KEYS[mode], "enc_mode": mode} if mode else {}
    ms.save_checkpoint(full, str(path), crc_check=crc, **key)
    reader = DiskFiles().open(path)
    assert bare.mode_of(reader) == mode
    found = b"".join(bare.plaintext(reader, mode, KEYS.get(mode)))
    assert found == (tmp_path / "plain.ckpt").read_bytes()


def test_a_wrong_crc_is_found(tmp_path):
    """The CRC of a plain stock file is checked."""
    path = tmp_path / "stock.ckpt"
    ms.save_checkpoint([{"name": "w", "data": Tensor(ARRAYS["large"])}], str(path), crc_check=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match="CRC"):
        list(bare.plaintext(DiskFiles().open(path), None, None))
