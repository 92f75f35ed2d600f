# SPDX-License-Identifier: Apache-2.0
"""Flips, starts and memory: with little in the store, and with much."""
import json
import os
import subprocess
import sys
import time

import deploy
import machine
import peers
from measure import Row, alternate, group, pairs_of

STORE_MAKE = deploy.BUILD / "tests" / "tools" / "store-make"
FLIP_READERS = deploy.BUILD / "tests" / "tools" / "flip-readers"
OURS = "deployfs"
READERS = 4
FLIPS, QUICK_FLIPS = 1000, 300
MANY, QUICK_MANY, SOME = (1000, 50), (200, 50), (10, 5)  # applications, versions of each
MEGABYTE = 1_000_000
APP = "app-0000"  # one that store-make makes


def store_daemon(bench, name, apps, versions):
    """A daemon that is not started, whose store has that many; kept for the whole run."""
    def make():
        daemon = deploy.Daemon(bench.work / name)
        bench.ending.callback(daemon.cleanup)
        machine.timed([STORE_MAKE, daemon.store, apps, versions])
        return daemon
    return bench.kept(name, make)


def many(bench):
    return store_daemon(bench, "many", *(QUICK_MANY if bench.quick else MANY))


def how_many(bench):
    apps, versions = QUICK_MANY if bench.quick else MANY
    return f"{apps:,} × {versions} versions"


# -- flips


def mean_flip(bench, daemon):
    """Milliseconds a flip, while readers open files through the channel without pause."""
    daemon.start()
    try:
        daemon.ctl("flip", APP, "0.0")  # where flip-readers begins
        done = subprocess.run([FLIP_READERS, daemon.socket, daemon.apps, APP, "0.0", "0.1", str(READERS),
                               str(QUICK_FLIPS if bench.quick else FLIPS)], capture_output=True, text=True,
                              check=True)
    finally:
        daemon.stop()
    said = json.loads(done.stdout)
    if said["failed"] or said["stale"] or said["mixed"]:
        raise RuntimeError(f"flips went wrong: {done.stdout}")
    return said["mean_ms"]


@group(Row("flip", "2 versions", 1.2, "ms"))
def flip(bench, rows):
    few, lots = store_daemon(bench, "few", 1, 2), many(bench)
    found = alternate(bench.n, {OURS: lambda: mean_flip(bench, lots), "2 versions": lambda: mean_flip(bench, few)})
    return [row.result(pairs_of(found, OURS, row.peer), note=how_many(bench)) for row in rows]


SYMLINK_FLIPS = """
import os, sys, time
folder = os.open(sys.argv[1], os.O_RDONLY)
count = int(sys.argv[2])
begin = time.monotonic()
for n in range(count):
    os.symlink("version-%d" % (n % 2), "new", dir_fd=folder)
    os.rename("new", "current", src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
print((time.monotonic() - begin) * 1000 / count)
"""


def mean_symlink_flip(bench):
    """The same by hand, without readers: a symlink, a rename, fsync of the directory."""
    folder = bench.work / "symlink"
    folder.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", SYMLINK_FLIPS, folder, str(QUICK_FLIPS)], capture_output=True,
                          text=True, check=True)
    return float(done.stdout)


@group(Row("flip", "symlink, fsync", unit="ms", variant="2 versions", full=True))
def flip_by_hand(bench, rows):
    few = store_daemon(bench, "few", 1, 2)
    found = alternate(bench.n, {OURS: lambda: mean_flip(bench, few), rows[0].peer: lambda: mean_symlink_flip(bench)})
    return [row.result(pairs_of(found, OURS, row.peer)) for row in rows]


# -- the first run after a flip


def start_again(bench, daemon):
    """The application's start through its channel, as a container does it."""
    command, env = bench.trees.python.starter(daemon.path("python"))
    return machine.timed(command, env=env)


def first_run(bench, ours, following):
    """(seconds of the first run after a warm flip from 1.0, seconds of the run before it)"""
    daemon = ours.daemon
    ours.replace_worker()
    machine.drop_caches(ours.sources)
    start_again(bench, daemon)
    before = start_again(bench, daemon)
    daemon.run("flip", "python", following, "--warm", timeout_s=300)
    return start_again(bench, daemon), before


VERSIONS = {"": "1.1", "every mtime new": "1.1-mtime"}


@group(*(Row("warm-flip", "run before", 1.1, variant=variant) for variant in VERSIONS))
def warm_flip(bench, rows):
    bench.our_tree("python")
    bench.ours.daemon.run("flip", "python", "1.0")
    for row in rows:
        archive, _ = bench.trees.python.next_tar(every_mtime=bool(row.variant))
        version = VERSIONS[row.variant]
        bench.kept(("next", version), lambda: bench.ours.add(archive, "python", version))
        pairs = []
        for _ in range(bench.n):
            pairs.append(first_run(bench, bench.ours, version))
            bench.ours.daemon.run("flip", "python", "1.0")
        yield row.result(pairs)


# -- the daemon's start


def answer_seconds(daemon):
    """From the start of the program to the first answer."""
    machine.drop_caches([path for path in daemon.store.rglob("*") if path.is_file()][:1000])
    begin = time.monotonic()
    daemon.spawn()
    while not daemon.answers():
        time.sleep(0.001)
    took = time.monotonic() - begin
    daemon.stop()
    return took


@group(Row("start", "10 × 5 versions", 3))
def start(bench, rows):
    few, lots = store_daemon(bench, "some", *SOME), many(bench)
    found = alternate(bench.n, {OURS: lambda: answer_seconds(lots), rows[0].peer: lambda: answer_seconds(few)})
    return [row.result(pairs_of(found, OURS, row.peer), note=how_many(bench)) for row in rows]


# -- memory


@group(Row("rss-idle", "20 MB", 1.0, "bytes"), Row("rss-idle", "20 MB", None, "bytes", "50,000 versions", full=True))
def rss_idle(bench, rows):
    """After a start, with versions in the store that nobody has looked at: 10 × 5, or as many as there can be."""
    for row in rows:
        daemon = many(bench) if row.variant else store_daemon(bench, "some", *SOME)
        daemon.start()
        used = machine.memory_of(daemon.worker())
        daemon.stop()
        yield row.result([(used, 20 * MEGABYTE)])


@group(Row("rss-million", "200 MB", 1.0, "bytes"))
def rss_million(bench, rows):
    """After everything in it was looked at and read. With fewer files the limit is as much smaller."""
    count = bench.small_count
    ours = peers.Ours(bench.work / "small")
    try:
        root = ours.add(bench.trees.small(count), "small", "1.0")
        machine.read("cat", root)
        used = machine.memory_of(ours.daemon.worker())
    finally:
        ours.stop()
    budget = 20 * MEGABYTE + 180 * MEGABYTE * count // 1_000_000
    note = f"{count:,} files" + ("" if count == 1_000_000 else ", the limit scaled to them")
    return [row.result([(used, budget)], note=note) for row in rows]
