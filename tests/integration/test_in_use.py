# SPDX-License-Identifier: Apache-2.0
"""`list` says who holds a version: processes by what they hold it, and binds in any mount namespace."""
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy import File, small_app, wait_until

# Each prints a line when it holds the folder in argv[1], and lets go when its input ends.
WAIT = "print('ready', flush=True); sys.stdin.read()"
PROGRAMS = {
    "open file": f"import sys; file = open(sys.argv[1] + '/VERSION'); {WAIT}",
    # Python's own mmap keeps a descriptor.
    "mapped file": "import ctypes, os, sys; fd = os.open(sys.argv[1] + '/VERSION', os.O_RDONLY);"
                   "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p;"
                   f"assert libc.mmap(None, 4, 1, 2, fd, 0) != 2**64 - 1; os.close(fd); {WAIT}",
    "working directory": f"import os, sys; os.chdir(sys.argv[1] + '/lib'); {WAIT}",
    # Its root is a version, its working directory is not.
    "root directory": f"import os, sys; os.chroot(sys.argv[1]); {WAIT}",
}


def own_container():
    """The container that the tests themselves run in, if they do."""
    found = re.search("[0-9a-f]{64}", Path("/proc/self/cgroup").read_text())
    return found.group()[:12] if found else None


@contextlib.contextmanager
def started(command):
    """A process that prints a line when it holds what it is to hold."""
    process = subprocess.Popen(command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def holding(how, folder):
    return started(["/usr/bin/python3", "-c", PROGRAMS[how], str(folder)])


def in_use(daemon, version, command=("list", "shop")):
    versions = daemon.json(*command)["app"]["versions"]
    return next((found["in_use"] for found in versions if found["version"] == version), "gone")


def said(uses):
    return [(use["pid"], use["how"]) for use in uses]


# Alone in a namespace and with a changed root, no process tells where the mounts are.
@pytest.mark.parametrize("how, namespace", [(how, namespace) for how in PROGRAMS for namespace in ("own", "other")
                                            if (how, namespace) != ("root directory", "other")])
def test_a_process_is_named_until_it_lets_go(shop, how, namespace):
    unshare = ["unshare", "--mount", "--propagation", "slave"] if namespace == "other" else []
    folder = shop.path("shop", "1.0")
    with started([*unshare, "/usr/bin/python3", "-c", PROGRAMS[how], str(folder)]) as process:
        assert in_use(shop, "1.0") is None
        assert said(in_use(shop, "1.0", ("list", "shop", "--in-use"))) == [(process.pid, how)]
        assert in_use(shop, "1.1", ("list", "shop", "--in-use")) == []

        shop.run("remove", "shop", "1.0")
        assert said(in_use(shop, "1.0")) == [(process.pid, how)]
        assert in_use(shop, "1.1") is None
        use = in_use(shop, "1.0")[0]
        assert use["name"].startswith("python3")
        assert use["container"] == own_container()
        for command in ("list", "shop"), ("list",):
            assert f"in use by pid {process.pid} ({use['name']})" in shop.run(*command).out
            assert how in shop.run(*command).out
    wait_until(lambda: in_use(shop, "1.0") == "gone", "the version is gone")


def test_a_running_program_is_named(place, daemon):
    content = {**small_app("2"), "bin/holder": File(Path(shutil.which("cat")).read_bytes(), mode=0o755)}
    place.origin.publish("shop", "2", content)
    daemon.run("fetch", "shop", "2")
    with subprocess.Popen([daemon.path("shop", "2") / "bin/holder"], cwd="/", stdin=subprocess.PIPE) as process:
        daemon.run("remove", "shop", "2")
        assert said(in_use(daemon, "2")) == [(process.pid, "running program")]
        process.stdin.close()
        process.wait()


@pytest.mark.parametrize("part", ["", "lib", "VERSION"])
def test_a_bind_in_another_namespace_is_named(shop, place, part):
    target = place.folder / "bound"
    target.touch() if part == "VERSION" else target.mkdir()
    script = f"mount --bind {shop.path('shop', '1.0') / part} {target} && echo ready && read line"
    with started(["unshare", "--mount", "--propagation", "private", "sh", "-c", script]) as process:
        shop.run("remove", "shop", "1.0")
        assert said(in_use(shop, "1.0")) == [(process.pid, f"bind mount at '{target}'")]
    wait_until(lambda: in_use(shop, "1.0") == "gone", "the version is gone")


def test_shared_content_counts_where_it_was_opened(shop):
    """lib/same.txt is one inode in all versions."""
    inode = {os.stat(shop.path("shop", v) / "lib/same.txt").st_ino for v in ("1.0", "1.1")}
    assert len(inode) == 1
    with open(shop.path("shop", "1.1") / "lib/same.txt"):
        assert said(in_use(shop, "1.1", ("list", "shop", "--in-use"))) == [(os.getpid(), "open file")]
        assert in_use(shop, "1.0", ("list", "shop", "--in-use")) == []
        shop.run("remove", "shop", "1.0")
        wait_until(lambda: in_use(shop, "1.0") == "gone", "the version is gone")


def test_many_holders_are_each_named_once(shop):
    folder = shop.path("shop", "1.0")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(holding(how, folder)) for how in PROGRAMS for _ in range(2)]
        files = [stack.enter_context(open(folder / "VERSION")) for _ in range(20)]
        uses = in_use(shop, "1.0", ("list", "shop", "--in-use"))
        assert sorted(use["pid"] for use in uses) == sorted([os.getpid(), *(process.pid for process in processes)])
        assert len(files) == 20


def test_a_path_with_a_changed_root_is_understood(shop):
    """A process whose root is above the mount holds a version by a path that its own root shortens."""
    code = (f"import os, sys; os.chroot({str(shop.folder)!r}); os.chdir('/');"
            "file = open('/mnt/apps/shop/1.0/VERSION'); print('ready', flush=True); sys.stdin.read()")
    for unshare in ([], ["unshare", "--mount", "--propagation", "slave"]):
        with started([*unshare, "/usr/bin/python3", "-c", code]) as process:
            assert said(in_use(shop, "1.0", ("list", "shop", "--in-use"))) == [(process.pid, "open file")]


def test_the_question_must_be_right(shop):
    assert shop.api("GET", "/v1/apps/shop?in_use=maybe").status == 400
    assert shop.api("GET", "/v1/apps/shop?in_use=false").body["app"]["versions"][0]["in_use"] is None
    shop.run("list", "--in-use", code=2)
    shop.run("list", "shop", "--in-use", "--available", code=2)
