# SPDX-License-Identifier: Apache-2.0
"""Whatever dies, and whenever: who reads from the mount sees no failed call, no wrong byte, and a short pause."""
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

import deploy
from deploy import alive, figure, signal_pid, wait_until
from engine import IMAGE, Engine

TOOL = deploy.BUILD / "tests/tools/kill-readers"
KILLS = int(os.environ.get("DEPLOYFS_KILLS", 100))
PAUSE_MS = 100
WATCHDOG_MS = 2000 + 500  # the supervisor looks twice a second
SEED = int(os.environ.get("DEPLOYFS_SEED", time.time_ns() % 1_000_000))
VERSIONS = ("1.0", "1.1", "1.2")


# -- who reads


def make_tree(folder, seed, directories=12, files=60):
    subprocess.run([TOOL, "make", folder, str(seed), str(directories), str(files)], check=True)
    return folder


def archive(tree, path):
    """Of a tree as one version's package."""
    with tarfile.open(path, "w") as tar:
        for entry in sorted(tree.iterdir()):
            tar.add(entry, entry.name)
    return path


class Readers:
    """kill-readers, which count until they are told to stop."""

    def __init__(self, command):
        self.errors = io.StringIO()
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.drain = threading.Thread(target=self.drain_errors)
        self.drain.start()
        assert self.process.stdout.readline() == "reading\n", self.errors.getvalue()

    def drain_errors(self):
        for line in self.process.stderr:
            self.errors.write(line)

    def end(self):
        """What was counted."""
        self.process.stdin.close()
        out = self.process.stdout.read()
        self.process.wait(deploy.PATIENCE_S)
        self.drain.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return json.loads(out)


class Watch:
    """Readers on the mount, and one on a native copy, which tells what the machine alone is worth."""

    def __init__(self, daemon, native, count=3, containers=()):
        self.daemon, self.native, self.count, self.containers = daemon, native, count, containers
        self.stop = threading.Event()
        self.counts, self.native_counts = [], None

    def __enter__(self):
        self.readers = [Readers([TOOL, "run", self.daemon.path("kills", ""), self.count])]
        self.readers += [Readers(command) for command in self.containers]
        self.base = Readers([TOOL, "run", self.native, 1])
        self.dropping = threading.Thread(target=self.drop_caches)
        self.dropping.start()
        return self

    def drop_caches(self):
        """Dentries and inodes, so that calls keep reaching the daemon."""
        while not self.stop.wait(0.1):
            Path("/proc/sys/vm/drop_caches").write_text("2")

    def __exit__(self, *failure):
        self.stop.set()
        self.dropping.join()
        self.counts = [readers.end() for readers in self.readers]
        self.native_counts = self.base.end()

    def sum(self, name):
        return sum(counts[name] for counts in self.counts)

    def errors(self):
        return "".join(readers.errors.getvalue() for readers in self.readers)

    def pauses(self, moments):
        """For each kill: for how long of the time up to the next one the longest call waited, in ms."""
        slow = [(start, start + ms) for counts in self.counts for start, ms in counts["slow"]]
        found = []
        for moment, following in zip(moments, [*moments[1:], float("inf")]):
            begin, end = moment * 1000, following * 1000
            waits = [min(stop, end) - max(start, begin) for start, stop in slow
                     if stop > begin and start < min(end, begin + 1000)]
            found.append(max(waits, default=0.0))
        return found

    def check(self, name, moments, limit_ms=PAUSE_MS):
        """No call failed, and the longest pause is as long as promised, on a machine that is as late as this one."""
        pauses = self.pauses(moments)
        late_ms = max(self.native_counts["worst_ms"], self.sum("control_ms"))
        assert self.sum("calls") > 20 * len(moments)
        figure(name, kills=len(moments), calls=self.sum("calls"), failed=self.sum("failed") + self.sum("stuck"),
               wrong=self.sum("wrong"), pause_ms_mean=round(sum(pauses) / max(len(pauses), 1), 1),
               pause_ms_worst=round(max(pauses, default=0), 1), call_ms_worst=max(c["worst_ms"] for c in self.counts),
               machine_ms_worst=late_ms, seed=SEED)
        assert (self.sum("failed"), self.sum("stuck"), self.sum("wrong")) == (0, 0, 0), self.errors()
        assert max(pauses, default=0) <= limit_ms + late_ms


# -- who kills


class Killer:
    def __init__(self, daemon):
        self.daemon = daemon
        self.random = random.Random(SEED)
        self.moments = []
        print(f"seed: {SEED}")

    def successor(self, index, pid):
        """The process that has replaced @pid; it need not be ready for anything."""
        return wait_until(lambda: self.daemon.processes()[index] not in (0, pid) and self.daemon.processes()[index],
                          f"process {pid} has been replaced")

    def kill(self, index, number=signal.SIGKILL):
        """The supervisor (0) or the worker (1); returns when there is another one."""
        pid = wait_until(lambda: self.daemon.processes()[index], "there is a process")
        self.moments.append(time.monotonic())
        os.kill(pid, number)
        return self.successor(index, pid)

    def pause(self, shortest, longest):
        """Random moments are what this is about."""
        threading.Event().wait(self.random.uniform(shortest, longest))


def children(pid):
    """(pid, state) of the children of @pid."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            fields = rest.split()
            if int(fields[1]) == pid:
                found.append((int(name.split()[0]), fields[0]))
    return found


def resident_kib(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0])


def descriptors(pid):
    return sorted(os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())


class Usage:
    """What both processes have taken."""

    def __init__(self, daemon):
        wait_until(daemon.answers, "deployfsd answers")
        self.supervisor, self.worker = daemon.processes()
        self.supervisor_fds, self.worker_fds = descriptors(self.supervisor), descriptors(self.worker)
        self.supervisor_kib, self.worker_kib = resident_kib(self.supervisor), resident_kib(self.worker)
        self.zombies = [child for child in children(self.supervisor) if child[1] == "Z"]

    def check_after(self, before):
        assert self.zombies == []
        assert len(self.supervisor_fds) == len(before.supervisor_fds), (before.supervisor_fds, self.supervisor_fds)
        assert len(self.worker_fds) <= len(before.worker_fds) + 8, (before.worker_fds, self.worker_fds)
        assert self.supervisor_kib <= before.supervisor_kib + 1024
        assert self.worker_kib <= before.worker_kib + 16 * 1024


# -- what goes on meanwhile


class Load:
    """Commands in a loop. A connection that breaks may cost one its result, never the store its order."""

    def __init__(self, daemon, packages):
        self.daemon, self.packages = daemon, packages
        self.stop = threading.Event()
        self.codes = []

    def commands(self):
        number = 0
        while True:
            number += 1
            version = f"0.{number}"
            package = self.packages / "churn.tar"
            for command in (("import", package, "--app", "churn", "--version", version), ("fetch", "late", "1.0"),
                            ("flip", "churn", version), ("flip", "kills", VERSIONS[number % 3]),
                            ("rollback", "kills"), ("flip", "kills", VERSIONS[(number + 1) % 3]),
                            ("flip", "churn", "0.0"), ("remove", "churn", version), ("remove", "late", "1.0")):
                yield command

    def work(self):
        for command in self.commands():
            if self.stop.wait(0.02):
                return
            self.codes.append((command[0], self.daemon.ctl(*command).code))

    def __enter__(self):
        self.thread = threading.Thread(target=self.work)
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()


def check_store(daemon):
    """Everything is as if nothing had died."""
    daemon.recover()
    wait_until(lambda: not daemon.status()["jobs"], "no job runs")
    daemon.run("verify")
    daemon.ctl("fetch", "late", "1.0")  # takes up what a killed download has left
    wait_until(lambda: daemon.leftovers() == [], "nothing is left over")
    for app in ("kills", "churn"):
        history = daemon.history(app)[::-1]
        for before, after in zip(history, history[1:]):
            assert after["from"] == before["to"], (before, after)
            assert after["generation"] == before["generation"] + 1
        assert os.readlink(daemon.path(app)) == history[-1]["to"] == daemon.channels(app)["current"]
        listed = sorted(name for name in os.listdir(daemon.path(app, "")) if name not in daemon.channels(app))
        assert listed == sorted(daemon.versions(app))


# -- the tests


@pytest.fixture(scope="module")
def trees(module_place):
    """A folder: below native/ three versions, unpacked, and packages of them and of a small one."""
    folder = module_place.folder
    (folder / "native").mkdir()
    for number, version in enumerate(VERSIONS):
        archive(make_tree(folder / "native" / version, number + 1), folder / f"{version}.tar")
    archive(make_tree(folder / "churn", 99, 2, 20), folder / "churn.tar")
    return folder


@pytest.fixture
def start(place, trees):
    """Start a daemon that shows three versions of 'kills' and one of 'churn'; it can fetch 'late'."""
    def started(*args):
        place.origin.publish("late", "1.0", {"noise": deploy.noise(3 << 20)}, ending=".tar")
        daemon = place.daemon().start(*args)
        for version in VERSIONS:
            daemon.run("import", trees / f"{version}.tar", "--app", "kills", "--version", version)
        daemon.run("import", trees / "churn.tar", "--app", "churn", "--version", "0.0")
        for app, version in (("kills", "1.0"), ("kills", "1.1"), ("churn", "0.0")):
            daemon.run("flip", app, version)
        return daemon
    return started


def image_tar():
    """The tool and nothing else."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(TOOL, "kill-readers")
    return data.getvalue()


@pytest.fixture
def engine(module_place):
    engine = Engine(module_place.folder / "engine")  # a socket's path has to be short
    try:
        engine.start()
        engine.docker("import", "-", IMAGE, input=image_tar())
        yield engine
    finally:
        engine.stop()


def in_container(engine, daemon):
    return engine.command("run", "-i", "--rm", "--network=none", "-v", f"{daemon.mount}:/srv/deployfs:rslave",
                          IMAGE, "/kill-readers", "run", "/srv/deployfs/apps/kills", "2")


def kill_by_turns(daemon, killer, kills):
    """Worker or supervisor at random; the next one as soon as the other of them would not be alone."""
    for _ in range(kills):
        killer.pause(0.05, 0.6)
        killer.kill(killer.random.randrange(2))


def test_a_hundred_kills_under_load_are_not_noticed(start, trees, engine):
    daemon = start()
    before, killer = Usage(daemon), Killer(daemon)
    with Watch(daemon, trees / "native", 2, [in_container(engine, daemon)]) as watch:
        with Load(daemon, trees) as load:
            kill_by_turns(daemon, killer, KILLS)
        daemon.recover()
    check_store(daemon)
    watch.check("kills", killer.moments)
    assert len(load.codes) > KILLS / 10
    Usage(daemon).check_after(before)


def test_a_kernel_that_cannot_resend_makes_no_difference(start, trees, monkeypatch):
    monkeypatch.setenv("DEPLOYFS_TEST_NO_RESEND", "1")
    daemon = start()
    before, killer = Usage(daemon), Killer(daemon)
    with Watch(daemon, trees / "native") as watch:
        with Load(daemon, trees):
            kill_by_turns(daemon, killer, KILLS // 4)
        daemon.recover()
    check_store(daemon)
    watch.check("kills_no_resend", killer.moments)
    Usage(daemon).check_after(before)


def test_crashes_are_not_noticed(start, trees):
    daemon = start()
    killer = Killer(daemon)
    with Watch(daemon, trees / "native") as watch:
        for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT) * 4:
            killer.pause(0.05, 0.4)
            killer.kill(1, number)
        daemon.recover()
    watch.check("kills_crash", killer.moments)
    assert daemon.status()["supervisor"]["last_exit"].startswith("signal ")
    check_store(daemon)


def upgrade(daemon):
    """One, to its end."""
    before = daemon.status()["supervisor"]["generation"]
    reply = daemon.api("POST", "/v1/daemon/upgrade")
    assert reply.status == 202, reply

    def done():
        # A connection that the old worker has just accepted may break.
        with contextlib.suppress(OSError, deploy.http.client.HTTPException):
            return daemon.status()["supervisor"]["generation"] > before
        return False
    wait_until(done, "the upgrade is done")


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.full)])
def test_upgrades_are_not_noticed(start, trees, count):
    daemon = start()
    before, moments = Usage(daemon), []
    with Watch(daemon, trees / "native") as watch:
        for number in range(count):
            moments.append(time.monotonic())
            upgrade(daemon)
            daemon.run("flip", "kills", VERSIONS[number % 3])
    watch.check("upgrades", moments)
    assert daemon.status()["supervisor"]["restarts"] == 0
    check_store(daemon)
    Usage(daemon).check_after(before)


# -- hung, not dead


def test_a_worker_that_hangs_is_replaced(start, trees):
    daemon = start()
    killer = Killer(daemon)
    with Watch(daemon, trees / "native") as watch:
        for _ in range(2):
            daemon.recover()
            killer.kill(1, signal.SIGSTOP)
        daemon.recover()
    watch.check("kills_hang", killer.moments, WATCHDOG_MS + PAUSE_MS)
    assert min(watch.pauses(killer.moments)) > 1000
    check_store(daemon)


def test_a_supervisor_that_hangs_is_not_needed(start, trees):
    daemon = start()
    moments = []
    supervisor, worker = daemon.processes()
    with Watch(daemon, trees / "native") as watch:
        moments.append(time.monotonic())
        os.kill(supervisor, signal.SIGSTOP)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            daemon.run("flip", "kills", "1.0")
            daemon.run("flip", "kills", "1.2")
        moments.append(time.monotonic())
        os.kill(supervisor, signal.SIGCONT)
        daemon.run("flip", "kills", "1.0")
    watch.check("kills_supervisor_hang", moments)
    assert daemon.processes() == (supervisor, worker)
    assert daemon.status()["supervisor"]["generation"] == 1


class Tracer:
    """strace on every thread of a process; ends with it, or with the context."""

    def __init__(self, pid, *options):
        self.pid, self.options = pid, options

    def __enter__(self):
        self.process = subprocess.Popen(["strace", "-qq", "-f", "-p", str(self.pid), "-o", "/dev/null",
                                         *self.options], stdin=subprocess.DEVNULL)
        wait_until(self.attached, "strace is attached")
        return self

    def tasks(self):
        """{tid: text of its status file}"""
        found = {}
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                found[int(task.name)] = (task / "status").read_text()
        return found

    def attached(self):
        assert self.process.poll() is None, "strace ended"
        return all(f"TracerPid:\t{self.process.pid}\n" in text for text in self.tasks().values())

    def __exit__(self, *failure):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if not deploy.ended(self.process, 10):
                self.process.kill()
        self.process.wait()


def test_a_worker_that_is_traced_may_stand_still(shop):
    worker = shop.worker()
    with Tracer(worker, "-e", "trace=none"):
        os.kill(worker, signal.SIGSTOP)
        until = time.monotonic() + 2 * WATCHDOG_MS / 1000
        wait_until(lambda: time.monotonic() > until, "the watchdog has looked twice")
        assert shop.worker() == worker
        os.kill(worker, signal.SIGCONT)
        assert shop.read("shop") == "1.2"
    shop.run("flip", "shop", "1.0")
    assert shop.worker() == worker


# -- memory


@pytest.fixture
def memory_group():
    """(folder, name of the limit's file) of a memory control group of one's own, of either kind."""
    unified, legacy = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
    controllers = unified / "cgroup.subtree_control"
    if controllers.exists() and "memory" in controllers.read_text().split():
        folder, limit = unified / f"deployfs-kills-{time.time_ns()}", "memory.max"
    elif (legacy / "memory.limit_in_bytes").exists():
        folder, limit = legacy / f"deployfs-kills-{time.time_ns()}", "memory.limit_in_bytes"
    else:
        pytest.skip("there is no memory controller of cgroups here")
    folder.mkdir()
    yield folder, limit
    wait_until(lambda: not (folder / "cgroup.procs").read_text().split(), "the group is empty")
    folder.rmdir()


def test_a_worker_beyond_its_memory_is_replaced(start, trees, memory_group):
    daemon = start()
    folder, limit = memory_group
    killer = Killer(daemon)
    (folder / limit).write_text(str(1 << 18))
    with Watch(daemon, trees / "native") as watch:
        for _ in range(3):
            daemon.recover()
            worker = daemon.worker()
            with contextlib.suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(worker))
            killer.moments.append(time.monotonic())
            while alive(worker):
                with contextlib.suppress(OSError, deploy.http.client.HTTPException):
                    daemon.api("GET", "/v1/apps")
            killer.successor(1, worker)
        daemon.recover()
    # A worker may first try for long to get by: that is slow, and no failure.
    watch.check("kills_memory", killer.moments, 1000)
    assert daemon.status()["supervisor"]["last_exit"] == "signal 9 (Killed)"
    check_store(daemon)


# -- between commit and notification


STEPS = "pwrite64,fdatasync,fsync,write,writev,sendmsg,sendto"


def check_channel(daemon, app):
    """Every way to look agrees with the catalog."""
    current = daemon.channels(app)["current"]
    seen = []
    readers = [threading.Thread(target=lambda: seen.append((os.readlink(daemon.path(app)), daemon.read(app))))
               for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert seen == [(current, current)] * len(readers)
    return current


def flip_and_die(daemon, version, step):
    """Flip; the worker is killed at the connection's N-th step. False: there are not so many."""
    worker = daemon.worker()
    assert daemon.read("shop") != version  # and the kernel knows it now
    with Tracer(worker, "-e", f"trace={STEPS}", "-e", f"inject={STEPS}:signal=KILL:when={step}"):
        try:
            answered = daemon.api("POST", "/v1/apps/shop/flip", {"version": version}).status == 200
        except (OSError, deploy.http.client.HTTPException):
            answered = False
        if answered:
            assert daemon.read("shop") == version
            if alive(worker):
                return False
    wait_until(lambda: daemon.processes()[1] not in (0, worker), "there is a successor")
    daemon.recover()
    current = check_channel(daemon, "shop")
    assert not answered or current == version
    return True


def flipped_daemon(place, monkeypatch, resend):
    """One with shop 1.0 and 1.1, of which 1.1 is current."""
    if resend == "no-resend":
        monkeypatch.setenv("DEPLOYFS_TEST_NO_RESEND", "1")
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, deploy.small_app(version))
    daemon = place.daemon().start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "shop", version)
        daemon.run("flip", "shop", version)
    return daemon


@pytest.mark.parametrize("resend", ["resend", pytest.param("no-resend", marks=pytest.mark.full)])
def test_a_flip_is_whole_at_whatever_step_the_worker_dies(place, monkeypatch, resend):
    daemon = flipped_daemon(place, monkeypatch, resend)
    step = 1
    while flip_and_die(daemon, "1.0" if daemon.read("shop") == "1.1" else "1.1", step):
        step += 1
    assert step > 5
    figure("kills_flip_steps", steps=step - 1, kernel=resend)
    check_channel(daemon, "shop")


def waits_in(pid, function):
    """Whether a thread of @pid is in @function of the kernel."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            if function in (task / "stack").read_text():
                return True
    return False


@pytest.mark.parametrize("resend", ["resend", "no-resend"])
def test_a_worker_may_die_while_it_notifies_and_a_lookup_is_pending(place, monkeypatch, resend):
    daemon = flipped_daemon(place, monkeypatch, resend)
    worker, took = daemon.worker(), []
    assert daemon.read("shop") == "1.1"  # so that the kernel knows the directory

    def look():
        took.append(os.path.lexists(daemon.path("shop", "missing")))
        took.append(time.monotonic())

    def flip():
        with contextlib.suppress(OSError, deploy.http.client.HTTPException):
            daemon.api("POST", "/v1/apps/shop/flip", {"version": "1.0"})

    with Tracer(worker, "-P", "/dev/fuse", "-e", "trace=read", "-e", "inject=read:delay_exit=30s") as tracer:
        threads = [threading.Thread(target=look), threading.Thread(target=flip)]
        wait_until(lambda: not waits_in(worker, "ptrace_stop"), "all threads wait for requests again")
        threads[0].start()
        wait_until(lambda: waits_in(worker, "ptrace_stop"), "the request was read")
        threads[1].start()
        wait_until(lambda: waits_in(worker, "fuse_reverse_inval_entry"), "the notification waits")
        killed = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        tracer.process.kill()  # it would hold the threads back on their way out
        for thread in threads:
            thread.join()
    daemon.recover()
    assert took[0] is False
    figure("kill_in_notification", kernel=resend, pause_ms=round((took[1] - killed) * 1000, 1))
    assert took[1] - killed < 0.5
    check_channel(daemon, "shop")
    wait_until(lambda: not alive(worker), "the worker is gone")


# -- a burst


def read_warm(path):
    """By a process that can be left behind where it hangs; @path is open, so that nobody's drop_caches matters."""
    done = subprocess.run(["cat", path], stdout=subprocess.PIPE, timeout=10, check=True)
    return done.stdout.decode().strip()


def test_a_worker_that_cannot_start_is_held_back_and_comes_back(shop):
    says = shop.runtime / "supervisor.json"
    path = shop.path("shop", "1.2") / "VERSION"
    # The first close() of all is told to the worker (FLUSH), which refuses to hear of another one.
    assert shop.read("shop") == "1.2"
    opened = path.open()
    assert opened.read() == "1.2\n"
    away = shop.store.with_name("away")
    shop.store.rename(away)
    shop.kill_worker()

    def held_back():
        state = json.loads(says.read_text())
        return state["state"] == "held-back" and state["last_exit"] == "code 1" and state["next_start"]
    wait_until(held_back, "it is held back")
    warm = read_warm(path)
    away.rename(shop.store)
    assert warm == "1.2"
    opened.close()
    shop.recover()
    assert json.loads(says.read_text())["state"] == "running"
    shop.run("flip", "shop", "1.0")
    assert shop.read("shop") == "1.0"
    assert shop.status()["supervisor"]["restarts"] >= 30
