"""The peers that take turns in the benchmark: stock MindSpore, PyTorch, the disk, the memory, and ourselves.

Every peer saves or loads the same float32 parameters in the same process, to the same disk. A load follows
the save of the same name and reads its file, with a cold page cache: after a crash the disk is all there is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from resilient.codec.cipher import BLOCK_BYTES, Cipher
from resilient.codec.tensors import Record
from resilient.config import Sealing
from resilient.host.entropy import SystemEntropy
from resilient.host.world import World
from resilient.state import capture
from resilient.store.entry import Draft
from resilient.store.opening import open_store

KEYS = {"AES-GCM": b"k" * 32, "AES-CBC": b"k" * 32, "SM4-CBC": b"k" * 16}
TENSOR_MB = 16
_ALIGNMENT_BYTES = 4096


class PeerNetwork(nn.Cell):
    """So many megabytes of float32, in tensors of 16 MB."""

    def __init__(self, size_mb: int) -> None:
        super().__init__()
        generator = np.random.default_rng(1)
        count = max(1, size_mb // TENSOR_MB)
        for number in range(count):
            values = generator.standard_normal(size_mb * 1_000_000 // count // 4).astype(np.float32)
            setattr(self, f"w{number}", ms.Parameter(ms.Tensor(values), name=f"w{number}"))


@dataclass(frozen=True)
class Bench:
    """One network, one cipher, and the folder that all peers write to."""

    network: PeerNetwork
    mode: str
    folder: Path
    _buffers: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def arrays(self) -> list[np.ndarray[Any, Any]]:
        return [parameter.asnumpy() for parameter in self.network.get_parameters()]

    def peers(self) -> dict[str, Callable[[], None]]:
        """All peers by name, in the order of their turns."""
        peers: dict[str, Callable[[], None]] = {
            "memcpy": self.memcpy,
            "plain write + fsync": self.write,
            "O_DIRECT write + fsync": partial(self.write, os.O_DIRECT),
            "encrypt alone": self.encrypt,
            "stock save": self.stock_save,
            "stock save, thread": partial(self.stock_save, "thread"),
            "stock save, process": partial(self.stock_save, "process"),
            "resilient save": self.save,
            "read (cold)": self.read,
            "decrypt alone": self.decrypt,
            "stock load": self.stock_load,
            "resilient load": self.load,
        }
        if importlib.util.find_spec("torch") is not None:
            peers["torch.save, no fsync"] = self.torch_save
            peers["torch async_save, waited for"] = self.torch_async_save
        return peers

    def clear(self, name: str) -> None:
        """Removes the files of a saving peer, so that its next turn writes new ones."""
        family = name.split()[0].split(".")[0].removesuffix(",")
        path = self.folder / {"stock": "stock.ckpt", "resilient": "ours", "torch": "torch"}.get(family, "raw")
        if not reads(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.sync()

    # The limits of memory, processor and disk

    def memcpy(self) -> None:
        for array in self.arrays:
            # Buffers that stay: fresh pages would measure the kernel's page faults.
            if array.size not in self._buffers:
                self._buffers[array.size] = np.ones_like(array)
            np.copyto(self._buffers[array.size], array)

    def write(self, flags: int = 0) -> None:
        """The same bytes, written and synced as they are; with O_DIRECT in aligned blocks."""
        descriptor = os.open(self.folder / "raw", os.O_WRONLY | os.O_CREAT | flags, 0o600)
        block = memoryview(mmap.mmap(-1, BLOCK_BYTES))
        for array in self.arrays:
            data = memoryview(array).cast("B")
            for start in range(0, len(data), len(block)):
                piece = data[start : start + len(block)]
                if flags:
                    block[: len(piece)] = piece
                    os.write(descriptor, block[: -(-len(piece) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES])
                else:
                    while piece:
                        piece = piece[os.write(descriptor, piece) :]
        os.fsync(descriptor)
        os.close(descriptor)

    def encrypt(self) -> None:
        """Seals the parameters and throws the blocks away."""
        chunks = (memoryview(array).cast("B") for array in self.arrays)
        for _ in Cipher(self.mode, KEYS[self.mode], SystemEntropy()).seal(chunks):
            pass

    def decrypt(self) -> None:
        """Verifies and decrypts our checkpoint from the page cache, and throws the plaintext away."""
        store = self._store()
        store.verify(store.entries()[0])

    def read(self) -> None:
        """Our checkpoint's bytes, front to back."""
        (path,) = self._store().directory.glob("*.ckpt")
        _cool(path)
        block = memoryview(mmap.mmap(-1, BLOCK_BYTES))
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while file.readinto(block):
                pass

    # Ours

    def save(self) -> None:
        arrays = {parameter.name: capture.values(parameter) for parameter in self.network.get_parameters()}
        records: list[Record] = [capture.tensor_record(n, a, "Float32") for n, a in arrays.items()]
        self._store().commit(Draft("B", 1, 1, 1, tuple(records), b"{}", "benchmark", False))

    def load(self) -> None:
        """Reads, verifies and decrypts into the parameters' own memory."""
        store = self._store()
        targets = {p.name: capture.as_bytes(p.asnumpy()).data for p in self.network.get_parameters()}
        _cool(store.directory)
        assert store.load_newest(lambda entry: lambda name, *rest: targets[name]) is not None

    def _store(self) -> Any:
        return open_store(self.folder / "ours", World(), Sealing(self.mode, KEYS[self.mode]), "run")

    # Stock

    def stock_save(self, asynchronous: bool | str = False) -> None:
        path = str(self.folder / "stock.ckpt")
        sealed = {"enc_key": KEYS[self.mode], "enc_mode": self.mode}
        ms.save_checkpoint(self.network, path, async_save=asynchronous, **sealed)
        if asynchronous:
            self.settle()

    def settle(self) -> None:
        """Waits until stock's save in the background has ended."""
        while not _is_idle():
            time.sleep(0.001)

    def stock_load(self) -> None:
        path = self.folder / "stock.ckpt"
        _cool(path)
        state = ms.load_checkpoint(str(path), dec_key=KEYS[self.mode], dec_mode=self.mode)
        ms.load_param_into_net(self.network, state)

    # PyTorch: the same arrays as tensors that share their memory; nothing is encrypted

    def torch_save(self) -> None:
        import torch

        torch.save(self._tensors(), self._torch_folder() / "state.pt")

    def torch_async_save(self) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        if not dist.is_initialized():
            rendezvous = f"file://{self.folder}/rendezvous"
            dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
        dcp.async_save(self._tensors(), checkpoint_id=str(self._torch_folder() / "async")).result()

    def _tensors(self) -> dict[str, Any]:
        import torch

        return {f"w{number}": torch.from_numpy(array) for number, array in enumerate(self.arrays)}

    def _torch_folder(self) -> Path:
        (self.folder / "torch").mkdir(exist_ok=True)
        return self.folder / "torch"

    def digest(self) -> str:
        """A hash of the parameters: a load that goes wrong must not win."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(array)
        return digest.hexdigest()


def reads(name: str) -> bool:
    """Whether this peer reads a checkpoint: it is compared with stock's load, and clears nothing."""
    return name.endswith(" load") or name in ("read (cold)", "decrypt alone")


def _is_idle() -> bool:
    return not multiprocessing.active_children() and not any(
        thread.name == "asyn_save_ckpt" for thread in threading.enumerate()
    )


def _cool(path: Path) -> None:
    """Takes a file, or a folder's files, out of the page cache."""
    for file in path.iterdir() if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
