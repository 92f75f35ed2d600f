# SPDX-License-Identifier: Apache-2.0
"""deployctl against a mock of the API: what it sends, prints, and exits with."""

import copy
import json
import os
import pty
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from mock_api import BREAK, TIMEOUT_S, MockApi

ROOT = Path(__file__).resolve().parents[2]
DEPLOYCTL = os.environ.get("DEPLOYCTL", str(ROOT / "build/ctl/deployctl"))

VERBS = [
    "fetch", "import", "list", "flip", "rollback", "status", "history", "verify",
    "repair", "pin", "unpin", "remove", "gc", "daemon", "doctor",
]  # fmt: skip

ERROR_EXITS = {
    "failed": (500, 1),
    "forbidden": (403, 1),
    "cancelled": (500, 1),
    "usage": (400, 2),
    "not-found": (404, 3),
    "conflict": (409, 4),
    "verification": (422, 6),
    "no-space": (507, 7),
    "a-word-of-the-future": (500, 1),
}

VERSION = {
    "version": "1.4.2", "state": "present", "channels": ["current"], "pinned": True,
    "bad": True, "bad_reason": "rolled back", "sha256": "00", "package_bytes": 1000,
    "unpacked_bytes": 775946240, "stored_bytes": 2048, "files": 46526,
    "verified": "sha256sums", "origin": "ftp://files.example", "imported":
    "2026-11-22T22:46:42Z", "imported_by": "root",
}  # fmt: skip
APP = {
    "name": "shop",
    "channels": {"current": "1.4.2", "previous": "1.4.1"},
    "versions": [
        VERSION,
        dict(VERSION, version="1.4.1", channels=["previous"], pinned=False, bad=False),
    ],
}
FLIP = {
    "schema": 1, "changed": True, "app": "shop", "channel": "current", "generation": 7,
    "from": "1.4.1", "to": "1.4.2", "previous": "1.4.1", "notes": ["1.4.2 was bad"],
}  # fmt: skip
PIN = {"schema": 1, "changed": True, "app": "shop", "version": "1.4.2", "pinned": True}
REMOVE = {
    "schema": 1, "changed": True, "app": "shop", "version": "1.4.0", "state": "removed",
    "freed_bytes": 1048576,
}  # fmt: skip
GC = {
    "schema": 1, "dry_run": False, "freed_bytes": 3145728,
    "versions": [
        {"app": "shop", "version": "1.3.0", "action": "remove", "reason": "not kept",
         "bytes": 2097152},
        {"app": "shop", "version": "1.4.2", "action": "keep", "reason": "current",
         "bytes": 0},
    ],
    "partials": [
        {"file": "shop-1.5.0.part", "bytes": 1048576, "action": "remove", "reason": "old"}
    ],
}  # fmt: skip
HISTORY = {
    "schema": 1, "app": "shop", "channel": "current",
    "generations": [
        {"generation": 7, "time": "2026-11-22T22:46:42Z", "who": "root", "verb": "flip",
         "from": "1.4.1", "to": "1.4.2", "reason": "ticket 17", "result": "ok"},
        {"generation": 6, "time": "2026-11-21T22:46:42Z", "who": "root", "verb": "flip",
         "from": None, "to": "1.4.1", "reason": None, "result": "ok"},
    ],
}  # fmt: skip
AVAILABLE = {
    "schema": 1, "app": "shop", "origin": "ftp://files.example",
    "versions": [
        {"version": "1.4.3", "file": "shop-1.4.3.tar.zst", "sha256": "00",
         "present": False},
    ],
}  # fmt: skip
JOB = {
    "id": 7, "kind": "fetch", "app": "shop", "version": "1.4.2", "state": "running",
    "stage": "download", "bytes": 471859200, "bytes_total": 1048576000,
    "rate": 10485760, "eta_s": 55, "sequence": 3, "source": "ftp://files.example",
    "warnings": [], "started": "2026-11-22T22:46:42Z", "ended": None, "result": None,
    "error": None,
}  # fmt: skip
STATUS = {
    "schema": 1, "version": "0.1.0", "pid": 4711, "uptime_s": 86400,
    "mount": "/srv/deployfs", "store": "/var/lib/deployfs", "healthy": True, "apps": 3,
    "versions": 12,
    "space": {"total": 10737418240, "free": 5368709120, "reserve": 1073741824,
              "packs": 2147483648, "partial": 0},
    "origins": [{"url": "ftp://files.example/packages", "state": "offline",
                 "since": "2026-11-22T22:46:42Z", "error": "no route"}],
    "fuse": {"total": 90123, "requests": {"lookup": 1}, "read_bytes": 1048576},
    "jobs": [JOB],
}  # fmt: skip
PACKAGE_RESULT = {
    "changed": True, "version": "1.4.2", "sha256": "00", "files": 46526,
    "unpacked_bytes": 775946240, "stored_bytes": 1048576, "shared_files": 40000,
    "resumed_bytes": 1024,
}  # fmt: skip
VERIFY_RESULT = {
    "changed": True, "versions": 1, "files": 46526, "bytes": 775946240, "bad": [],
}  # fmt: skip


def job(**members):
    return dict(copy.deepcopy(JOB), **members)


def job_reply(**members):
    return 200, {"schema": 1, "job": job(**members)}


def started(**members):
    return 202, {"schema": 1, "job": job(**members), "waiter": 3}


def failure(code, status=500):
    return status, {"schema": 1, "error": {"code": code, "message": f"it is {code}"}}


def allow_interrupts():
    """What a background shell has told pytest to ignore, deployctl must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Ctl:
    def __init__(self, tmp_path):
        self.socket_path = str(tmp_path / "deployfs.sock")
        config = tmp_path / "deployfs.yaml"
        config.write_text(f"origin: ftp://files.example\nruntime: {tmp_path}\n")
        self.environment = dict(os.environ, DEPLOYFS_CONFIG=str(config), DEPLOYCTL_PATIENCE="1")

    def start(self, *arguments, **how):
        how.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(
            [DEPLOYCTL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=self.environment,
            preexec_fn=allow_interrupts,
            **how,
        )

    def finish(self, process):
        try:
            process.stdout_text, process.stderr_text = process.communicate(
                timeout=2 * TIMEOUT_S
            )
        finally:
            process.kill()
        assert "Sanitizer" not in (process.stderr_text or ""), process.stderr_text
        return process

    def run(self, *arguments, code=0):
        process = self.finish(self.start(*arguments))
        assert process.returncode == code, process.stdout_text + process.stderr_text
        return process


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path)


@pytest.fixture
def api(ctl):
    mock = MockApi(ctl.socket_path)
    yield mock
    mock.stop()


# ----------------------------------------------------------------- usage and --help


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_a_daemon(ctl, verb):
    done = ctl.run(verb, "--help")
    assert done.stdout_text.startswith(f"Usage: deployctl {verb}")
    assert "--json" in done.stdout_text
    assert done.stderr_text == ""


def test_the_program_lists_its_verbs_and_its_version(ctl):
    text = ctl.run("--help").stdout_text
    for verb in VERBS:
        assert f"  {verb} " in text
    assert ctl.run("--version").stdout_text.startswith("deployctl ")


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["nope"], ["--nope"], ["--config"], ["fetch"], ["fetch", "shop"],
        ["fetch", "shop", "1", "--latest"], ["fetch", "shop", "1", "2"],
        ["fetch", "shop", "1", "--progress=loud"], ["fetch", "../etc", "1"],
        ["fetch", "shop", "-m"], ["import", "x.tar"], ["import", "--app", "shop"],
        ["import", "x", "--app", "shop", "--version", ".."],
        ["import", "x", "--app", "shop", "--version", "1", "--sha256", "abc"],
        ["list", "a", "b"], ["list", "--available"], ["list", "a/b"], ["flip", "shop"],
        ["flip", "shop", "1", "--channel"], ["flip", "shop", "1", "--warm", "--no-warm"],
        ["flip", "shop", "1", "--channel", "a b"],
        ["rollback"], ["rollback", "shop", "1"], ["status", "x"], ["history"],
        ["history", "shop", "--channel", "\x1b[31m"], ["verify", "a", "b", "c"],
        ["verify", "-x"], ["pin", "shop"], ["unpin", "shop"], ["remove", "shop"],
        ["remove", "shop", ".."], ["gc", "x"], ["gc", "--dry-runs"], ["daemon"],
        ["daemon", "dance"], ["daemon", "reload", "--force"],
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_with_a_hint(ctl, arguments):
    done = ctl.run(*arguments, code=2)
    assert done.stdout_text == ""
    assert done.stderr_text.count("\n") == 1
    assert "; see 'deployctl" in done.stderr_text and "--help'" in done.stderr_text
    assert "\x1b" not in done.stderr_text


def test_options_may_stand_before_and_after_arguments(ctl, api):
    api.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    ctl.run("flip", "--no-warm", "-m", "why", "shop", "--channel", "beta", "1.4.2")
    ctl.run("flip", "shop", "1.4.2", "--channel=beta", "-mwhy", "--no-warm")
    bodies = [request.body for request in api.requests]
    assert bodies == [{"version": "1.4.2", "channel": "beta", "reason": "why"}] * 2


WARM = {
    "changed": True, "version": "1.4.2", "from": "1.4.1", "files": 34, "bytes": 12 << 20,
    "kept_bytes": 800 << 20, "left_bytes": 0,
}  # fmt: skip


def warmed(**changes):
    return job_reply(kind="warm", stage="warm", **changes)


def test_a_warm_flip_warms_and_then_flips(ctl, api):
    api.on("POST", "/v1/apps/shop/warm", (202, dict(warmed()[1], waiter=1)))
    api.on("GET", "/v1/jobs/7", warmed(state="done", result=WARM, sequence=9))
    api.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    said = ctl.run("flip", "shop", "1.4.2", "--warm", "--channel", "current").stdout_text
    assert said.startswith("shop: 1.4.2 is warm: 800.0 MiB were, 12.0 MiB in 34 files were read\n")
    assert [(r.method, r.path) for r in api.requests] == [
        ("POST", "/v1/apps/shop/warm"), ("GET", "/v1/jobs/7"), ("POST", "/v1/apps/shop/flip")]
    assert api.requests[0].body == {"version": "1.4.2", "channel": "current"}


@pytest.mark.parametrize("version", [None, "1.4.2"])
def test_a_warming_with_nothing_to_go_by_is_not_told(ctl, api, version):
    """The channel is new, or points there already."""
    api.on("POST", "/v1/apps/shop/warm", (202, dict(warmed()[1], waiter=1)))
    api.on("GET", "/v1/jobs/7", warmed(state="done", result=dict(WARM, **{"from": version}), sequence=9))
    api.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    assert "warm" not in ctl.run("flip", "shop", "1.4.2", "--warm").stdout_text


def test_a_warming_that_fails_does_not_keep_from_flipping(ctl, api):
    api.on("POST", "/v1/apps/shop/warm", (202, dict(warmed()[1], waiter=1)))
    error = {"code": "failed", "message": "the disk is tired"}
    api.on("GET", "/v1/jobs/7", warmed(state="failed", error=error, sequence=9))
    api.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    done = ctl.run("flip", "shop", "1.4.2", "--warm")
    assert "the disk is tired" in done.stderr_text and "current 1.4.1 -> 1.4.2" in done.stdout_text


def test_ctrl_c_while_it_warms_keeps_from_flipping(ctl, api):
    api.on("POST", "/v1/apps/shop/warm", (202, dict(warmed()[1], waiter=3)))
    api.on("GET", "/v1/jobs/7", lambda request: (process.send_signal(signal.SIGINT), warmed(sequence=9))[1])
    api.on("DELETE", "/v1/jobs/7", (200, dict(warmed(state="cancelled")[1], changed=True)))
    process = ctl.start("flip", "shop", "1.4.2", "--warm")
    ctl.finish(process)
    assert process.returncode == 1
    assert "deployctl: not flipped: cancelled" in process.stderr_text
    assert "/v1/apps/shop/flip" not in [r.path for r in api.requests]


def test_text_that_is_not_utf8_is_refused(ctl, api):
    done = ctl.run("flip", "shop", "1", "--no-warm", "-m", os.fsdecode(b"\xff"), code=2)
    assert "UTF-8" in done.stderr_text
    assert api.requests == []


# ------------------------------------------------------------------ finding the daemon


def test_a_missing_daemon_is_5_and_says_how_to_start_it(ctl):
    done = ctl.run("status", code=5)
    assert ctl.socket_path in done.stderr_text
    assert "start deployfsd" in done.stderr_text
    done = ctl.run("status", "--json", code=5)
    assert json.loads(done.stdout_text)["error"]["code"] == "unreachable"
    assert done.stderr_text == ""


def test_a_socket_that_nobody_serves_is_5(ctl, api):
    api._server.socket.close()
    assert "Connection refused" in ctl.run("status", code=5).stderr_text


def test_a_daemon_that_hangs_up_is_5(ctl, api):
    api.on("POST", "/v1/apps/shop/flip", BREAK)
    assert "broke" in ctl.run("flip", "shop", "1", "--no-warm", code=5).stderr_text
    assert len(api.requests) > 1
    ctl.environment["DEPLOYCTL_PATIENCE"] = "0"
    api.requests.clear()
    assert "broke" in ctl.run("flip", "shop", "1", "--no-warm", code=5).stderr_text
    assert len(api.requests) == 1


def test_the_config_option_is_preferred_to_the_environment(ctl, api):
    api.on("GET", "/v1/apps", (200, {"schema": 1, "apps": []}))
    config = ctl.environment["DEPLOYFS_CONFIG"]
    ctl.environment["DEPLOYFS_CONFIG"] = "/nonexistent/deployfs.yaml"
    assert "/nonexistent" in ctl.run("list", code=2).stderr_text
    ctl.run("--config", config, "list")
    ctl.run("list", "--config", config)


@pytest.mark.parametrize("text", ["runtime: [a]\n", "runtime: here\n", "{\n", "a: b: c\n"])
def test_a_wrong_configuration_is_2(ctl, tmp_path, text):
    config = tmp_path / "wrong.yaml"
    config.write_text(text)
    assert str(config) in ctl.run("list", "--config", str(config), code=2).stderr_text


@pytest.mark.parametrize("text", ["", "# nothing\n", "origin: [a, b]\napps:\n- name: x\n"])
def test_a_configuration_without_runtime_gives_the_default(ctl, tmp_path, text):
    config = tmp_path / "other.yaml"
    config.write_text(text)
    done = ctl.start("list", "--json", "--config", str(config))
    ctl.finish(done)
    assert done.returncode == 0 or "/run/deployfs/deployfs.sock" in done.stdout_text


# ------------------------------------------------------------------ errors and exit codes


@pytest.mark.parametrize("code", ERROR_EXITS)
def test_exit_codes_follow_the_code_of_the_error(ctl, api, code):
    status, exit_code = ERROR_EXITS[code]
    api.on("POST", "/v1/apps/shop/flip", failure(code, status))
    done = ctl.run("flip", "shop", "1", code=exit_code)
    assert done.stderr_text == f"deployctl: it is {code}\n"
    done = ctl.run("flip", "shop", "1", "--json", code=exit_code)
    assert json.loads(done.stdout_text) == failure(code)[1]
    assert done.stderr_text == ""


@pytest.mark.parametrize("code", ERROR_EXITS)
def test_a_failed_job_exits_by_the_code_of_its_error(ctl, api, code):
    api.on("POST", "/v1/apps/shop/fetch", started())
    error = {"code": code, "message": "so it is"}
    api.on("GET", "/v1/jobs/7", job_reply(state="failed", error=error, sequence=9))
    done = ctl.run("fetch", "shop", "1.4.2", code=ERROR_EXITS[code][1])
    assert done.stderr_text.endswith("deployctl: so it is\n")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"{", b'{"a":"\x1b"}'])
@pytest.mark.parametrize("status", [200, 502])
def test_a_reply_that_is_no_json_object_is_1(ctl, api, body, status):
    api.on("GET", "/v1/status", (status, body))
    assert "unexpected reply" in ctl.run("status", code=1).stderr_text


UNCHANGED = [
    (["flip", "shop", "1.4.2"], "POST", "/v1/apps/shop/flip", FLIP,
     "shop: current is 1.4.2 already\n"),
    (["rollback", "shop"], "POST", "/v1/apps/shop/rollback", FLIP,
     "shop: current is 1.4.2 already\n"),
    (["pin", "shop", "1"], "PUT", "/v1/apps/shop/versions/1/pin", PIN,
     "shop: 1 is pinned already\n"),
    (["unpin", "shop", "1"], "DELETE", "/v1/apps/shop/versions/1/pin", PIN,
     "shop: 1 is not pinned already\n"),
    (["remove", "shop", "1"], "DELETE", "/v1/apps/shop/versions/1", REMOVE,
     "shop: 1 is being removed already\n"),
    (["daemon", "stop"], "POST", "/v1/daemon/stop", {"schema": 1},
     "deployfsd is ending already\n"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, method, path, reply, sentence", UNCHANGED)
def test_nothing_to_change_is_77(ctl, api, arguments, method, path, reply, sentence):
    reply = dict(reply, changed=False)
    api.on(method, path, (200, reply))
    done = ctl.run(*arguments, code=77)
    assert (done.stdout_text, done.stderr_text) == (sentence, "")
    done = ctl.run(*arguments, "--json", code=77)
    assert json.loads(done.stdout_text) == reply


# ------------------------------------------------------------------ what verbs print


def test_list_shows_each_version_with_its_marks(ctl, api):
    api.on("GET", "/v1/apps", (200, {"schema": 1, "apps": [APP]}))
    api.on("GET", "/v1/apps/shop", (200, {"schema": 1, "app": APP}))
    text = ctl.run("list").stdout_text
    assert text == (
        "APP   VERSION  CHANNELS  STATE         SIZE  FILES  IMPORTED              MARKS\n"
        "shop  1.4.2    current   present  740.0 MiB  46526  2026-11-22T22:46:42Z  pinned,bad\n"
        "shop  1.4.1    previous  present  740.0 MiB  46526  2026-11-22T22:46:42Z\n"
    )
    assert ctl.run("list", "shop").stdout_text == text
    done = ctl.run("--json", "list", "shop")
    assert json.loads(done.stdout_text) == {"schema": 1, "app": APP}


def test_list_says_below_a_version_who_holds_it(ctl, api):
    holders = [
        {"pid": 4711, "name": "nginx", "container": "0123456789ab", "how": "open file"},
        {"pid": 12, "name": "sh", "container": None, "how": "bind mount at '/a\x1bb'"},
    ]
    versions = [
        dict(VERSION, state="removing", in_use=holders),
        dict(VERSION, version="1.4.1", state="removing", in_use=[]),
        dict(VERSION, version="1.4.0", in_use=[]),
        dict(VERSION, version="1.3.0", in_use=None),
    ]
    reply = {"schema": 1, "app": dict(APP, versions=versions)}
    api.on("GET", "/v1/apps/shop", (200, reply))
    lines = ctl.run("list", "shop").stdout_text.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("shop")] == [
        "1.4.2", "1.4.1", "1.4.0", "1.3.0",
    ]  # fmt: skip
    assert lines[2] == "  in use by pid 4711 (nginx) in container 0123456789ab: open file"
    assert lines[3] == "  in use by pid 12 (sh): bind mount at '/a?b'"
    assert lines[5].startswith("  about to be freed")
    assert len(lines) == 8
    assert [request.query for request in api.sent("GET")] == [{}]


def test_list_in_use_asks_for_every_version(ctl, api):
    api.on("GET", "/v1/apps/shop", (200, {"schema": 1, "app": APP}))
    ctl.run("list", "shop", "--in-use")
    assert [request.query for request in api.sent("GET")] == [{"in_use": "true"}]
    ctl.run("list", "--in-use", code=2)
    ctl.run("list", "shop", "--in-use", "--available", code=2)


def worker(generation, pid, version="0.2.0"):
    supervisor = {"pid": 1, "restarts": 0, "generation": generation}
    return 200, dict(STATUS, version=version, pid=pid, supervisor=supervisor)


def test_upgrade_waits_until_another_worker_serves(ctl, api):
    """Meanwhile it may not answer at all, and the old one may still do so."""
    done = (200, {"schema": 1, "changed": True})
    for arguments in (["daemon", "upgrade"], ["daemon", "upgrade", "--json"]):
        first, second = worker(7, 100, "0.1.0"), worker(8, 200)
        api.on("GET", "/v1/status", first, first, BREAK, first, second)
        api.on("POST", "/v1/daemon/upgrade", done)
        text = ctl.run(*arguments).stdout_text
        if "--json" in arguments:
            assert json.loads(text) == second[1]
        else:
            assert text == "deployfsd 0.2.0 serves now (pid 200)\n"
    assert len(api.sent("POST")) == 2


def test_upgrade_of_what_is_being_upgraded_or_cannot_be(ctl, api):
    api.on("GET", "/v1/status", worker(7, 100))
    api.on("POST", "/v1/daemon/upgrade", (200, {"schema": 1, "changed": False}))
    assert "already" in ctl.run("daemon", "upgrade", code=77).stdout_text
    api.on("POST", "/v1/daemon/upgrade", failure("failed"))
    assert "it is failed" in ctl.run("daemon", "upgrade", code=1).stderr_text
    api.on("GET", "/v1/status", (200, STATUS))
    assert "no supervisor" in ctl.run("daemon", "upgrade", code=1).stderr_text
    assert len(api.sent("POST")) == 2
    ctl.run("daemon", "upgrade", "--force", code=2)


def test_status_does_not_wait_for_ever(ctl, api):
    never = threading.Event()
    api.on("GET", "/v1/status", lambda request: never.wait(TIMEOUT_S) and None or BREAK)
    try:
        done = ctl.run("status", code=5)
        assert "3 s" in done.stderr_text and "doctor" in done.stderr_text
        reply = json.loads(ctl.run("status", "--json", code=5).stdout_text)
        assert reply["error"]["code"] == "unreachable" and reply["supervisor"] is None
    finally:
        never.set()


def test_list_of_nothing_says_what_to_do(ctl, api):
    api.on("GET", "/v1/apps", (200, {"schema": 1, "apps": []}))
    assert "deployctl fetch" in ctl.run("list").stdout_text


def test_list_available_shows_what_the_origin_has(ctl, api):
    api.on("GET", "/v1/apps/shop/available", (200, AVAILABLE))
    assert ctl.run("list", "shop", "--available").stdout_text == (
        "VERSION  FILE                HERE\n1.4.3    shop-1.4.3.tar.zst  no\n"
    )


def test_flip_tells_from_to_and_previous(ctl, api):
    api.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    assert ctl.run("flip", "shop", "1.4.2").stdout_text == (
        "shop: current 1.4.1 -> 1.4.2 (generation 7), previous is 1.4.1\n"
        "note: 1.4.2 was bad\n"
    )
    first = {"from": None, "previous": None, "generation": 1, "notes": []}
    api.on("POST", "/v1/apps/shop/flip", (200, dict(FLIP, **first)))
    text = ctl.run("flip", "shop", "1.4.2").stdout_text
    assert text == "shop: current -> 1.4.2 (generation 1)\n"


def test_rollback_sends_only_what_was_given(ctl, api):
    api.on("POST", "/v1/apps/shop/rollback", (200, FLIP))
    ctl.run("rollback", "shop")
    ctl.run("rollback", "shop", "-m", "slow")
    assert [request.body for request in api.requests] == [{}, {"reason": "slow"}]


def test_history_is_a_table(ctl, api):
    api.on("GET", "/v1/apps/shop/history", (200, HISTORY))
    assert ctl.run("history", "shop").stdout_text == (
        "GENERATION  TIME                  WHO   VERB  FROM   TO     RESULT  REASON\n"
        "         7  2026-11-22T22:46:42Z  root  flip  1.4.1  1.4.2  ok      ticket 17\n"
        "         6  2026-11-21T22:46:42Z  root  flip  -      1.4.1  ok\n"
    )
    ctl.run("history", "shop", "--channel", "a+b")
    assert [r.query["channel"] for r in api.requests] == ["current", "a+b"]


def test_status_is_a_short_block(ctl, api):
    api.on("GET", "/v1/status", (200, STATUS))
    assert ctl.run("status").stdout_text == (
        "deployfsd  0.1.0, pid 4711, up 1d, healthy\n"
        "mount      /srv/deployfs: 3 apps, 12 versions\n"
        "store      /var/lib/deployfs: 2.0 GiB in packs, 0 B in partial downloads\n"
        "disk       5.0 GiB free of 10.0 GiB, 1.0 GiB are kept free\n"
        "requests   90123 of the kernel, 1.0 MiB read\n"
        "origin     ftp://files.example/packages: offline since 2026-11-22T22:46:42Z: no route\n"
        "job 7      fetch shop 1.4.2: download 45 %, 450.0 MiB of 1000.0 MiB, 10.0 MiB/s,"
        " 55s left\n"
    )


def test_status_tells_how_long_requests_take_and_how_many_wait(ctl, api):
    none = {"count": 0, "mean_us": None, "p50_us": None, "p99_us": None}
    latency = {"lookup": {"count": 5, "mean_us": 8.13, "p50_us": 6.5, "p99_us": 41.7}, "getattr": none,
               "read": {"count": 1, "mean_us": 120, "p50_us": 120, "p99_us": 128}, "readdirplus": none}
    fuse = dict(STATUS["fuse"], latency=latency, threads=4, busy=1, waiting=2)
    api.on("GET", "/v1/status", (200, dict(STATUS, fuse=fuse)))
    assert ("requests   90123 of the kernel, 1.0 MiB read, 2 without a reply\n"
            "latency    lookup 8 us (99 %: 42), read 120 us (99 %: 128)\n") in ctl.run("status").stdout_text
    api.on("GET", "/v1/status", (200, dict(STATUS, fuse=dict(fuse, latency={"read": 7}, waiting=None))))
    assert "latency" not in ctl.run("status").stdout_text


def test_gc_gives_reasons_and_a_sum(ctl, api):
    api.on("POST", "/v1/gc", (200, GC), (200, dict(GC, dry_run=True)))
    text = ctl.run("gc").stdout_text
    assert text == (
        "APP        VERSION          ACTION     SIZE  REASON\n"
        "shop       1.3.0            remove  2.0 MiB  not kept\n"
        "shop       1.4.2            keep        0 B  current\n"
        "(partial)  shop-1.5.0.part  remove  1.0 MiB  old\n"
        "3.0 MiB given back\n"
    )
    assert "nothing was removed" in ctl.run("gc", "--dry-run").stdout_text
    assert [r.body for r in api.requests] == [{"dry_run": False}, {"dry_run": True}]


def test_pin_unpin_and_remove_tell_what_they_did(ctl, api):
    api.on("PUT", "/v1/apps/shop/versions/1.4.2/pin", (200, PIN))
    api.on("DELETE", "/v1/apps/shop/versions/1.4.2/pin", (200, PIN))
    api.on("DELETE", "/v1/apps/shop/versions/1.4.0", (200, REMOVE))
    assert ctl.run("pin", "shop", "1.4.2").stdout_text == "shop: 1.4.2 is pinned\n"
    assert ctl.run("unpin", "shop", "1.4.2").stdout_text == "shop: 1.4.2 is not pinned\n"
    text = ctl.run("remove", "shop", "1.4.0").stdout_text
    assert text == "shop: 1.4.0 is removed, 1.0 MiB given back\n"
    held = (200, dict(REMOVE, state="removing", freed_bytes=0))
    api.on("DELETE", "/v1/apps/shop/versions/1.4.0", held)
    assert "last open file" in ctl.run("remove", "shop", "1.4.0").stdout_text


def test_daemon_stop_and_reload_are_sent(ctl, api):
    api.on("POST", "/v1/daemon/stop", (200, {"schema": 1, "changed": True}))
    api.on("POST", "/v1/daemon/reload", (200, {"schema": 1, "changed": True}))
    ctl.run("daemon", "stop")
    ctl.run("daemon", "stop", "--force")
    ctl.run("daemon", "reload")
    assert [r.body for r in api.requests] == [{"force": False}, {"force": True}, None]


def test_nothing_from_a_reply_steers_the_terminal(ctl, api):
    evil = "a\x1b[31m\x9b31m\n\x7fb"
    reply = copy.deepcopy(HISTORY)
    reply["generations"][0]["reason"] = evil
    api.on("GET", "/v1/apps/shop/history", (200, reply))
    api.on("POST", "/v1/apps/shop/flip", (500, {"error": {"code": "x", "message": evil}}))
    shown = [
        ctl.run("history", "shop").stdout_text,
        ctl.run("history", "shop", "--json").stdout_text,
        ctl.run("flip", "shop", "1", code=1).stderr_text,
    ]
    for text in shown:
        assert not set(text) & set("\x1b\x9b\x7f\r")
    assert len(shown[0].splitlines()) == 3
    assert json.loads(shown[1]) == reply


# ------------------------------------------------------------------ jobs


def test_one_file_is_one_file(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started(state="queued", stage=None, sequence=1))
    api.on("GET", "/v1/jobs/7", job_reply(sequence=2, state="done", result=dict(PACKAGE_RESULT, files=1, shared_files=1)))
    said = ctl.run("fetch", "shop", "1.4.2").stdout_text
    assert "is here: 1 file, " in said and "\n1 file is shared with" in said


def test_fetch_follows_its_job_to_the_end(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started(state="queued", stage=None, sequence=1))
    api.on(
        "GET",
        "/v1/jobs/7",
        job_reply(sequence=2),
        job_reply(sequence=3, bytes=500000000),
        job_reply(sequence=4, stage="unpack", bytes_total=None, rate=None, eta_s=None),
        job_reply(sequence=5, state="done", result=PACKAGE_RESULT, warnings=["slow disk"]),
    )
    done = ctl.run("fetch", "shop", "1.4.2")
    assert done.stdout_text == (
        "shop: 1.4.2 is here: 46526 files, 740.0 MiB; 1.0 MiB of that are new in the store\n"
        "40000 files are shared with what was there before\n"
        "the download went on after 1.0 KiB\n"
    )
    assert done.stderr_text == (
        "shop 1.4.2: queued\n"
        "shop 1.4.2: download 45 %, 450.0 MiB of 1000.0 MiB, 10.0 MiB/s, 55s left\n"
        "shop 1.4.2: unpack 450.0 MiB\n"
        "shop 1.4.2: done\n"
        "deployctl: warning: slow disk\n"
    )
    polls = [request.query for request in api.sent("GET")]
    assert polls == [{"after": str(n), "wait_s": "30"} for n in (1, 2, 3, 4)]
    assert api.requests[0].body == {"version": "1.4.2"}


def test_fetch_of_the_latest_names_what_came(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started(version=None))
    api.on("GET", "/v1/jobs/7", job_reply(state="done", result=PACKAGE_RESULT))
    assert "1.4.2 is here" in ctl.run("fetch", "--latest", "shop").stdout_text
    assert api.requests[0].body == {"latest": True}


def test_fetch_of_what_is_there_is_77(ctl, api):
    result = dict(PACKAGE_RESULT, changed=False)
    api.on("POST", "/v1/apps/shop/fetch", started(state="done", result=result))
    done = ctl.run("fetch", "shop", "1.4.2", code=77)
    assert done.stdout_text == "shop: 1.4.2 is here already\n"
    done = ctl.run("fetch", "shop", "1.4.2", "--json", code=77)
    assert json.loads(done.stdout_text)["job"]["result"] == result
    assert api.sent("GET") == []


def test_fetch_with_json_prints_the_last_reply_only(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    last = job_reply(state="done", result=PACKAGE_RESULT)
    api.on("GET", "/v1/jobs/7", job_reply(sequence=4), last)
    done = ctl.run("fetch", "shop", "1.4.2", "--json")
    assert json.loads(done.stdout_text) == last[1]
    assert done.stderr_text == ""


def test_progress_as_json_is_one_reply_a_line(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    replies = [job_reply(sequence=4), job_reply(state="done", result=PACKAGE_RESULT)]
    api.on("GET", "/v1/jobs/7", *replies)
    done = ctl.run("fetch", "shop", "1.4.2", "--progress=json")
    lines = [json.loads(line) for line in done.stdout_text.splitlines()]
    assert lines == [started()[1], replies[0][1], replies[1][1]]
    assert done.stderr_text == ""


def test_progress_none_leaves_only_the_result(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", job_reply(state="done", result=PACKAGE_RESULT))
    done = ctl.run("fetch", "shop", "1.4.2", "--progress", "none")
    assert done.stderr_text == "" and "is here" in done.stdout_text


def read_terminal(fd):
    text = b""
    while True:
        try:
            part = os.read(fd, 4096)
        except OSError:  # the last one has closed the other side
            part = b""
        if not part:
            return text.decode()
        text += part


def test_a_terminal_gets_a_bar_that_is_cleared(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", job_reply(state="done", result=PACKAGE_RESULT))
    ours, theirs = pty.openpty()
    process = ctl.start("fetch", "shop", "1.4.2", stderr=theirs)
    os.close(theirs)
    text = read_terminal(ours)
    os.close(ours)
    assert ctl.finish(process).returncode == 0
    assert "[####......] shop 1.4.2: download 45 %" in text
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_import_sends_an_absolute_path(ctl, api, tmp_path):
    archive = tmp_path / "shop 1.tar"
    archive.write_text("x")
    (tmp_path / "link").symlink_to(archive)
    api.on("POST", "/v1/apps/shop/import", started(kind="import"))
    reply = job_reply(kind="import", state="done", result=PACKAGE_RESULT)
    api.on("GET", "/v1/jobs/7", reply)
    options = ["--app", "shop", "--version", "1.4.2"]
    ctl.run("import", *options, os.path.relpath(archive))
    ctl.run("import", str(tmp_path / "link"), *options, "--sha256", "aB" * 32)
    path = os.path.realpath(archive)
    assert [request.body for request in api.sent("POST")] == [
        {"version": "1.4.2", "file": path},
        {"version": "1.4.2", "file": path, "sha256": "aB" * 32},
    ]
    done = ctl.run("import", str(tmp_path / "none"), *options, code=3)
    assert "cannot find the archive" in done.stderr_text


def test_verify_names_what_is_damaged(ctl, api):
    bad = [{"version": "1.4.2", "path": "bin/x", "problem": "checksum"}]
    error = {"code": "verification", "message": "1 file is damaged"}
    api.on("POST", "/v1/apps/shop/verify", started(kind="verify"))
    reply = job_reply(
        kind="verify", state="failed", error=error, result=dict(VERIFY_RESULT, bad=bad)
    )
    api.on("GET", "/v1/jobs/7", reply)
    done = ctl.run("verify", "shop", "1.4.2", "--progress=none", code=6)
    assert done.stdout_text == (
        "VERSION  PATH   PROBLEM\n"
        "1.4.2    bin/x  checksum\n"
        "shop: 1 version, 46526 files, 740.0 MiB read: damaged\n"
    )
    assert done.stderr_text == "deployctl: 1 file is damaged\n"
    assert api.requests[0].body == {"version": "1.4.2"}


def test_verify_of_all_looks_at_every_app(ctl, api):
    names = ["blog", "shop"]
    apps = [dict(APP, name=name) for name in names]
    error = {"code": "verification", "message": "blog is damaged"}
    api.on("GET", "/v1/apps", (200, {"schema": 1, "apps": apps}))
    broken = started(kind="verify", app="blog", state="failed", error=error)
    api.on("POST", "/v1/apps/blog/verify", broken)
    sound = started(kind="verify", state="done", result=VERIFY_RESULT)
    api.on("POST", "/v1/apps/shop/verify", sound)
    done = ctl.run("verify", "--progress=none", code=6)
    assert "shop: 1 version, 46526 files, 740.0 MiB read: all as it should be" in (
        done.stdout_text
    )
    assert done.stderr_text == (
        "deployctl: blog is damaged\ndeployctl: 1 of 2 apps are damaged\n"
    )
    done = ctl.run("verify", "--json", code=6)
    lines = [json.loads(line) for line in done.stdout_text.splitlines()]
    assert lines == [broken[1], sound[1]]


def test_a_job_that_somebody_cancelled_is_1(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", job_reply(state="cancelled"))
    assert "cancelled" in ctl.run("fetch", "shop", "1.4.2", code=1).stderr_text


# ------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def hanging(api):
    """A fetch whose job never moves; the event lets waiting answers go at the end."""
    release = threading.Event()

    def hang(request):
        release.wait(TIMEOUT_S)
        return BREAK

    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", hang)
    api.hang = hang
    yield api
    release.set()


def interrupted_fetch(ctl, api, reply, *options):
    api.on("DELETE", "/v1/jobs/7", reply)
    process = ctl.start("fetch", "shop", "1.4.2", *options)
    api.wait_for("GET", "/v1/jobs/7")
    process.send_signal(signal.SIGINT)
    ctl.finish(process)
    assert {request.query["waiter"] for request in api.sent("DELETE")} == {"3"}
    return process


def deleted(changed, **members):
    return 200, {"schema": 1, "changed": changed, "job": job(**members)}


def test_ctrl_c_gives_the_waiter_back(ctl, hanging):
    done = interrupted_fetch(ctl, hanging, deleted(True, state="cancelled"))
    assert done.returncode == 1
    assert "deployctl: cancelled; what is already there is kept" in done.stderr_text


def test_ctrl_c_says_when_others_still_wait(ctl, hanging):
    done = interrupted_fetch(ctl, hanging, deleted(False))
    assert done.returncode == 1
    assert "another client waits" in done.stderr_text


def test_ctrl_c_after_the_end_tells_how_it_ended(ctl, hanging):
    reply = deleted(False, state="done", result=PACKAGE_RESULT)
    done = interrupted_fetch(ctl, hanging, reply)
    assert done.returncode == 0
    assert "1.4.2 is here" in done.stdout_text


def test_ctrl_c_with_json_prints_the_reply(ctl, hanging):
    reply = deleted(True, state="cancelled")
    done = interrupted_fetch(ctl, hanging, reply, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout_text) == reply[1]


def test_ctrl_c_that_cannot_be_told_the_daemon(ctl, hanging):
    done = interrupted_fetch(ctl, hanging, BREAK)
    assert done.returncode == 5
    assert "cannot cancel, the job may go on" in done.stderr_text


def test_the_second_ctrl_c_ends_at_once(ctl, hanging):
    hanging.on("DELETE", "/v1/jobs/7", hanging.hang)
    process = ctl.start("fetch", "shop", "1.4.2")
    hanging.wait_for("GET", "/v1/jobs/7")
    process.send_signal(signal.SIGINT)
    hanging.wait_for("DELETE", "/v1/jobs/7")
    process.send_signal(signal.SIGINT)
    assert ctl.finish(process).returncode == -signal.SIGINT


def test_ctrl_c_before_the_job_is_known(ctl, hanging):
    hanging.on("POST", "/v1/apps/shop/fetch", hanging.hang)
    process = ctl.start("fetch", "shop", "1.4.2")
    hanging.wait_for("POST", "/v1/apps/shop/fetch")
    process.send_signal(signal.SIGINT)
    assert ctl.finish(process).returncode == 1
    assert "deployctl status" in process.stderr_text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_cancel_nothing(ctl, hanging, number):
    process = ctl.start("fetch", "shop", "1.4.2")
    hanging.wait_for("GET", "/v1/jobs/7")
    process.send_signal(number)
    assert ctl.finish(process).returncode == -number
    assert hanging.sent("DELETE") == []


# ------------------------------------------------------------------ a daemon that goes away


def test_a_broken_connection_is_taken_up_again(ctl, api):
    api.on("POST", "/v1/apps/shop/fetch", started())
    last = job_reply(state="done", result=PACKAGE_RESULT)
    api.on("GET", "/v1/jobs/7", BREAK, BREAK, last)
    assert "1.4.2 is here" in ctl.run("fetch", "shop", "1.4.2").stdout_text


CHANGES = [
    (["flip", "shop", "1"], "POST", "/v1/apps/shop/flip", FLIP),
    (["rollback", "shop"], "POST", "/v1/apps/shop/rollback", FLIP),
    (["pin", "shop", "1"], "PUT", "/v1/apps/shop/versions/1/pin", PIN),
    (["unpin", "shop", "1"], "DELETE", "/v1/apps/shop/versions/1/pin", PIN),
    (["remove", "shop", "1"], "DELETE", "/v1/apps/shop/versions/1", REMOVE),
    (["gc"], "POST", "/v1/gc", GC),
    (["fetch", "shop", "1"], "POST", "/v1/apps/shop/fetch",
     {"job": dict(JOB, state="done", result=PACKAGE_RESULT), "waiter": 1}),
]  # fmt: skip


@pytest.mark.parametrize("arguments, method, path, reply", CHANGES)
def test_a_change_is_sent_again_under_its_key(ctl, api, arguments, method, path, reply):
    ctl.environment["DEPLOYCTL_PATIENCE"] = "30"
    api.on(method, path, BREAK, BREAK, (200, reply))
    keys = set()
    for _ in range(2):
        assert ctl.run(*arguments).stderr_text.count("deployctl:") == 0
        sent = [request.key for request in api.sent(method, path)]
        assert len(set(sent)) == 1 and re.fullmatch(r"[0-9a-f-]{36}", sent[0])
        keys.add(sent[0])
        api.requests.clear()
    assert len(keys) == 2, "each command has a key of its own"


def test_what_changes_nothing_has_no_key(ctl, api):
    api.on("GET", "/v1/status", BREAK, (200, STATUS))
    ctl.run("status")
    assert [request.key for request in api.requests] == [None, None]


def test_a_daemon_that_comes_back_on_a_new_socket_is_found(ctl, api):
    ctl.environment["DEPLOYCTL_PATIENCE"] = "30"
    gone = threading.Event()

    def leave(request):
        api.hang_up()
        gone.set()
        return BREAK

    api.on("POST", "/v1/apps/shop/flip", leave)
    process = ctl.start("flip", "shop", "1.4.2", "--no-warm")
    assert gone.wait(TIMEOUT_S)
    successor = MockApi(ctl.socket_path)
    successor.on("POST", "/v1/apps/shop/flip", (200, FLIP))
    try:
        ctl.finish(process)
    finally:
        successor.stop()
    assert process.returncode == 0, process.stderr_text
    assert [r.key for r in successor.requests] == [r.key for r in api.requests]


def test_who_waits_long_is_told_so_once(ctl, api):
    ctl.environment["DEPLOYCTL_PATIENCE"] = "4"
    api.on("POST", "/v1/apps/shop/flip", BREAK)
    done = ctl.run("flip", "shop", "1", code=5)
    assert done.stderr_text.count("does not answer yet") == 1
    assert done.stderr_text.count("deployctl:") == 2


def test_ctrl_c_ends_the_waiting(ctl, api):
    ctl.environment["DEPLOYCTL_PATIENCE"] = "3600"
    api.on("POST", "/v1/apps/shop/fetch", BREAK)
    process = ctl.start("fetch", "shop", "1.4.2")
    api.wait_for("POST", "/v1/apps/shop/fetch")
    process.send_signal(signal.SIGINT)
    assert ctl.finish(process).returncode == 1
    assert "interrupted" in process.stderr_text


def test_a_daemon_that_stays_away_is_5(ctl, api):
    def leave(request):
        api.hang_up()
        return BREAK

    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", leave)
    done = ctl.run("fetch", "shop", "1.4.2", code=5)
    assert "the same command resumes it" in done.stderr_text


@pytest.mark.parametrize(
    "reply", [failure("not-found", 404), job_reply(app="blog"), job_reply(kind="verify")]
)
def test_a_restarted_daemon_that_lost_the_job_is_noticed(ctl, api, reply):
    api.on("POST", "/v1/apps/shop/fetch", started())
    api.on("GET", "/v1/jobs/7", reply)
    assert "was restarted" in ctl.run("fetch", "shop", "1.4.2", code=1).stderr_text


# ------------------------------------------------------------------ replies from elsewhere


def mutations(value):
    """Each copy of a JSON value with one member missing, null, or a list."""
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            for other in (None, [None]):
                yield dict(value, **{key: other})
            for inner in mutations(value[key]):
                yield dict(value, **{key: inner})
    elif isinstance(value, list) and value:
        for inner in mutations(value[0]):
            yield [inner, *value[1:]]


DONE = dict(JOB, state="done", result=PACKAGE_RESULT)
VERIFIED = dict(
    JOB, kind="verify", state="failed", error={"code": "verification", "message": "bad"},
    result=dict(VERIFY_RESULT, bad=[{"version": "1", "path": "x", "problem": "y"}]),
)  # fmt: skip
STRANGE = [
    (["list"], "GET", "/v1/apps", {"apps": [dict(APP, versions=[VERSION])]}),
    (["list", "shop", "--available"], "GET", "/v1/apps/shop/available", AVAILABLE),
    (["flip", "shop", "1"], "POST", "/v1/apps/shop/flip", FLIP),
    (["history", "shop"], "GET", "/v1/apps/shop/history", HISTORY),
    (["status"], "GET", "/v1/status", STATUS),
    (["pin", "shop", "1"], "PUT", "/v1/apps/shop/versions/1/pin", PIN),
    (["remove", "shop", "1"], "DELETE", "/v1/apps/shop/versions/1", REMOVE),
    (["gc"], "POST", "/v1/gc", GC),
    (["fetch", "shop", "1"], "POST", "/v1/apps/shop/fetch", {"job": DONE, "waiter": 1}),
    (["verify", "shop"], "POST", "/v1/apps/shop/verify", {"job": VERIFIED, "waiter": 1}),
]


@pytest.mark.parametrize("arguments, method, path, reply", STRANGE)
def test_a_strange_reply_is_a_message_and_never_a_crash(ctl, api, arguments, method, path, reply):
    for strange in mutations(reply):
        api.on(method, path, (200, strange))
        api.on("GET", "/v1/jobs/7", failure("not-found", 404))
        done = ctl.finish(ctl.start(*arguments))
        assert done.returncode in (0, 1, 3, 6, 77), (strange, done.stderr_text)
        if done.returncode == 1:
            assert done.stderr_text.count("deployctl: ") == 1, strange
