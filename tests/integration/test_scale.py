# SPDX-License-Identifier: Apache-2.0
"""Many versions of many applications: what one of them costs does not grow with how many there are.

Times say little on a busy machine. So what is asserted are counts: packs that are opened, bytes that are
written, descriptors, memory. DEPLOYFS_SCALE is how many, "100x20" being 100 applications with 20 versions each.
"""
import contextlib
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

import pytest

import deploy
from deploy import figure, wait_until

APPS, VERSIONS = map(int, os.environ.get("DEPLOYFS_SCALE", "100x20").split("x"))
FEW = (2, 3)
FLIPS = 100
KEPT_PACKS = 1024           # cache/pack_set.c: KEPT_MAX
A_PACK_KIB = 8              # of a few files, loaded
OTHER_KIB = 16 * 1024       # what a worker takes by and by, whatever it serves: see test_soak.py
SANITIZED = b"__asan_init" in deploy.DEPLOYFSD.read_bytes()  # then memory says nothing


def make_store(daemon, apps, versions, *more):
    """One that nobody has used yet."""
    daemon.store.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([deploy.BUILD / "tests/tools/store-make", daemon.store, *map(str, (apps, versions, *more))],
                   check=True, timeout=800)
    return daemon


@pytest.fixture(scope="module")
def stores(module_place):
    """(many, few): running daemons, which tests leave as they are."""
    many = make_store(module_place.daemon(name="many"), APPS, VERSIONS)
    few = make_store(module_place.daemon(name="few"), *FEW)
    return many.start(), few.start()


@pytest.fixture
def many(stores):
    return stores[0]


def proc_number(pid, file, name):
    return int(re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def status_apps(daemon):
    return json.loads((daemon.apps / ".deployfs/status.json").read_text())["apps"]


def api_apps(daemon):
    return {app["name"]: app["channels"] for app in daemon.api("GET", "/v1/apps").body["apps"]}


def ends_of(daemon):
    """The first and the last version of app-0000; it points at the first."""
    daemon.api("POST", "/v1/apps/app-0000/flip", {"version": "0.0"})
    return "0.0", max(daemon.versions("app-0000"), key=lambda name: int(name.split(".")[1]))


def test_a_flip_is_seen_at_once(many):
    done = subprocess.run([deploy.BUILD / "tests/tools/flip-readers", many.socket, many.apps, "app-0000",
                           *ends_of(many), "4", str(FLIPS)], capture_output=True, text=True,
                          timeout=deploy.PATIENCE_S * 4)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    figure("scale-flips", versions=APPS * VERSIONS, **counts)
    assert (counts["failed"], counts["stale"], counts["mixed"]) == (0, 0, 0)


def threads(pid):
    return set(os.listdir(f"/proc/{pid}/task"))


def flip_bytes(daemon):
    """What the thread of one connection writes for a flip: the median, since now and then it writes back the WAL."""
    versions, worker = ends_of(daemon), daemon.worker()
    before = threads(worker)
    with contextlib.closing(daemon.connect()) as connection:
        daemon.api("GET", "/v1/status", connection=connection)
        mine = threads(worker) - before
        assert mine

        def written():
            return sum(proc_number(worker, f"task/{thread}/io", "wchar") for thread in mine & threads(worker))

        taken = []
        for number in range(1, FLIPS + 1):
            begin = written()
            reply = daemon.api("POST", "/v1/apps/app-0000/flip", {"version": versions[number % 2]}, connection)
            assert reply.body["changed"]
            taken.append(written() - begin)
    return statistics.median(taken)


def test_a_flip_writes_no_more_than_among_few(stores):
    many, few = map(flip_bytes, stores)
    figure("scale-flip-bytes", versions=APPS * VERSIONS, many=many, few=few)
    assert few > 4096  # a page of the WAL, at least
    assert many <= few + 3 * 4096


def test_status_follows_all_changes(many):
    for number in range(0, APPS, max(APPS // 10, 1)):
        app = f"app-{number:04}"
        version = f"{number}.{VERSIONS // 2}"
        assert many.api("POST", f"/v1/apps/{app}/flip", {"version": version}).status == 200
        wait_until(lambda: status_apps(many)[app]["current"] == version, "status.json follows a flip")
    assert status_apps(many) == api_apps(many)


def read_all(daemon):
    """A file of every version, which has to be the right one."""
    for app in range(APPS):
        for version in range(VERSIONS):
            path = daemon.path(f"app-{app:04}", f"{app}.{version}") / "stamp"
            assert path.read_text() == f"{app}.{version}\n"


def test_walk_over_all_versions_takes_bounded_descriptors_and_memory(many):
    worker = many.worker()
    fds, kib = descriptors(worker), proc_number(worker, "status", "RssAnon")
    read_all(many)
    assert many.worker() == worker
    taken, more_kib = descriptors(worker) - fds, proc_number(worker, "status", "RssAnon") - kib
    figure("scale-walk", versions=APPS * VERSIONS, descriptors=taken, more_kib=more_kib)
    assert taken <= KEPT_PACKS + 32
    assert SANITIZED or more_kib <= KEPT_PACKS * A_PACK_KIB + OTHER_KIB


def test_successor_of_a_killed_worker_serves_all(many):
    before = api_apps(many)
    worker = many.worker()
    os.kill(worker, signal.SIGKILL)
    start = time.monotonic()
    with contextlib.suppress(FileNotFoundError):
        os.stat(many.apps / f"nobody-asked-{worker}")
    pause = time.monotonic() - start
    many.recover()
    figure("scale-pause", versions=APPS * VERSIONS, pause_ms=round(pause * 1000, 1),
           answers_ms=round((time.monotonic() - start) * 1000, 1))
    assert many.worker() != worker
    assert api_apps(many) == before == status_apps(many)
    read_all(many)


def test_commands_tell_of_all_versions(many):
    apps = many.json("list")["apps"]
    assert [app["name"] for app in apps] == [f"app-{number:04}" for number in range(APPS)]
    for number, app in enumerate(apps):
        assert [v["version"] for v in app["versions"]] == [f"{number}.{i}" for i in reversed(range(VERSIONS))]
    plan = many.json("gc", "--dry-run")["versions"]
    assert len(plan) == APPS * VERSIONS
    kept = {(entry["app"], entry["version"]) for entry in plan if entry["action"] == "keep"}
    assert {(app, version) for app, channels in api_apps(many).items() for version in channels.values()} <= kept
    assert many.status()["versions"] == APPS * VERSIONS


def scrub_ended(daemon):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.store}/catalog.db?mode=ro", uri=True)) as catalog:
        return catalog.execute("SELECT 1 FROM meta WHERE key = 'scrub_ended_ns' AND value > 0").fetchone()


class Traced:
    """A daemon under strace, to see which files it opens until it answers."""

    def __init__(self, daemon):
        self.daemon, self.trace = daemon, daemon.folder / "trace"

    def opened_packs(self):
        # Leaks are looked for by ptrace too, which takes one tracer only.
        env = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
        self.daemon.spawn(wrapper=("strace", "-D", "-f", "-qq", "-e", "trace=openat", "-o", str(self.trace)), env=env)
        wait_until(self.daemon.answers, "deployfsd answers")
        opened = re.findall(r'packs/(\d+)\.pack"', self.trace.read_text())
        return len(set(opened))


def test_start_opens_no_pack_after_a_clean_end_and_few_after_another(place):
    daemon = make_store(place.daemon(), 20, 10)
    traced = Traced(daemon)
    daemon.start()
    wait_until(lambda: scrub_ended(daemon), "all packs were scrubbed, which opens them too")
    daemon.run("flip", "app-0000", "0.5")
    daemon.stop()
    assert (daemon.store / "catalog.bak").exists()
    (daemon.store / "catalog.bak").rename(daemon.store / "away")
    first = traced.opened_packs()
    daemon.stop()
    clean = traced.opened_packs()
    daemon.run("flip", "app-0000", "0.6")
    daemon.kill()
    killed = traced.opened_packs()
    figure("scale-start", packs=200, opened_without_copy=first, opened_after_clean_end=clean,
           opened_after_kill=killed)
    assert daemon.read("app-0000", name="stamp") == "0.6"
    assert first >= 200
    assert max(clean, killed) <= 20
