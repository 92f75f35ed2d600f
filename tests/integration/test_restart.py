# SPDX-License-Identifier: Apache-2.0
"""After a restart, however it came about, everything is as it was, with no origin reachable."""
import os
import shutil
import signal
import threading

import pytest

import deploy


def snapshot(folder):
    """Everything that can be seen and read below @folder."""
    seen = {}
    for place, directories, names in os.walk(folder):
        for name in [".", *directories, *names]:
            path = os.path.join(place, name)
            info = os.lstat(path)
            what = None
            if os.path.islink(path):
                what = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    what = file.read()
            seen[os.path.relpath(path, folder)] = (info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_size,
                                                   info.st_mtime_ns, info.st_ino, what)
    return seen


def without_virtual(seen):
    """Without .deployfs/, which says since when the daemon runs."""
    return {name: facts for name, facts in seen.items() if not name.startswith(".deployfs") and name != "."}


def state(daemon):
    return daemon.api("GET", "/v1/apps").body, daemon.history("shop"), daemon.history("shop", "canary")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_all_is_as_before_without_the_origin(place, shop, how):
    shop.run("flip", "shop", "1.0", "--channel", "canary")
    shop.run("rollback", "shop")
    shop.run("pin", "shop", "1.2")
    before, said = without_virtual(snapshot(shop.apps)), state(shop)
    shutil.rmtree(place.origin.folder)
    for _ in range(2):
        if how == "SIGTERM":
            shop.stop()
        else:
            shop.kill()
        shop.start()
        assert without_virtual(snapshot(shop.apps)) == before
        assert state(shop) == said
    shop.run("flip", "shop", "1.0")
    assert shop.read("shop") == "1.0"
    shop.run("flip", "shop", "1.1")
    shop.run("rollback", "shop")
    shop.run("verify")


def test_the_real_application_is_as_before(place, pyapp):
    daemon = place.daemon(pyapp).start()
    daemon.run("fetch", "pyapp", "1.0")
    daemon.run("flip", "pyapp", "1.0")
    before = without_virtual(snapshot(daemon.apps))
    daemon.kill()
    daemon.configure("/nonexistent/packages")
    daemon.start()
    assert without_virtual(snapshot(daemon.apps)) == before


def test_a_dead_mount_is_replaced_and_is_only_one(shop):
    mounts = deploy.mounts_below(shop.folder)
    shop.kill()
    with pytest.raises(OSError):
        os.listdir(shop.apps)
    shop.start()
    assert sorted(deploy.mounts_below(shop.folder)) == sorted(mounts)
    assert shop.read("shop") == "1.2"


def test_a_download_that_was_killed_is_resumed_by_the_next_fetch(place):
    from servers import Vsftpd
    from test_main_job import partial_bytes
    place.origin.publish("big", "1.0", {"noise": deploy.noise(6 << 20)}, ending=".tar")
    with Vsftpd(place.origin.folder, place.folder / "ftp", rate=2_000_000) as server:
        daemon = place.daemon(server.url).start()
        daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"})
        deploy.wait_until(lambda: partial_bytes(daemon) > 1 << 20, "a part is there")
        daemon.kill()
        daemon.start()
        assert partial_bytes(daemon) > 1 << 20
        reply = daemon.json("fetch", "big", "1.0", "--progress=none")
        assert reply["job"]["result"]["resumed_bytes"] >= 1 << 20
    assert (daemon.path("big", "1.0") / "noise").read_bytes() == deploy.noise(6 << 20)
    assert daemon.leftovers() == []


def test_signals_during_an_upgrade_do_not_end_the_supervisor(shop):
    supervisor, stop = shop.supervisor(), threading.Event()

    def nudge():
        while not stop.is_set():
            deploy.signal_pid(supervisor, signal.SIGUSR1)

    nudging = threading.Thread(target=nudge)
    nudging.start()
    try:
        for _ in range(5):
            shop.run("daemon", "upgrade")
    finally:
        stop.set()
        nudging.join()
    assert shop.supervisor() == supervisor
    assert shop.status()["supervisor"]["generation"] == 6
