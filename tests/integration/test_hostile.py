# SPDX-License-Identifier: Apache-2.0
"""Hostile callers, awkward holders and unfriendly hosts: refused or survived, and nobody else notices."""
import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
import zipfile

import pytest

import deploy
from deploy import CONFLICT, File, small_app, wait_until


@contextlib.contextmanager
def mounted(*arguments):
    """Something mounted; its place is the last argument."""
    subprocess.run(["mount", *map(str, arguments)], check=True)
    try:
        yield arguments[-1]
    finally:
        subprocess.run(["umount", "-l", arguments[-1]], check=False, capture_output=True)


def state_of(daemon, app, version):
    found = daemon.version(app, version)
    return found["state"] if found else "removed"


def make_dir(path):
    path.mkdir(parents=True)
    return path


class Stalling:
    """A server that takes connections and never says a word."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/packages"
        return self

    def __exit__(self, *_):
        self.socket.close()


def send(daemon, data):
    """What the daemon answers to raw bytes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(deploy.PATIENCE_S)
        connection.connect(str(daemon.socket))
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while got := connection.recv(65536):
                answer += got
        return answer


# -- mounts inside versions ----------------------------------------------------------------


@pytest.mark.parametrize("through", ["the mount", "a bind"])
def test_a_version_with_a_mount_inside_is_not_removed(place, shop, through):
    """The kernel would detach it without a word: a container would lose its configuration file."""
    own = place.folder / "own"
    own.write_text("mine\n")
    version = shop.path("shop", "1.0")
    with contextlib.ExitStack() as stack:
        if through == "a bind":
            version = stack.enter_context(mounted("--bind", version, make_dir(place.folder / "bind")))
        stack.enter_context(mounted("--bind", own, version / "VERSION"))
        assert str(version / "VERSION") in shop.run("remove", "shop", "1.0", code=CONFLICT).text
        assert (version / "VERSION").read_text() == "mine\n"
        shop.configure(place.origin.folder, keep=0)
        shop.run("daemon", "reload")
        plan = {v["version"]: v for v in shop.json("gc")["versions"]}
        assert plan["1.0"]["action"] == "keep"
        assert "mounted inside" in plan["1.0"]["reason"]
        assert (version / "VERSION").read_text() == "mine\n"
    shop.run("remove", "shop", "1.0")


def test_a_mount_made_inside_a_hidden_version_stays(place, shop):
    own = place.folder / "own"
    own.write_text("mine\n")
    with mounted("--bind", shop.path("shop", "1.0"), make_dir(place.folder / "bind")) as bind:
        shop.run("remove", "shop", "1.0")
        with mounted("--bind", own, bind / "VERSION"):
            shop.run("gc")
            assert (bind / "VERSION").read_text() == "mine\n"
            assert state_of(shop, "shop", "1.0") == "removing"
        assert (bind / "VERSION").read_text() == "1.0\n"
    shop.run("gc")
    assert state_of(shop, "shop", "1.0") == "removed"


def test_an_overlay_over_a_version_holds_it(place, shop):
    top = make_dir(place.folder / "overlay")
    for name in ("upper", "work", "merged"):
        (top / name).mkdir()
    options = f"lowerdir={shop.path('shop', '1.0')},upperdir={top}/upper,workdir={top}/work"
    with mounted("-t", "overlay", "overlay", "-o", options, top / "merged") as merged:
        assert (merged / "VERSION").read_text() == "1.0\n"
        shop.run("remove", "shop", "1.0")
        assert (merged / "lib/changed.txt").read_text().startswith("changed in 1.0\n")
        assert state_of(shop, "shop", "1.0") == "removing"


def test_what_is_freed_later_is_freed_without_complaint(shop):
    """Two versions whose packs need each other's go at once."""
    shop.run("remove", "shop", "1.0")
    shop.run("fetch", "shop", "1.0")
    with open(shop.path("shop", "1.0") / "VERSION") as held:
        shop.run("remove", "shop", "1.0")
        assert held.read() == "1.0\n"
    wait_until(lambda: state_of(shop, "shop", "1.0") == "removed", "1.0 is freed")
    wait_until(lambda: "freed the space" in shop.log_text(), "its space is free")
    assert "cannot free" not in shop.log_text()


def test_fetched_and_removed_again_and_again_nothing_is_left(place, shop):
    """Each package shares content with the ghost of the one before it."""
    before = shop.packs()
    place.origin.publish("till", "1.0", small_app("till"))
    for _ in range(8):
        shop.run("fetch", "till", "1.0")
        assert shop.read("till", "1.0") == "till"
        with open(shop.path("till", "1.0") / "VERSION"):
            shop.run("remove", "till", "1.0")
        shop.run("gc")
    wait_until(lambda: shop.packs() == before, "only what was there before is left")


# -- the end of the daemon -----------------------------------------------------------------


def test_unmounted_by_hand_it_is_not_healthy_and_stops(shop):
    subprocess.run(["umount", shop.apps], check=True)
    assert not shop.status()["healthy"]
    shop.run("daemon", "stop")
    assert shop.process.wait(deploy.PATIENCE_S) == 0


def test_a_bind_of_everything_is_a_holder(place, shop):
    with mounted("--bind", shop.apps, make_dir(place.folder / "bind")) as bind:
        assert str(bind) in shop.run("daemon", "stop", code=CONFLICT).text
        assert (bind / "shop/current/VERSION").read_text() == "1.2\n"
        shop.run("daemon", "stop", "--force")
        assert shop.process.wait(deploy.PATIENCE_S) == 0
        with pytest.raises(OSError) as refused:
            os.stat(bind / "shop/current/bin/run")
        assert refused.value.errno == errno.ENOTCONN


def test_it_ends_though_something_that_nobody_sees_holds_the_file_system(place, shop):
    """An overlay's private copy of a mount is in no mountinfo. It must not hang, nor keep us from ending."""
    options = f"lowerdir={shop.path('shop', '1.0')}:{shop.path('shop', '1.1')}"
    with mounted("-t", "overlay", "overlay", "-o", options, make_dir(place.folder / "merged")) as merged:
        assert (merged / "VERSION").read_text() == "1.0\n"
        shop.stop()
        with pytest.raises(OSError):
            (merged / "lib/changed.txt").read_text()


@pytest.mark.parametrize("path", ["/v1/jobs/1?after=9999&wait_s=60", "/v1/apps/shop/available"])
def test_it_ends_though_clients_wait(place, path):
    with Stalling() as server:
        daemon = place.daemon(server.url, connect_timeout="50s", stall_timeout="50s").start()
        assert daemon.api("POST", "/v1/apps/shop/fetch", {"version": "1.0"}).status == 202
        with contextlib.closing(daemon.connect()) as waiting:
            waiting.request("GET", path)
            wait_until(lambda: threads_of(daemon, "MHD-connection") >= 1, "the client is served")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(20) == 0


def threads_of(daemon, name):
    tasks = f"/proc/{daemon.worker()}/task"
    names = []
    for task in os.listdir(tasks):
        with contextlib.suppress(OSError), open(f"{tasks}/{task}/comm") as comm:
            names.append(comm.read().strip())
    return sum(n.startswith(name[:15]) for n in names)


def test_a_dead_mount_is_replaced_again_and_again(shop):
    """The kernel answers stat(2) of a dead mount from its caches: that is no sign of life."""
    for _ in range(3):
        assert os.stat(shop.apps).st_ino == 1
        shop.kill()
        shop.start()
        assert shop.read("shop") == "1.2"


# -- the API -------------------------------------------------------------------------------


@pytest.mark.parametrize("path, status", [
    ("/v1/%ff", 404),
    ("/v1/" + "a" + "%C3%A9" * 150, 404),
    ("/v1/apps/shop%2Fnothing%2F..", 404),
    ("/v1/apps/shop/history?channel=%ff", 404),
    ("/v1/jobs/1x", 400),
    ("/v1/jobs/-1", 400),
    ("/v1/jobs/99999999999999999999", 400),
    ("/v1/jobs/1?after=x", 400),
    ("/v1/jobs/1?after=0&wait_s=1e9", 400),
    ("/v1/jobs/1?after=0&wait_s=61", 400),
])
def test_a_strange_path_is_refused_and_said_why(shop, path, status):
    reply = shop.api("GET", path)
    assert reply.status == status
    assert "memory" not in reply.body["error"]["message"]


@pytest.mark.parametrize("action, body", [
    ("flip", {"version": "1.0", "channel": "a" + "é" * 200}),
    ("flip", {"version": "é" * 300}),
    ("import", {"version": "2.0", "file": "/" + "é" * 600}),
])
def test_a_text_that_is_cut_stays_text(shop, action, body):
    reply = shop.api("POST", f"/v1/apps/shop/{action}", body)
    assert reply.status in (400, 404, 500)
    assert "é" in reply.body["error"]["message"]


def test_random_bytes_hurt_nobody(shop):
    noise = deploy.noise(100_000)
    for data in (noise, b"\0" * 5000, b"GET /v1/" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                 b"POST /v1/gc HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999\r\n\r\n{",
                 b"POST /v1/gc HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
                 b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"):
        send(shop, data)
        assert shop.status()["healthy"]


FLOOD = """
import contextlib, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
held = []
for _ in range(200):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
    with contextlib.suppress(BrokenPipeError):  # of users but root 128 are kept, others closed at once
        held[-1].sendall(b"GET /v1/sta")
print("flooded", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("user", [0, 65534])
def test_a_flood_of_slow_connections_keeps_nobody_waiting(shop, user):
    flood = subprocess.Popen(["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups",
                              "/usr/bin/python3", "-c", FLOOD, shop.socket],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert flood.stdout.readline() == "flooded\n"
        shop.run("flip", "shop", "1.0")
        assert shop.read("shop") == "1.0"
    finally:
        flood.kill()
        flood.communicate()


def test_who_gives_up_twice_does_not_count_for_others(place):
    with Stalling() as server:
        daemon = place.daemon(server.url, connect_timeout="50s", stall_timeout="50s").start()
        first, second = (daemon.api("POST", "/v1/apps/shop/fetch", {"version": "1.0"}).body for _ in range(2))
        job = f"/v1/jobs/{first['job']['id']}"
        assert (first["waiter"], second["waiter"]) == (1, 2)
        for waiter in ("1", "1", "7"):
            assert not daemon.api("DELETE", f"{job}?waiter={waiter}").body["changed"]
        for waiter in ("x", "0", ""):
            assert daemon.api("DELETE", f"{job}?waiter={waiter}").status == 400
        assert daemon.api("GET", job).body["job"]["state"] in ("queued", "running")
        reply = daemon.api("DELETE", f"{job}?waiter=2").body
        assert reply["changed"]
        assert reply["job"]["state"] == "cancelled"


def test_listings_are_a_few_at_a_time(place):
    with Stalling() as server, contextlib.ExitStack() as stack:
        daemon = place.daemon(server.url, connect_timeout="50s", stall_timeout="50s").start()
        connections = [stack.enter_context(contextlib.closing(daemon.connect())) for _ in range(4)]
        for connection in connections:
            connection.request("GET", "/v1/apps/shop/available")
        wait_until(lambda: len(job_processes(daemon)) == 4, "four processes ask")
        assert daemon.api("GET", "/v1/apps/shop/available").status == 409
        assert daemon.status()["healthy"]
        daemon.stop()


def job_processes(daemon):
    found, worker = [], daemon.worker()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) == worker and "--job" in line.read():
                    found.append(int(pid))
    return found


@pytest.mark.slow_under_sanitizers
def test_a_hundred_jobs_beside_one_that_unpacks(place, shop):
    """Threads of ended jobs waited for the unpacking one, and the API for those threads."""
    place.origin.publish("large", "1.0", {"zeros": b"\0" * 300_000_000}, ending=".tar")
    job = shop.api("POST", "/v1/apps/large/fetch", {"version": "1.0"}).body["job"]["id"]
    wait_until(lambda: shop.api("GET", f"/v1/jobs/{job}").body["job"]["stage"] == "unpack", "it unpacks")
    process, = job_processes(shop)
    os.kill(process, signal.SIGSTOP)
    for _ in range(120):
        reply = shop.api("POST", "/v1/apps/shop/fetch", {"version": "1.0"}).body["job"]
        wait_until(lambda: shop.api("GET", f"/v1/jobs/{reply['id']}").body["job"]["state"] == "done", "it is here")
    assert shop.api("GET", f"/v1/jobs/{job}").body["job"]["stage"] == "unpack"
    os.kill(process, signal.SIGCONT)
    wait_until(lambda: shop.api("GET", f"/v1/jobs/{job}").body["job"]["state"] == "done", "it ends")


# -- the file system -----------------------------------------------------------------------


def test_even_remounted_writable_every_change_is_refused(shop):
    version = shop.path("shop", "1.2")
    subprocess.run(["mount", "-i", "-o", "remount,rw", shop.apps], check=True)
    file = os.open(version / "VERSION", os.O_RDWR)
    try:
        for change in (lambda: os.write(file, b"x"), lambda: os.posix_fallocate(file, 0, 100),
                       lambda: os.truncate(version / "VERSION", 0), lambda: os.mkdir(version / "new"),
                       lambda: os.rmdir(version / "empty"), lambda: os.unlink(version / "VERSION"),
                       lambda: os.symlink("x", version / "new"), lambda: os.chmod(version / "VERSION", 0o777),
                       lambda: os.link(version / "VERSION", version / "new"),
                       lambda: os.rename(version / "VERSION", version / "new"),
                       lambda: os.mkfifo(version / "new"), lambda: os.utime(version / "VERSION"),
                       lambda: os.close(os.open(version / "new", os.O_CREAT | os.O_WRONLY)),
                       lambda: os.unlink(shop.path("shop", "current"))):
            with pytest.raises(OSError) as refused:
                change()
            assert refused.value.errno == errno.EROFS
    finally:
        os.close(file)
    assert shop.read("shop", "1.2") == "1.2"


def test_names_of_255_bytes_and_of_more(place):
    longest = "n" * 255
    place.origin.publish("shop", "1.0", {longest: b"long", "ж" * 127: File(b"wide")})
    daemon = place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    version = daemon.path("shop", "1.0")
    assert (version / longest).read_bytes() == b"long"
    assert sorted(os.listdir(version)) == sorted([longest, "ж" * 127])
    for name in (longest + "n", "ж" * 128):
        with pytest.raises(OSError) as refused:
            os.stat(version / name)
        assert refused.value.errno == errno.ENAMETOOLONG


def test_old_links_are_still_answered_after_many_flips(shop):
    """The ids of symlinks that are held are remembered, a thousand of them, and no more memory is taken."""
    with contextlib.closing(shop.connect()) as connection:
        held = os.open(shop.path("shop"), os.O_PATH | os.O_NOFOLLOW)
        for number in range(100):
            shop.api("POST", "/v1/apps/shop/flip", {"version": ("1.0", "1.1")[number % 2]}, connection)
        subprocess.run(["sysctl", "-q", "vm.drop_caches=2"], check=False)
        assert os.readlink("", dir_fd=held) == "1.2"
        os.close(held)
    assert shop.read("shop") == "1.1"


# -- the host ------------------------------------------------------------------------------


def walk(folder, stop, failures):
    """Read everything below a version, again and again."""
    while not stop.is_set():
        for version in os.listdir(folder):
            try:
                text = (folder / version / "VERSION").read_text().strip()
                if text != version and version not in ("current", "previous"):
                    failures.append((version, text))
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                failures.append((version, error))


def change_at_random(daemon, number, failures):
    """One client's mixture; a refusal is an answer, anything of 500 or more is a failure."""
    versions = ("1.0", "1.1", "1.2")
    with contextlib.closing(daemon.connect()) as connection:
        for turn in range(12):
            version = versions[(turn + number) % 3]
            method, path, body = [
                ("POST", "flip", {"version": version}), ("POST", "rollback", {}),
                ("POST", "fetch", {"version": version}), ("DELETE", f"versions/{version}", None),
                ("PUT", f"versions/{version}/pin", None), ("DELETE", f"versions/{version}/pin", None),
            ][(turn * 5 + number) % 6]
            reply = daemon.api(method, f"/v1/apps/shop/{path}", body, connection)
            if reply.status >= 500:
                failures.append(reply)
            if (turn + number) % 5 == 0 and daemon.api("POST", "/v1/gc", {}, connection).status >= 500:
                failures.append("gc")


def test_everything_at_once(shop):
    stop, failures = threading.Event(), []
    readers = [threading.Thread(target=walk, args=(shop.path("shop", ""), stop, failures)) for _ in range(2)]
    clients = [threading.Thread(target=change_at_random, args=(shop, n, failures)) for n in range(8)]
    for thread in readers + clients:
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    wait_until(lambda: not shop.status()["jobs"], "the jobs have ended")
    assert failures == []
    history = shop.history("shop")[::-1]
    assert [g["generation"] for g in history] == list(range(1, len(history) + 1))
    assert all(after["from"] == before["to"] for before, after in zip(history, history[1:]))
    assert os.readlink(shop.path("shop")) == history[-1]["to"] == shop.channels("shop")["current"]
    shop.run("verify", "shop")
    assert shop.leftovers() == []
    shop.restart()
    assert os.readlink(shop.path("shop")) == history[-1]["to"]


@pytest.mark.parametrize("whom", ["job", "daemon"])
def test_killed_at_any_stage_it_is_old_or_new(place, shop, whom):
    """SIGKILL when the job has reached each stage that it tells of, and after the reply at once."""
    content = {**small_app("2.0"), "noise": deploy.noise(20_000_000)}
    package = place.origin.publish("shop", "2.0", content, ending=".tar")
    before = shop.packs()
    for stage in ("queued", "download", "unpack"):
        job = shop.api("POST", "/v1/apps/shop/fetch", {"version": "2.0"}).body["job"]["id"]

        def reached(job=job, stage=stage):
            now = shop.api("GET", f"/v1/jobs/{job}").body["job"]
            return stage in ("queued", now["stage"]) or now["state"] in ("done", "failed")

        wait_until(reached, stage)
        if whom == "daemon":
            shop.kill()
            shop.start()
        else:
            for process in job_processes(shop):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        wait_until(lambda: not shop.status()["jobs"], "it has ended, or was taken up again and has")
        assert not [name for name in shop.leftovers() if "/tmp/" in name.removeprefix(str(shop.folder))]
        if "2.0" in shop.versions("shop"):
            shop.run("remove", "shop", "2.0")
        assert shop.packs() == before
        shop.run("verify", "shop")
    shop.run("fetch", "shop", "2.0")
    assert (shop.path("shop", "2.0") / "noise").read_bytes() == deploy.noise(20_000_000)
    assert package.exists()


def test_a_process_in_a_private_copy_of_the_mounts_keeps_it_from_ending(place):
    place.origin.publish("shop", "1.0", small_app("1.0"))
    daemon = place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    file = daemon.path("shop", "1.0") / "VERSION"
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c",
                               'exec 3<"$1"; echo open; read end; cat <&3', "sh", file],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "open\n"
    refused = daemon.run("daemon", "stop", code=CONFLICT)
    assert str(holder.pid) in refused.text
    assert holder.communicate("\n")[0] == "1.0\n"
    daemon.run("daemon", "stop")


def test_a_full_disk_stops_nothing_that_runs(place):
    """A store of 40 MiB that somebody else fills to the last byte."""
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, small_app(version))
    place.origin.publish("shop", "2.0", {"noise": deploy.noise(60_000_000)}, ending=".tar")
    daemon = place.daemon(reserve="1MiB")
    with mounted("-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", make_dir(daemon.store)):
        daemon.start()
        for version in ("1.0", "1.1"):
            daemon.run("fetch", "shop", version)
        daemon.run("flip", "shop", "1.0")
        daemon.run("fetch", "shop", "2.0", code=deploy.NO_SPACE)
        with open(daemon.store / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
            while True:
                filler.write(b"\0" * 65536)
        daemon.run("fetch", "shop", "2.0", code=deploy.NO_SPACE)
        assert daemon.read("shop") == "1.0"
        flip = daemon.ctl("flip", "shop", "1.1")
        assert flip.code in (deploy.DONE, deploy.NO_SPACE), flip.text
        assert daemon.read("shop") == ("1.1" if flip.code == deploy.DONE else "1.0")
        (daemon.store / "filler").unlink()
        daemon.ctl("flip", "shop", "1.1")
        assert daemon.read("shop") == "1.1"
        assert daemon.run("rollback", "shop") and daemon.read("shop") == "1.0"
        assert [name for name in daemon.leftovers() if "/tmp/" in name.removeprefix(str(daemon.folder))] == []
        daemon.stop()


def make_large_tar(path):
    deploy.make_package(path.with_suffix(".tar"), {"zeros": b"\0" * 60_000_000})
    return path.with_suffix(".tar")


def make_large_zip(path):
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 60_000_000)
    return path.with_suffix(".zip")


@pytest.mark.parametrize("make", [make_large_tar, make_large_zip])
def test_a_first_version_that_cannot_fit_is_refused_before_it_is_unpacked(place, make):
    package = make(place.folder / "large")
    daemon = place.daemon(reserve="1MiB")
    with mounted("-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", make_dir(daemon.store)):
        daemon.start()
        refused = daemon.run("import", package, "--app", "large", "--version", "1.0", code=deploy.NO_SPACE)
        assert "the unpacked package" in refused.text
        assert daemon.leftovers() == []
        daemon.stop()


def test_few_descriptors_are_enough_to_say_so(place):
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, small_app(version))
    daemon = place.daemon().start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1.1")
    limit = len(os.listdir(f"/proc/{daemon.worker()}/fd")) + 3
    subprocess.run(["prlimit", "--pid", str(daemon.worker()), f"--nofile={limit}:"], check=True)
    daemon.ctl("fetch", "shop", "1.0")
    daemon.run("flip", "shop", "1.0")
    assert daemon.read("shop") == "1.0"
    subprocess.run(["prlimit", "--pid", str(daemon.worker()), "--nofile=1000:"], check=True)
    daemon.run("rollback", "shop")
    daemon.run("verify", "shop")
    daemon.stop()


def test_a_storm_of_signals(shop):
    with open(shop.path("shop") / "VERSION"):
        for _ in range(200):
            shop.process.send_signal(signal.SIGHUP)
            shop.process.send_signal(signal.SIGTERM)
            shop.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "not ending" in shop.log_text(), "it says why not")
        assert shop.read("shop") == "1.2"
    shop.stop()


def test_a_missing_pack_is_told_and_the_others_serve(shop):
    ours = {os.path.basename(pack) for pack in shop.packs()}
    shop.stop()
    largest = max(ours, key=lambda name: int(name.split(".")[0]))
    (shop.store / "packs" / largest).unlink()
    shop.start()
    assert shop.read("shop", "1.0") == "1.0"
    with pytest.raises(OSError) as failed:
        shop.read("shop", "1.2")
    assert failed.value.errno == errno.EIO
    assert shop.ctl("verify", "shop").code == deploy.VERIFICATION
    shop.run("flip", "shop", "1.1")
    shop.run("flip", "shop", "1.0")
    shop.run("remove", "shop", "1.2")
    shop.run("fetch", "shop", "1.2")
    assert shop.read("shop", "1.2") == "1.2"


def test_a_damaged_index_is_made_again(shop):
    shop.stop()
    (shop.store / "index.db").write_bytes(deploy.noise(10_000))
    shop.start()
    shop.run("verify", "shop")
