# SPDX-License-Identifier: Apache-2.0
"""Bringing packages in: import, download, and the next version of one that is here."""
import contextlib
import os
import shutil

import deploy
import machine
import peers
import servers
from measure import Row, alternate, group, pairs_of
from trees import extract

FETCH_TRY = deploy.BUILD / "tests" / "tools" / "fetch_try"
OURS = "deployfs"
APP, VERSION, NEXT = "app", "1.0", "1.1"


@contextlib.contextmanager
def folder(bench, name):
    """An empty one, on the same disk as everything, with nothing that waits to be written."""
    path = bench.work / name
    path.mkdir(mode=0o755)
    os.sync()
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def daemon(bench, origin=None):
    """One with an empty store."""
    ours = peers.Ours(bench.work / "store", origin)
    os.sync()
    try:
        yield ours
    finally:
        ours.stop()


# -- import


def import_seconds(bench, archive):
    """Until it can be flipped to, and would survive a power cut."""
    with daemon(bench) as ours:
        return machine.timed(ours.daemon.command("import", archive, "--app", APP, "--version", VERSION))


def tar_seconds(bench, archive):
    with folder(bench, "extracted") as path:
        return machine.timed(["tar", "-C", path, "-xf", archive]) + machine.timed(["sync", "-f", path])


def import_row(name, limit, ending):
    @group(Row(name, "tar -x", limit))
    def measure(bench, rows):
        archive = getattr(bench.trees.python, ending)()
        machine.read("seq", archive)  # in memory for both
        found = alternate(bench.n, {OURS: lambda: import_seconds(bench, archive),
                                    "tar -x": lambda: tar_seconds(bench, archive)})
        return [row.result(pairs_of(found, OURS, row.peer)) for row in rows]


import_row("import-zst", 0.8, "zst")
import_row("import-gz", 0.8, "gz")
import_row("import-tar", 0.6, "tar")


# -- fetch


@contextlib.contextmanager
def served(bench, kind, archive):
    """A server with the archive as a package of APP."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(folder(bench, "origin"))
        package = root / APP / f"{APP}-{VERSION}{''.join(archive.suffixes)}"
        package.parent.mkdir()
        os.link(archive, package)
        deploy.Origin(root).list(package)
        work = stack.enter_context(folder(bench, "server"))
        server = stack.enter_context(kind(root, work))
        machine.read("seq", archive)
        yield server, f"{APP}/{package.name}"


def download_seconds(bench, server):
    """What the job does before it unpacks: a file with the right checksum."""
    with folder(bench, "partial") as path:
        return machine.timed([FETCH_TRY, "--no-check", APP, VERSION, path, server.url])


def curl_seconds(bench, server, name):
    with folder(bench, "copy") as path:
        return machine.timed(["curl", "-sS", "-o", path / "file", f"{server.url}/{name}"])


def nfs_cp_seconds(bench, server, name):
    url = f"nfs://{servers.HOST}/export/{name}?nfsport={server.port}&version=4"
    with folder(bench, "copy") as path:
        return machine.timed(["nfs-cp", url, path / "file"])


def fetch_row(name, peer, kind, copy_seconds):
    @group(Row(name, peer, 1.15))
    def measure(bench, rows):
        with served(bench, kind, bench.trees.python.tar()) as (server, file):
            found = alternate(bench.n, {OURS: lambda: download_seconds(bench, server),
                                        peer: lambda: copy_seconds(bench, server, file)})
        return [row.result(pairs_of(found, OURS, peer)) for row in rows]


fetch_row("fetch-ftp", "curl", servers.Vsftpd, curl_seconds)
fetch_row("fetch-nfs", "nfs-cp", servers.Ganesha, nfs_cp_seconds)


def fetch_seconds(bench, server):
    """From the server until it can be flipped to."""
    with daemon(bench, server.url) as ours:
        return machine.timed(ours.daemon.command("fetch", APP, VERSION))


@group(*(Row("fetch-import", "slower alone", 1.15, variant=ending) for ending in ("tar", "zst")))
def fetch_import(bench, rows):
    for row in rows:
        archive = getattr(bench.trees.python, row.variant)()
        with served(bench, servers.Vsftpd, archive) as (server, _):
            found = alternate(bench.n, {
                OURS: lambda: fetch_seconds(bench, server),
                "slower alone": lambda: max(download_seconds(bench, server), import_seconds(bench, archive))})
        yield row.result(pairs_of(found, OURS, row.peer))


# -- the next version


def bytes_of_upgrade(bench, every_mtime):
    """(bytes that the store has more, bytes that were written, bytes of the files that are new)"""
    archive, changed = bench.trees.python.next_tar(every_mtime)
    with daemon(bench) as ours:
        ours.add(bench.trees.python.tar(), APP, VERSION)
        os.sync()
        worker = ours.daemon.worker()
        used, written = machine.disk_use(ours.daemon.store), machine.written_by(worker)
        ours.add(archive, APP, NEXT)
        os.sync()
        return machine.disk_use(ours.daemon.store) - used, machine.written_by(worker) - written, changed


VARIANTS = {"": False, "every mtime new": True}


@group(*(Row("upgrade-bytes", "changed bytes", 1.2, "bytes", ", ".join(filter(None, (what, variant))))
         for variant in VARIANTS for what in ("added", "written")))
def upgrade_bytes(bench, rows):
    """Counted once: it is the same each time."""
    for variant, every_mtime in VARIANTS.items():
        wanted = [row for row in rows if row.variant.endswith("every mtime new") == every_mtime]
        if not wanted:
            continue
        added, written, changed = bytes_of_upgrade(bench, every_mtime)
        for row in wanted:
            yield row.result([(added if row.variant.startswith("added") else written, changed)])


def our_upgrade_seconds(bench, archive):
    with daemon(bench) as ours:
        ours.add(bench.trees.python.tar(), APP, VERSION)
        ours.daemon.run("flip", APP, VERSION)
        os.sync()
        took = machine.timed(ours.daemon.command("import", archive, "--app", APP, "--version", NEXT))
        return took + machine.timed(ours.daemon.command("flip", APP, NEXT))


def rsync_seconds(bench, source):
    """A copy with hard links to what is the same, made durable, and then the symlink."""
    with folder(bench, "rsynced") as path:
        shutil.copytree(bench.trees.python.tree(), path / VERSION, symlinks=True, copy_function=os.link)
        os.symlink(VERSION, path / "current")
        os.sync()
        took = machine.timed(["rsync", "-a", f"--link-dest={path / VERSION}", f"{source}/", path / NEXT])
        os.symlink(NEXT, path / "new")
        took += machine.timed(["mv", "-T", path / "new", path / "current"])
        return took + machine.timed(["sync", "-f", path])


@group(Row("upgrade-time", "rsync, symlink", full=True))
def upgrade_time(bench, rows):
    archive, _ = bench.trees.python.next_tar()
    with folder(bench, "next") as path:
        extract(archive, path / "tree")
        found = alternate(bench.n, {OURS: lambda: our_upgrade_seconds(bench, archive),
                                    "rsync, symlink": lambda: rsync_seconds(bench, path / "tree")})
    return [row.result(pairs_of(found, OURS, row.peer)) for row in rows]
