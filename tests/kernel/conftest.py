"""What the tests on a real kernel share.

They hit a part of the operations, the same ones each time; with KERNEL_FAULTS=all (``make crash-kernel``)
they hit all of them.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from kernel_faults import compile_shim
from kernel_nursery import Nursery, Roots

from resilient.codec import cipher

MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def block_bytes():
    """The inspection sets the size of a block to that of the life; here it gets its own one back."""
    before = cipher.BLOCK_BYTES
    yield
    cipher.BLOCK_BYTES = before


@pytest.fixture(scope="session")
def everything():
    """Whether all operations are hit, or every so many-th."""
    return os.environ.get("KERNEL_FAULTS") == "all"


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    library = compile_shim(tmp_path_factory.mktemp("shim"))
    if library is None:
        pytest.skip("there is no C compiler (cc, gcc or clang) to build the shim with")
    return library


@pytest.fixture(scope="session")
def nursery(shim, tmp_path_factory):
    nursery = Nursery(shim, tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture
def on_disk(tmp_path):
    """Fresh folders on the file system of the temporary files."""
    return Roots(tmp_path)


@pytest.fixture
def in_memory(tmp_path):
    """Fresh folders on a tmpfs, where a sync costs nothing; on the disk where there is none."""
    if not os.access(MEMORY, os.W_OK):
        yield Roots(tmp_path)
        return
    place = Path(tempfile.mkdtemp(prefix="resilient-", dir=MEMORY))
    yield Roots(place)
    shutil.rmtree(place)
