# SPDX-License-Identifier: Apache-2.0
"""`deployctl doctor` names what is wrong and what to do, and never hangs itself."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import deploy
from deploy import DONE, FAILED, UNREACHABLE, mount_line, small_app, wait_until

LIMIT_S = 30  # doctor has some deadlines of 3 s each
LINE = re.compile("^(ok|warning|problem): .+$")


def doctor(daemon, code=DONE):
    """Its findings as (level, check, text). Both forms must agree on what is wrong."""
    env = dict(os.environ, PATH=f"{deploy.DEPLOYFSD.parent}:{os.environ['PATH']}")
    reply = daemon.json("doctor", code=code, env=env, timeout_s=LIMIT_S)
    found = [(one["level"], one["check"], one["text"]) for one in reply["findings"]]
    assert reply["problems"] == len([one for one in found if one[0] == "problem"])
    assert reply["warnings"] == len([one for one in found if one[0] == "warning"])
    result = daemon.run("doctor", code=code, env=env, timeout_s=LIMIT_S)
    assert result.err == ""
    lines = result.out.splitlines()
    assert all(LINE.match(line) for line in lines), lines
    assert [line.split(":")[0] for line in lines] == [one[0] for one in found]
    return found


def wrong(found, check=None):
    return [text for level, name, text in found if level == "problem" and check in (None, name)]


def warned(found, check):
    return [text for level, name, text in found if level == "warning" and name == check]


def fine(found):
    return {name for level, name, _ in found if level == "ok"}


@contextlib.contextmanager
def stopped(daemon):
    pids = daemon.processes()  # the supervisor first: it would replace a worker that does not answer
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def namespace(propagation, script="true"):
    """A process in a mount namespace of its own, after @script was run in it."""
    process = subprocess.Popen(["unshare", "--mount", "--propagation", propagation, "sh", "-c",
                                f"({script}) && echo ready && read line"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


# -- nothing is wrong ------------------------------------------------------------------------


def test_nothing_is_wrong(shop):
    found = doctor(shop)
    assert fine(found) >= {"config", "api", "daemons", "mount", "propagation", "disk"}
    assert "bind" not in {check for level, check, _ in found if level != "ok"}


def test_before_the_first_start(place):
    found = doctor(place.daemon(), code=FAILED)
    assert any("start deployfsd" in text for text in wrong(found, "mount"))
    assert wrong(found, "api") and wrong(found, "daemons")
    assert "config" in fine(found)


def test_a_wrong_configuration_is_told_and_the_rest_looked_at(shop):
    shop.config.write_text(shop.config.read_text() + "nonsense: true\n")
    found = doctor(shop, code=FAILED)
    assert any("nonsense" in text and str(shop.config) in text for text in wrong(found, "config"))
    assert {"api", "mount"} <= fine(found)
    shop.config.unlink()
    assert any(str(shop.config) in text for text in wrong(doctor(shop, code=FAILED), "config"))


# -- dead and hung ---------------------------------------------------------------------------


def test_a_dead_mount(shop):
    shop.kill()
    found = doctor(shop, code=FAILED)
    assert any("dead mount" in text and "restart deployfsd" in text for text in wrong(found, "mount"))
    shop.start()
    assert not wrong(doctor(shop))


def test_a_hung_daemon_is_named_with_its_state_and_the_last_resort(shop):
    device = os.stat(shop.apps).st_dev
    with stopped(shop) as pids:
        start = time.monotonic()
        found = doctor(shop, code=FAILED)
        assert time.monotonic() - start < LIMIT_S
        assert any("3 s" in text for text in wrong(found, "api"))
        assert any("3 s" in text for text in wrong(found, "mount"))
        named = " ".join(wrong(found, "process"))
        for pid in pids:
            assert f"pid {pid}, is stopped (T)" in named
        assert "kill -CONT" in named
        assert f"/sys/fs/fuse/connections/{os.minor(device)}/abort" in warned(found, "abort")[0]
    wait_until(lambda: shop.api("GET", "/v1/status").status == 200, "it answers again")
    assert not wrong(doctor(shop))


def test_the_last_resort_frees_who_waits(shop):
    """The command that doctor names, run as it stands there."""
    with stopped(shop):
        reader = subprocess.Popen(["stat", "-f", shop.apps], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert doctor(shop, code=FAILED)
        assert reader.poll() is None
        text = warned(doctor(shop, code=FAILED), "abort")[0]
        commands = re.findall("'([^']+)'", text)
        assert commands[-1].startswith("echo 1 > /sys/fs/fuse/connections/")
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        reader.wait(deploy.PATIENCE_S)
        reader.stderr.close()
        assert any("dead mount" in text for text in wrong(doctor(shop, code=FAILED), "mount"))


def silent_socket(daemon):
    """A socket that is listened to, and nobody who answers: a worker that is held back."""
    daemon.runtime.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(daemon.socket))
    listener.listen(64)
    return listener


@contextlib.contextmanager
def supervisor_file(daemon):
    """The path for one of our own making. It must be gone before the daemon's clean-up, which believes it."""
    daemon.runtime.mkdir(exist_ok=True)
    path = daemon.runtime / "supervisor.json"
    try:
        yield path
    finally:
        path.unlink()


SUPERVISOR = {"state": "held-back", "restarts": 31, "last_exit": "signal 11 (Segmentation fault)",
              "next_start": "2026-11-22T22:46:42Z"}


def test_a_worker_that_is_held_back(place):
    daemon = place.daemon()
    with silent_socket(daemon), supervisor_file(daemon) as file:
        file.write_text(json.dumps({"pid": os.getpid(), "worker": None, **SUPERVISOR}))
        text = " ".join(wrong(doctor(daemon, code=FAILED), "supervisor"))
        for word in ("held back", "31 restarts", "signal 11 (Segmentation fault)", "2026-11-22T22:46:42Z"):
            assert word in text
        assert "supervisor pid" not in text, "a pid that is no deployfsd is not believed"

        result = daemon.run("status", code=UNREACHABLE, timeout_s=LIMIT_S)
        assert "held back" in result.out
        assert "doctor" in result.err
        reply = daemon.json("status", code=UNREACHABLE, timeout_s=LIMIT_S)
        assert reply["error"]["code"] == "unreachable"
        assert reply["supervisor"]["restarts"] == 31 and reply["supervisor"]["pid"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid":"x","restarts":-1,"state":[]}', b"\xff" * 100,
                                     b'{"pid":1e300,"worker":99999999999999999999}', b'"' * 100000,
                                     b'{"state":"\\u001b[31m' + b"x" * 500 + b'"}'])
def test_nonsense_in_supervisor_json_harms_nothing(place, content):
    daemon = place.daemon()
    with supervisor_file(daemon) as file:
        file.write_bytes(content)
        assert "\x1b" not in daemon.run("status", code=UNREACHABLE).text
        assert wrong(doctor(daemon, code=FAILED), "mount")


def test_a_fifo_for_supervisor_json_does_not_hang(place):
    daemon = place.daemon()
    with supervisor_file(daemon) as file:
        os.mkfifo(file)
        daemon.run("status", code=UNREACHABLE, timeout_s=LIMIT_S)


# -- the mount -------------------------------------------------------------------------------


def test_a_flag_that_is_missing(shop):
    subprocess.run(["mount", "-o", "remount,bind,ro,suid,nodev", shop.apps], check=True)
    assert "nosuid" not in mount_line(shop.apps)["options"]
    texts = wrong(doctor(shop, code=FAILED), "flags")
    assert len(texts) == 1 and "'nosuid'" in texts[0]
    subprocess.run(["sh", "-c", re.findall("'(mount [^']+)'", texts[0])[0]], check=True)
    assert not wrong(doctor(shop))


def test_a_base_that_is_not_shared(shop):
    subprocess.run(["mount", "--make-private", shop.mount], check=True)
    texts = wrong(doctor(shop, code=FAILED), "propagation")
    subprocess.run(["sh", "-c", re.findall("'(mount [^']+)'", texts[0])[0]], check=True)
    assert not wrong(doctor(shop))


def test_a_mount_that_was_unmounted_or_covered(shop):
    subprocess.run(["mount", "-t", "tmpfs", "none", shop.apps], check=True)
    assert any("'tmpfs'" in text for text in wrong(doctor(shop, code=FAILED), "mount"))
    subprocess.run(["umount", shop.apps], check=True)
    assert not wrong(doctor(shop))
    subprocess.run(["umount", "-l", shop.apps], check=True)
    found = doctor(shop, code=FAILED)
    assert any("nothing is mounted" in text for text in wrong(found, "mount"))
    assert wrong(found, "api"), "the daemon itself says that it is not healthy"


def test_two_daemons(shop):
    other = shop.folder / "deployfsd"  # a script has its own name as comm
    other.write_text("#!/bin/sh\nread line\n")
    other.chmod(0o755)
    with subprocess.Popen([other, "--config", shop.config], stdin=subprocess.PIPE) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        wait_until(lambda: comm.read_text() == "deployfsd\n", "the script runs")
        texts = wrong(doctor(shop, code=FAILED), "daemons")
        assert str(process.pid) in texts[0] and str(shop.process.pid) in texts[0]
    assert not wrong(doctor(shop))


def test_a_full_disk(place):
    place.origin.publish("shop", "1.0", small_app("1.0"))
    found = doctor(place.daemon(reserve="4000TiB").start(), code=FAILED)
    assert "gc" in wrong(found, "disk")[0]


def test_an_origin_that_is_away(place):
    daemon = place.daemon("ftp://127.0.0.1:1/packages").start()
    assert not warned(doctor(daemon), "origin")
    daemon.run("list", "shop", "--available", code=FAILED)
    assert "ftp://127.0.0.1:1/packages" in warned(doctor(daemon), "origin")[0]


# -- binds -----------------------------------------------------------------------------------


def bind(source, target, *options):
    return " && ".join([f"mkdir -p {target}", f"mount --rbind {source} {target}",
                        *(f"mount --make-r{option} {target}" for option in options)])


def test_the_documented_bind_is_fine(shop, place):
    with namespace("slave", bind(shop.mount, place.folder / "c", "slave")):
        found = doctor(shop)
    assert not warned(found, "bind")
    assert "bind" in fine(found)


@pytest.mark.parametrize("part, says", [
    ("apps", "follows flips"), ("apps/shop", "follows flips"), ("apps/shop/1.2", "never changes"),
    ("apps/shop/current/lib", "never changes"),
])
def test_a_narrow_bind_is_named(shop, place, part, says):
    target = place.folder / "c"
    with namespace("slave", bind(shop.mount / part, target)) as pid:
        texts = warned(doctor(shop), "bind")
    assert len(texts) == 1
    assert f"pid {pid} " in texts[0] and f"'{target}'" in texts[0] and says in texts[0] and "rslave" in texts[0]


def test_a_bind_without_rslave_is_named(shop):
    with namespace("private") as pid:
        texts = warned(doctor(shop), "bind")
    assert len(texts) == 1 and f"pid {pid} " in texts[0] and "without following" in texts[0]


def test_a_bind_that_is_dead_or_without_the_mount_is_named(shop, place):
    narrow = place.folder / "c"
    with namespace("private") as private, namespace("slave") as slave, \
            namespace("slave", bind(shop.apps, narrow)) as bound:
        shop.kill()
        shop.start()
        texts = wrong(doctor(shop, code=FAILED), "bind")
    for pid in (private, bound):
        assert any(f"pid {pid} " in text and "dead mount" in text for text in texts)
    assert not any(f"pid {slave} " in text for text in texts)


def test_who_is_not_root_is_told_so(shop):
    env = dict(os.environ, PATH=f"{deploy.DEPLOYFSD.parent}:{os.environ['PATH']}")
    result = shop.ctl("doctor", user=65534, env=env, timeout_s=LIMIT_S)
    assert "as root" in result.out
