"""A save where there is no thread, or no memory: the training waits instead, and is never ended by it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from resilient.codec.tensors import Record
from resilient.saving.in_process import Saved, Snapshot, ThreadSaver


def snapshot(step):
    record = Record("w", "Float32", (1,), bytearray(4), 0)
    return Snapshot("CKP", step, 1, step, "schedule", failure=False, records=(record,), extra=b"{}")


def commit(one):
    return Saved(one, 0.0, Path("there"))


@pytest.fixture
def saver():
    """A saver whose commits are written down with the thread they ran on."""
    committed = []
    saver = ThreadSaver(commit, lambda saved: committed.append(where(saved)))
    saver.committed = committed
    return saver


def where(saved):
    return saved.snapshot.step, threading.current_thread() is threading.main_thread()


def test_it_is_committed_on_a_thread(saver):
    """As long as there can be one."""
    saver.save(snapshot(1))
    assert saver.wait()
    assert saver.committed == [(1, False)]


def test_without_a_thread_the_training_waits(saver, monkeypatch):
    """A limit of processes was reached: committed all the same, and nobody waits for ever."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    for step in (1, 2):
        saver.save(snapshot(step))
        assert saver.wait()
    assert saver.committed == [(1, True), (2, True)]


def test_without_memory_for_a_copy_the_training_waits(saver, monkeypatch):
    """What is on its way is committed first; then this one, from the training's own memory."""

    def detached(one):
        raise MemoryError

    saver.save(snapshot(1))
    monkeypatch.setattr(Snapshot, "detached", detached)
    saver.save(snapshot(2))
    assert saver.wait()
    assert saver.committed == [(1, False), (2, True)]
