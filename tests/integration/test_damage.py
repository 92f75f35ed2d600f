# SPDX-License-Identifier: Apache-2.0
"""Bytes that change on the disk: never served, found by themselves, put right again, and nobody else's concern."""
import contextlib
import errno
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

import deploy
from deploy import UNCHANGED, VERIFICATION, make_package, noise, wait_until

BLOCK = 32768
SHARED = noise(200_000, b"shared")


def content(version):
    return {"VERSION": version.encode() + b"\n",
            "shared": SHARED,
            "own": noise(200_000, version.encode()),
            "good": noise(50_000, b"good" + version.encode())}


@pytest.fixture
def store(place):
    """A running daemon with shop 1.0 and 1.1, which share a file, and blog 1.0, which has its own."""
    for version in ("1.0", "1.1"):
        place.origin.publish("shop", version, content(version))
    place.origin.publish("blog", "1.0", {"VERSION": b"1.0\n", "text": noise(200_000, b"blog")})
    daemon = place.daemon().start()
    for app, version in (("shop", "1.0"), ("shop", "1.1"), ("blog", "1.0")):
        daemon.run("fetch", app, version)
    return daemon


def pack_with(daemon, data):
    [pack] = [Path(pack) for pack in daemon.packs() if data in Path(pack).read_bytes()]
    return pack


def overwrite(pack, offset, data):
    """Put bytes on the disk, and out of the page cache what was there."""
    with open(pack, "r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rot(daemon, data, at=100_000, size=1):
    """Change stored content, which is found by itself; returns its pack."""
    pack = pack_with(daemon, data)
    whole = pack.read_bytes()
    offset = whole.index(data) + at
    overwrite(pack, offset, bytes(byte ^ 1 for byte in whole[offset:offset + size]))
    return pack


def damaged(daemon, version, app="shop"):
    return daemon.version(app, version)["damaged"]


def assert_eio(path):
    with pytest.raises(OSError) as failed:
        path.read_bytes()
    assert failed.value.errno == errno.EIO


@contextlib.contextmanager
def offline(place):
    """While nobody can reach the origin."""
    away = place.origin.folder.with_name("away")
    place.origin.folder.rename(away)
    yield
    away.rename(place.origin.folder)


def settled(daemon):
    """No repair runs."""
    return not [job for job in daemon.status()["jobs"] if job["kind"] == "repair"]


def catalog(daemon, text):
    """A statement on the catalog of a daemon that is stopped."""
    with contextlib.closing(sqlite3.connect(daemon.store / "catalog.db")) as database:
        rows = database.execute(text).fetchall()
        database.commit()
    return rows


def assert_whole(daemon):
    for version in ("1.0", "1.1"):
        for name, data in content(version).items():
            assert (daemon.path("shop", version) / name).read_bytes() == data
    assert (daemon.path("blog", "1.0") / "text").read_bytes() == noise(200_000, b"blog")


def test_damage_is_an_error_for_its_file_and_for_nobody_else(place, store):
    for version in ("1.0", "1.1"):
        store.run("flip", "shop", version)
    with offline(place):
        rot(store, content("1.1")["own"])
        assert_eio(store.path("shop", "1.1") / "own")
        text = wait_until(lambda: damaged(store, "1.1"), "the damage is recorded")
        wait_until(lambda: "'own'" in damaged(store, "1.1"), "it is known what is damaged")
        assert text and damaged(store, "1.0") is None and damaged(store, "1.0", "blog") is None
        assert store.status()["damaged"] == 1
        assert "path='own'" in store.log_text()
        assert (store.path("shop", "1.1") / "good").read_bytes() == content("1.1")["good"]
        assert (store.path("shop", "1.1") / "shared").read_bytes() == SHARED
        assert (store.path("blog", "1.0") / "text").read_bytes() == noise(200_000, b"blog")
        listed = store.run("list").out
        assert "damaged" in next(line for line in listed.splitlines() if line.startswith("shop  1.1"))
        assert "shop 1.1 is damaged on this disk: 1 block of 1 file, 'own'" in listed
        assert "1 version: 'deployctl list'" in store.run("status").out
        wait_until(lambda: settled(store), "the repair has given up")
        failed = store.run("repair", "shop", code=deploy.FAILED)
        assert "1.1" in failed.text and "away" not in failed.text
        assert_eio(store.path("shop", "1.1") / "own")
        assert damaged(store, "1.1")
    done = store.run("repair", "shop")
    assert f"shop 1.1: 1 block from {place.origin.folder}" in done.out
    assert damaged(store, "1.1") is None and store.status()["damaged"] == 0
    assert_whole(store)
    assert store.leftovers() == []
    assert "nothing is known" in store.run("repair", "shop", code=UNCHANGED).text
    store.run("repair", "shop", "1.1", code=UNCHANGED)


def test_a_read_that_fails_has_the_origin_asked_by_itself(store):
    rot(store, content("1.0")["own"], at=0, size=3 * BLOCK)
    rot(store, SHARED)
    assert_eio(store.path("shop", "1.0") / "own")
    wait_until(lambda: "repaired: app=shop version=1.0" in store.log_text(), "it was repaired")
    wait_until(lambda: not damaged(store, "1.0") and not damaged(store, "1.1"), "nothing is damaged")
    assert_whole(store)
    store.run("verify", "shop")


def test_what_is_damaged_is_not_gone_back_to(place, store):
    place.origin.publish("shop", "1.2", content("1.2"))
    store.run("fetch", "shop", "1.2")
    for version in ("1.0", "1.1", "1.2"):
        store.run("flip", "shop", version)
    assert store.channels("shop")["previous"] == "1.1"
    with offline(place):
        rot(store, content("1.1")["own"])
        assert_eio(store.path("shop", "1.1") / "own")
        wait_until(lambda: store.channels("shop")["previous"] == "1.0", "previous has moved")
        assert os.readlink(store.path("shop", "previous")) == "1.0"
        reply = store.json("flip", "shop", "1.1", "--channel", "canary")
        assert "damaged" in reply["notes"][0] and "deployctl repair shop" in reply["notes"][0]
        store.run("rollback", "shop")
        assert store.channels("shop")["current"] == "1.0"
        assert store.channels("shop")["previous"] == "1.1", "where nothing else is, it is better than nothing"
    store.run("repair", "shop", "1.1")
    assert store.channels("shop")["previous"] == "1.1"


def test_an_origin_with_other_content_is_refused(place, store):
    before = pack_with(store, content("1.1")["own"])
    with offline(place):
        rot(store, content("1.1")["own"])
        store.run("verify", "shop", "1.1", code=VERIFICATION)
        wait_until(lambda: damaged(store, "1.1") and settled(store), "the first repair has failed")
    rotten = before.read_bytes()
    place.origin.publish("shop", "1.1", dict(content("1.1"), VERSION=b"another\n"))
    result = store.run("repair", "shop", "1.1", code=VERIFICATION)
    assert "other content" in result.text
    # The list is right, and the file is not.
    package = place.origin.folder / "shop" / "shop-1.1.tar.gz"
    make_package(package, content("1.1"))
    place.origin.list(package)
    make_package(package, {"VERSION": b"forged\n"})
    store.run("repair", "shop", "1.1", code=VERIFICATION)
    assert before.read_bytes() == rotten
    assert_eio(store.path("shop", "1.1") / "own")
    assert damaged(store, "1.1")
    assert [path for path in store.leftovers() if "/tmp/" in path.removeprefix(str(store.folder))] == []


def test_a_version_that_has_the_same_content_helps_without_an_origin(place, store):
    with offline(place):
        rot(store, SHARED)
        assert_eio(store.path("shop", "1.1") / "shared")
        wait_until(lambda: "block" in (damaged(store, "1.0") or ""), "it is known what is damaged")
        wait_until(lambda: settled(store), "the first repair has failed")
        assert damaged(store, "1.0") and damaged(store, "1.1"), "both show the file"
        assert damaged(store, "1.0", "blog") is None, "which has other things from that pack"
    # What is rotten is not shared: the next version brings its own copy.
    place.origin.publish("shop", "1.2", content("1.2"))
    store.run("fetch", "shop", "1.2")
    assert (store.path("shop", "1.2") / "shared").read_bytes() == SHARED
    shutil.rmtree(place.origin.folder)
    done = store.run("repair", "shop")
    assert "1 block from shop 1.2" in done.out
    assert not damaged(store, "1.0") and not damaged(store, "1.1")
    assert_whole(store)


def metadata_of(pack):
    """Offset and size of the metadata, and where their copy begins (docs/format.md)."""
    header = pack.read_bytes()[:4096]
    return [int.from_bytes(header[at:at + 8], "little") for at in (40, 48, 1568)]


@pytest.mark.parametrize("part", ["header", "metadata", "copy", "end"])
def test_damaged_metadata_is_taken_from_its_copy(store, part):
    pack = pack_with(store, content("1.0")["own"])
    whole = pack.read_bytes()
    offset, size, copy = metadata_of(pack)
    store.stop()
    at = {"header": 200, "metadata": offset + size // 2, "copy": copy + size // 2, "end": len(whole) - 100}[part]
    overwrite(pack, at, bytes([whole[at] ^ 0xff]))
    catalog(store, "UPDATE meta SET value = 0 WHERE key = 'scrub_ended_ns'")
    store.start()
    assert_whole(store)
    wait_until(lambda: pack.read_bytes() == whole, "the pack is as it was")
    wait_until(lambda: not damaged(store, "1.0"), "that is known")


def test_a_pack_that_is_lost_harms_its_versions_only(store):
    pack = pack_with(store, content("1.1")["own"])
    store.stop()
    pack.unlink()
    store.start()
    with pytest.raises(OSError):
        store.read("shop", "1.1")
    wait_until(lambda: damaged(store, "1.1"), "it is known")
    assert store.read("shop", "1.0") == "1.0"
    wait_until(lambda: settled(store), "the first repair has failed")
    result = store.run("repair", "shop", "1.1", code=VERIFICATION)
    assert "remove it and fetch it again" in result.text
    store.run("remove", "shop", "1.1")
    store.run("fetch", "shop", "1.1")
    assert not damaged(store, "1.1")
    assert_whole(store)


def test_the_weekly_pass_finds_what_nobody_reads(place, store):
    store.stop()
    pack = pack_with(store, content("1.1")["own"])
    whole = pack.read_bytes()
    rot(store, content("1.1")["own"])
    store.start()
    assert damaged(store, "1.1") is None, "the last pass was not a week ago"
    store.stop()
    assert pack.read_bytes() != whole
    week_ns = 7 * 24 * 3600 * 10**9
    catalog(store, f"UPDATE meta SET value = value - {week_ns} WHERE key = 'scrub_ended_ns'")
    with offline(place):
        store.start()
        wait_until(lambda: damaged(store, "1.1"), "it is found")
        assert "'own'" in damaged(store, "1.1")
        wait_until(lambda: settled(store), "the repair has given up")
        store.stop()
        assert catalog(store, "SELECT damage FROM pack WHERE damage <> ''")
    store.start()
    wait_until(lambda: not damaged(store, "1.1"), "it was repaired")
    assert pack.read_bytes() == whole
    store.stop()
    [[ended_ns]] = catalog(store, "SELECT value FROM meta WHERE key = 'scrub_ended_ns'")
    assert time.time_ns() - ended_ns < week_ns / 2


def test_a_pass_goes_on_where_it_was_when_the_daemon_was_killed(place, store):
    store.stop()
    first, second = (pack_with(store, content(version)["own"]) for version in ("1.0", "1.1"))
    rot(store, content("1.0")["own"])
    rot(store, content("1.1")["own"])
    catalog(store, f"UPDATE meta SET value = {first.stem} WHERE key = 'scrub_pack'")
    with offline(place):
        store.start()
        wait_until(lambda: "'own'" in (damaged(store, "1.1") or ""), "the second is found")
        assert damaged(store, "1.0") is None
        wait_until(lambda: settled(store), "the repair has given up")
        store.kill()
        store.start()
        assert "'own'" in damaged(store, "1.1")
        [[behind]] = [row for row in catalog_read(store, "SELECT value FROM meta WHERE key = 'scrub_pack'")]
        assert behind == 0 or behind >= int(second.stem)


def catalog_read(daemon, text):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.store}/catalog.db?mode=ro", uri=True)) as database:
        return database.execute(text).fetchall()


def test_a_verification_tells_who_repairs(store):
    rot(store, content("1.1")["own"])
    result = store.run("verify", "shop", "1.1", code=VERIFICATION)
    assert "own" in result.text
    wait_until(lambda: "repaired: app=shop version=1.1" in store.log_text(), "it was repaired")
    store.run("verify", "shop", "1.1")
    assert_whole(store)


def test_what_a_removed_version_left_is_repaired_from_who_uses_it(place, store):
    """The pack of 1.0 is kept for what 1.1 shares; only that counts, and 1.1's package has it."""
    ghost = pack_with(store, SHARED)
    store.run("remove", "shop", "1.0")
    wait_until(lambda: content("1.0")["own"] not in ghost.read_bytes(), "its own content is freed")
    assert ghost.exists()
    store.stop()
    catalog(store, "UPDATE meta SET value = 0 WHERE key = 'scrub_ended_ns'")
    (place.origin.folder / "shop" / "shop-1.0.tar.gz").unlink()
    rot(store, SHARED)
    store.start()
    wait_until(lambda: "repaired: app=shop version=1.1" in store.log_text(), "it was repaired")
    wait_until(lambda: not damaged(store, "1.1"), "that is known")
    assert (store.path("shop", "1.1") / "shared").read_bytes() == SHARED
    store.stop()
    store.start()
    store.run("verify", "shop")


def test_a_repair_can_be_cancelled_and_is_shown(place, store):
    fifo = place.origin.folder / "shop" / "SHA256SUMS"
    sums = fifo.read_text()
    fifo.unlink()
    with offline(place):
        rot(store, content("1.1")["own"])
        assert_eio(store.path("shop", "1.1") / "own")
        wait_until(lambda: damaged(store, "1.1") and settled(store), "the first repair has failed")
    fifo.write_text(sums)
    reply = store.api("POST", "/v1/apps/shop/repair", {"version": "1.1"})
    assert reply.status == 202 and reply.body["job"]["kind"] == "repair"
    job = reply.body["job"]["id"]
    ended = wait_until(lambda: (found := store.api("GET", f"/v1/jobs/{job}").body["job"])["ended"] and found, "it ended")
    assert ended["state"] == "done"
    assert ended["result"]["changed"] and ended["result"]["version"] == "1.1"
    assert [one["blocks"] for one in ended["result"]["repaired"]] == [1]
    assert store.api("POST", "/v1/apps/shop/repair", {"version": "9"}).status == 404
    assert store.api("POST", "/v1/apps/shop/repair", {}).status == 400
