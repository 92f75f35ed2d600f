# SPDX-License-Identifier: Apache-2.0
"""Each command with something missing or wrong: the right exit code, and words that help."""
import subprocess

import pytest

import deploy
from deploy import NOT_FOUND, UNREACHABLE, USAGE, small_app

VERBS = ["fetch", "import", "list", "flip", "rollback", "status", "history", "verify", "remove", "pin", "unpin",
         "gc", "daemon", "doctor"]


@pytest.mark.parametrize("verb", VERBS)
def test_help(place, verb):
    result = place.daemon().run(verb, "--help")
    assert f"deployctl {verb}" in result.out
    assert result.err == ""


def test_help_and_version_of_the_programs(place):
    daemon = place.daemon()
    text = daemon.run("--help").out
    for verb in VERBS:
        assert verb in text
    assert daemon.run("--version").out.strip()
    for option in ("--help", "--version"):
        done = subprocess.run([deploy.DEPLOYFSD, option], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip()


WRONG_USAGE = [
    [], ["explode"], ["--nonsense"],
    ["fetch"], ["fetch", "shop"], ["fetch", "shop", "1.0", "extra"], ["fetch", "shop", "1.0", "--latest"],
    ["fetch", "../shop", "1.0"], ["fetch", "shop", "../1.0"], ["fetch", "shop", "1.0", "--progress=dance"],
    ["import"], ["import", "/etc/hostname"], ["import", "/etc/hostname", "--app", "shop"],
    ["import", "--app", "shop", "--version", "1"], ["import", "/etc/hostname", "--app", "s/h", "--version", "1"],
    ["import", "/etc/hostname", "--app", "shop", "--version", "1", "--sha256", "abc"],
    ["list", "shop", "extra"], ["list", "../shop"],
    ["flip"], ["flip", "shop"], ["flip", "shop", "1.0", "extra"], ["flip", "shop", "1.0", "--channel"],
    ["flip", "shop", "1.0", "--channel", "../x"], ["flip", "shop", "1.0", "--channel", "previous"],
    ["flip", "shop", "1.0", "-m"],
    ["rollback"], ["rollback", "shop", "1.0"], ["rollback", "sh/op"],
    ["status", "extra"], ["history"], ["history", "shop", "extra"],
    ["verify", "shop", "1.0", "extra"], ["verify", "sh op"],
    ["remove"], ["remove", "shop"], ["remove", "shop", "1.0", "extra"],
    ["pin"], ["pin", "shop"], ["unpin"], ["unpin", "shop"],
    ["gc", "extra"], ["gc", "--wet-run"],
    ["daemon"], ["daemon", "dance"], ["daemon", "stop", "extra"],
    ["daemon", "upgrade", "--force"], ["doctor", "extra"], ["list", "--in-use"],
]


@pytest.fixture(scope="module")
def idle(module_place):
    """A running daemon with shop 1.0, never flipped."""
    module_place.origin.publish("shop", "1.0", small_app("1.0"))
    daemon = module_place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    return daemon


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage(idle, arguments):
    result = idle.run(*arguments, code=USAGE)
    assert result.out == ""
    assert result.err.strip(), "an error must say something"
    assert idle.versions("shop") == ["1.0"]


NOT_THERE = [
    (["fetch", "nothing", "1.0"], "nothing"), (["fetch", "shop", "9.9"], "9.9"), (["fetch", "nothing", "--latest"], "nothing"),
    (["import", "/no/such/file.tar", "--app", "shop", "--version", "2"], "/no/such/file.tar"),
    (["list", "nothing"], "nothing"), (["list", "nothing", "--available"], "nothing"),
    (["flip", "nothing", "1.0"], "nothing"), (["flip", "shop", "9.9"], "9.9"),
    (["rollback", "nothing"], "nothing"), (["rollback", "shop", "--channel", "canary"], "canary"),
    (["history", "nothing"], "nothing"), (["history", "shop", "--channel", "canary"], "canary"),
    (["verify", "nothing"], "nothing"), (["verify", "shop", "9.9"], "9.9"),
    (["remove", "nothing", "1.0"], "nothing"), (["remove", "shop", "9.9"], "9.9"),
    (["pin", "shop", "9.9"], "9.9"), (["unpin", "nothing", "1.0"], "nothing"),
]


@pytest.mark.parametrize("arguments, name", NOT_THERE, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_not_found(idle, arguments, name):
    result = idle.run(*arguments, code=NOT_FOUND)
    assert name in result.err
    assert result.out == ""
    reply = idle.json(*arguments, code=NOT_FOUND)
    error = reply["job"]["error"] if "job" in reply else reply["error"]
    assert error["code"] == "not-found"
    assert name in error["message"]


def test_a_flip_to_what_is_not_here_says_to_fetch(idle):
    assert "fetch" in idle.run("flip", "shop", "9.9", code=NOT_FOUND).err


NEED_THE_DAEMON = [
    ["fetch", "shop", "1.0"], ["import", "/etc/hostname", "--app", "shop", "--version", "1"], ["list"], ["list", "shop"],
    ["flip", "shop", "1.0"], ["rollback", "shop"], ["status"], ["history", "shop"], ["verify"], ["remove", "shop", "1.0"],
    ["pin", "shop", "1.0"], ["unpin", "shop", "1.0"], ["gc"], ["daemon", "stop"], ["daemon", "reload"],
    ["daemon", "upgrade"],
]


@pytest.mark.parametrize("arguments", NEED_THE_DAEMON, ids=" ".join)
def test_no_daemon(place, arguments):
    daemon = place.daemon()
    result = daemon.run(*arguments, code=UNREACHABLE)
    assert str(daemon.socket) in result.err
    assert "deployfsd" in result.err
    assert daemon.json(*arguments, code=UNREACHABLE)["error"]["message"]


def test_a_config_that_is_missing(place):
    daemon = place.daemon()
    daemon.config.unlink()
    assert str(daemon.config) in daemon.run("status", code=USAGE).err


@pytest.mark.parametrize("file", ["/", "/dev/null", "/proc/self/mem"])
def test_import_of_what_is_no_file(idle, file):
    assert idle.ctl("import", file, "--app", "shop", "--version", "2").code not in (0, 77)
    assert idle.versions("shop") == ["1.0"]
