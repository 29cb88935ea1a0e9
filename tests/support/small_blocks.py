import pytest

from resilient.codec import cipher


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Small checkpoints with many blocks: the size of a block is the only thing these tests change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "BLOCK_BYTES", 64)
        yield
