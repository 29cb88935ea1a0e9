import os
import shutil
import subprocess

import pytest
from supervised import Supervised


@pytest.fixture
def supervise(tmp_path):
    """Starts supervisors in the test's folder; none outlives the test."""
    started = []

    def start(script, *options, folder=tmp_path, **more):
        started.append(Supervised(folder, script, *options, **more))
        return started[-1]

    yield start
    for run in started:
        run.clear_away()


@pytest.fixture
def frozen_disk(tmp_path):
    """A file system that can be frozen: a process that writes to it then sleeps in the kernel. Needs root."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or shutil.which("fsfreeze") is None:
        pytest.skip("freezing a file system takes root, mkfs.ext4 and fsfreeze")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode != 0:
        pytest.skip("loop mounts are not allowed here")
    yield place
    subprocess.run(["fsfreeze", "-u", place], capture_output=True)
    subprocess.run(["umount", "-l", place], check=True)
