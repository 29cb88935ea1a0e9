import pytest
from tool_runs import Tool

from resilient.codec import cipher


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nobody's own key, and a folder to work in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_blocks(monkeypatch):
    """Small checkpoints of many blocks."""
    monkeypatch.setattr(cipher, "BLOCK_BYTES", 64)


@pytest.fixture
def tool(capfd):
    """Calls ``resilient`` and hands out what it said."""
    return Tool(capfd)
