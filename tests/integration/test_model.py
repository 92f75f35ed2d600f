# SPDX-License-Identifier: Apache-2.0
"""Eight clients do what comes to their mind, while the daemon is killed; all is as a model of 50 lines says.

Each client has an application of its own, so that it knows what every answer must be, and looks at the mount
after each. All of them also flip one that they share: there the generations give the order, and each answer
must be what that order makes of it. A request whose connection breaks is made again under its key, and must
get the answer that it would have had.

DEPLOYFS_SEED chooses the sequence.
"""
import copy
import http.client
import os
import random
import threading
import time

import pytest

from deploy import figure, wait_until

SEED = int(os.environ.get("DEPLOYFS_SEED", random.SystemRandom().randrange(1 << 32)))
CLIENTS = 8
VERSIONS = ("1.0", "1.1", "1.2", "1.3")
SHARED = "shared"


class Model:
    """One application. Each method says which HTTP status the daemon must give, and whether it changes something."""

    def __init__(self):
        self.present, self.pinned, self.bad, self.generations = set(), set(), set(), []

    @property
    def current(self):
        return self.generations[-1] if self.generations else None

    @property
    def previous(self):
        """What a rollback would choose."""
        for version in reversed(self.generations):
            if version in self.present - self.bad and version != self.current:
                return version
        return None

    def fetch(self, version):
        changed = version not in self.present
        self.present.add(version)
        return 202, changed

    def flip(self, version):
        if version not in self.present:
            return 404, False
        if version == self.current and version not in self.bad:
            return 200, False
        self.bad.discard(version)
        self.generations.append(version)
        return 200, True

    def rollback(self):
        if not self.previous:
            return 404, False
        to = self.previous
        self.bad.add(self.current)
        self.generations.append(to)
        return 200, True

    def pin(self, version):
        return self.set_pinned(version, self.pinned | {version})

    def unpin(self, version):
        return self.set_pinned(version, self.pinned - {version})

    def set_pinned(self, version, pinned):
        if version not in self.present:
            return 404, False
        self.pinned, changed = pinned, pinned != self.pinned
        return 200, changed

    def remove(self, version):
        if version not in self.present:
            return 404, False
        if version in self.pinned or version in (self.current, self.previous):
            return 409, False
        self.present.discard(version)
        return 200, True

    def picture(self):
        return self.present, self.pinned, self.bad & self.present, self.generations, self.previous


BROKEN = (OSError, http.client.HTTPException)


class Client(threading.Thread):
    def __init__(self, daemon, name, chance, stop):
        super().__init__()
        self.daemon, self.app, self.chance, self.stop = daemon, name, chance, stop
        self.model = Model()
        self.shared_flips = []  # (start, end, reply)
        self.operations = self.requests = self.broken = 0
        self.failure = None

    def run(self):
        try:
            while not self.stop.is_set():
                self.shared_flip() if self.chance.random() < 0.2 else self.step()
                self.operations += 1
        except BaseException as failure:  # the main thread raises it
            self.failure = failure
            self.stop.set()

    def insist(self, *request):
        """A request, and again under the same key, until it is answered."""
        self.requests += 1
        key = f"{self.app}-{self.requests}"

        def answer():
            try:
                return self.daemon.api(*request, key=None if request[0] == "GET" else key)
            except BROKEN:
                self.broken += 1
        return wait_until(answer, f"{request} is answered")

    # -- its own application

    def request(self, verb, version):
        """Returns the HTTP status, and whether something was changed."""
        base = f"/v1/apps/{self.app}"
        reply = self.insist(*{
            "fetch": ("POST", f"{base}/fetch", {"version": version}),
            "flip": ("POST", f"{base}/flip", {"version": version}),
            "rollback": ("POST", f"{base}/rollback", {}),
            "pin": ("PUT", f"{base}/versions/{version}/pin"),
            "unpin": ("DELETE", f"{base}/versions/{version}/pin"),
            "remove": ("DELETE", f"{base}/versions/{version}"),
        }[verb])
        if verb == "fetch" and reply.status == 202:
            return 202, self.job_changed(reply.body["job"])
        return reply.status, reply.body.get("changed", False)

    def job_changed(self, job):
        while job["state"] in ("queued", "running"):
            path = f"/v1/jobs/{job['id']}?after={job['sequence']}&wait_s=10"
            job = self.insist("GET", path).body["job"]
        if job["state"] == "failed" and "died 3 times" in job["error"]["message"]:
            return self.request("fetch", job["version"])[1]
        assert (job["kind"], job["app"], job["state"]) == ("fetch", self.app, "done"), job
        return job["result"]["changed"]

    def step(self):
        verb = self.chance.choice(("fetch", "fetch", "flip", "flip", "flip", "rollback", "pin", "unpin", "remove",
                                   "remove"))
        version = self.chance.choice(VERSIONS)
        before, broken = copy.deepcopy(self.model), self.broken
        expected = getattr(self.model, verb)(*([] if verb == "rollback" else [version]))
        answer = self.request(verb, version)
        if verb == "fetch" and self.broken > broken:
            # A job that is taken up again may find that its predecessor had finished.
            answer = (answer[0], expected[1])
        assert answer == expected, f"{verb} {self.app} {version}: {answer}, not {expected}; before: {vars(before)}"
        assert self.seen() == self.model.picture(), f"after {verb} {self.app} {version}; before: {vars(before)}"
        self.check_mount()

    def seen(self):
        """What the API says, as the model has it."""
        reply = self.insist("GET", f"/v1/apps/{self.app}")
        if reply.status == 404:
            return Model().picture()
        app = reply.body["app"]
        here = [version for version in app["versions"] if version["state"] == "present"]
        history = self.insist("GET", f"/v1/apps/{self.app}/history").body["generations"]
        return (*({version["version"] for version in here if version[flag]} for flag in ("version", "pinned", "bad")),
                [generation["to"] for generation in reversed(history)], app["channels"].get("previous"))

    def check_mount(self):
        folder = self.daemon.apps / self.app
        channels = {name: target for name, target in (("current", self.model.current),
                                                      ("previous", self.model.previous)) if target}
        if self.model.present:
            assert set(os.listdir(folder)) == self.model.present | set(channels)
        for name, target in channels.items():
            assert os.readlink(folder / name) == target
            assert self.daemon.read(self.app, name) == target

    # -- the one of all

    def shared_flip(self):
        start = time.monotonic()
        reply = self.insist("POST", f"/v1/apps/{SHARED}/flip", {"version": self.chance.choice(VERSIONS)})
        assert reply.status == 200, reply
        self.shared_flips.append((start, time.monotonic(), reply.body))


def check_shared(daemon, clients):
    """One order, which each client's answers and the time at which they came agree with."""
    generations = {g["generation"]: g for g in daemon.history(SHARED)}
    flips = sorted((flip for client in clients for flip in client.shared_flips if flip[2]["changed"]),
                   key=lambda flip: flip[2]["generation"])
    numbers = [flip[2]["generation"] for flip in flips]
    assert numbers == sorted(generations) == list(range(1, len(numbers) + 1))
    for _, _, reply in flips:
        row = generations[reply["generation"]]
        assert (reply["from"], reply["to"]) == (row["from"], row["to"])
    for number in range(2, len(generations) + 1):
        assert generations[number]["from"] == generations[number - 1]["to"]
    latest_start = 0
    for start, end, reply in flips:
        assert latest_start <= end, f"generation {reply['generation']} was answered before an earlier one was asked for"
        latest_start = max(latest_start, start)
    return len(flips)


@pytest.mark.parametrize("seconds", [15, pytest.param(240, marks=pytest.mark.full)])
def test_eight_clients_and_kills_are_as_the_model_says(place, seconds):
    names = [f"app{number}" for number in range(CLIENTS)]
    for name in (*names, SHARED):
        for version in VERSIONS:
            place.origin.publish(name, version, {"VERSION": version.encode(), "same": b"the same\n" * 500})
    daemon = place.daemon().start()
    for version in VERSIONS:
        daemon.run("fetch", SHARED, version)
    stop = threading.Event()
    clients = [Client(daemon, name, random.Random(f"{SEED} {name}"), stop) for name in names]
    chance = random.Random(f"{SEED} kills")
    kills, end = 0, time.monotonic() + seconds
    for client in clients:
        client.start()
    while time.monotonic() < end and not stop.wait(chance.uniform(0.3, 2)):
        daemon.kill_worker()
        daemon.recover()
        kills += 1
    stop.set()
    for client in clients:
        client.join()
    for client in clients:
        if client.failure:
            raise AssertionError(f"DEPLOYFS_SEED={SEED}") from client.failure
    shared = check_shared(daemon, clients)
    operations = sum(client.operations for client in clients)
    figure("model", seed=SEED, operations=operations, shared_flips=shared, kills=kills,
           broken=sum(client.broken for client in clients))
    assert operations > CLIENTS and kills > 0
    daemon.run("verify")
