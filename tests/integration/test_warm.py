# SPDX-License-Identifier: Apache-2.0
"""What was read once costs no request any more, and does not need the daemon."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import NOT_FOUND, PATIENCE_S, File, Origin, Symlink, alive, figure, noise, wait_until

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


# -- warm flips


def changing_app(version, mtime=1_700_000_000):
    """Two of four files of each folder change from version to version."""
    content = {"VERSION": File(version.encode(), mtime=mtime), "bin/run": Symlink("../lib/0/same")}
    for folder in range(10):
        for name in ("same", "unread same"):
            content[f"lib/{folder}/{name}"] = File(noise(20_000, b"%d" % folder), mtime=mtime)
        for name in ("changed", "unread changed"):
            content[f"lib/{folder}/{name}"] = File(noise(20_000, f"{folder} {version}".encode()), mtime=mtime)
    content["big"] = File(noise(4 << 20, version.encode()), mtime=mtime)
    return content


BIG_AT, BIG_SIZE = 1 << 20, 100_000


def use(folder):
    """What an application does that was started from @folder."""
    for part in sorted(os.listdir(os.path.join(folder, "lib"))):
        for name in ("same", "changed"):
            Path(folder, "lib", part, name).read_bytes()
    os.readlink(os.path.join(folder, "bin", "run"))
    with open(os.path.join(folder, "big"), "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), BIG_SIZE, BIG_AT)


def asked(daemon, before=None):
    """The requests of the daemon, by kind, that fetch names or content; or those since @before."""
    fuse = daemon.status()["fuse"]
    now = {kind: fuse["requests"][kind] for kind in
           ("lookup", "getattr", "readlink", "read", "readdir", "readdirplus")}
    now["read_bytes"] = fuse["read_bytes"]
    return now if before is None else {kind: now[kind] - before[kind] for kind in now}


def asked_by_use(daemon, folder):
    """Of somebody who is there already: the way there is unknown after every flip."""
    os.stat(folder)
    before = asked(daemon)
    use(folder)
    return asked(daemon, before)


@pytest.fixture
def origin(place):
    return Origin(place.folder / "origin")


@pytest.fixture
def changing(place, origin):
    """A daemon with three versions: 1 in use, 2 with changes, 3 like 1 but for every mtime."""
    origin.publish("shop", "1", changing_app("1"))
    origin.publish("shop", "2", changing_app("2"))
    origin.publish("shop", "3", changing_app("1", mtime=1_800_000_000))
    daemon = place.daemon(origin.folder).start()
    for version in "123":
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1")
    use(daemon.path("shop"))
    return daemon


CHANGED_BYTES = 10 * 20_000 + BIG_SIZE + BIG_AT % 4096
USED_BYTES = CHANGED_BYTES + 10 * 20_000


def test_after_a_warm_flip_what_was_in_use_needs_no_request(changing):
    before = asked(changing)
    said = changing.run("flip", "shop", "2", "--warm").out
    warmed = asked(changing, before)
    assert "shop: 2 is warm" in said and "current 1 -> 2" in said
    # Neither what was shared nor what nobody had read; whole pages of the big file.
    assert CHANGED_BYTES <= warmed["read_bytes"] <= CHANGED_BYTES + 2 * 4096

    folder = changing.path("shop", "2")
    assert not any(asked_by_use(changing, folder).values())
    before = asked(changing)
    Path(folder, "lib", "3", "unread changed").read_bytes()
    assert asked(changing, before)["read"] == 1


def test_a_warm_flip_where_every_mtime_is_new(changing):
    before = asked(changing)
    changing.run("flip", "shop", "3", "--warm")
    assert USED_BYTES <= asked(changing, before)["read_bytes"] <= USED_BYTES + 2 * 4096
    assert not any(asked_by_use(changing, changing.path("shop", "3")).values())


def test_a_cold_flip_reads_nothing_and_leaves_all_to_be_asked_for(changing):
    before = asked(changing)
    changing.run("flip", "shop", "2")
    assert not any(asked(changing, before).values())
    use(changing.path("shop", "2"))
    assert asked(changing, before)["read_bytes"] >= CHANGED_BYTES


def test_the_job_of_a_warm_flip_says_what_it_did(changing):
    reply = changing.api("POST", "/v1/apps/shop/warm", {"version": "2"})
    assert reply.status == 202
    job = reply.body["job"]
    assert (job["kind"], job["version"], job["stage"]) == ("warm", "2", "warm")
    job = wait_until(lambda: ended_job(changing, job["id"]), "the job has ended")
    assert (job["state"], job["warnings"]) == ("done", [])
    result = job["result"]
    assert result["changed"] and (result["version"], result["from"], result["files"]) == ("2", "1", 11)
    assert CHANGED_BYTES <= result["bytes"] <= CHANGED_BYTES + 2 * 4096
    assert (result["kept_bytes"], result["left_bytes"]) == (10 * 20_000, 0)
    assert changing.channels("shop")["current"] == "1"


def ended_job(daemon, number):
    job = daemon.api("GET", f"/v1/jobs/{number}").body["job"]
    return job if job["ended"] else None


def test_warmth_is_told_without_asking_for_anything(changing):
    def warmth():
        channels = changing.api("GET", "/v1/apps/shop/warmth").body["channels"]
        return {entry["channel"]: entry for entry in channels}

    changing.run("flip", "shop", "2")
    warmth()
    before = asked(changing)
    told = warmth()
    assert not any(asked(changing, before).values())
    assert (told["current"]["version"], told["current"]["warm_bytes"]) == ("2", 0)
    assert (told["previous"]["version"], told["previous"]["warm_files"]) == ("1", 21)
    assert USED_BYTES <= told["previous"]["warm_bytes"] <= USED_BYTES + 2 * 4096
    assert told["previous"]["bytes"] == told["current"]["bytes"] == 40 * 20_000 + (4 << 20) + 1
    use(changing.path("shop"))
    assert warmth()["current"]["warm_files"] == 21


@pytest.mark.parametrize("config, option, is_warm", [
    ({}, [], False), ({"warm": "on"}, [], True), ({"warm": "on"}, ["--no-warm"], False),
    ({"warm": "on", "apps": [{"name": "shop", "warm": "off"}]}, [], False),
    ({"apps": [{"name": "shop", "warm": "on"}]}, [], True),
])
def test_the_configuration_may_make_every_flip_warm(changing, origin, config, option, is_warm):
    changing.configure(origin.folder, **config)
    changing.run("daemon", "reload")
    assert ("is warm" in changing.run("flip", "shop", "2", *option).out) == is_warm
    assert changing.channels("shop")["current"] == "2"


def test_with_json_a_warm_flip_has_one_reply(changing):
    reply = changing.json("flip", "shop", "2", "--warm")
    assert (reply["from"], reply["to"]) == ("1", "2")


def test_there_is_nothing_to_warm_for_a_new_channel(changing):
    said = changing.run("flip", "shop", "2", "--warm", "--channel", "beta").out
    assert "warm" not in said and "beta" in said


def test_a_warm_flip_to_what_is_not_there_is_a_flip_to_what_is_not_there(changing):
    changing.run("flip", "shop", "4", "--warm", code=NOT_FOUND)
    assert changing.api("POST", "/v1/apps/shop/warm", {"version": "4"}).status == 404
    assert changing.api("POST", "/v1/apps/shop/warm", {"version": "2", "x": 1}).status == 400


def test_where_memory_is_short_the_flip_is_not_warm(changing, tmp_path):
    """What is reclaimable counts as available: less than a tenth is left."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemFree:   800000 kB\nMemAvailable:   1500000 kB\n")
    subprocess.run(["mount", "--bind", meminfo, "/proc/meminfo"], check=True)
    try:
        before = asked(changing)
        done = changing.run("flip", "shop", "2", "--warm")
    finally:
        subprocess.run(["umount", "/proc/meminfo"], check=True)
    assert "memory is short" in done.err
    assert asked(changing, before)["read"] == 0
    assert changing.channels("shop")["current"] == "2"


def test_status_tells_what_is_warm(changing):
    lines = [line for line in changing.run("status", "--warm").out.splitlines() if line.startswith("warm ")]
    assert len(lines) == 1 and "shop current is 1: 10 %" in lines[0]
    told = changing.json("status", "--warm")["warm"]
    assert [(app["app"], app["channels"][0]["warm_files"]) for app in told] == [("shop", 21)]
    assert "warm" not in changing.json("status")


# -- a warming that does not come to its end


@pytest.fixture
def large(place, origin):
    """A daemon whose warming takes long enough to be met: a file of 256 MiB is in use."""
    for version in "12":
        origin.publish("shop", version, {"big": version.encode() + bytes(256 << 20)}, ending=".tar")
    daemon = place.daemon(origin.folder).start()
    for version in "12":
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1")
    with open(Path(daemon.path("shop"), "big"), "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return daemon


def stopped_warming(daemon):
    """A warm flip whose job stands still: (deployctl, the pid of the job's process)"""
    process = daemon.background("flip", "shop", "2", "--warm")
    job = daemon.job_process()
    os.kill(job, signal.SIGSTOP)
    assert [job["kind"] for job in daemon.status()["jobs"]] == ["warm"]
    return process, job


def test_ctrl_c_while_it_warms_cancels_the_job_and_does_not_flip(large):
    process, job = stopped_warming(large)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1 and "not flipped: cancelled" in err, out + err
    assert not alive(job)
    assert large.channels("shop")["current"] == "1"


def test_a_warming_that_is_killed_does_not_keep_from_flipping(large):
    process, job = stopped_warming(large)
    os.kill(job, signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "signal 9" in err, out + err
    assert large.channels("shop")["current"] == "2"


def test_a_warming_goes_on_after_the_death_of_the_worker(large):
    process, _ = stopped_warming(large)
    large.kill_worker()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and err.count("warning") == 0, out + err
    assert large.channels("shop")["current"] == "2"
    with open(Path(large.path("shop"), "big"), "rb", buffering=0) as file:
        before = asked(large)
        while file.read(1 << 20):
            pass
    assert asked(large, before)["read"] == 0


def test_a_version_may_be_removed_while_it_is_warmed(large):
    process, job = stopped_warming(large)
    large.run("remove", "shop", "2")
    os.kill(job, signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == NOT_FOUND and "flip" not in out, out + err
    wait_until(lambda: "2" not in large.versions("shop"), "its space was given back")


def test_a_warming_does_not_keep_the_daemon_from_ending(large):
    process, job = stopped_warming(large)
    process.kill()  # it would wait for the next daemon, and then flip
    process.communicate()
    large.stop()
    assert not alive(job)
