# SPDX-License-Identifier: Apache-2.0
"""What systemd does with the service, by a stand-in that speaks its side of sd_notify(3)."""
import contextlib
import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import deploy
from deploy import alive, figure, kill_all, mount_line, wait_until

HOLDINGS = {"state", "api", "fuse-apps"}
FILES = 6000
SYS_KCMP = {"x86_64": 312, "aarch64": 272}[platform.machine()]
HIGH_FD = 200  # above the numbers that descriptors are passed under

libc = ctypes.CDLL(None, use_errno=True)


def same_file(one, other):
    """Whether two descriptors are of one open file: systemd keeps it only once."""
    kcmp_file = 0
    result = libc.syscall(SYS_KCMP, os.getpid(), os.getpid(), kcmp_file, ctypes.c_ulong(one), ctypes.c_ulong(other))
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result == 0


def hung_up(fd):
    """What systemd drops by itself: FDPOLL=1 of sd_notify(3), which is the default."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


class Manager:
    """systemd and one service: fs/systemd/deployfs.service.in, of Type=notify, NotifyAccess=all, KillMode=process."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.path = daemon.folder / "notify.sock"
        self.store = []     # (name, descriptor)
        self.messages = []  # (sender's pid, {key: value})
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(self.path))
        self.ends = os.eventfd(0)
        self.thread = threading.Thread(target=self.receive)
        self.thread.start()

    # -- what it hears

    def receive(self):
        while True:
            readable, _, _ = select.select([self.socket, self.ends], [], [])
            if self.ends in readable:
                return
            data, control, _, _ = self.socket.recvmsg(1 << 16, 4096, socket.MSG_CMSG_CLOEXEC)
            with self.lock:
                self.take(data.decode(), control)

    def take(self, text, control):
        said = dict(line.split("=", 1) for line in text.splitlines())
        pid, fds = 0, []
        for _, kind, data in control:
            if kind == socket.SCM_RIGHTS:
                fds += memoryview(data).cast("i").tolist()
            else:  # SCM_CREDENTIALS: pid, uid, gid
                pid = memoryview(data).cast("i")[0]
        if "FDSTORE" in said:
            for fd in fds:
                self.keep(said["FDNAME"], fd)
        elif "FDSTOREREMOVE" in said:
            self.release(said["FDNAME"])
        elif "BARRIER" in said:
            for fd in fds:
                os.close(fd)
        self.messages.append((pid, said))

    def keep(self, name, fd):
        if any(same_file(fd, kept) for _, kept in self.store):
            os.close(fd)
        else:
            self.store.append((name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)))
            os.close(fd)

    def release(self, name=None):
        """Close what is kept under a name, or all."""
        for entry in [entry for entry in self.store if name in (None, entry[0])]:
            self.store.remove(entry)
            os.close(entry[1])

    def kept(self):
        """The names of what is kept and could be given back."""
        with self.lock:
            for entry in [entry for entry in self.store if hung_up(entry[1])]:
                self.store.remove(entry)
                os.close(entry[1])
            return sorted(name for name, _ in self.store)

    def heard(self, key, pid=None):
        """How often the process has said it; default: the supervisor that was started last."""
        pid = self.daemon.process.pid if pid is None else pid
        with self.lock:
            return sum(sender == pid and said.get(key) == "1" for sender, said in self.messages)

    # -- what it does

    def spawn(self, keep=True):
        """Start the service, with what is kept, if anything; without if not @keep."""
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.path)}
        self.kept()
        if not keep:
            self.release()
        moves = [f"{3 + number}<&{fd} {fd}<&-" for number, (_, fd) in enumerate(self.store)]
        script = 'exec "$@"'
        if moves:
            names = ":".join(name for name, _ in self.store)
            script = (f"exec {' '.join(moves)}; export LISTEN_FDS={len(moves)} LISTEN_FDNAMES={names} LISTEN_PID=$$; "
                      + script)
        self.daemon.spawn(wrapper=("bash", "-c", script, "start"), env=environment,
                          pass_fds=[fd for _, fd in self.store])

    def start(self, keep=True):
        """The same, and return when the service has said that it is ready."""
        self.spawn(keep)
        self.ready()

    def ready(self):
        def said():
            assert self.daemon.process.poll() is None, self.daemon.log_tail()
            return self.heard("READY")
        wait_until(said, "READY=1 is said")

    def tell(self, number):
        """A signal to the main process, which must end, with exit code 0."""
        self.daemon.process.send_signal(number)
        code = self.daemon.process.wait(deploy.PATIENCE_S)
        assert code == 0, self.daemon.log_tail()

    def close(self):
        os.eventfd_write(self.ends, 1)
        self.thread.join()
        self.socket.close()
        os.close(self.ends)
        self.release()


class Reader:
    """Reads files that nobody has read before, one by one, for as long as the context lasts."""

    def __init__(self, daemon):
        self.folder = daemon.path("many")
        self.done, self.slowest_s, self.failure = 0, 0.0, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def read_next(self):
        name, begin = f"{self.done:04}", time.monotonic()
        text = (self.folder / name[:2] / name).read_text()
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        assert text == body(self.done), f"wrong content of {name}"
        self.done += 1

    def work(self):
        try:
            while not self.stop.wait(0.003):
                self.read_next()
        except (AssertionError, OSError) as failure:
            self.failure = failure

    def goes_on(self, count=100):
        """Wait until that many more were read."""
        enough = self.done + count
        wait_until(lambda: self.failure or self.done >= enough, "files are read")
        assert self.failure is None, self.failure

    def __enter__(self):
        self.thread.start()
        self.goes_on()
        return self

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()
        if not any(failure):
            assert self.failure is None, self.failure


def body(number):
    return f"file {number}\n" * 20


def supervisors(manager):
    """The pids of all that there are of this service, whoever has started them."""
    wanted, found = f"NOTIFY_SOCKET={manager.path}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if ((folder / "comm").read_text() == "deployfsd\n" and alive(int(folder.name))
                    and wanted in (folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
    return found


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def waits_for_answer(pid):
    with contextlib.suppress(OSError):
        return "request_wait_answer" in Path(f"/proc/{pid}/stack").read_text()
    return False


@pytest.fixture
def manager(place):
    """With a running service that has shop 1.0 and 1.1, and 'many' files."""
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, deploy.small_app(version))
    place.origin.publish("many", "1.0", {f"{number:04}"[:2] + f"/{number:04}": body(number).encode()
                                         for number in range(FILES)}, ending=".tar")
    daemon = place.daemon()
    manager = Manager(daemon)
    try:
        manager.start()
        for app, version in (("shop", "1.0"), ("shop", "1.1"), ("many", "1.0")):
            daemon.run("fetch", app, version)
            daemon.run("flip", app, version)
        yield manager
    finally:
        daemon.cleanup()
        manager.close()


def check_replaced(manager, generation, restarts=0):
    """The new supervisor works with a worker of its own, and the service does all that it did."""
    daemon = manager.daemon
    wait_until(daemon.answers, "deployfsd answers")
    assert supervisors(manager) == [daemon.process.pid] == [daemon.supervisor()]
    status = daemon.status()["supervisor"]
    assert (status["generation"], status["restarts"]) == (generation, restarts), daemon.log_tail()
    assert HOLDINGS <= set(manager.kept())
    daemon.run("flip", "shop", "1.0")
    assert daemon.read("shop") == "1.0"
    beats = manager.heard("WATCHDOG")
    wait_until(lambda: manager.heard("WATCHDOG") > beats, "WATCHDOG=1 is said")


# -- as it should be


def test_the_service_says_how_it_is(manager):
    assert manager.daemon.answers()
    assert manager.heard("READY") == 1
    assert manager.kept() == sorted(HOLDINGS)
    beats = manager.heard("WATCHDOG")
    wait_until(lambda: manager.heard("WATCHDOG") >= beats + 3, "WATCHDOG=1 is said again and again")
    assert manager.heard("STOPPING") == 0


def test_a_worker_that_dies_is_not_systemds_business(manager):
    manager.daemon.kill_worker()
    manager.daemon.recover()
    check_replaced(manager, 2, restarts=1)
    assert manager.heard("READY") == 1
    assert manager.kept() == sorted(HOLDINGS)


def test_a_reload_is_an_upgrade(manager):
    daemon = manager.daemon
    main, worker = daemon.processes()
    with Reader(daemon) as reader:
        os.kill(main, signal.SIGHUP)
        wait_until(lambda: daemon.worker() != worker and manager.heard("READY") > 1, "the new worker is ready")
        reader.goes_on()
    check_replaced(manager, 2)
    assert daemon.process.pid == main


@pytest.mark.parametrize("keep", [True, False], ids=["from-the-store", "from-the-worker"])
def test_a_restart_is_not_noticed(manager, keep):
    """RestartKillSignal=SIGUSR2. What the FDSTORE does not have is found by <runtime>/holder."""
    daemon = manager.daemon
    worker = daemon.worker()
    with Reader(daemon) as reader:
        manager.tell(signal.SIGUSR2)
        assert manager.heard("STOPPING") == 1
        reader.goes_on(400)
        assert supervisors(manager) == []
        assert daemon.worker() == worker and alive(worker)
        assert daemon.status()["pid"] == worker
        manager.start(keep)
        wait_until(lambda: not alive(worker), "the worker has been replaced")
        reader.goes_on()
    check_replaced(manager, 2)
    figure("systemd_restart", slowest_read_ms=round(reader.slowest_s * 1000, 1))


def test_restarts_in_a_row_add_nothing(manager):
    daemon = manager.daemon
    with Reader(daemon) as reader:
        for generation in (2, 3, 4):
            manager.tell(signal.SIGUSR2)
            manager.start()
            reader.goes_on(30)
            # One that comes before this upgrade is done would have nothing to add.
            wait_until(lambda generation=generation: daemon.status()["supervisor"]["generation"] == generation,
                       "the worker has been replaced")
    check_replaced(manager, 4)
    assert manager.kept() == sorted(HOLDINGS)


# -- somebody dies


def test_the_worker_waits_for_systemd_to_start_the_supervisor(manager):
    daemon = manager.daemon
    worker = daemon.worker()
    with Reader(daemon) as reader:
        daemon.process.kill()
        daemon.process.wait()
        reader.goes_on(400)
        assert supervisors(manager) == []
        assert "the supervisor (pid" in daemon.log_text()
        assert daemon.status()["pid"] == worker
        manager.start()
        wait_until(lambda: not alive(worker), "the worker has been replaced")
        reader.goes_on()
    check_replaced(manager, 2)


def test_a_worker_that_died_without_a_supervisor_has_a_successor(manager):
    daemon = manager.daemon
    manager.tell(signal.SIGUSR2)
    daemon.kill_worker()
    with subprocess.Popen(["cat", daemon.path("many") / "00" / "0007"], stdout=subprocess.PIPE, text=True) as waits:
        wait_until(lambda: waits_for_answer(waits.pid), "a request waits")
        manager.start()
        out, _ = waits.communicate(timeout=deploy.PATIENCE_S)
    assert (waits.returncode, out) == (0, body(7))
    check_replaced(manager, 2)


def test_what_is_dead_comes_back_from_the_store_alone(manager):
    """Not even the API's answers are needed for that: reads go on before the store can be owned."""
    daemon = manager.daemon
    bound = daemon.folder / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", daemon.apps, bound], check=True)
    device = os.stat(daemon.apps).st_dev
    # Not a file of ours: each child that we start would close() its copy, and wait for the answer.
    script = 'exec 5<"$1"; echo open; read -r; cat "$2"; exec cat <&5'
    files = [daemon.path("many") / "00" / name for name in ("0001", "0002")]
    with subprocess.Popen(["bash", "-c", script, "reader", *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as reader, open(daemon.store / "lock") as lock:
        assert reader.stdout.readline() == "open\n"
        kill_all(daemon.processes())
        daemon.process.wait()
        (daemon.runtime / "holder").unlink()
        fcntl.flock(lock, fcntl.LOCK_EX)
        reader.stdin.write("\n")
        reader.stdin.flush()
        wait_until(lambda: any(map(waits_for_answer, children(reader.pid))), "a request waits")
        manager.spawn()
        out, _ = reader.communicate(timeout=deploy.PATIENCE_S)
        assert (reader.returncode, out) == (0, body(2) + body(1))
        assert manager.heard("READY") == 0
    manager.ready()
    assert (bound / "shop" / "current" / "VERSION").read_text() == "1.1\n"
    assert os.stat(daemon.apps).st_dev == os.stat(bound).st_dev == device
    subprocess.run(["umount", bound], check=True)
    check_replaced(manager, 2)


def test_what_systemd_kept_of_another_mount_does_not_hinder_a_start(manager):
    """Somebody has unmounted it by force, after the service was killed."""
    daemon = manager.daemon
    kill_all(daemon.processes())
    daemon.process.wait()
    subprocess.run(["umount", "-l", daemon.apps], check=True)
    manager.start()
    assert mount_line(daemon.apps)
    check_replaced(manager, 1)


# -- a stop


def test_a_stop_unmounts_and_leaves_nothing_in_the_store(manager):
    worker = manager.daemon.worker()
    manager.tell(signal.SIGTERM)
    assert not alive(worker)
    assert mount_line(manager.daemon.apps) is None
    removed = {said["FDNAME"] for _, said in manager.messages if "FDSTOREREMOVE" in said}
    wait_until(lambda: not manager.kept(), "nothing is kept")
    assert HOLDINGS == removed


def test_a_stop_while_the_mount_is_used_leaves_the_worker(manager):
    daemon = manager.daemon
    worker = daemon.worker()
    with Reader(daemon) as reader, open(daemon.path("shop") / "VERSION") as opened:
        manager.tell(signal.SIGTERM)
        manager.release()  # as systemd does after a stop
        reader.goes_on(400)
        assert supervisors(manager) == [] and daemon.worker() == worker
        assert "not ending" in daemon.log_text()
        daemon.run("status")
        manager.start()
        wait_until(lambda: not alive(worker), "the worker has been replaced")
        reader.goes_on()
        assert opened.read() == "1.1\n"
    check_replaced(manager, 2)
    manager.tell(signal.SIGTERM)
    assert mount_line(daemon.apps) is None
    assert not daemon.socket.exists()
