# SPDX-License-Identifier: Apache-2.0
"""What supervisor and worker owe each other, where one of them is late, gone or replaced."""
import os
import shutil
import signal
import subprocess
from pathlib import Path

import deploy
from deploy import wait_until
from test_requests import killed_at


def finish(process):
    out, err = process.communicate(timeout=deploy.PATIENCE_S)
    return process.returncode, out + err


def test_a_second_deployfsd_is_refused_and_takes_nothing(place, daemon):
    """The file of an import, say, which was opened with the rights of who asked, and is unlinked by now."""
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    deploy.make_package(package, {"body": deploy.noise(64 << 20)})
    process = daemon.background("import", package, "--app", "shop", "--version", "1.0")
    os.kill(daemon.job_process(), signal.SIGSTOP)
    package.unlink()
    second = subprocess.run([deploy.DEPLOYFSD, "--config", daemon.config], capture_output=True, text=True,
                            timeout=deploy.PATIENCE_S)
    assert second.returncode == 4 and "another deployfsd" in second.stderr, second.stderr
    daemon.kill_worker()
    code, said = finish(process)
    assert code == 0, said + daemon.log_tail()
    daemon.run("verify", "shop")


def test_an_upgrade_that_cannot_be_executed_changes_nothing(place, monkeypatch):
    """The program passes its check, and is gone when the supervisor is to become it."""
    program = place.folder / "deployfsd"
    shutil.copy(deploy.DEPLOYFSD, program)
    monkeypatch.setattr(deploy, "DEPLOYFSD", program)
    daemon = place.daemon().start()
    before = daemon.processes()
    program.unlink()
    program.write_text("#!/bin/sh\nrm -f \"$0\"\n")
    program.chmod(0o755)
    assert daemon.api("POST", "/v1/daemon/upgrade").status == 202
    wait_until(lambda: "cannot execute" in daemon.log_text(), "the supervisor has tried")
    assert daemon.answers() and daemon.processes() == before


def test_a_repair_is_taken_up_again(shop):
    """As any other job: who waits for it is told its end."""
    with killed_at(shop, ["renameat"], when=2):  # the record of its start
        process = shop.background("repair", "shop", "1.0", "--json")
    code, said = finish(process)
    assert code == deploy.UNCHANGED, said
    assert "repair is taken up again" in shop.log_text()


def test_a_stop_is_not_forgotten_by_a_worker_that_dies(shop):
    """It came to a worker that could not see it any more."""
    worker, supervisor = shop.worker(), shop.process
    os.kill(worker, signal.SIGSTOP)
    os.kill(supervisor.pid, signal.SIGTERM)
    os.kill(worker, signal.SIGKILL)
    assert supervisor.wait(deploy.PATIENCE_S) == 0, shop.log_tail()
    assert not deploy.mounts_below(shop.apps)


def test_nothing_of_ours_is_open_in_a_job(place, daemon):
    """A job that had /dev/fuse would keep a dead mount from being seen as dead."""
    package = deploy.make_package(place.folder / "large.tar", {"body": deploy.noise(64 << 20)})
    for _ in range(2):
        generation = daemon.worker()
        daemon.kill_worker()
        wait_until(lambda: daemon.worker() != generation and daemon.answers(), "the next worker answers")
    process = daemon.background("import", package, "--app", "shop", "--version", "9.0")
    job = daemon.job_process()
    os.kill(job, signal.SIGSTOP)
    names = {int(fd.name): os.readlink(fd) for fd in Path(f"/proc/{job}/fd").iterdir()}
    os.kill(job, signal.SIGCONT)
    assert finish(process)[0] == 0
    assert not [name for name in names.values() if "/dev/fuse" in name or "memfd" in name], names


def test_a_version_is_removed_where_names_cannot_expire(place, monkeypatch):
    """As on Linux 6.1, which Debian 12 has."""
    monkeypatch.setenv("DEPLOYFS_TEST_NO_RESEND", "1")
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, deploy.small_app(version))
    daemon = place.daemon().start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1.1")
    with open(daemon.path("shop", "1.0") / "VERSION") as held:
        assert daemon.json("remove", "shop", "1.0")["state"] == "removing"
        assert sorted(os.listdir(daemon.apps / "shop")) == ["1.1", "current"]
        assert not daemon.path("shop", "1.0").exists()
        assert held.read() == "1.0\n"
    deploy.wait_until(lambda: daemon.version("shop", "1.0") is None, "nobody holds it any more")


def test_reads_go_on_where_the_store_cannot_be_owned(shop):
    """What a worker needs to change things is not there: it serves, and tries again."""
    (shop.store / "tmp").rmdir()
    (shop.store / "tmp").touch()
    shop.kill_worker()
    wait_until(lambda: "nothing be changed" in shop.log_text(), "the worker has tried")
    worker = shop.worker()
    for version in ("1.0", "1.1", "1.2"):
        assert shop.read("shop", version) == version
    (shop.store / "tmp").unlink()
    shop.recover()
    shop.run("flip", "shop", "1.0")
    assert shop.worker() == worker and shop.status()["supervisor"]["restarts"] == 1


def test_who_serves_without_the_store_can_be_stopped(shop):
    (shop.store / "tmp").rmdir()
    (shop.store / "tmp").touch()
    shop.kill_worker()
    wait_until(lambda: "nothing be changed" in shop.log_text(), "the worker has tried")
    shop.stop()
    assert not deploy.mounts_below(shop.apps)


def test_a_runtime_directory_of_somebody_else_is_refused(place):
    daemon = place.daemon()
    daemon.runtime.mkdir(mode=0o777)
    daemon.runtime.chmod(0o777)
    done = subprocess.run([deploy.DEPLOYFSD, "--config", daemon.config], capture_output=True, text=True,
                          timeout=deploy.PATIENCE_S)
    assert done.returncode == 1 and "others than root can write" in done.stderr, done.stderr
    assert not deploy.mounts_below(daemon.mount)
