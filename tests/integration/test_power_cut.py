# SPDX-License-Identifier: Apache-2.0
"""The power goes in the midst of each change: what was acknowledged is there, the rest whole or absent.

The store is an ext4 of its own. At a chosen call of the daemon or its job its file system is shut down without
writing its journal (FS_IOC_SHUTDOWN), everybody is killed, and it is mounted again. So all is lost that
nobody had made durable; that a disk itself loses or reorders what it has confirmed is not tried.

DEPLOYFS_SEED chooses the calls.
"""
import os
import random
import shutil
import subprocess

import pytest

import deploy
import faults
from deploy import DONE, figure
from faults import Bases, FaultAt

SEED = int(os.environ.get("DEPLOYFS_SEED", random.SystemRandom().randrange(1 << 32)))
CUTS = 2        # of each change
CUTS_FULL = 17  # with six changes, more than a hundred
DISK_BYTES = 96 << 20
AFTERGLOW_S = 0.1  # for a command to end that had its answer when the power went

pytestmark = pytest.mark.skipif(not faults.FAULT_AT.exists(), reason="fault-at is for x86-64")


class Disks(Bases):
    """The bases as images of an ext4, of which a copy is mounted for the daemon."""

    def __init__(self, daemon, folder):
        super().__init__(daemon, folder)
        self.disk = self.folder / "disk"
        for name in ("two", "three"):
            with open(self.image(name), "wb") as file:
                file.truncate(DISK_BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-d", self.folder / name, self.image(name)], check=True)

    def image(self, name):
        return self.folder / f"{name}.ext4"

    def lay(self, name):
        self.umount()
        self.new_life()
        self.daemon.store.mkdir(exist_ok=True)
        subprocess.run(["cp", "--sparse=always", self.image(name), self.disk], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.disk, self.daemon.store], check=True)

    def umounted(self):
        if str(self.daemon.store) not in deploy.mounts_below(self.daemon.store):
            return True
        return subprocess.run(["umount", self.daemon.store], capture_output=True).returncode == 0

    def umount(self):
        """The loop device goes with the mount. Who was killed may still be ending."""
        deploy.wait_until(self.umounted, "the store is unmounted")


class Cuts:
    def __init__(self, place):
        package = faults.publish(place.origin)
        self.disks = Disks(place.daemon(), place.folder / "bases")
        self.daemon = self.disks.daemon
        self.changes = {change.name: change for change in faults.changes(package)}
        self.tried, self.bad, self.counted = 0, [], {}

    def cut(self, change, scope, at, old, new):
        """Whether the power went before it was all over, and all was well."""
        daemon = self.daemon
        self.disks.lay(change.base)
        daemon.start()
        injector = FaultAt(daemon, scope, at, "cut")
        command = daemon.background(*change.command)
        deploy.wait_until(lambda: injector.fired() or command.poll() is not None and faults.finished(daemon),
                          "the power is cut or it is done")
        fired = injector.fired()
        injector.close()
        if fired:
            daemon.gone()
            shutil.rmtree(daemon.runtime)  # in memory, on a host
            deploy.ended(command, AFTERGLOW_S)
            command.kill()
        else:
            daemon.stop()
        acknowledged = faults.answer(command).code == DONE
        self.disks.umount()
        self.disks.mount()
        daemon.start()
        faults.check(daemon, change, old, new, acknowledged=acknowledged)
        faults.repeat(daemon, change, old, new)
        daemon.stop()
        return fired is not None

    def places(self, change, scope):
        if (change, scope) not in self.counted:
            self.counted[change, scope] = self.disks.count(change, scope, "cut")
        return self.counted[change, scope]

    def run(self, change, count, chance):
        """Returns what went wrong."""
        old, new = faults.pictures(self.disks, change)
        wrong = []
        for _ in range(count):
            scope = chance.choice(change.scopes)
            at = chance.randint(1, self.places(change, scope))
            try:
                self.tried += self.cut(change, scope, at, old, new)
            except Exception as failure:
                wrong.append(f"{change.name} {scope} cut {at}: {failure}")
                print(wrong[-1], self.daemon.log_tail(), sep="\n", flush=True)
                faults.end_all(self.daemon)
        self.bad += wrong
        return wrong


@pytest.fixture(scope="module")
def cuts(module_place):
    cuts = Cuts(module_place)
    yield cuts
    figure("power-cut", seed=SEED, cuts=cuts.tried, bad=len(cuts.bad))


@pytest.mark.parametrize("count", [CUTS, pytest.param(CUTS_FULL, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", faults.NAMES)
def test_what_was_acknowledged_survives_a_power_cut(cuts, name, count):
    wrong = cuts.run(cuts.changes[name], count, random.Random(f"{SEED} {name} {count}"))
    assert not wrong, f"DEPLOYFS_SEED={SEED}\n" + "\n".join(wrong)
