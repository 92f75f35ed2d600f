# SPDX-License-Identifier: Apache-2.0
"""Flips while others read: none fails, none is stale, none is mixed, and all agree on the order."""
import json
import os
import subprocess
import threading

import deploy
from deploy import figure

READERS = 4
FLIPS = int(os.environ.get("DEPLOYFS_FLIPS", 3000))
CLIENTS = 8
FLIPS_A_CLIENT = 25


def stamped(version):
    """Two files of lines with the version's name, so that a mixture would show."""
    line = version.encode() + b"\n"
    return {"stamp": line * 4000, "twin": line * 3, "VERSION": line}


def publish(place, app, versions):
    for version in versions:
        place.origin.publish(app, version, stamped(version))


def test_readers_never_see_a_failed_stale_or_mixed_version(place):
    publish(place, "shop", ("1.0", "1.1"))
    daemon = place.daemon().start()
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1.0")
    done = subprocess.run([deploy.BUILD / "tests/tools/flip-readers", daemon.socket, daemon.apps, "shop",
                           "1.0", "1.1", str(READERS), str(FLIPS)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    figure("flips", **counts)
    assert counts["flips"] == FLIPS
    assert counts["reads"] > FLIPS
    assert (counts["failed"], counts["stale"], counts["mixed"]) == (0, 0, 0)
    assert len(daemon.history("shop")) == FLIPS + 1


def flip_in_turn(daemon, app, versions, answers, failures):
    """One client: flips on one connection, and keeps what it was told."""
    connection = daemon.connect()
    try:
        for number in range(FLIPS_A_CLIENT):
            version = versions[number % len(versions)]
            reply = daemon.api("POST", f"/v1/apps/{app}/flip", {"version": version}, connection)
            assert reply.status == 200, reply
            answers.append(reply.body)
    except Exception as failure:  # the main thread raises it
        failures.append(failure)
    finally:
        connection.close()


def test_eight_clients_agree_on_one_order(place):
    versions = ("1.0", "1.1", "1.2")
    for app in ("shop", "till"):
        publish(place, app, versions)
    daemon = place.daemon().start()
    for app in ("shop", "till"):
        for version in versions:
            daemon.run("fetch", app, version)
    answers = {"shop": [], "till": []}
    failures = []
    threads = []
    for number in range(CLIENTS):
        app = ("shop", "till")[number % 2]
        turned = versions[number % 3:] + versions[:number % 3]
        threads.append(threading.Thread(target=flip_in_turn, args=(daemon, app, turned, answers[app], failures)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for app in answers:
        history = daemon.history(app)[::-1]
        changes = {a["generation"]: (a["from"], a["to"]) for a in answers[app] if a["changed"]}
        assert len(changes) == sum(a["changed"] for a in answers[app])
        assert changes == {g["generation"]: (g["from"], g["to"]) for g in history}
        for before, after in zip(history, history[1:]):
            assert after["from"] == before["to"]
            assert after["from"] != after["to"]
        assert daemon.read(app) == history[-1]["to"]
        assert os.readlink(daemon.path(app)) == history[-1]["to"]
