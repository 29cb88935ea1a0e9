"""Every operation of a store's daily life in a real process, hit in turn: death, errors, half writes."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from itertools import count

import pytest
from kernel_faults import CHANGES, FOREVER, LOOKS, NAMES, SYNCS, KernelFault, OperationKind, StrikeAction
from kernel_inspection import Past, Spoilt, inspect, inspect_life, valid_steps
from kernel_life import CYCLES

from chaos.invariants import ViolationError

# What changes something on the disk, or ends a change.
HIT = CHANGES | OperationKind.CLOSE | OperationKind.OPEN_DIRECTORY | OperationKind.HINT
ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT]


@pytest.fixture
def sweep(nursery, record_property):
    """Lets a fault strike at one operation after the other, and holds what comes of it to the invariants."""

    def go(cycle, roots, fault, *, lasting=False, start=0, stride=1):
        rehearsal = nursery.live(cycle, roots.fresh(), KernelFault(kinds=fault.kinds))
        assert rehearsal.saved == tuple(CYCLES[cycle].steps)
        numbers = range(start % stride, len(rehearsal.counted), stride)
        fired = sum(strike(cycle, roots, fault, number, lasting) for number in numbers)
        assert fired >= len(numbers) > 0
        record_property("kernel_faults", fired)

    def strike(cycle, roots, fault, number, lasting):
        one = KernelFault(
            fault.action, fault.kinds, number, FOREVER if lasting else number, error=fault.error
        )
        lived = nursery.live(cycle, roots.fresh(), one)
        try:
            return inspect_life(lived, CYCLES[cycle], one)
        except ViolationError as violation:
            raise AssertionError(f"{one}, {lived.struck[0]}: {violation}") from violation

    return go


def test_killed_before_any_operation(sweep, in_memory):
    """SIGKILL before any operation loses nothing that was reported as saved, and the next process goes on."""
    sweep("small", in_memory, KernelFault(StrikeAction.KILL, HIT))


def test_killed_without_encryption(sweep, in_memory, everything):
    """The same without encryption."""
    sweep("plain", in_memory, KernelFault(StrikeAction.KILL, HIT), stride=1 if everything else 3)


def test_killed_while_a_block_is_written_behind(sweep, in_memory, everything):
    """The same with large blocks, which a thread writes: it may be that thread that brings the death."""
    sweep("large", in_memory, KernelFault(StrikeAction.KILL, OperationKind.WRITE | OperationKind.HINT))
    if everything:
        sweep("large", in_memory, KernelFault(StrikeAction.KILL, HIT))


def test_killed_on_a_disk(sweep, on_disk, everything):
    """The same on the file system of a disk."""
    sweep("small", on_disk, KernelFault(StrikeAction.KILL, HIT), stride=1 if everything else 9)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", range(3), ids=[errno.errorcode[code] for code in ERRORS])
def test_an_operation_fails(number, lasting, sweep, in_memory, everything):
    """An error at any operation, once or from then on, is told, and costs no checkpoint that was saved."""
    fault = KernelFault(StrikeAction.FAIL, HIT - OperationKind.HINT, error=ERRORS[number])
    # Each error strikes other operations, so that together they strike them all.
    stride = 1 if everything else 6 if lasting else 3
    sweep("small", in_memory, fault, lasting=lasting, start=2 * number, stride=stride)


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_an_operation_fails_on_a_disk(code, sweep, on_disk, everything):
    """The same on the file system of a disk."""
    fault = KernelFault(StrikeAction.FAIL, HIT - OperationKind.HINT, error=code)
    sweep("small", on_disk, fault, start=code, stride=1 if everything else 40)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_an_operation_of_large_blocks_fails(code, sweep, in_memory, everything):
    """An error in the thread that writes behind the caller's back fails the save all the same."""
    sweep(
        "large",
        in_memory,
        KernelFault(StrikeAction.FAIL, OperationKind.WRITE | OperationKind.SYNC, error=code),
    )
    if everything:
        sweep(
            "large",
            in_memory,
            KernelFault(StrikeAction.FAIL, HIT - OperationKind.HINT, error=code),
            lasting=True,
        )


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_an_operation_is_done_and_fails(code, sweep, in_memory, everything):
    """A name given, taken or made although the kernel says it failed, as by a file server whose reply was
    lost, is undone or left for recovery like any other."""
    kinds = NAMES | OperationKind.CREATE | OperationKind.SYNC_DIRECTORY
    stride = 1 if everything else 3
    sweep(
        "small", in_memory, KernelFault(StrikeAction.FAIL_DONE, kinds, error=code), start=code, stride=stride
    )


@pytest.mark.parametrize("cycle", ["small", "large"])
def test_half_a_write(cycle, sweep, in_memory):
    """A write that takes half is gone on with, and nothing is missing."""
    sweep(cycle, in_memory, KernelFault(StrikeAction.SHORT, OperationKind.WRITE))


@pytest.mark.parametrize("cycle", ["small", "large"])
def test_half_a_write_and_then_no_space(cycle, sweep, in_memory):
    """A disk that is full in the middle of a write fails the save; the half is not taken for anything."""
    sweep(cycle, in_memory, KernelFault(StrikeAction.SHORT, OperationKind.WRITE, error=errno.ENOSPC))


def test_a_hint_that_fails(sweep, in_memory):
    """Whether writeback can be started early is no matter: every save succeeds."""
    sweep("large", in_memory, KernelFault(StrikeAction.FAIL, OperationKind.HINT, error=errno.EIO))


def test_a_look_fails_once(nursery, in_memory, record_property):
    """Reading and listing may fail once, at any time, and cost nothing but perhaps a save."""
    fired = 0
    rehearsal = nursery.live("small", in_memory.fresh(), KernelFault(kinds=LOOKS))
    for operation in rehearsal.counted:
        fault = KernelFault(StrikeAction.FAIL, LOOKS, operation.number, operation.number, error=errno.EIO)
        lived = nursery.live("small", in_memory.fresh(), fault)
        fired += inspect_life(lived, CYCLES["small"], fault)
    assert fired == len(rehearsal.counted) > 0
    record_property("kernel_faults", fired)
    inspect(in_memory.fresh(), CYCLES["small"], ())


def test_the_folder_is_removed_underneath(nursery, in_memory, everything):
    """Somebody removes the folder at any moment: a save fails and is told, or the next ones make it anew."""
    kinds = HIT | LOOKS
    rehearsal = nursery.live("small", in_memory.fresh(), KernelFault(kinds=kinds))
    for number in range(0, len(rehearsal.counted), 1 if everything else 4):
        root = in_memory.fresh()
        begun = []

        def remove(process, so_far, root=root, begun=begun):
            shutil.rmtree(root / "checkpoint", ignore_errors=True)
            begun.extend(CYCLES["small"].steps[: len(so_far.saved + so_far.failed) + 1])

        lived = nursery.live(
            "small", root, KernelFault(StrikeAction.STOP, kinds, number, number), at_stop=remove
        )
        assert len(lived.struck) == 1
        assert lived.status == 0
        assert sorted(lived.saved + lived.failed) == CYCLES["small"].steps
        # What was saved before has gone with the folder; what was begun later is there.
        assert set(valid_steps(root, CYCLES["small"])) >= set(lived.saved) - set(begun)


def test_an_operation_is_interrupted(nursery, in_memory, everything, record_property):
    """What a signal interrupts is gone on with, or told as a save that failed; nothing is in between."""
    restarted = OperationKind.CREATE | OperationKind.WRITE | SYNCS | OperationKind.OPEN_DIRECTORY
    rehearsal = nursery.live("small", in_memory.fresh(), KernelFault(kinds=HIT))
    numbers = range(0, len(rehearsal.counted), 1 if everything else 2)
    for number in numbers:
        fault = KernelFault(StrikeAction.FAIL, HIT, number, number, error=errno.EINTR)
        lived = nursery.live("small", in_memory.fresh(), fault)
        assert (lived.status, len(lived.struck)) == (0, 1)
        assert sorted(lived.saved + lived.failed) == CYCLES["small"].steps
        assert not lived.failed or lived.struck[0].kind not in restarted, lived
        inspect(lived.root, CYCLES["small"], lived.saved)
    record_property("kernel_faults", len(numbers))


@pytest.mark.parametrize("cycle", ["small", "large"])
def test_signals_all_the_time(cycle, nursery, on_disk):
    """A program that gets a signal every few hundred microseconds saves all the same."""
    lived = nursery.live(cycle, on_disk.fresh(), alarm_s=0.0003)
    assert (lived.saved, lived.failed, lived.troubles) == (tuple(CYCLES[cycle].steps), (), [])
    assert any(page.get("signals", 0) > 10 for page in lived.diary), lived.diary
    inspect(lived.root, CYCLES[cycle], lived.saved)


# The process that comes next


def spoil(root):
    """Cuts the newest checkpoint short, as a disk may do; what it is then."""
    newest = CYCLES["small"].open(root).entries()[0]
    newest.path.write_bytes(newest.path.read_bytes()[:-1])
    contents = frozenset({newest.path.read_bytes(), newest.manifest_path.read_bytes()})
    return Spoilt(newest.name, contents)


@pytest.fixture
def sweep_recovery(nursery):
    """Lets a fault strike at one operation after the other of a recovery from the same folder."""

    def go(left, fault, past):
        fired = 0
        for number in count():
            root = left.with_name("copy")
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(left, root)
            one = replace(fault, first=number, last=number)
            lived = nursery.live("small", root, one, do="recover")
            if not lived.struck:
                return fired
            fired += inspect_life(lived, CYCLES["small"], one, past)

    return go


DEATH_OR_ERROR = pytest.mark.parametrize(
    "fault",
    [KernelFault(StrikeAction.KILL, HIT), KernelFault(StrikeAction.FAIL, HIT, error=errno.EIO)],
    ids=["killed", "EIO"],
)


@DEATH_OR_ERROR
def test_recovery_is_hit_as_well(fault, nursery, in_memory, sweep_recovery, everything, record_property):
    """The process that comes after one that was killed may be killed or meet an error as well, anywhere."""
    rehearsal = nursery.live("small", in_memory.fresh(), KernelFault(kinds=HIT))
    fired = 0
    for death in range(0, len(rehearsal.counted), 1 if everything else 17):
        first = nursery.live("small", in_memory.fresh(), KernelFault(StrikeAction.KILL, HIT, death, death))
        fired += sweep_recovery(first.root, fault, Past(first.saved))
    assert fired > 30
    record_property("kernel_faults", fired)


@DEATH_OR_ERROR
def test_setting_aside_is_hit_as_well(fault, nursery, in_memory, sweep_recovery, record_property):
    """A corrupt checkpoint on its way to the quarantine is whole in one place or the other, whatever happens,
    and the one before it is used."""
    first = nursery.live("small", in_memory.fresh())
    spoilt = spoil(first.root)
    left = tuple(valid_steps(first.root, CYCLES["small"]))
    assert left == (2,)
    fired = sweep_recovery(first.root, fault, Past(left, spoilt))
    assert fired > 30
    record_property("kernel_faults", fired)
