# SPDX-License-Identifier: Apache-2.0
"""Every odd package file: refused with a word about why and nothing left, or mounted as tar would have made it."""
import os
import stat
import subprocess
import tarfile
import zipfile

import pytest

import bad_archives
from deploy import DONE, NO_SPACE, UNCHANGED, VERIFICATION

APP = "odd"
UNPACKERS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}


@pytest.fixture(scope="module")
def odd(module_place):
    """A running daemon that takes packages of at most 64 MiB unpacked."""
    return module_place.daemon(apps=[{"name": APP, "unpack_limit": "64MiB"}]).start()


def import_case(odd, name, folder):
    """Build the archive and import it as version @name; the file and what deployctl did."""
    case = bad_archives.CASES[name]
    file = folder / f"package.{case.suffix}"
    case.build(str(file))
    return file, odd.ctl("import", file, "--app", APP, "--version", name, "--progress=none")


def versions(odd):
    reply = odd.api("GET", f"/v1/apps/{APP}")
    return [v["version"] for v in reply.body["app"]["versions"]] if reply.status == 200 else []


# A hundred thousand empty files are many, and yet within what a package may hold.
BOMBS = [name for name, case in bad_archives.CASES.items() if case.layer == "budget" and name != "bomb-empty-files"]
REFUSED = [name for name, case in bad_archives.CASES.items() if case.expected == bad_archives.REFUSED]
ACCEPTED = [name for name, case in bad_archives.CASES.items()
            if case.expected == bad_archives.ACCEPTED and name not in BOMBS]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(odd, tmp_path, name):
    before = odd.packs()
    _, result = import_case(odd, name, tmp_path)
    assert result.code == VERIFICATION, result.text
    # An entry that claims to be huge may be refused for that before its end is found missing.
    assert bad_archives.CASES[name].text in result.err.lower() or "'unpack_limit'" in result.err
    assert odd.leftovers() == []
    assert odd.packs() == before
    assert name not in versions(odd)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_stopped_at_the_budget(odd, tmp_path, name):
    before = odd.packs()
    _, result = import_case(odd, name, tmp_path)
    assert result.code in (VERIFICATION, NO_SPACE), result.text
    assert odd.leftovers() == []
    assert odd.packs() == before
    assert name not in versions(odd)


# -- what is accepted ----------------------------------------------------------------------


def plain_tar(file, suffix, folder):
    """@file without its compression."""
    unpacker = UNPACKERS.get(suffix.rpartition(".")[2])
    if unpacker is None:
        return file
    plain = folder / "plain.tar"
    with open(plain, "wb") as out:
        subprocess.run([unpacker, "-dc", "--long=31" if unpacker == "zstd" else "-q", file], stdout=out, check=True)
    return plain


def normal(name):
    """The name as it is mounted: "" for the root."""
    name = name.removeprefix("./").rstrip("/")
    return "" if name == "." else name


def tar_members(file):
    """name -> (type, permissions, content or target) as Python's tarfile reads it."""
    found = {}
    with tarfile.open(file, "r:", encoding="utf-8", errors="surrogateescape") as tar:
        for entry in tar:
            name = normal(entry.name)
            if entry.isdir():
                found[name] = (stat.S_IFDIR, entry.mode & 0o777, None)
            elif entry.issym():
                found[name] = (stat.S_IFLNK, None, entry.linkname)
            else:
                found[name] = (stat.S_IFREG, entry.mode & 0o777, tar.extractfile(entry).read())
    return found


def zip_members(file):
    """The same of a zip; no permissions where the zip comes from a system without."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            name = normal(entry.filename)
            if entry.is_dir():
                found[name] = (stat.S_IFDIR, mode & 0o777 or None, None)
            elif stat.S_ISLNK(mode):
                found[name] = (stat.S_IFLNK, None, archive.read(entry).decode())
            else:
                found[name] = (stat.S_IFREG, mode & 0o777 or None, archive.read(entry))
    return found


def look(root, name, permissions):
    """The same of a mounted name; step by step, since its path may be longer than a path may be."""
    parent = os.open(root, os.O_PATH)
    *above, last = name.split("/")
    for component in above:
        below = os.open(component, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
        os.close(parent)
        parent = below
    try:
        mode = os.lstat(last or ".", dir_fd=parent).st_mode
        kind, mode = stat.S_IFMT(mode), stat.S_IMODE(mode)
        content = None
        if kind == stat.S_IFLNK:
            content = os.readlink(last, dir_fd=parent)
        elif kind == stat.S_IFREG:
            with open(os.open(last, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent), "rb") as file:
                content = file.read()
        return kind, None if permissions is None else mode, content
    finally:
        os.close(parent)


def names_below(root):
    """How many names there are below an open directory, however deep."""
    count = 0
    for name in os.listdir(root):
        count += 1
        if stat.S_ISDIR(os.lstat(name, dir_fd=root).st_mode):
            below = os.open(name, os.O_RDONLY, dir_fd=root)
            count += names_below(below)
            os.close(below)
    return count


def with_parents(names):
    """@names and the directories that they imply."""
    every = set()
    for name in names:
        parts = name.split("/")
        every |= {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return every - {""}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(odd, tmp_path, name):
    case = bad_archives.CASES[name]
    file, result = import_case(odd, name, tmp_path)
    assert result.code == DONE, result.text
    assert case.warning in result.text.lower()
    assert odd.leftovers() == []
    expected = zip_members(file) if case.suffix == "zip" else tar_members(plain_tar(file, case.suffix, tmp_path))
    root = odd.path(APP, name)
    for member, facts in expected.items():
        assert look(root, member, facts[1]) == facts, member
    handle = os.open(root, os.O_RDONLY)
    try:
        assert names_below(handle) == len(with_parents(expected))
    finally:
        os.close(handle)


def test_the_store_is_whole_after_all_that(odd):
    odd.run("verify", code=DONE)
    odd.restart()
    odd.run("verify", code=DONE)
    assert odd.leftovers() == []


@pytest.mark.parametrize("name", ["symlink-absolute", "symlink-escaping"])
def test_symlinks_are_refused_where_the_config_says_contained(place, tmp_path, name):
    daemon = place.daemon(apps=[{"name": APP, "symlinks": "contained"}]).start()
    _, result = import_case(daemon, name, tmp_path)
    assert result.code == VERIFICATION, result.text
    assert "symlink" in result.err.lower()


def test_imports_in_a_plain_c_locale(place, tmp_path, monkeypatch):
    for variable in ("LANG", "LC_ALL", "LC_CTYPE"):
        monkeypatch.setenv(variable, "C")
    daemon = place.daemon().start()
    file, result = import_case(daemon, "names-in-many-scripts-pax", tmp_path)
    assert result.code == DONE, result.text
    for member, facts in tar_members(file).items():
        assert look(daemon.path(APP, "names-in-many-scripts-pax"), member, facts[1]) == facts
    assert import_case(daemon, "names-in-many-scripts-pax", tmp_path)[1].code == UNCHANGED
