import pytest
from diaries import Diary
from tool_runs import Tool, make_run

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


@pytest.fixture
def diary():
    """The journal of a run that is there, still empty."""
    make_run("run", steps=(), status="failed")
    return Diary()
