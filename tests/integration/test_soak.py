# SPDX-License-Identifier: Apache-2.0
"""A day in an hour: everything at once for a while, and then all that was taken has been given back.

Three phases, since a process that is replaced cannot show what it leaks: a storm in which workers and
supervisors are killed and upgraded, one in which only workers die, through which one supervisor lives, and
a calm in which nothing dies, through which one worker lives. Processes, descriptors, threads and memory are
looked at before and after each, the store before and after all of them, always at rest and with the same
versions in it.

DEPLOYFS_SOAK_S is how long all of it takes with --full; DEPLOYFS_SEED chooses what happens.
"""
import contextlib
import itertools
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import deploy
from deploy import figure, wait_until
from test_kills import TOOL, Readers, archive, make_tree

SEED = int(os.environ.get("DEPLOYFS_SEED", random.SystemRandom().randrange(1 << 32)))
SOAK_S = float(os.environ.get("DEPLOYFS_SOAK_S", 600))
SHORT_S = 20
STEADY = ("1.0", "1.1", "1.2")           # of 'kills': what is read and flipped, never removed
KEPT = ("2.8", "2.9")                    # of 'churn': what its channel rests on
FETCHED = ("2.0", "2.1", "2.2", "2.3")   # of 'churn': come and go
IMPORTED = ("3.0", "3.1")                # likewise

SANITIZED = b"__asan_init" in deploy.DEPLOYFSD.read_bytes()  # then memory says nothing
RECORDS = 100 + 8  # of jobs: the last that ended, and what runs

# What there may be more of at the end. A worker goes on growing for some minutes, as SQLite's page caches
# (2 MiB a connection) fill and malloc's arenas come into use: to 6 MiB more than after its first 40 fetches,
# and no further (measured over 4000 flips and 400 fetches).
WORKER_KIB = 8 * 1024
SUPERVISOR_KIB = 64  # 4 in 600 s
# A slot that a request was received into once keeps its first pages: 8 banks of 4 slots, each 2.
SHARED_BYTES = 8 * 4 * 2 * 4096
INDEX_BYTES = 512 << 10   # 120 KiB in 600 s, most in the first 20: the WAL, and pages with room in them
# Generations stay for ever, and pages for them are made 2 MiB at a time; nothing came in 3041 flips.
CATALOG_BYTES, FLIP_BYTES = 2 << 20, 300


def disk_bytes(paths):
    found = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.lstat().st_blocks * 512 for file in found if not file.is_dir())


def descriptors(pid):
    """(what it is, how much it takes on its disk or in memory) of each."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append((os.readlink(fd), fd.stat().st_blocks * 512))
    return found


def index_rows(path):
    """What may be shared from: content of packs that are here."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as index:
        return [index.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("object", "node")]


def nameless(target):
    """What a descriptor is, without which one of its kind."""
    return re.sub(r"\d+", "N", target)


class Process:
    """What one process has."""

    def __init__(self, pid):
        text = Path(f"/proc/{pid}/status").read_text()
        number = {name: int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])
                  for name in ("RssAnon", "Threads")}
        self.pid, self.threads = pid, number["Threads"]
        self.kib = number["RssAnon"]
        self.descriptors = Counter(nameless(what) for what, _ in descriptors(pid))

    def more(self, before):
        """Descriptors and threads that it has and another one had not."""
        more = self.descriptors - before.descriptors
        if self.threads > before.threads:
            more["threads"] = self.threads - before.threads
        return more


def processes_named(name):
    """(pid, state) of each."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            comm, _, fields = rest.rpartition(") ")
            if comm.startswith(name):
                found.append((int(pid), fields.split()[0]))
    return found


class Picture:
    """The daemon at rest."""

    def __init__(self, daemon):
        self.supervisor, self.worker = map(Process, daemon.processes())
        self.bytes = {name: disk_bytes(daemon.store.glob(pattern)) for name, pattern in (
            ("packs", "packs"), ("catalog", "catalog.db*"), ("index", "index.db*"), ("backup", "catalog.bak*"),
            ("tmp", "tmp"), ("partial", "partial"))}
        self.shared_bytes = sum(size for what, size in descriptors(self.supervisor.pid) if "memfd:" in what)
        self.packs = len(daemon.packs())
        self.index_rows = index_rows(daemon.store / "index.db")
        self.records = len(list((daemon.runtime / "jobs").iterdir()))


class Hands(threading.Thread):
    """Somebody who does one thing after the other until told to stop."""

    def __init__(self, stop, steps):
        super().__init__()
        self.stop, self.steps = stop, steps
        self.done = Counter()
        self.failure = None

    def run(self):
        try:
            for what, step in self.steps:
                step()
                self.done[what] += 1
                if self.stop.is_set():
                    return
        except BaseException as failure:  # the main thread raises it
            self.failure = failure
            self.stop.set()


class Soak:
    def __init__(self, daemon, packages, chance):
        self.daemon, self.packages, self.chance = daemon, packages, chance
        self.done = Counter()

    def command(self, *args, codes=(deploy.DONE, deploy.UNCHANGED)):
        """deployctl itself repeats what a kill has broken, and may then be told that it was done."""
        result = self.daemon.ctl(*args)
        if result.code == deploy.FAILED and "died 3 times" in result.text:
            self.done["jobs_given_up"] += 1
            return self.command(*args, codes=codes)
        assert result.code in codes, f"{args}: {result.code}\n{result.text}"
        return result

    def step(self, what, *args):
        return what, lambda: self.command(*args)

    # -- what is done; the same names again and again, since the catalog remembers each

    def flips(self):
        for number in itertools.count():
            yield self.step("flips", "flip", "kills", STEADY[number % 3])
            if number % 10 == 9:
                yield self.step("flips", "rollback", "kills")

    def churn(self):
        for number in itertools.count():
            fetched, imported = FETCHED[number % 4], IMPORTED[number % 2]
            yield self.step("fetches", "fetch", "churn", fetched)
            yield self.step("imports", "import", self.packages / f"{imported}.tar", "--app", "churn",
                            "--version", imported)
            for version in (fetched, *KEPT):
                yield self.step("flips", "flip", "churn", version)
            yield "removals", lambda: self.remove(imported)
            if number >= 2:
                yield "removals", lambda: self.remove(FETCHED[(number - 2) % 4])
            if number % 5 == 4:
                yield self.step("gcs", "gc")
            if number % 20 == 19:
                yield self.step("verifies", "verify")

    def remove(self, version):
        """Where gc has not been quicker."""
        self.command("remove", "churn", version, codes=(deploy.DONE, deploy.UNCHANGED, deploy.NOT_FOUND))

    def kill(self, index):
        """SIGKILL to the supervisor (0) or the worker (1); returns when there is another one."""
        pid = wait_until(lambda: self.daemon.processes()[index], "there is a process")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.daemon.processes()[index] not in (0, pid), f"process {pid} has been replaced")

    def worker_deaths(self):
        while True:
            yield "kills", lambda: self.kill(1)

    def deaths(self):
        while True:
            yield self.chance.choice((("kills", lambda: self.kill(0)), ("kills", lambda: self.kill(1)),
                                      ("upgrades", self.upgrade)))

    def upgrade(self):
        """The worker that has just been killed may have been the one that was asked."""
        wait_until(self.daemon.answers, "deployfsd answers")
        self.command("daemon", "upgrade")

    def now_and_then(self, stop, steps):
        while not stop.wait(self.chance.uniform(0.3, 3)):
            yield next(steps)

    # -- phases

    def phase(self, seconds, deaths=None):
        """Work for that long, and rest."""
        stop = threading.Event()
        steps = [self.flips(), self.churn(), *([self.now_and_then(stop, deaths)] if deaths else [])]
        hands = [Hands(stop, one) for one in steps]
        for hand in hands:
            hand.start()
        stop.wait(seconds)
        stop.set()
        for hand in hands:
            hand.join()
        for hand in hands:
            if hand.failure:
                raise AssertionError(f"DEPLOYFS_SEED={SEED}") from hand.failure
            self.done += hand.done
        self.rest()

    def warm_up(self):
        """Work one after the other, until what is done has been done before; returns the daemon at rest."""
        for steps, number in ((self.flips(), 12), (self.churn(), 8 * len(FETCHED))):
            for _, step in itertools.islice(steps, number):
                step()
        self.rest()
        return Picture(self.daemon)

    def rest(self):
        """The same versions and channels as each time, everything loaded, nobody at work."""
        wait_until(self.daemon.answers, "deployfsd answers")
        wait_until(lambda: not self.daemon.status()["jobs"], "no job runs")
        for app, versions in (("churn", KEPT), ("kills", STEADY)):
            for version in versions:
                self.command("flip", app, version)
        for version in set(self.daemon.versions("churn")) - set(KEPT):
            self.remove(version)
        self.command("gc")
        self.command("verify")
        wait_until(lambda: self.daemon.leftovers() == [], "nothing is left over")
        wait_until(lambda: all(version["state"] == "present" for version in self.daemon.app("churn")["versions"]),
                   "what was removed is gone")

    def settled(self, before):
        """The picture at rest, once connections are closed and their threads gone."""
        def more():
            picture = Picture(self.daemon)
            return (picture.worker.more(before.worker) + picture.supervisor.more(before.supervisor)
                    + Counter(packs=max(0, picture.packs - before.packs)))
        with contextlib.suppress(TimeoutError):  # the test says what there is more of
            wait_until(lambda: not +more(), "nothing is there that was not", 15)
        return Picture(self.daemon)


class Caches:
    """Has the kernel forget names now and then, so that look-ups reach the daemon."""

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.drop)
        self.thread.start()

    def drop(self):
        while not self.stop.wait(2):
            Path("/proc/sys/vm/drop_caches").write_text("2")

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()


def make_packages(place):
    """What is fetched and what is imported; versions have much, little and nothing in common. Returns a folder."""
    folder = place.folder / "trees"
    folder.mkdir()
    for number, version in enumerate((*STEADY, *IMPORTED)):
        archive(make_tree(folder / version, number + 1, 6, 40), folder / f"{version}.tar")
    for number, version in enumerate((*FETCHED, *KEPT)):
        place.origin.publish("churn", version, {
            **deploy.small_app(version),
            "same": deploy.noise(400_000), "own": deploy.noise(300_000, version.encode()),
            "pair": deploy.noise(200_000, str(number % 2).encode())}, ending=".tar")
    return folder


@contextlib.contextmanager
def reading(daemon):
    """Readers of 'kills', whose counts are in the list afterwards."""
    counts = []
    readers = Readers([TOOL, "run", daemon.path("kills", ""), 3])
    try:
        with Caches():
            yield counts
    finally:
        counts.append(readers.end())
        print(readers.errors.getvalue())


def check_processes(daemon):
    """The two that there were at the start, and nothing that has ended and is not buried."""
    daemon.process.poll()  # the first supervisor is our own child
    assert sorted(processes_named("deployfs")) == sorted((pid, "S") for pid in daemon.processes())


def check_same(name, before, after):
    more = after.more(before)
    assert not more, f"{name} has more: {dict(more)}"


def check_memory(name, before, after, limit_kib):
    if not SANITIZED:
        assert after.kib - before.kib <= limit_kib, f"{name}: {before.kib} KiB before, {after.kib} KiB after"


def check_store(before, after, flips):
    """Nothing is left of what came and went; what grows by design does so by as little as it should."""
    limits = {"index": INDEX_BYTES, "catalog": CATALOG_BYTES + flips * FLIP_BYTES}
    limits["backup"] = limits["catalog"]
    for name in before:
        assert after[name] - before[name] <= limits.get(name, 0), (name, before, after)


@pytest.mark.parametrize("seconds", [SHORT_S, pytest.param(SOAK_S, marks=pytest.mark.full)])
def test_what_was_taken_is_given_back(place, seconds):
    packages = make_packages(place)
    daemon = place.daemon().start()
    for version in STEADY:
        daemon.run("import", packages / f"{version}.tar", "--app", "kills", "--version", version)
    for version in (FETCHED[0], *KEPT):  # the first of them will be gone, but for what the others share with it
        daemon.run("fetch", "churn", version)
    for app, versions in (("kills", STEADY), ("churn", KEPT)):
        for version in versions:
            daemon.run("pin", app, version)  # gc shall not take them
            daemon.run("flip", app, version)

    soak = Soak(daemon, packages, random.Random(SEED))
    with reading(daemon) as counts:
        start = soak.warm_up()
        soak.phase(seconds * 0.3, soak.deaths())
        storm = soak.settled(start)
        soak.phase(seconds * 0.1, soak.worker_deaths())
        deaths = soak.settled(storm)
        soak.phase(seconds * 0.2)
        warm = soak.settled(deaths)
        soak.phase(seconds * 0.4)
        end = soak.settled(warm)
    check_processes(daemon)
    counts = counts[0]
    figure("soak", seconds=seconds, seed=SEED, **soak.done, reads=counts["calls"],
           failed=counts["failed"] + counts["stuck"], wrong=counts["wrong"],
           rss_worker_start_kib=warm.worker.kib, rss_worker_end_kib=end.worker.kib,
           rss_supervisor_start_kib=storm.supervisor.kib, rss_supervisor_end_kib=end.supervisor.kib,
           shared_start_bytes=start.shared_bytes, shared_end_bytes=end.shared_bytes,
           fds_worker_start=sum(start.worker.descriptors.values()),
           fds_worker_end=sum(end.worker.descriptors.values()),
           fds_supervisor_start=sum(start.supervisor.descriptors.values()),
           fds_supervisor_end=sum(end.supervisor.descriptors.values()),
           threads_start=start.worker.threads, threads_end=end.worker.threads,
           packs_start=start.packs, packs_end=end.packs, index_rows_start=start.index_rows, index_rows_end=end.index_rows,
           job_records_end=end.records,
           store_start_bytes=start.bytes, store_end_bytes=end.bytes, log_bytes=daemon.log.stat().st_size)

    assert (counts["failed"], counts["stuck"], counts["wrong"]) == (0, 0, 0)
    for picture in (storm, deaths, warm, end):
        check_same("the worker", start.worker, picture.worker)
        check_same("the supervisor", start.supervisor, picture.supervisor)
    assert end.worker.pid == warm.worker.pid and end.supervisor.pid == storm.supervisor.pid
    check_memory("the worker", warm.worker, end.worker, WORKER_KIB)
    check_memory("the supervisor", storm.supervisor, end.supervisor, SUPERVISOR_KIB)
    assert end.shared_bytes <= start.shared_bytes + SHARED_BYTES
    assert end.records <= RECORDS
    assert end.packs <= start.packs
    assert end.index_rows == start.index_rows
    check_store(start.bytes, end.bytes, soak.done["flips"])
