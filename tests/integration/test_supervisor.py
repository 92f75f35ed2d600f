# SPDX-License-Identifier: Apache-2.0
"""What supervisor and worker owe each other, where one of them is late, gone or replaced."""
import os
import signal
import subprocess
from pathlib import Path

import deploy
from deploy import wait_until


def children(pid):
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()]


def arguments(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def finish(process):
    out, err = process.communicate(timeout=deploy.PATIENCE_S)
    return process.returncode, out + err


def job_of(daemon):
    """Its job's process, once there is one."""
    return wait_until(lambda: next((child for child in children(daemon.worker()) if b"--job" in arguments(child)), 0),
                      "the job's process is there")


def test_a_second_deployfsd_is_refused_and_takes_nothing(place, daemon):
    """The file of an import, say, which was opened with the rights of who asked, and is unlinked by now."""
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    deploy.make_package(package, {"body": deploy.noise(64 << 20)})
    process = daemon.background("import", package, "--app", "shop", "--version", "1.0")
    os.kill(job_of(daemon), signal.SIGSTOP)
    package.unlink()
    second = subprocess.run([deploy.DEPLOYFSD, "--config", daemon.config], capture_output=True, text=True,
                            timeout=deploy.PATIENCE_S)
    assert second.returncode == 4 and "another deployfsd" in second.stderr, second.stderr
    daemon.kill_worker()
    code, said = finish(process)
    assert code == 0, said + daemon.log_tail()
    daemon.run("verify", "shop")
