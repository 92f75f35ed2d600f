# SPDX-License-Identifier: Apache-2.0
"""Five changes, faults in the midst of them, and what must hold afterwards."""
import contextlib
import http.client
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import deploy

FAULT_AT = deploy.BUILD / "tests/tools/fault-at"


class FaultAt:
    """tests/tools/fault_at.c around a daemon. @at 0: only count."""

    def __init__(self, daemon, scope, at, fault, calls=()):
        self.report = daemon.folder / "fault-at.txt"
        pids = ",".join(map(str, [daemon.worker(), daemon.supervisor()]))
        command = [FAULT_AT, pids, scope, daemon.store, str(at), fault, *([",".join(calls)] if calls else [])]
        with open(self.report, "wb") as report:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=report)
        deploy.wait_until(lambda: self.process.poll() is not None or self.lines("attached"), "fault-at has attached")
        assert self.process.poll() is None, "fault-at could not attach"

    def lines(self, word):
        return [line for line in self.report.read_text(errors="replace").splitlines() if line.split()[0] == word]

    def fired(self):
        """What the call was, or None."""
        found = self.lines("fired")
        return found[0].split(" ", 2)[2] if found else None

    def close(self):
        """Let go; returns how many calls were counted."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(deploy.PATIENCE_S)
        assert code == 0, f"fault-at ended with {code}"
        return int(self.lines("count")[0].split()[1])


# -- the changes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    name: str
    command: tuple
    again: int | None  # the exit code of a repetition; None: it would be another change
    base: str          # the store that it starts from
    scopes: tuple      # who works on it


NAMES = ("fetch", "import", "flip", "rollback", "remove", "remove-pack")
BOTH = ("worker", "job")


def recover(daemon, pid):
    """Return when another worker answers than the one that was killed."""
    deploy.wait_until(lambda: daemon.answers() and daemon.status()["pid"] != pid, "a new worker answers")


FUSE_CONTROL = Path("/sys/fs/fuse/connections")


def abort_connections(daemon):
    """A worker that is killed while it waits for its own mount never ends without a successor."""
    if not any(FUSE_CONTROL.iterdir()):
        subprocess.run(["mount", "-t", "fusectl", "none", FUSE_CONTROL], check=True)
    for place in deploy.mounts_below(daemon.mount):
        mount = deploy.mount_line(place)
        if not mount["type"].startswith("fuse"):
            continue
        with contextlib.suppress(OSError):
            (FUSE_CONTROL / mount["device"].split(":")[1] / "abort").write_text("1")


def end_all(daemon):
    """After something went wrong: nothing of it lives on, known or not."""
    abort_connections(daemon)
    daemon.cleanup()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(daemon.config).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def changes(package):
    """@package: of version 1.2, for the import."""
    return [
        Change("fetch", ("fetch", "shop", "1.2", "--progress=none"), deploy.UNCHANGED, "two", BOTH),
        Change("import", ("import", package, "--app=shop", "--version=1.2", "--progress=none"), deploy.UNCHANGED,
               "two", BOTH),
        Change("flip", ("flip", "shop", "1.0"), deploy.UNCHANGED, "two", ("worker",)),
        Change("rollback", ("rollback", "shop"), None, "two", ("worker",)),
        # The oldest, whose content the others share: what is only its own is punched out of its pack.
        Change("remove", ("remove", "shop", "1.0"), deploy.NOT_FOUND, "three", ("worker",)),
        # The youngest, whose pack goes.
        Change("remove-pack", ("remove", "shop", "1.3"), deploy.NOT_FOUND, "three", ("worker",)),
    ]


def content(version):
    return {**deploy.small_app(version), "own.bin": deploy.noise(70_000, version.encode()),
            "shared.bin": deploy.noise(70_000)}


def publish(origin):
    """Versions 1.0 to 1.3; returns the package of 1.2."""
    for version in ("1.0", "1.1", "1.3"):
        origin.publish("shop", version, content(version), ending=".tar.zst")
    return origin.publish("shop", "1.2", content("1.2"), ending=".tar.zst")


def rows(daemon, name, query):
    """What a database of the running daemon says."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.store}/{name}?mode=ro", uri=True,
                                            timeout=deploy.PATIENCE_S)) as db:
        return db.execute(query).fetchall()


def settled(daemon):
    """Whether no job runs and nothing is left to free."""
    busy = rows(daemon, "catalog.db", "SELECT id FROM version WHERE state = 1 UNION SELECT id FROM pack WHERE dirty"
                " AND id NOT IN (SELECT pack FROM version WHERE pack IS NOT NULL)")
    return not busy and not daemon.status()["jobs"]


def indexed(daemon):
    """Whether the last is done that follows an import. After a failure only the next import does it."""
    return not rows(daemon, "catalog.db", "SELECT id FROM pack WHERE NOT indexed")


def settle(daemon):
    deploy.wait_until(lambda: settled(daemon), "the daemon has nothing to do any more")


def finished(daemon):
    """Whether all is done that a change brings along. It, or its disk, may end while it answers us."""
    with contextlib.suppress(OSError, http.client.HTTPException, sqlite3.OperationalError):
        return settled(daemon) and indexed(daemon)
    return False


class Bases:
    """Stores that the changes start from, made once and copied for each fault."""

    def __init__(self, daemon, folder):
        self.daemon = daemon
        self.folder = Path(folder)
        self.folder.mkdir()
        self.make("two", ["1.0", "1.1"], [])
        self.make("three", ["1.0", "1.1", "1.2", "1.3"], [["flip", "shop", "1.2"]])

    def make(self, name, versions, commands):
        self.daemon.start()
        for version in versions:
            self.daemon.run("fetch", "shop", version)
        for command in (["flip", "shop", "1.0"], ["flip", "shop", "1.1"], *commands):
            self.daemon.run(*command)
        settle(self.daemon)
        deploy.wait_until(lambda: indexed(self.daemon), "everything is indexed")
        self.daemon.stop()
        self.daemon.store.rename(self.folder / name)

    def new_life(self):
        """Of the log and the commands, the last fault's shall be shown."""
        self.daemon.log.unlink(missing_ok=True)
        self.daemon.commands.clear()

    def lay(self, name):
        """The daemon, which does not run, has a fresh copy."""
        self.new_life()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.daemon.store)
        subprocess.run(["cp", "-a", "--reflink=auto", self.folder / name, self.daemon.store], check=True)


    def count(self, change, scope, fault, calls=()):
        """How many places @change has where @fault could come."""
        self.lay(change.base)
        self.daemon.start()
        injector = FaultAt(self.daemon, scope, 0, fault, calls)
        self.daemon.run(*change.command)
        deploy.wait_until(lambda: finished(self.daemon), "it is done")
        count = injector.close()
        self.daemon.stop()
        return count


# -- what can be seen ----------------------------------------------------------------------


KEPT = ("version", "state", "channels", "pinned", "bad", "sha256", "package_bytes", "unpacked_bytes", "files",
        "verified")


def tree(folder):
    """Everything below @folder but what is of this daemon's life: node ids, and times of what it makes itself."""
    seen = {}
    for place, directories, names in os.walk(folder):
        directories[:] = [name for name in directories if name != ".deployfs"]
        for name in [*directories, *names]:
            path = Path(place, name)
            info = path.lstat()
            what = None
            if path.is_symlink():
                what = os.readlink(path)
            elif path.is_file():
                what = path.read_bytes()
            seen[str(path.relative_to(folder))] = (info.st_mode, info.st_uid, info.st_gid, what)
    return seen


def picture(daemon):
    """All that clients can see of the application: versions, channels, history, content."""
    app = daemon.app("shop")
    return {"versions": [{key: version[key] for key in KEPT} for version in app["versions"]],
            "channels": app["channels"],
            "history": [(g["verb"], g["from"], g["to"], g["result"]) for g in daemon.history("shop")],
            "tree": tree(daemon.apps)}


def pictures(bases, change):
    """Before and after @change, as it is without a fault."""
    daemon = bases.daemon
    bases.lay(change.base)
    daemon.start()
    old = picture(daemon)
    daemon.run(*change.command)
    settle(daemon)
    new = picture(daemon)
    daemon.stop()
    assert old != new
    return old, new


# -- what must hold ------------------------------------------------------------------------


def check_store(daemon, partial_allowed, unlinked):
    """Sound databases; packs and rows for each other; nothing left of work that was not finished.
    @unlinked: no unlink was made to fail, after which the next start does it."""
    for name in ("catalog.db", "index.db"):
        assert rows(daemon, name, "PRAGMA integrity_check") == [("ok",)], name
    assert rows(daemon, "catalog.db", "PRAGMA foreign_key_check") == []
    packs = {f"{daemon.store}/packs/{pack}.pack" for pack, in rows(daemon, "catalog.db", "SELECT id FROM pack")}
    assert packs <= set(daemon.packs())
    if not unlinked:
        return
    assert packs == set(daemon.packs())
    partial = daemon.store / "partial"
    left = [path for path in daemon.leftovers() if not (partial_allowed and Path(path).parent == partial)]
    assert left == []


def check(daemon, change, old, new, acknowledged=False, unlinked=True):
    """The state is @old or @new, whole; returns whether it is @new."""
    settle(daemon)
    seen = picture(daemon)
    assert seen in (old, new), differences(seen, old, new)
    assert seen == new or not acknowledged, "it was acknowledged, and is not there"
    check_store(daemon, change.name == "fetch" and seen == old, unlinked)
    daemon.run("verify", "shop")
    return seen == new


def differences(seen, old, new):
    return "\n".join(f"{key}: {seen[key]}\n  old: {old[key]}\n  new: {new[key]}" for key in seen
                     if key != "tree" and seen[key] not in (old[key], new[key])) or "the parts do not fit together"


def repeat(daemon, change, old, new, unlinked=True):
    """The command again, undisturbed."""
    if picture(daemon) == old:
        daemon.run(*change.command)
    elif change.again is not None:
        daemon.run(*change.command, code=change.again)
    assert check(daemon, change, old, new, acknowledged=True, unlinked=unlinked)


def answer(command):
    """What a deployctl in the background says in the end."""
    out, err = command.communicate(timeout=deploy.PATIENCE_S)
    return deploy.Result(command.args, command.returncode, out, err)


CAUSES = re.compile(r"Input/output error|I/O error|No space left|no space|is full|Cannot allocate memory|out of memory|"
                    r"not enough memory|Too many open files|unable to open database|broke before|"
                    r"was ended by signal 9")


def check_answer(result):
    """A command that failed says why."""
    if result.code not in (deploy.DONE, deploy.UNCHANGED):
        assert CAUSES.search(result.err), f"the cause is not named: {result.text}"
