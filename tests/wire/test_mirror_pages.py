"""The memory of a mirror is there before it is needed."""

import os

import pytest

from resilient.host.shared_memory import SharedMemory
from resilient.wire.mirror import Mirror, MirrorLayout, place

SIZE_BYTES = 3_000_000
LAYOUT = MirrorLayout("run", 0, "CKP", place([("w", "Float32", (SIZE_BYTES // 4,), 0, SIZE_BYTES)]))


def there_bytes(mirror):
    return os.fstat(mirror.memory.descriptor).st_blocks * 512


def test_fetching_pages_provides_the_memory_and_changes_no_byte():
    """Afterwards every tensor has its memory, the room for metas has none, and slots are as before."""
    mirror = Mirror.make(LAYOUT, 3, SharedMemory.create)
    area = mirror.layout.areas[0]

    def fill(number):
        mirror.view(number, area)[:] = b"\x07" * SIZE_BYTES

    slot = mirror.write(5, b"meta", fill)
    before = there_bytes(mirror)
    mirror.fetch_pages()
    if there_bytes(mirror) == before:
        pytest.skip("this kernel does not provide memory ahead of time (Linux 5.14 does)")
    assert 3 * SIZE_BYTES <= there_bytes(mirror) < 4 * SIZE_BYTES
    assert mirror.newest() == slot
    assert mirror.meta(slot) == b"meta"
    assert bytes(mirror.view(slot.number, area)) == b"\x07" * SIZE_BYTES
    assert not any(mirror.view(2, area))
