# SPDX-License-Identifier: Apache-2.0
"""What is measured on: its caches, its memory, its name."""
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

import deploy

READER = deploy.BUILD / "tests" / "bench" / "bench-reader"
PEER_PACKAGES = ("erofs-utils", "squashfs-tools", "squashfuse", "archivemount", "tar", "curl", "libnfs-utils",
                 "rsync", "vsftpd", "nfs-ganesha", "zstd", "libfuse3-dev")


def read(*arguments):
    """What bench-reader found out."""
    done = subprocess.run([str(word) for word in (READER, *arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bench-reader {' '.join(map(str, arguments))}: {done.stderr}")
    return json.loads(done.stdout)


def seconds(*arguments):
    return read(*arguments)["ns"] / 1e9


def timed(command, **options):
    """Run a program, which must succeed: the seconds from its start to its end."""
    begin = time.monotonic()
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, **options)
    took = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return took


def drop_caches(files):
    """Nothing of @files, nor of any directory, is in memory after this: shown by mincore(2)."""
    os.sync()
    for _ in range(3):
        # Directories go when what lies in them has gone.
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        resident = read("resident", *files)["resident"]
        if resident == 0:
            return
    raise RuntimeError(f"{resident} bytes of {len(files)} files stay in memory, such as {files[0]}: "
                       "a process has them mapped?")


def memory_of(pid):
    """Anonymous and shared memory in bytes. What maps files of a disk is the page cache's."""
    kilobytes = 0
    shared = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            path = line.split(None, 5)[5:]
            shared = bool(path) and path[0].startswith(("/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"))
        elif line.startswith("Rss:" if shared else "Anonymous:"):
            kilobytes += int(line.split()[1])
    return kilobytes * 1024


def written_by(pid):
    """Bytes that it, and those of its children that have ended, gave to the disk."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def disk_use(folder):
    """What its files have allocated."""
    return sum(path.lstat().st_blocks * 512 for path in Path(folder).rglob("*"))


def first_line(path, pattern):
    found = re.search(pattern, Path(path).read_text(), re.M)
    return found.group(1) if found else "unknown"


def versions():
    """Those of the packages that were measured against."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}, ", *PEER_PACKAGES], capture_output=True,
                          text=True, check=False)
    return done.stdout.rstrip(", ")


def commit():
    done = subprocess.run(["git", "-C", deploy.TOP, "describe", "--always", "--dirty"], capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


def description(folder):
    """(what, value) for the report."""
    file_system = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", folder], capture_output=True,
                                 text=True, check=True).stdout.strip()
    memory = int(first_line("/proc/meminfo", r"^MemTotal:\s+(\d+)")) / 1024 / 1024
    return [("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())), ("deployfs", commit()),
            ("processor", f"{os.cpu_count()} × {first_line('/proc/cpuinfo', r'^model name.*: (.*)$')}"),
            ("memory", f"{memory:.0f} GiB"), ("kernel", f"{platform.release()} {platform.machine()}"),
            ("file system", file_system),
            ("system", first_line("/etc/os-release", r'^PRETTY_NAME="(.*)"$')), ("packages", versions())]
