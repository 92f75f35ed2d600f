# SPDX-License-Identifier: Apache-2.0
"""A real application of more than ten thousand files, compared with what tar makes of it."""
import filecmp
import mmap
import os
import random
import stat
import subprocess

import pytest

from deploy import figure

VERSIONS = ("1.0", "1.1")


@pytest.fixture(scope="module")
def mounted(module_place, pyapp):
    """A daemon with both versions, unpacked by tar beside it as `truth`."""
    daemon = module_place.daemon(pyapp).start()
    for version in VERSIONS:
        daemon.run("fetch", "pyapp", version)
        truth = module_place.folder / "truth" / version
        truth.mkdir(parents=True)
        subprocess.run(["tar", "-C", truth, "-xf", pyapp / "pyapp" / f"pyapp-{version}.tar.zst"], check=True)
    daemon.run("flip", "pyapp", "1.0")
    daemon.truth = module_place.folder / "truth"
    return daemon


def walk(folder):
    """Every path below @folder, relative, sorted."""
    found = []
    for place, directories, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in directories + files]
    return sorted(found)


def regular_files(folder):
    return [name for name in walk(folder) if stat.S_ISREG(os.lstat(folder / name).st_mode)]


def facts(path):
    """What tar would have made: directories' sizes and link counts are the file system's own."""
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    size = 0 if kind == stat.S_IFDIR else info.st_size
    target = os.readlink(path) if kind == stat.S_IFLNK else None
    mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(info.st_mode) & 0o777
    mtime = info.st_mtime_ns // 10**9
    return kind, mode, size, mtime, info.st_uid, info.st_gid, target


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_and_stat_equals_tars(mounted, version):
    ours, theirs = mounted.path("pyapp", version), mounted.truth / version
    names = walk(theirs)
    assert walk(ours) == names
    assert len(regular_files(theirs)) >= 10_000
    different = [name for name in [".", *names] if facts(ours / name) != facts(theirs / name)]
    assert different == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_byte_equals_tars(mounted, version):
    ours, theirs = mounted.path("pyapp", version), mounted.truth / version
    different = [name for name in regular_files(theirs)
                 if not filecmp.cmp(ours / name, theirs / name, shallow=False)]
    assert different == []


def test_hard_links_are_the_same_as_tars(mounted):
    def groups(folder):
        by_inode = {}
        for name in regular_files(folder):
            if os.lstat(folder / name).st_size:
                by_inode.setdefault(os.lstat(folder / name).st_ino, []).append(name)
        return sorted(names for names in by_inode.values() if len(names) > 1)
    assert groups(mounted.truth / "1.0")
    assert groups(mounted.path("pyapp", "1.0")) == groups(mounted.truth / "1.0")


def test_most_files_are_shared_between_the_versions(mounted):
    a, b = (mounted.path("pyapp", version) for version in VERSIONS)
    names = regular_files(b)
    shared = sum(os.path.lexists(a / name) and os.lstat(a / name).st_ino == os.lstat(b / name).st_ino
                 for name in names)
    added = mounted.version("pyapp", "1.1")["stored_bytes"]
    figure("shared", files=len(names), shared=shared, stored_bytes=added)
    assert shared >= 0.95 * len(names)
    assert added < 0.1 * mounted.version("pyapp", "1.0")["stored_bytes"]


def biggest(folder, count):
    return sorted(regular_files(folder), key=lambda name: -os.lstat(folder / name).st_size)[:count]


def test_random_offsets(mounted):
    dice = random.Random(2)
    ours, theirs = mounted.path("pyapp", "1.1"), mounted.truth / "1.1"
    for name in biggest(theirs, 40):
        truth = (theirs / name).read_bytes()
        with open(ours / name, "rb", buffering=0) as file:
            for _ in range(50):
                offset, size = dice.randrange(len(truth) + 10), dice.randrange(1, 200_000)
                assert os.pread(file.fileno(), size, offset) == truth[offset:offset + size]


def test_mmap(mounted):
    ours, theirs = mounted.path("pyapp", "1.1"), mounted.truth / "1.1"
    for name in biggest(theirs, 20):
        with open(ours / name, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == (theirs / name).read_bytes()


def test_sendfile(mounted, module_place):
    ours, theirs = mounted.path("pyapp", "1.0"), mounted.truth / "1.0"
    for name in biggest(theirs, 20):
        copy = module_place.folder / "copy"
        with open(ours / name, "rb") as source, open(copy, "wb") as target:
            while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
                pass
        assert copy.read_bytes() == (theirs / name).read_bytes()


def test_directories_read_the_same_in_any_portion(mounted):
    """seekdir, rewinddir and small buffers: ls, find and a second pass over one open directory."""
    ours = mounted.path("pyapp", "1.0")
    largest = max((place for place, *_ in os.walk(ours)), key=lambda place: len(os.listdir(place)))
    names = sorted(os.listdir(largest))
    handle = os.open(largest, os.O_RDONLY)
    try:
        assert sorted(os.listdir(handle)) == names
        assert sorted(os.listdir(handle)) == names
    finally:
        os.close(handle)
    found = subprocess.run(["find", largest, "-mindepth", "1", "-maxdepth", "1", "-printf", "%f\\n"],
                           capture_output=True, text=True, check=True).stdout
    assert sorted(found.split("\n")[:-1]) == names


def test_diff_finds_nothing(mounted):
    subprocess.run(["diff", "-r", "--no-dereference", mounted.path("pyapp", "1.1"), mounted.truth / "1.1"],
                   check=True)


def test_the_interpreter_runs_from_the_mount(mounted):
    for version in ("1.1", "1.0"):
        mounted.ctl("flip", "pyapp", version)
        out = subprocess.run([mounted.path("pyapp") / "run"], capture_output=True, text=True, check=True,
                             env={"PATH": "/usr/bin:/bin"}).stdout
        assert out.startswith(f"pyapp {version}: ")


def test_the_package_s_own_tests_run_from_the_mount(mounted):
    """Some of CPython's test suite, which is part of the package."""
    subprocess.run([mounted.path("pyapp") / "run", "-m", "unittest", "-q", "test.test_textwrap", "test.test_heapq",
                    "test.test_base64"], check=True, env={"PATH": "/usr/bin:/bin"}, capture_output=True)


def test_verify_is_clean(mounted):
    mounted.run("verify")


# -- large ones, with --full -----------------------------------------------------------------


def fill_with_many(folder):
    """200,000 small files in 500 directories."""
    for number in range(200_000):
        place = folder / f"d{number % 500:03}"
        if number < 500:
            place.mkdir()
        (place / f"f{number:06}").write_bytes(b"file %d\n" % number)


def fill_with_large(folder):
    """A file of 4.4 GB, another name of it, and one of 5 GiB with two islands of data."""
    subprocess.run("yes deployfs | head -c 4400000000 > dense; ln dense linked", shell=True, cwd=folder,
                   check=True)
    with open(folder / "sparse", "wb") as file:
        file.truncate(5 << 30)
        os.pwrite(file.fileno(), b"island", 3 << 30)
        os.pwrite(file.fileno(), b"end", (5 << 30) - 3)


@pytest.mark.full
@pytest.mark.parametrize("fill", [fill_with_many, fill_with_large])
def test_a_large_package_comes_out_as_tars(place, fill):
    truth = place.folder / "truth"
    truth.mkdir()
    fill(truth)
    package = place.folder / "large.tar"
    subprocess.run(["tar", "-S", "--format=pax", "-C", truth, "-cf", package, "."], check=True)
    daemon = place.daemon(apps=[{"name": "large", "unpack_limit": "20GiB"}]).start()
    daemon.run("import", package, "--app", "large", "--version", "1", timeout_s=600)
    shown = daemon.path("large", "1")
    assert walk(shown) == walk(truth)
    subprocess.run(["diff", "-r", "--no-dereference", truth, shown], check=True)
    for name in regular_files(truth):
        ours, theirs = os.lstat(shown / name), os.lstat(truth / name)
        assert (ours.st_size, ours.st_mode, ours.st_mtime) == (theirs.st_size, theirs.st_mode, theirs.st_mtime)
        assert ours.st_blocks <= theirs.st_blocks + 8
    assert len({os.lstat(shown / name).st_ino for name in regular_files(truth)}) == \
        len({os.lstat(truth / name).st_ino for name in regular_files(truth)})
