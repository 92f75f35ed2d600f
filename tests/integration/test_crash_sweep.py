# SPDX-License-Identifier: Apache-2.0
"""Each change is killed, or has a call fail, at each place where that could matter.

Killed is the process that makes the call, or (crash) the daemon as a whole.

The places are the calls that files, sockets and the kernel's FUSE notice (tests/tools/fault_at.c): between
two of them a crash leaves the same behind. Counted are all threads of the daemon together, then its job. Left
out are what a program does before its main(), calls that only read, and stores through a mapping, of which
there are none but SQLite's wal-index, which is made again. The order of calls of different threads may differ
from run to run, by one or two places.

A sample of the points runs by default, all of them with tests/run.sh --full. DEPLOYFS_SEED chooses the sample,
DEPLOYFS_SAMPLE its size for each change, DEPLOYFS_POINT='fetch worker EIO 29 restart' one point, or a pattern.
"""
import fnmatch
import os
import random
import time
from dataclasses import dataclass

import pytest

import faults
from deploy import DONE, figure, wait_until
from faults import Bases, FaultAt

SEED = int(os.environ.get("DEPLOYFS_SEED", random.SystemRandom().randrange(1 << 32)))
SAMPLE = int(os.environ.get("DEPLOYFS_SAMPLE", 8))  # points of each change, of some 200 to 600

FAILING = ("write", "pwrite64", "fsync", "fdatasync", "syncfs", "fallocate", "ftruncate", "mmap", "openat", "rename",
           "unlink", "mkdir")
DEATHS = ("kill", "crash")
ERRORS = ("EIO", "ENOSPC", "EIO+", "ENOSPC+")

pytestmark = pytest.mark.skipif(not faults.FAULT_AT.exists(), reason="fault-at is for x86-64")


@dataclass(frozen=True)
class Point:
    change: str
    scope: str  # worker or job
    fault: str  # of fault_at.c
    at: int
    restart: bool  # whether a new daemon looks at what is on the disk before anything else is written

    def __str__(self):
        return f"{self.change} {self.scope} {self.fault} {self.at}{' restart' if self.restart else ''}"


class Sweep:
    def __init__(self, place):
        package = faults.publish(place.origin)
        self.bases = Bases(place.daemon(), place.folder / "bases")
        self.daemon = self.bases.daemon
        self.changes = {change.name: change for change in faults.changes(package)}
        self.tried, self.bad = 0, []

    def points(self, change):
        found = []
        for scope in change.scopes:
            deaths = self.bases.count(change, scope, "kill")
            failures = self.bases.count(change, scope, "EIO", FAILING)
            # A kill of the job is one of the daemon, too, for what is left behind.
            if scope == "worker":
                found += [Point(change.name, scope, fault, at + 1, True) for fault in DEATHS for at in range(deaths)]
            else:
                found += [Point(change.name, scope, "kill", at + 1, restart) for at in range(deaths)
                          for restart in (False, True)]
            found += [Point(change.name, scope, fault, at + 1, restart) for fault in ERRORS for at in range(failures)
                      for restart in ([True] if fault.endswith("+") else [False, True])]
        return found

    def suffer(self, change, point, old, new):
        """One point."""
        daemon = self.daemon
        self.bases.lay(change.base)
        daemon.start()
        pid = daemon.worker()
        injector = FaultAt(daemon, point.scope, point.at, point.fault, () if point.fault in DEATHS else FAILING)
        command = daemon.background(*change.command)
        wait_until(lambda: injector.fired() or command.poll() is not None and faults.finished(daemon),
                   "it fired or is done")
        fired = injector.fired()
        died = fired and point.fault in DEATHS and point.scope == "worker"
        self.tried += fired is not None
        if died and point.fault == "crash":
            daemon.gone()
            daemon.start()
        elif died:
            faults.recover(daemon, pid)
        answer = faults.answer(command)
        injector.close()
        if not died:
            faults.check_answer(answer)
        elif point.fault == "kill" and not (change.name == "import" and "restarted" in answer.err):
            # The archive that an import reads is the caller's: no successor can open it.
            assert answer.code == DONE, f"who asked has noticed that the worker was killed: {answer.text}"
        if not died and point.restart:
            daemon.kill()
            daemon.start()
        unlinked = point.restart or not any("unlink" in line for line in injector.lines("fired"))
        faults.check(daemon, change, old, new, acknowledged=answer.code == DONE, unlinked=unlinked)
        faults.repeat(daemon, change, old, new, unlinked)
        if not point.restart:
            daemon.kill()
            daemon.start()
            assert faults.check(daemon, change, old, new, acknowledged=True)
        daemon.stop()

    def run(self, change, points):
        """Returns what went wrong."""
        old, new = faults.pictures(self.bases, change)
        wrong = []
        for point in points:
            try:
                self.suffer(change, point, old, new)
            except Exception as failure:
                wrong.append(f"DEPLOYFS_POINT='{point}': {failure}")
                print(wrong[-1], self.daemon.log_tail(), sep="\n", flush=True)
                faults.end_all(self.daemon)
        self.bad += wrong
        return wrong


@pytest.fixture(scope="module")
def sweep(module_place):
    sweep = Sweep(module_place)
    start = time.monotonic()
    yield sweep
    figure("crash-sweep", seed=SEED, points=sweep.tried, bad=len(sweep.bad), seconds=round(time.monotonic() - start))


def check_all_went_well(wrong):
    assert not wrong, f"DEPLOYFS_SEED={SEED}\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", faults.NAMES)
def test_a_fault_leaves_the_old_or_the_new(sweep, name):
    change = sweep.changes[name]
    points = sweep.points(change)
    chosen = os.environ.get("DEPLOYFS_POINT")
    if chosen:
        points = [point for point in points if fnmatch.fnmatchcase(str(point), chosen)]
    else:
        points = random.Random(f"{SEED} {name}").sample(points, SAMPLE)
    check_all_went_well(sweep.run(change, points))


@pytest.mark.full
@pytest.mark.parametrize("name", faults.NAMES)
def test_a_fault_at_every_place_leaves_the_old_or_the_new(sweep, name):
    change = sweep.changes[name]
    check_all_went_well(sweep.run(change, sweep.points(change)))
