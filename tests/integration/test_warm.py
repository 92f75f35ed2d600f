# SPDX-License-Identifier: Apache-2.0
"""What was read once costs no request any more, and does not need the daemon."""
import os
import signal
import subprocess
import sys

from deploy import figure

WALK = """
import os, sys
files = 0
for folder, directories, names in os.walk(sys.argv[1]):
    os.lstat(folder)
    for name in directories + names:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            os.readlink(path)
        elif name in names:
            os.stat(path)
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
            files += 1
    os.path.lexists(os.path.join(folder, "not there"))
print(files)
"""


def walk(folder, timeout_s=120):
    """Look at and read everything below @folder, in another process; the number of files."""
    done = subprocess.run([sys.executable, "-c", WALK, folder], capture_output=True, text=True,
                          timeout=timeout_s, check=True)
    return int(done.stdout)


def requests(daemon):
    """FUSE requests so far, but those by which the kernel gives memory back."""
    fuse = daemon.status()["fuse"]
    return fuse["total"] - fuse["requests"]["forget"]


def requests_of_a_warm_walk(daemon, files):
    """The fewest of three walks: the kernel may take cached pages back at any time, and this machine's
    host may take its memory."""
    fewest = None
    for _ in range(3):
        before = requests(daemon)
        assert walk(daemon.path("pyapp")) == files
        needed = requests(daemon) - before
        fewest = needed if fewest is None else min(fewest, needed)
        if fewest == 0:
            break
    return fewest


def walks_while_stopped(daemon, files):
    """Whether a walk ends while the daemon cannot answer anything."""
    processes = daemon.processes()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        return walk(daemon.path("pyapp"), timeout_s=30) == files
    except subprocess.TimeoutExpired:
        return False
    finally:
        for pid in processes[::-1]:
            os.kill(pid, signal.SIGCONT)


def test_a_second_walk_causes_no_request_and_needs_no_daemon(place, pyapp):
    daemon = place.daemon(pyapp).start()
    daemon.run("fetch", "pyapp", "1.0")
    daemon.run("flip", "pyapp", "1.0")
    before = requests(daemon)
    files = walk(daemon.path("pyapp"))
    assert requests(daemon) - before > files

    needed = requests_of_a_warm_walk(daemon, files)
    figure("warm-requests", files=files, requests=needed)
    assert needed == 0
    # A page that was taken back between the two walks would need the daemon: then warm again.
    assert any(requests_of_a_warm_walk(daemon, files) == 0 and walks_while_stopped(daemon, files)
               for _ in range(5))


def test_equal_files_of_the_next_version_are_not_read_again(place, pyapp):
    """I2: one page cache for what two versions share."""
    daemon = place.daemon(pyapp).start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "pyapp", version)
    walk(daemon.path("pyapp", "1.0"))
    before = daemon.status()["fuse"]["read_bytes"]
    files = walk(daemon.path("pyapp", "1.1"))
    read = daemon.status()["fuse"]["read_bytes"] - before
    figure("shared-reads", files=files, first_bytes=before, second_bytes=read)
    assert read < before / 10
