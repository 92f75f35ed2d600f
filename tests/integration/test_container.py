# SPDX-License-Identifier: Apache-2.0
"""Real containers with the mount bound into them: they use `current`, follow flips, and cannot write."""
import json

import pytest

from deploy import wait_until
from engine import Engine

APP = "/srv/deployfs/apps/pyapp"


@pytest.fixture(scope="module")
def running(module_place, pyapp):
    """A daemon with both versions of the real application, and an engine with an image."""
    daemon = module_place.daemon(pyapp).start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "pyapp", version)
    engine = Engine(module_place.folder / "engine")
    try:
        engine.start()
        engine.make_image(daemon.path("pyapp", "1.0"))
        yield daemon, engine
    finally:
        engine.stop()


@pytest.fixture
def daemon(running):
    """The daemon, with 1.0 as current and nothing marked bad."""
    daemon = running[0]
    for version in ("1.1", "1.0"):
        daemon.ctl("flip", "pyapp", version)
    return daemon


@pytest.fixture(params=["rslave", "narrow"])
def shell(request, running, daemon):
    """A container in which the application is found at /app, by each of the documented binds."""
    engine = running[1]
    if request.param == "rslave":
        shell = engine.shell("-v", f"{daemon.mount}:/srv/deployfs:rslave")
        shell.out(f"ln -s {APP} /app")
    else:
        shell = engine.shell("-v", f"{daemon.apps}/pyapp:/app:ro")
    yield shell
    shell.close()


def test_the_application_runs_and_follows_flip_and_rollback(daemon, shell):
    assert shell.out("/app/current/run").startswith("pyapp 1.0: ")
    daemon.run("flip", "pyapp", "1.1")
    assert shell.out("cat /app/current/VERSION; readlink /app/current") == "1.1\n1.1"
    assert shell.out("/app/current/run").startswith("pyapp 1.1: ")
    daemon.run("rollback", "pyapp")
    assert shell.out("cat /app/current/VERSION; readlink /app/current") == "1.0\n1.0"
    assert shell.out("/app/current/run").startswith("pyapp 1.0: ")


def test_open_files_and_the_working_directory_stay(daemon, shell):
    shell.out("exec 3</app/current/VERSION")
    shell.out("cd /app/current/")
    daemon.run("flip", "pyapp", "1.1")
    assert shell.out("cat <&3") == "1.0"
    assert shell.out("cat VERSION") == "1.0"
    assert shell.out("cat /app/current/VERSION") == "1.1"


def test_nothing_can_be_written(shell):
    for command in ("touch /app/new", "mkdir /app/1.0/new", "rm /app/1.0/VERSION", "echo x >/app/1.0/VERSION",
                    "echo x >>/app/current/app.py", "ln -s x /app/channel", "rm /app/current"):
        code, out = shell.run(f"sh -c '{command}'")
        assert code != 0, command
        assert "Read-only file system" in out, command


def test_list_names_the_container_that_holds_a_version(running, daemon):
    shell = running[1].shell("-v", f"{daemon.mount}:/srv/deployfs:rslave")
    number = shell.out("hostname")
    for command, how in ((f"exec 3<{APP}/1.1/VERSION", "open file"), (f"exec 3<&-; cd {APP}/1.1/", "working directory")):
        shell.out(command)
        versions = daemon.json("list", "pyapp", "--in-use")["app"]["versions"]
        held = {version["version"]: version["in_use"] for version in versions}
        assert [(use["name"], use["container"], use["how"]) for use in held["1.1"]] == [("sh", number, how)]
        assert held["1.0"] == []
        assert f"({held['1.1'][0]['name']}) in container {number}: {how}" in daemon.run("list", "pyapp", "--in-use").out
    shell.close()


def test_list_names_the_container_that_has_bound_a_version(running, daemon):
    shell = running[1].shell("-v", f"{daemon.path('pyapp', '1.1')}:/app:ro")
    number = shell.out("hostname")
    held = daemon.json("list", "pyapp", "--in-use")["app"]["versions"][0]["in_use"]
    assert {(use["container"], use["how"]) for use in held} == {(number, "bind mount at '/app'")}
    shell.out("cd /app/empty 2>/dev/null || cd /app")
    held = daemon.json("list", "pyapp", "--in-use")["app"]["versions"][0]["in_use"]
    assert (number, "working directory") in {(use["container"], use["how"]) for use in held}
    shell.close()


def test_a_hundred_flips_are_each_seen(daemon, shell):
    for _ in range(50):
        for version in ("1.1", "1.0"):
            daemon.api("POST", "/v1/apps/pyapp/flip", {"version": version})
            assert shell.out("cat /app/current/VERSION") == version


def test_status_can_be_read_without_the_command_line(running, daemon):
    shell = running[1].shell("-v", f"{daemon.mount}:/srv/deployfs:rslave")

    def current():
        return json.loads(shell.out("cat /srv/deployfs/apps/.deployfs/status.json"))["apps"]["pyapp"]["current"]

    wait_until(lambda: current() == "1.0", "status.json follows")
    daemon.run("flip", "pyapp", "1.1")
    wait_until(lambda: current() == "1.1", "status.json follows the flip")
    shell.close()


def test_the_documented_bind_heals_after_the_daemon_was_killed(running, daemon):
    shell = running[1].shell("-v", f"{daemon.mount}:/srv/deployfs:rslave")
    assert shell.out(f"cat {APP}/current/VERSION") == "1.0"
    daemon.kill()
    daemon.start()
    assert shell.out(f"cat {APP}/current/VERSION") == "1.0"
    daemon.run("flip", "pyapp", "1.1")
    assert shell.out(f"cat {APP}/current/VERSION") == "1.1"
    assert shell.out(f"{APP}/current/run").startswith("pyapp 1.1: ")
    shell.close()
