"""Real supervisors for tests: start one on a small script, wait for its words, signal it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil

DEADLINE_S = 60.0

TRAINING = """
    import ctypes, os, signal, sys, time
    from resilient.wire.heartbeat import Phase
    from resilient.worker.session.session import current
    from resilient.wire.messages import FirstStep
    me = current()
    attempt = me.config.attempt
    def step(number):
        me.shared.heartbeat.beat(Phase.STEP, number)
        me.tell(FirstStep(number))
"""
"""The beginning of a script that beats and tells as a training does, wherever it calls ``step``."""


class Supervised:
    """A ``resilient-run`` process on a script, its output collected line by line."""

    def __init__(
        self,
        folder: Path,
        script: str,
        *options: str,
        arguments=(),
        stdin=None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        python=sys.executable,
        program=("-m", "supervisor.command.cli"),
        before=None,
        sealed=False,
    ):
        self.folder = folder
        self.script = folder / "script.py"
        self.script.write_text(textwrap.dedent(script))
        sealing = [] if sealed else ["--no-encrypt"]
        words = ["--run-dir", str(folder / "run"), *sealing, "--backoff", "0:0", *options]
        command = [str(python), *program, *words, str(self.script), *arguments]
        # A session of its own, so that a test that fails can clear everything away.
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=before,
        )
        self._said = threading.Condition()
        self._streams = {"out": bytearray(), "err": bytearray()}
        self._threads = [
            threading.Thread(target=self._collect, args=item, daemon=True)
            for item in (("out", self.process.stdout), ("err", self.process.stderr))
            if item[1] is not None
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self, name, stream):
        while data := os.read(stream.fileno(), 65536):
            with self._said:
                self._streams[name] += data
                self._said.notify_all()

    def wait_for(self, text: str, name: str = "out") -> None:
        """Returns when this text has come; fails at the deadline."""
        with self._said:
            found = self._said.wait_for(lambda: text.encode() in self._streams[name], DEADLINE_S)
        assert found, f"{text!r} did not come:\n{self.err()}\n{self.out()}"

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the end; the exit status."""
        status = self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        return status

    def out(self) -> str:
        return self._streams["out"].decode("utf-8", "replace")

    def err(self) -> str:
        return self._streams["err"].decode("utf-8", "replace")

    def raw_out(self) -> bytes:
        return bytes(self._streams["out"])

    def clear_away(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def kill_with_writer(run: Supervised) -> None:
    """Kills a supervisor, its writer process and its guardian: nobody is left to end what it leaves."""
    ours = psutil.Process(run.process.pid)
    for child in ours.children():
        if child.cmdline() == ours.cmdline():
            child.kill()
    run.send(signal.SIGKILL)


def journal(run: Supervised) -> list[dict]:
    """Every event of a run, oldest first."""
    return [json.loads(line) for line in (run.folder / "run" / "journal.jsonl").read_text().splitlines()]


def events(run: Supervised, name: str) -> list[dict]:
    """The events of this name."""
    return [event for event in journal(run) if event["event"] == name]


def wait_until(condition, what: str) -> None:
    """Waits for something that sends no event; fails at the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"did not happen: {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
