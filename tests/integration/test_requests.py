# SPDX-License-Identifier: Apache-2.0
"""A request is carried out once, and a job to its end, whatever becomes of the daemon meanwhile."""
import contextlib
import json
import os
import signal
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

import deploy
from deploy import FAILED, Result
from servers import Vsftpd
from test_main_job import partial_bytes

BIG = deploy.noise(6 << 20)
RATE = 2_000_000  # bytes a second: three seconds for BIG


@pytest.fixture
def slow(place):
    """A daemon whose origin takes its time, with big 1.0."""
    place.origin.publish("big", "1.0", {"noise": BIG}, ending=".tar")
    with Vsftpd(place.origin.folder, place.folder / "ftp", rate=RATE) as server:
        daemon = place.daemon(server.url)
        daemon.server = server
        yield daemon.start()


def new_key():
    return str(uuid.uuid4())


def finish(process):
    """A deployctl that was started in the background."""
    try:
        out, err = process.communicate(timeout=deploy.PATIENCE_S)
    finally:
        process.kill()
    return Result(process.args, process.returncode, out, err)


def job(daemon, number):
    return daemon.api("GET", f"/v1/jobs/{number}").body["job"]


def ended_job(daemon, number):
    def ended():
        found = job(daemon, number)
        return found if found["state"] in ("done", "failed", "cancelled") else None

    return deploy.wait_until(ended, f"job {number} has ended")


def records(daemon):
    folder = daemon.runtime / "jobs"
    return {path.name: json.loads(path.read_text()) for path in folder.glob("[0-9]*.json")}


def fetch(daemon, key=None, **body):
    reply = daemon.api("POST", "/v1/apps/big/fetch", body or {"version": "1.0"}, key=key)
    assert reply.status == 202, reply.body
    return reply.body


def wait_for_part(daemon, size=1 << 20):
    deploy.wait_until(lambda: partial_bytes(daemon) > size, "a part is there")


def kill_and_start(daemon):
    daemon.kill()
    daemon.start()


def kill_worker(daemon):
    daemon.kill_worker()
    daemon.recover()


@contextlib.contextmanager
def killed_at(daemon, calls, when=1):
    """SIGKILL for the worker when one of its threads is about to make its @when-th of @calls."""
    pid = daemon.worker()
    names = ",".join(calls)
    with open(daemon.folder / "strace.log", "wb") as log:
        tracer = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-e", f"trace={names}", "-e", f"inject={names}:signal=KILL:when={when}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        def traced():
            with contextlib.suppress(OSError):  # a thread may end meanwhile
                tasks = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
                return all("TracerPid:\t0\n" not in task for task in tasks)

        deploy.wait_until(traced, "strace has all threads")
        yield
        deploy.wait_until(lambda: daemon.processes()[1] not in (0, pid), "another worker has come")
    finally:
        tracer.terminate()
        # It may wait for ever for a thread that has ended before it could be detached.
        if not deploy.ended(tracer, 10):
            tracer.kill()
            tracer.wait()


# -- keys ----------------------------------------------------------------------------------


REPEATED = [
    ("POST", "/v1/apps/shop/flip", {"version": "1.0"}),
    ("POST", "/v1/apps/shop/flip", {"version": "1.1", "channel": "canary", "reason": "why"}),
    ("POST", "/v1/apps/shop/rollback", {}),
    ("PUT", "/v1/apps/shop/versions/1.0/pin", None),
]


@pytest.mark.parametrize("method, path, body", REPEATED)
def test_a_key_makes_a_change_once(shop, method, path, body):
    key = new_key()
    first = shop.api(method, path, body, key=key)
    after = shop.api("GET", "/v1/apps").body, shop.history("shop")
    assert first.status == 200 and first.body["changed"]
    assert shop.api(method, path, body, key=key).body == first.body
    shop.kill()
    shop.start()
    assert shop.api(method, path, body, key=key).body == first.body
    assert (shop.api("GET", "/v1/apps").body, shop.history("shop")) == after


def test_a_removal_is_told_again(shop):
    key = new_key()
    replies = [shop.api("DELETE", "/v1/apps/shop/versions/1.0", key=key) for _ in range(2)]
    assert [(reply.status, reply.body["changed"], reply.body["state"]) for reply in replies] == [
        (200, True, "removed")] * 2
    assert shop.api("DELETE", "/v1/apps/shop/versions/1.0").status == 404


def at_once(count, ask):
    """What @count threads got that asked at the same time."""
    barrier, replies = threading.Barrier(count), []

    def run():
        barrier.wait()
        replies.append(ask())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == count
    return replies


def test_eight_clients_with_one_key_make_one_generation(shop):
    before = len(shop.history("shop"))
    for version in ("1.0", "1.1", "1.2") * 5:
        key, stale = new_key(), []

        def flip():
            reply = shop.api("POST", "/v1/apps/shop/flip", {"version": version}, key=key)
            if os.readlink(shop.path("shop")) != version:
                stale.append(reply)
            return reply.body

        replies = at_once(8, flip)
        assert all(reply == replies[0] for reply in replies)
        assert stale == [], "after the reply everybody sees the new target"
    assert len(shop.history("shop")) == before + 15


def test_eight_clients_with_one_key_start_one_job(slow):
    key = new_key()
    replies = at_once(8, lambda: fetch(slow, key))
    assert {(reply["job"]["id"], reply["waiter"]) for reply in replies} == {(1, 1)}
    assert slow.api("DELETE", "/v1/jobs/1?waiter=1").body["job"]["state"] == "cancelled"


def test_a_key_of_another_request_is_refused(shop):
    key = new_key()
    shop.api("POST", "/v1/apps/shop/flip", {"version": "1.0"}, key=key)
    before = shop.history("shop")
    others = [
        ("POST", "/v1/apps/shop/flip", {"version": "1.1"}),
        ("POST", "/v1/apps/shop/flip", {"version": "1.0", "channel": "canary"}),
        ("POST", "/v1/apps/shop/rollback", {}),
        ("PUT", "/v1/apps/shop/versions/1.1/pin", None),
        ("DELETE", "/v1/apps/shop/versions/1.2", None),
    ]
    for method, path, body in others:
        reply = shop.api(method, path, body, key=key)
        assert reply.status == 400 and "another request" in reply.body["error"]["message"]
    key = new_key()
    assert shop.api("POST", "/v1/apps/shop/verify", {"version": "1.0"}, key=key).status == 202
    for path, body in (("verify", {"version": "1.1"}), ("verify", {}), ("fetch", {"version": "1.0"})):
        reply = shop.api("POST", f"/v1/apps/shop/{path}", body, key=key)
        assert reply.status == 400 and "another request" in reply.body["error"]["message"]
    assert shop.history("shop") == before and shop.version("shop", "1.2")


@pytest.mark.parametrize("key", ["", "a b", "k" * 65, "a;b", "a/b"])
def test_a_malformed_key_is_refused(shop, key):
    before = shop.history("shop")
    reply = shop.api("POST", "/v1/apps/shop/flip", {"version": "1.0"}, key=key)
    assert reply.status == 400 and "Idempotency-Key" in reply.body["error"]["message"]
    assert shop.history("shop") == before


@pytest.mark.parametrize("verb", ["flip", "rollback"])
def test_a_change_whose_answer_is_lost_is_made_once(shop, verb):
    before = shop.history("shop")
    with killed_at(shop, ["sendto", "sendmsg"]):
        process = shop.background(verb, "shop", *(["1.0"] if verb == "flip" else []))
    done = finish(process)
    assert done.code == 0, done.text
    made = shop.history("shop")[:-len(before)]
    assert [generation["verb"] for generation in made] == [verb]
    assert f"(generation {made[0]['generation']})" in done.out
    assert shop.read("shop") == made[0]["to"]


def test_a_change_that_comes_to_a_worker_that_hangs_is_made_by_the_next(shop):
    before = len(shop.history("shop"))
    shop.kill_worker(signal.SIGSTOP)
    shop.run("rollback", "shop")
    assert len(shop.history("shop")) == before + 1


# -- jobs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [kill_worker, kill_and_start])
def test_a_fetch_goes_on_after_the_daemon_was_killed(slow, kill):
    process = slow.background("fetch", "big", "1.0", "--json")
    wait_for_part(slow)
    kill(slow)
    assert [j["id"] for j in slow.status()["jobs"]] == [1]
    done = finish(process)
    assert done.code == 0, done.text
    reply = done.json()["job"]
    assert (reply["id"], reply["state"]) == (1, "done")
    assert reply["result"]["changed"] and reply["result"]["resumed_bytes"] > 1 << 20
    assert (slow.path("big", "1.0") / "noise").read_bytes() == BIG
    assert slow.leftovers() == []
    assert ended_job(slow, 1)["result"] == reply["result"]


def test_a_fetch_of_the_latest_goes_on_with_the_version_it_had_chosen(place, slow):
    body = fetch(slow, latest=True)
    wait_for_part(slow)
    slow.kill()
    place.origin.publish("big", "2.0", {"noise": b"newer"}, ending=".tar")
    slow.start()
    assert ended_job(slow, body["job"]["id"])["result"]["version"] == "1.0"


def test_a_client_that_repeats_its_request_joins_its_job(slow):
    key = new_key()
    first = fetch(slow, key)
    slow.kill()
    slow.start()
    again = fetch(slow, key)
    assert (again["job"]["id"], again["waiter"]) == (first["job"]["id"], first["waiter"])
    before = ended_job(slow, 1)
    assert before["state"] == "done"
    slow.kill()
    slow.start()
    assert job(slow, 1) == before, "it is remembered as it was"
    assert fetch(slow, key) == {**again, "job": before}
    assert fetch(slow)["job"]["id"] == 2, "without the key it is another request"


def test_who_waits_is_known_after_a_restart(slow):
    assert [fetch(slow)["waiter"] for _ in range(3)] == [1, 2, 3]
    slow.api("DELETE", "/v1/jobs/1?waiter=2")
    slow.kill()
    slow.start()
    reply = slow.api("DELETE", "/v1/jobs/1?waiter=1").body
    assert not reply["changed"] and reply["job"]["state"] in ("queued", "running")
    reply = slow.api("DELETE", "/v1/jobs/1?waiter=3").body
    assert reply["changed"] and reply["job"]["state"] == "cancelled"
    slow.kill()
    slow.start()
    assert job(slow, 1)["state"] == "cancelled"


def test_a_verify_starts_anew(slow):
    slow.run("fetch", "big", "1.0")
    with killed_at(slow, ["renameat"], when=2):
        process = slow.background("verify", "big", "--json")
    done = finish(process)
    assert done.code == 0, done.text
    reply = done.json()["job"]
    assert (reply["id"], reply["result"]["files"], reply["result"]["bad"]) == (2, 1, [])


@pytest.mark.parametrize("verb", ["fetch", "import"])
def test_what_was_committed_before_the_death_is_reported_as_brought(place, daemon, verb):
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    arguments = ["fetch", "shop", "1.0"] if verb == "fetch" else [
        "import", package, "--app", "shop", "--version", "1.0"]
    # Of the job's thread: the record of its start is the first, that of its end the second.
    with killed_at(daemon, ["renameat"], when=2):
        process = daemon.background(*arguments, "--json")
    done = finish(process)
    assert done.code == 0, done.text
    result = done.json()["job"]["result"]
    version = daemon.version("shop", "1.0")
    assert result["changed"] and result["version"] == "1.0"
    for name in ("sha256", "files", "unpacked_bytes", "stored_bytes"):
        assert result[name] == version[name]
    assert daemon.json("fetch", "shop", "1.0", code=deploy.UNCHANGED)["job"]["result"]["changed"] is False


def test_a_request_that_left_no_record_is_carried_out_by_the_repetition(place, daemon):
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    with killed_at(daemon, ["renameat"]):
        process = daemon.background("import", package, "--app", "shop", "--version", "1.0")
    done = finish(process)
    assert done.code == 0, done.text
    assert [j["id"] for j in daemon.api("GET", "/v1/jobs").body["jobs"]] == [1]


def test_an_import_goes_on_with_the_file_it_had_opened(place, daemon):
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    with killed_at(daemon, ["syncfs"]):
        process = daemon.background("import", package, "--app", "shop", "--version", "1.0", "--json")
        deploy.wait_until(lambda: records(daemon), "the job has its record")
        package.unlink()
    done = finish(process)
    assert done.code == 0, done.text
    assert done.json()["job"]["id"] == 1 and records(daemon)["1.json"]["starts"] == 2
    assert daemon.read("shop", "1.0") == "1.0"
    daemon.run("verify", "shop")


def test_jobs_go_on_over_an_upgrade(slow):
    process = slow.background("fetch", "big", "1.0", "--json")
    wait_for_part(slow)
    before = slow.worker()
    assert slow.api("POST", "/v1/daemon/upgrade").status == 202
    deploy.wait_until(lambda: slow.worker() != before, "another worker has come")
    done = finish(process)
    assert done.code == 0, done.text
    assert done.json()["job"]["id"] == 1
    assert records(slow)["1.json"]["starts"] == 1, "an upgrade is not the fault of the job"


def test_an_interrupted_import_says_what_to_do(daemon):
    restart_with(daemon, record(kind="import", app="shop"))
    failed = ended_job(daemon, 7)
    assert failed["state"] == "failed" and "import it again" in failed["error"]["message"]


def record(**members):
    """What a daemon leaves of a job that it was running."""
    return {"schema": 1, "id": 7, "kind": "fetch", "app": "big", "version": "1.0", "latest": False, "sha256": None,
            "who": "root", "state": "running", "starts": 1, "sequence": 3, "started_ns": 1_700_000_000_000_000_000,
            "ended_ns": 0, "waiters": [], **members}


def restart_with(daemon, *written):
    """Kill the daemon, leave records (or bytes under a name) for the next one, start it."""
    folder = daemon.runtime / "jobs"
    daemon.kill()
    for what in written:
        name, data = what if isinstance(what, tuple) else (f"{what['id']}.json", json.dumps(what).encode())
        (folder / name).write_bytes(data)
    daemon.start()


def test_a_job_that_kills_its_daemon_is_given_up(slow):
    fetch(slow)
    for starts in (1, 2, 3):
        deploy.wait_until(lambda: records(slow)["1.json"]["starts"] == starts, "it is running")
        slow.kill()
        slow.start()
    failed = ended_job(slow, 1)
    assert failed["state"] == "failed" and "died 3 times" in failed["error"]["message"]
    assert not slow.path("big", "1.0").exists()
    slow.run("fetch", "big", "1.0")


def test_what_is_no_record_is_removed_with_a_warning(slow):
    whole = record(state="done", ended_ns=1)
    bad = {
        "3.json": b"", "4.json": b"{}", "5.json": b"[]", "6.json": json.dumps(record()).encode(),
        "7.json": json.dumps(record(app="../etc")).encode(),
        "8.json": json.dumps(record(id=8, kind="list")).encode(),
        "9.json": json.dumps(record(id=9, state="odd")).encode(),
        "10.json": json.dumps(dict(whole, id=10)).encode(),
        "11.json": json.dumps(record(id=11, waiters=[{"key": "a b", "waits": True}])).encode(),
        "12.json": json.dumps(record(id=12, starts=-1)).encode(),
        "013.json": b"{}", "x": b"", ".14.json.tmp": b"{", "99999999999999999999.json": b"{}",
    }
    restart_with(slow, *bad.items())
    assert slow.api("GET", "/v1/jobs").body["jobs"] == []
    assert list((slow.runtime / "jobs").iterdir()) == []
    for name in bad:
        assert f"'{name}' among the records" in slow.log_text()
    assert fetch(slow)["job"]["id"] == 13, "no number is given twice"


def test_records_are_bounded(slow):
    def end(number):
        return record(id=number, state="cancelled", ended_ns=1, stage="download", source=None, bytes=0, bytes_total=0,
                      warnings=[], result=None, error={"code": -125, "text": "cancelled"})

    restart_with(slow, *[end(number) for number in range(1, 251)])
    jobs = slow.api("GET", "/v1/jobs").body["jobs"]
    assert [j["id"] for j in jobs] == list(range(250, 50, -1))
    fetch(slow)
    assert len(records(slow)) <= 101, "with the next job the oldest are forgotten"


def test_a_clean_stop_leaves_no_records(slow):
    process = slow.background("fetch", "big", "1.0", env=dict(os.environ, DEPLOYCTL_PATIENCE="1"))
    wait_for_part(slow)
    assert (slow.runtime / "jobs").stat().st_mode & 0o777 == 0o700
    assert (slow.runtime / "jobs" / "1.json").stat().st_mode & 0o777 == 0o600
    slow.stop()
    assert finish(process).code in (FAILED, deploy.UNREACHABLE)
    assert list((slow.runtime / "jobs").iterdir()) == []
    slow.start()
    assert slow.api("GET", "/v1/jobs").body["jobs"] == []
