"""The savers of one process: who commits a snapshot here, and tells what has become of it."""

from __future__ import annotations

from pathlib import Path

from resilient.config import KeepPolicy
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.saving import saver_process
from resilient.saving.in_process import Committer, InlineSaver, Saved, Saver, ThreadSaver
from resilient.wire.messages import CheckpointSaved
from resilient.worker.session.open_places import OpenPlace, OpenPlaces
from resilient.worker.session.voice import Voice


class PlaceSavers:
    """One saver for each place and way of saving there."""

    def __init__(self, voice: Voice, places: OpenPlaces, world: World) -> None:
        self._voice = voice
        self._places = places
        self._world = world
        self._savers: dict[tuple[Path, str, KeepPolicy, str | None], Saver] = {}

    def saver(self, settings: Settings, place: OpenPlace) -> Saver:
        """The saver for the store of this place, as these settings want it."""
        # Of what one saver was given the newest waits: who calls his files otherwise has one of his own.
        wanted = place.root, settings.prefix, settings.keep, settings.asynchronous
        if wanted not in self._savers:
            self._savers[wanted] = self._make_saver(settings, place)
        return self._savers[wanted]

    def forget(self, root: Path) -> None:
        """The place at ``root`` is closed."""
        self._savers = {wanted: saver for wanted, saver in self._savers.items() if wanted[0] != root}

    def inline_saver(self, settings: Settings, place: OpenPlace) -> Saver:
        """A saver that makes the training wait, whatever the settings say."""
        return InlineSaver(self._committer(settings, place).commit, self._report)

    def _make_saver(self, settings: Settings, place: OpenPlace) -> Saver:
        committer = self._committer(settings, place)
        if settings.asynchronous in (None, "mirror"):
            return InlineSaver(committer.commit, self._report)
        if settings.asynchronous == "process":
            return ThreadSaver(saver_process.ProcessCommit(committer, place.run_id), self._report)
        return ThreadSaver(committer.commit, self._report)

    def _committer(self, settings: Settings, place: OpenPlace) -> Committer:
        config = self._voice.config
        rank = config.rank if config is not None else 0
        return Committer(place.store, place.root, rank, settings.keep, place.sealing, self._world)

    def _report(self, saved: Saved) -> None:
        """Tells what became of a snapshot. Runs on whatever thread has committed it."""
        step = saved.snapshot.step
        if saved.path is None:
            self._voice.tell_failed_save(step, saved.error)
            return
        self._places.acknowledge(saved.path)
        self._voice.tell(
            CheckpointSaved(
                step=step,
                epoch=saved.snapshot.epoch,
                file=saved.path.name,
                reason=saved.snapshot.reason,
                seconds=round(saved.seconds, 3),
                directory=str(saved.path.parent),
                generation=saved.generation,
            )
        )
        if saved.snapshot.failure:
            self._voice.say(f"saved step {step} ({saved.snapshot.reason}) to {saved.path}")
        for remark in saved.remarks:
            self._voice.warn(remark)
