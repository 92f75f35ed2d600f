# SPDX-License-Identifier: Apache-2.0
"""GET /v1/metrics: Prometheus' text format, and that the figures are those of what was done."""
import contextlib
import os
import re
import subprocess
import threading

import pytest
from deploy import noise, small_app, wait_until
from prometheus_client.parser import text_string_to_metric_families

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
UNESCAPED = {"\\n": "\n", "\\\\": "\\", '\\"': '"'}
DURATION = "deployfs_fuse_request_duration_seconds"


def labels_of(text):
    """The labels between braces, which must be nothing else."""
    labels, at = {}, 0
    while at < len(text):
        found = LABEL.match(text, at)
        assert found, f"no label: {text[at:]}"
        assert found[1] not in labels
        labels[found[1]] = re.sub(r"\\.", lambda pair: UNESCAPED[pair[0]], found[2])
        at = found.end()
    return labels


class Exposition:
    """A text in the exposition format; what breaks its rules fails here."""

    def __init__(self, text):
        self.types = {}
        self.samples = {}
        self.family = None
        assert text.endswith("\n")
        helps = {}
        for line in text.splitlines():
            if line.startswith("# HELP "):
                _, _, name, text = line.split(" ", 3)
                assert name not in helps and text
                helps[name] = text
            elif line.startswith("# TYPE "):
                self.begin(*line.split(" ")[2:])
            else:
                assert not line.startswith("#")
                self.add(line)
        assert helps.keys() == self.types.keys()
        for name, kind in self.types.items():
            if kind == "histogram":
                self.check_histogram(name)

    def begin(self, name, kind):
        assert kind in ("counter", "gauge", "histogram")
        assert name not in self.types, f"the lines of {name} do not follow each other"
        assert name.startswith("deployfs_")
        assert name.endswith("_total") == (kind == "counter"), name
        self.types[name] = kind
        self.family = name

    def add(self, line):
        found = LINE.fullmatch(line)
        assert found, f"no sample: {line}"
        name, value = found[1], float(found[3])
        parts = ("_bucket", "_sum", "_count") if self.types[self.family] == "histogram" else ("",)
        assert name in [self.family + part for part in parts], line
        key = (name, frozenset(labels_of(found[2] or "").items()))
        assert key not in self.samples, f"twice: {line}"
        assert value >= 0
        self.samples[key] = value

    def check_histogram(self, name):
        """Buckets grow up to +Inf, which is the count."""
        series = {}
        for (sample, labels), value in self.samples.items():
            if sample == name + "_bucket":
                rest = dict(labels)
                series.setdefault(frozenset((k, v) for k, v in labels if k != "le"), []).append(
                    (float(rest["le"]), value))
        assert series
        for labels, buckets in series.items():
            buckets.sort()
            values = [value for _, value in buckets]
            assert values == sorted(values), f"{name} {labels} is not cumulative"
            assert buckets[-1][0] == float("inf")
            assert values[-1] == self.samples[name + "_count", labels]
            assert (self.samples[name + "_sum", labels] > 0) == (values[-1] > 0)

    def get(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def has(self, name):
        return name in self.types


def read_by_prometheus(text):
    """The samples as Prometheus' own parser finds them; it is less strict."""
    return {(sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def scrape(daemon):
    with contextlib.closing(daemon.connect()) as connection:
        connection.request("GET", "/v1/metrics")
        response = connection.getresponse()
        text = response.read().decode()
    assert response.status == 200
    assert response.headers["Content-Type"] == CONTENT_TYPE
    metrics = Exposition(text)
    assert read_by_prometheus(text) == metrics.samples
    return metrics


def answered(metrics, operation):
    return metrics.get(DURATION + "_count", operation=operation)


def read_bytes(metrics):
    return {source: metrics.get("deployfs_read_bytes_total", source=source)
            for source in ("pack_first", "pack_again", "memory")}


def quiet(daemon):
    """The metrics once all that was received has been counted as answered."""
    def settled():
        metrics = scrape(daemon)
        requests = daemon.status()["fuse"]["requests"]
        return all(answered(metrics, name) == count for name, count in requests.items()) and metrics
    return wait_until(settled, "all requests are answered")


def forget_pages(*paths):
    """Have the kernel drop what it has of these files in memory."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def daemon(place):
    place.origin.publish("shop", "1.0", {**small_app("1.0"), "big": noise(1_000_000)})
    place.origin.publish("shop", "1.1", small_app("1.1"))
    daemon = place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    daemon.run("flip", "shop", "1.0")
    return daemon


def test_a_walk_and_its_reads_are_counted_by_operation_and_by_source(daemon):
    before = quiet(daemon)
    subprocess.run(["find", daemon.path("shop", "1.0"), "-ls"], check=True, stdout=subprocess.DEVNULL)
    walked = quiet(daemon)
    assert answered(walked, "readdirplus") > answered(before, "readdirplus")
    assert answered(walked, "lookup") > answered(before, "lookup")
    assert answered(walked, "read") == answered(before, "read")

    big = daemon.path("shop", "1.0") / "big"
    assert big.read_bytes() == noise(1_000_000)
    read = quiet(daemon)
    assert answered(read, "read") > answered(walked, "read")
    assert read_bytes(read)["pack_first"] - read_bytes(walked)["pack_first"] == 1_000_000
    assert read_bytes(read)["pack_again"] == read_bytes(walked)["pack_again"]

    forget_pages(big)
    assert big.read_bytes() == noise(1_000_000)
    again = quiet(daemon)
    assert read_bytes(again)["pack_first"] == read_bytes(read)["pack_first"]
    assert read_bytes(again)["pack_again"] - read_bytes(read)["pack_again"] == 1_000_000

    os.readlink(daemon.path("shop", "current"))
    text = (daemon.apps / ".deployfs" / "status.json").read_bytes()
    memory = read_bytes(quiet(daemon))["memory"] - read_bytes(again)["memory"]
    assert memory >= len(text)


def test_replies_to_read_are_the_sum_of_the_sources_where_no_link_is_read(place):
    place.origin.publish("shop", "1.0", {"a": noise(300_000), "b": b"b", "empty": b""})
    daemon = place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    before = quiet(daemon)
    for name in ("a", "b", "empty"):
        (daemon.path("shop", "1.0") / name).read_bytes()
    after = quiet(daemon)
    replies = (after.get("deployfs_fuse_read_bytes_total") -
               before.get("deployfs_fuse_read_bytes_total"))
    assert replies == 300_001
    assert sum(read_bytes(after).values()) - sum(read_bytes(before).values()) == replies


def test_jobs_fetched_bytes_flips_and_packs_are_counted(place, daemon):
    before = scrape(daemon)
    assert before.get("deployfs_jobs_ended_total", kind="fetch", result="done") == 1
    assert before.get("deployfs_flip_duration_seconds_count") == 1
    assert before.get("deployfs_packs") == 1

    daemon.run("fetch", "shop", "1.1")
    daemon.run("fetch", "shop", "9.9", code=3)
    daemon.run("flip", "shop", "1.1")
    daemon.run("flip", "shop", "1.1", code=77)
    daemon.run("rollback", "shop")
    after = scrape(daemon)
    assert after.get("deployfs_jobs_ended_total", kind="fetch", result="done") == 2
    assert after.get("deployfs_jobs_ended_total", kind="fetch", result="failed") == 1
    assert after.get("deployfs_jobs_ended_total", kind="import", result="done") == 0
    assert after.get("deployfs_flip_duration_seconds_count") == 3
    assert after.get("deployfs_packs") == 2
    package = place.origin.folder / "shop" / "shop-1.1.tar.gz"
    assert (after.get("deployfs_fetched_bytes_total", scheme="file") -
            before.get("deployfs_fetched_bytes_total", scheme="file")) == package.stat().st_size
    for kind in ("inval_entry", "inval_inode"):
        assert (after.get("deployfs_notifications_total", kind=kind) >
                before.get("deployfs_notifications_total", kind=kind))
    assert (after.get("deployfs_notification_duration_seconds_count") >
            before.get("deployfs_notification_duration_seconds_count"))


def test_gauges_say_what_is_true_now(place, daemon):
    metrics, status = scrape(daemon), daemon.status()
    assert metrics.get("deployfs_build_info", version=status["version"]) == 1
    assert metrics.get("deployfs_healthy") == 1
    assert metrics.get("deployfs_worker_generation") == status["supervisor"]["generation"]
    assert metrics.get("deployfs_apps") == 1
    assert metrics.get("deployfs_versions") == 1
    assert metrics.get("deployfs_versions_damaged") == 0
    assert metrics.get("deployfs_jobs_queued") == metrics.get("deployfs_jobs_running") == 0
    assert metrics.get("deployfs_disk_size_bytes") == status["space"]["total"]
    assert metrics.get("deployfs_disk_reserve_bytes") == status["space"]["reserve"]
    assert metrics.get("deployfs_store_packs_bytes") == status["space"]["packs"]
    assert metrics.get("deployfs_fuse_threads") == status["fuse"]["threads"]
    assert metrics.get("deployfs_fuse_threads_busy") <= metrics.get("deployfs_fuse_threads")
    assert metrics.get("deployfs_origin_up", url=status["origins"][0]["url"]) == 1
    assert metrics.has("deployfs_fuse_requests_waiting") == (status["fuse"]["waiting"] is not None)

    with contextlib.ExitStack() as stack:
        here = metrics.get("deployfs_api_connections")
        for _ in range(5):
            connection = stack.enter_context(contextlib.closing(daemon.connect()))
            daemon.api("GET", "/v1/jobs", connection=connection)
        wait_until(lambda: scrape(daemon).get("deployfs_api_connections") == here + 5, "5 more connections")
    wait_until(lambda: scrape(daemon).get("deployfs_api_connections") == here, "they are gone")


def test_requests_without_a_reply_are_told_where_fusectl_is_mounted(daemon):
    connections = "/sys/fs/fuse/connections"
    if not os.listdir(connections):
        subprocess.run(["mount", "-t", "fusectl", "none", connections], check=True)
    wait_until(lambda: scrape(daemon).get("deployfs_fuse_requests_waiting") == 0, "none waits")
    wait_until(lambda: daemon.status()["fuse"]["waiting"] == 0, "none waits")
    subprocess.run(["umount", connections], check=True)
    assert not scrape(daemon).has("deployfs_fuse_requests_waiting")
    assert daemon.status()["fuse"]["waiting"] is None


def test_status_tells_the_latency_of_each_operation(daemon):
    (daemon.path("shop", "1.0") / "big").read_bytes()
    quiet(daemon)
    fuse = daemon.status()["fuse"]
    assert fuse["latency"].keys() == fuse["requests"].keys()
    for name, latency in fuse["latency"].items():
        assert latency["count"] == fuse["requests"][name]
        if latency["count"] == 0:
            assert latency["mean_us"] is latency["p50_us"] is latency["p99_us"] is None
        else:
            assert latency["mean_us"] > 0
            assert 0 < latency["p50_us"] <= latency["p99_us"]
    assert fuse["latency"]["read"]["count"] > 0


def test_who_may_read_may_read_the_metrics(daemon):
    command = ["curl", "-sf", "--unix-socket", str(daemon.socket), "http://d/v1/metrics"]
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command],
                          check=True, capture_output=True, text=True)
    assert Exposition(done.stdout).has("deployfs_healthy")


def test_a_new_worker_counts_from_0(daemon):
    (daemon.path("shop", "1.0") / "big").read_bytes()
    before = quiet(daemon)
    daemon.kill_worker()
    daemon.recover()
    after = wait_until(lambda: scrape(daemon), "the next worker counts")
    assert after.get("deployfs_worker_restarts_total") == before.get("deployfs_worker_restarts_total") + 1
    assert after.get("deployfs_worker_generation") == before.get("deployfs_worker_generation") + 1
    assert read_bytes(after)["pack_first"] == 0 < read_bytes(before)["pack_first"]


def test_every_scrape_is_consistent_while_others_read(daemon):
    """The rules of the format hold, no counter goes back, and what was answered was received."""
    big = daemon.path("shop", "1.0") / "big"
    stop = threading.Event()
    failures = []

    def reader():
        try:
            while not stop.is_set():
                forget_pages(big)
                assert big.read_bytes() == noise(1_000_000)
                assert not os.path.lexists(daemon.path("shop", "1.0") / f"none-{os.urandom(4).hex()}")
        except BaseException as failure:  # told by the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        last = scrape(daemon)
        for _ in range(100):
            metrics = scrape(daemon)
            for (name, labels), value in metrics.samples.items():
                family = re.sub("_(bucket|sum|count)$", "", name)
                if metrics.types.get(name) == "counter" or metrics.types.get(family) == "histogram":
                    assert value >= last.samples[name, labels], (name, labels)
            for operation in ("read", "lookup"):
                received = metrics.get("deployfs_fuse_requests_received_total", operation=operation)
                assert answered(metrics, operation) <= received
            last = metrics
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert answered(last, "read") > 0
