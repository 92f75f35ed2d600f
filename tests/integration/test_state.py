# SPDX-License-Identifier: Apache-2.0
"""The store survives a damaged or lost catalog, damaged packs, and a full disk."""
import contextlib
import errno
import os
import random
import shutil
import subprocess
import time

import pytest

import deploy
from deploy import small_app

SEED = int(os.environ.get("DEPLOYFS_TEST_SEED", time.time_ns() >> 10 & 0xffffffff))


@pytest.fixture
def dice():
    print(f"DEPLOYFS_TEST_SEED={SEED}")
    return random.Random(SEED)


def copied(daemon):
    """Wait until catalog.bak has all that was done."""
    catalog, copy = daemon.store / "catalog.db", daemon.store / "catalog.bak"

    def counters(path):
        done = subprocess.run(["sqlite3", f"file:{path}?mode=ro", "SELECT value FROM meta ORDER BY key"],
                              capture_output=True, text=True, check=False)
        return done.returncode == 0 and done.stdout

    deploy.wait_until(lambda: copy.exists() and counters(copy) and counters(copy) == counters(catalog),
                      "the catalog is copied")


def forget_catalog(daemon, *more):
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm", *more):
        (daemon.store / name).unlink(missing_ok=True)


def ids(daemon, *versions):
    """Every inode number below these versions, and of the application's links."""
    found = {}
    for version in versions:
        for folder, _, names in os.walk(daemon.path("shop", version)):
            for name in [".", *names]:
                path = os.path.join(folder, name)
                found[path] = os.lstat(path).st_ino
    for name in os.listdir(daemon.apps / "shop"):
        if os.path.islink(daemon.apps / "shop" / name):
            found[name] = os.lstat(daemon.apps / "shop" / name).st_ino
    return found


def assert_serves(daemon, *versions):
    for version in versions:
        for name, what in small_app(version).items():
            path = daemon.path("shop", version) / name
            if isinstance(what, deploy.File):
                what = what.data
            if isinstance(what, bytes):
                assert path.read_bytes() == what


ALL = ("1.0", "1.1", "1.2")


# -- the catalog


@pytest.mark.parametrize("how", ["missing", "empty", "zeroed", "cut", "noise", "flipped", "foreign"])
def test_a_broken_catalog_is_rebuilt_from_its_copy(shop, how):
    shop.run("flip", "shop", "1.0", "--channel", "canary")
    shop.run("pin", "shop", "1.0")
    before, said = ids(shop, *ALL), shop.history("shop")
    shop.stop()
    catalog = shop.store / "catalog.db"
    whole = catalog.read_bytes()
    forget_catalog(shop)
    if how == "foreign":
        subprocess.run(["sqlite3", catalog, "CREATE TABLE cats(name)"], check=True)
    elif how != "missing":
        catalog.write_bytes({
            "empty": b"", "zeroed": bytes(len(whole)), "cut": whole[:20_000], "noise": deploy.noise(len(whole)),
            "flipped": whole[:100] + bytes(255 - byte for byte in whole[100:400]) + whole[400:]}[how])
    broken = catalog.read_bytes() if catalog.exists() else None
    shop.start()
    assert_serves(shop, *ALL)
    assert ids(shop, *ALL) == before
    assert shop.channels("shop") and shop.read("shop") == "1.2" and shop.read("shop", "canary") == "1.0"
    assert shop.history("shop") == said
    assert shop.version("shop", "1.0")["pinned"]
    assert "is rebuilt" in shop.log_text() and str(catalog) in shop.log_text()
    if broken is not None:
        assert (shop.store / "catalog.db.damaged").read_bytes() == broken
    shop.run("rollback", "shop")
    shop.run("verify")
    shop.restart()
    assert shop.log_text().count("is rebuilt") == 1


def test_without_a_copy_the_versions_come_back_and_the_channels_do_not(shop):
    shop.run("flip", "shop", "1.1")
    shop.run("remove", "shop", "1.0")
    present = ("1.1", "1.2")
    facts = {version: shop.version("shop", version) for version in present}
    before = ids(shop, *present)
    highest = max(before.values())
    shop.stop()
    forget_catalog(shop, "catalog.bak")
    shop.start()
    assert_serves(shop, *present)
    assert not shop.channels("shop")
    assert sorted(shop.versions("shop")) == list(present)
    assert "channels, their history, pins and bad marks are lost" in shop.log_text()
    for version in present:
        after = shop.version("shop", version)
        for fact in ("sha256", "files", "package_bytes", "unpacked_bytes", "verified", "origin", "imported_by",
                     "imported"):
            assert after.get(fact) == facts[version].get(fact)
    after = ids(shop, *present)
    assert all(after[path] == number for path, number in before.items() if path in after and "/" in path)
    shop.run("flip", "shop", "1.2")
    assert os.lstat(shop.path("shop")).st_ino > highest
    shop.run("fetch", "shop", "1.0")
    shop.run("verify")


def test_a_copy_that_is_damaged_too_is_not_believed(shop):
    shop.stop()
    forget_catalog(shop)
    copy = shop.store / "catalog.bak"
    data = bytearray(copy.read_bytes())
    data[len(data) // 3] ^= 1
    copy.write_bytes(data)
    shop.start()
    assert_serves(shop, *ALL)
    assert "its checksum is wrong" in shop.log_text()
    shop.run("flip", "shop", "1.1")


def test_a_kill_right_after_changes_loses_none_of_them(shop):
    copied(shop)
    shop.run("flip", "shop", "1.0")
    shop.kill()
    shop.start()
    assert shop.read("shop") == "1.0"
    assert "rebuilt" not in shop.log_text()


def test_random_damage(place, shop, dice):
    """Bytes anywhere in the catalog or its copy; after each all serves, and no id comes twice."""
    shop.stop()
    whole = place.folder / "whole"
    shutil.copytree(shop.store, whole)
    shop.start()
    before = ids(shop, *ALL)
    shop.stop()
    highest = max(before.values())
    for n in range(20):
        shutil.rmtree(shop.store)
        shutil.copytree(whole, shop.store)
        shop.store.chmod(0o700)
        target = shop.store / dice.choice(["catalog.db", "catalog.db", "catalog.db", "catalog.bak"])
        data = bytearray(target.read_bytes())
        used = max(at for at, byte in enumerate(data) if byte)
        at, size = dice.randrange(used), dice.choice([1, 1, 10, 300, 5000])
        data[at:at + size] = dice.randbytes(len(data[at:at + size]))
        target.write_bytes(data)
        print(f"{n}: {target.name} at {at}, {size} bytes")
        shop.start()
        assert_serves(shop, *ALL)
        assert shop.read("shop") == "1.2"
        for path, number in ids(shop, *ALL).items():
            assert number == before[path] or number > highest
        shop.run("flip", "shop", "1.0")
        assert os.lstat(shop.path("shop")).st_ino > highest
        shop.stop()


def test_a_catalog_that_cannot_be_written_is_read_and_kept(shop):
    shop.stop()
    catalog = shop.store / "catalog.db"
    before = catalog.read_bytes()
    subprocess.run(["mount", "--bind", catalog, catalog], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", catalog], check=True)
    shop.start()
    assert_serves(shop, *ALL)
    assert "readonly" in shop.run("flip", "shop", "1.0", code=deploy.FAILED).err
    assert shop.read("shop") == "1.2"
    shop.stop()
    subprocess.run(["umount", catalog], check=True)
    assert catalog.read_bytes() == before
    shop.start()
    shop.run("flip", "shop", "1.0")


@pytest.mark.parametrize("copy", [True, False])
def test_one_damaged_pack_beside_good_ones(shop, copy):
    pack = next(p for p in shop.packs() if b"1.1" in open(p, "rb").read(4096)[288:424])
    shop.stop()
    with open(pack, "r+b") as file:
        file.write(deploy.noise(os.fstat(file.fileno()).st_size))  # its metadata lie there twice
    forget_catalog(shop, *([] if copy else ["catalog.bak"]))
    shop.start()
    assert_serves(shop, "1.0")
    if copy:
        assert shop.read("shop") == "1.2"
        with pytest.raises(OSError) as failed:
            shop.read("shop", "1.1")
        assert failed.value.errno == errno.EIO
        shop.run("flip", "shop", "1.0")
        shop.run("rollback", "shop")
        shop.run("flip", "shop", "1.0", "--channel", "other")
    else:
        assert os.path.exists(pack + ".damaged") and not os.path.exists(pack)
        assert "1.1" not in shop.versions("shop")
        shop.run("fetch", "shop", "1.1")
        assert_serves(shop, "1.1")


def test_a_pack_is_known_by_the_second_copy_of_its_header(shop):
    pack = next(p for p in shop.packs() if b"1.1" in open(p, "rb").read(4096)[288:424])
    shop.stop()
    with open(pack, "r+b") as file:
        file.write(deploy.noise(4096))
    forget_catalog(shop, "catalog.bak")
    shop.start()
    assert_serves(shop, "1.0", "1.1", "1.2")


def test_a_damaged_index_keeps_no_package_from_coming_in(place, shop):
    with open(shop.store / "index.db", "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(4096)
        file.write(deploy.noise(size - 4096))
    (shop.store / "index.db-wal").write_bytes(b"")
    for version in ("2.0", "2.1"):
        place.origin.publish("shop", version, small_app(version))
        shop.run("fetch", "shop", version)
        assert_serves(shop, version)
    shop.run("flip", "shop", "2.1")
    shop.run("gc")
    shop.restart()
    assert_serves(shop, "2.0", "2.1")


# -- a full disk


def fill(folder):
    """To the last block; what cannot be written by anybody else is not written by us."""
    for n in range(3):
        with open(folder / f"filler-{n}", "wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())
    assert os.statvfs(folder).f_bavail == 0  # ext4 keeps some for its own trees


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request, place):
    disk = place.folder / "disk"
    disk.mkdir()
    if request.param == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk], check=True)
    else:
        image = place.folder / "image"
        with open(image, "wb") as file:
            file.truncate(96 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    yield disk
    for daemon in place.daemons:
        daemon.cleanup()
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_stops_no_flip_no_read_and_no_removal(place, small_disk):
    for version in (*ALL, "2.0"):
        place.origin.publish("shop", version, small_app(version))
    place.origin.publish("big", "1.0", {"noise": deploy.noise(8 << 20)}, ending=".tar")
    daemon = place.daemon(store=small_disk / "store", reserve="1MiB")
    daemon.store = small_disk / "store"
    daemon.start()
    for version in ALL:
        daemon.run("fetch", "shop", version)
    daemon.run("flip", "shop", "1.0")
    daemon.run("flip", "shop", "1.1")
    copied(daemon)
    fill(small_disk)

    slowest = 0.0
    for n in range(100):
        start = time.monotonic()
        assert daemon.api("POST", "/v1/apps/shop/flip", {"version": ALL[n % 3]}).status == 200, daemon.log_tail()
        slowest = max(slowest, time.monotonic() - start)
        assert daemon.read("shop") == ALL[n % 3]
        assert daemon.api("POST", "/v1/apps/shop/flip", {"version": ALL[(n + 1) % 3]}).status == 200
        assert daemon.api("POST", "/v1/apps/shop/rollback", {}).status == 200
        assert daemon.read("shop") == ALL[n % 3]
    deploy.figure("full-disk", changes=300, slowest_ms=round(slowest * 1000, 1))
    assert_serves(daemon, *ALL)
    packs = daemon.packs()
    assert daemon.run("fetch", "shop", "2.0", code=deploy.NO_SPACE)
    assert daemon.run("fetch", "big", "1.0", code=deploy.NO_SPACE)
    assert daemon.packs() == packs and daemon.leftovers() == []

    daemon.restart()
    assert_serves(daemon, *ALL)
    daemon.run("flip", "shop", "1.2")
    daemon.run("pin", "shop", "1.0")
    daemon.run("unpin", "shop", "1.0")
    daemon.kill()
    daemon.start()
    daemon.run("flip", "shop", "1.1")
    daemon.run("flip", "shop", "1.2")
    daemon.run("remove", "shop", "1.0")
    daemon.run("gc")
    assert_serves(daemon, "1.1", "1.2")

    for filler in small_disk.glob("filler-*"):
        filler.unlink()
    daemon.run("fetch", "shop", "2.0")
    daemon.run("fetch", "big", "1.0")
    daemon.run("flip", "shop", "2.0")
    assert daemon.read("shop") == "2.0"
    daemon.run("verify")
