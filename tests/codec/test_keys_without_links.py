"""A home without hard links (FAT, many FUSE file systems): keys are made there as elsewhere."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading

import pytest

from resilient.codec import keys
from resilient.errors import KeySourceError


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def no_links(request, monkeypatch):
    """link(2) fails as on such a file system."""

    def refuse(*words, **more):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


def test_a_key_is_made_once(tmp_path, no_links):
    """The default and `resilient key make` make a key; the next start finds it, and no other file is left."""
    key, path, created = keys.default_key(tmp_path, "AES-GCM")
    assert created
    assert keys.default_key(tmp_path, "AES-GCM") == (key, path, False)
    assert keys.make_file(tmp_path / "new.key", "SM4-CBC") == keys.from_file(tmp_path / "new.key", "SM4-CBC")
    assert sorted(os.listdir(tmp_path / "resilient")) == ["key"]
    assert sorted(os.listdir(tmp_path)) == ["new.key", "resilient"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_there_is_never_replaced(tmp_path, no_links):
    """An existing file under the name of the key stays."""
    made = keys.make_file(tmp_path / "key", "AES-GCM")
    with pytest.raises(KeySourceError, match="exists already"):
        keys.make_file(tmp_path / "key", "AES-GCM")
    assert keys.from_file(tmp_path / "key", "AES-GCM") == made


def test_processes_that_make_it_at_once_end_up_with_one(tmp_path, no_links):
    """The second process waits for the key of the first."""
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.starmap(keys.default_key, [(tmp_path, "AES-GCM")] * 16)
    assert len({key for key, _, _ in found}) == 1
    assert sum(created for _, _, created in found) == 1


def test_what_a_crash_has_left_is_named(tmp_path, monkeypatch):
    """If a crash left an empty key file, the next start makes no key, and names the file."""
    monkeypatch.setattr(keys, "_NAMED_S", 0.0)
    (tmp_path / "resilient").mkdir()
    (tmp_path / "resilient" / "key").touch(0o600)
    with pytest.raises(KeySourceError, match="key"):
        keys.default_key(tmp_path, "AES-GCM")


def test_a_refusal_of_another_kind_is_an_error(tmp_path, monkeypatch):
    """A full disk is an error, not a missing hard link, and leaves no part of the key."""

    def refuse(*words, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(KeySourceError, match="No space left"):
        keys.make_file(tmp_path / "key", "AES-GCM")
    assert os.listdir(tmp_path) == []


def test_whoever_finds_the_name_waits_for_the_key(tmp_path):
    """A process that finds an empty file waits until the other process has written the key."""
    path = keys.default_path(tmp_path, "AES-GCM")
    path.parent.mkdir()
    path.touch(0o600)
    finished = keys.make_file(tmp_path / "finished", "AES-GCM")
    given = threading.Timer(0.05, os.rename, [tmp_path / "finished", path])
    given.start()
    assert keys.default_key(tmp_path, "AES-GCM") == (finished, path, False)
    given.join()
