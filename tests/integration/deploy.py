# SPDX-License-Identifier: Apache-2.0
"""A deployfsd of one's own, with everything below one folder, and packages for it."""
import contextlib
import errno
import hashlib
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DEPLOYFS_BUILD", TOP / "build"))
DEPLOYFSD = BUILD / "fs" / "deployfsd"
DEPLOYCTL = BUILD / "ctl" / "deployctl"

DONE, FAILED, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE, VERIFICATION, NO_SPACE = range(8)
UNCHANGED = 77

# Every wait in the tests ends after this, and then the test fails. It is never slept through.
PATIENCE_S = float(os.environ.get("DEPLOYFS_PATIENCE_S", 60))


def wait_until(condition, what, timeout_s=PATIENCE_S):
    """Ask again and again until @condition() is true; its value is returned."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.01)


def figure(name, **values):
    """Tell a measured figure: run.sh shows what is in the file."""
    line = json.dumps({"figure": name, **values})
    print(line)
    if "DEPLOYFS_FIGURES" in os.environ:
        with open(os.environ["DEPLOYFS_FIGURES"], "a") as file:
            file.write(line + "\n")


def mounts_below(folder):
    """Mount points at or below @folder, the newest first."""
    folder = str(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape")
        if place == folder or place.startswith(folder + "/"):
            found.append(place)
    return found[::-1]


def mount_line(place):
    """The fields of mountinfo for what is mounted last at @place; None where nothing is."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    lines = [fields for fields in lines if fields[4] == str(place)]
    if not lines:
        return None
    fields = lines[-1]
    dash = fields.index("-")
    return {"device": fields[2], "options": fields[5].split(","), "optional": fields[6:dash], "type": fields[dash + 1],
            "super": fields[dash + 3].split(",")}


# -- packages ------------------------------------------------------------------------------


@dataclass
class Symlink:
    target: str


@dataclass
class Hardlink:
    target: str


@dataclass
class File:
    data: bytes
    mode: int = 0o644
    mtime: int = 1_700_000_000


class Directory:
    pass


def member(name, what):
    """A tar member and its data for bytes, File, Symlink, Hardlink or Directory."""
    info = tarfile.TarInfo(name)
    info.mtime = 1_700_000_000
    if isinstance(what, bytes):
        what = File(what)
    if isinstance(what, File):
        info.size, info.mode, info.mtime = len(what.data), what.mode, what.mtime
        return info, io.BytesIO(what.data)
    if isinstance(what, Symlink):
        info.type, info.linkname = tarfile.SYMTYPE, what.target
    elif isinstance(what, Hardlink):
        info.type, info.linkname = tarfile.LNKTYPE, what.target
    else:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info, None


COMPRESSORS = {".tar": None, ".tar.gz": ["gzip", "-nf"], ".tar.xz": ["xz", "-1f"],
               ".tar.bz2": ["bzip2", "-f"], ".tar.zst": ["zstd", "-qf", "--rm"]}


def make_package(path, content):
    """Write @content, a dict of names, as the archive that @path's ending asks for."""
    path = Path(path)
    ending = path.name[path.name.index(".tar"):]
    plain = path.with_name(path.name.removesuffix(ending.removeprefix(".tar")))
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in content.items():
            tar.addfile(*member(name, what))
    if COMPRESSORS[ending]:
        subprocess.run([*COMPRESSORS[ending], plain], check=True)
    return path


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Origin:
    """A folder in the layout that a team makes by hand."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def publish(self, app, version, content, ending=".tar.gz", listed=True):
        """Put a package there; a second call with the same version replaces it."""
        folder = self.folder / app
        folder.mkdir(exist_ok=True)
        package = make_package(folder / f"{app}-{version}{ending}", content)
        if listed:
            self.list(package)
        return package

    def list(self, package, checksum=None):
        """The line of SHA256SUMS for @package."""
        sums = package.parent / "SHA256SUMS"
        lines = sums.read_text().splitlines() if sums.exists() else []
        lines = [line for line in lines if line.split()[1] != package.name]
        lines.append(f"{checksum or sha256(package)}  {package.name}")
        sums.write_text("\n".join(lines) + "\n")


def small_app(version):
    """A package of a few files; only VERSION and one file differ from version to version."""
    return {
        "VERSION": version.encode() + b"\n",
        "bin": Directory(),
        "bin/run": File(b"#!/bin/sh\necho run\n", mode=0o755),
        "bin/start": Symlink("run"),
        "lib/same.txt": b"the same in every version\n" * 50,
        "lib/changed.txt": f"changed in {version}\n".encode() * 50,
        "lib/copy.txt": b"the same in every version\n" * 50,
        "lib/linked.txt": Hardlink("lib/same.txt"),
        "empty": Directory(),
        "naïve/日本.txt": "jó\n".encode(),
    }


def noise(size, seed=b"noise"):
    """@size bytes that do not compress, the same ones for the same @seed."""
    return hashlib.shake_128(seed).digest(size)


# -- the daemon ----------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("d", timeout=PATIENCE_S)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass
class Result:
    """What a program did."""
    args: list
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    @property
    def text(self):
        return self.out + self.err


@dataclass
class Reply:
    """What the API answered."""
    status: int
    body: dict


def config_text(config):
    """A dict as YAML: values are scalars, lists of scalars, or lists of dicts of scalars."""
    lines = []
    for key, value in config.items():
        if not isinstance(value, list):
            lines.append(f"{key}: {value}")
            continue
        lines.append(f"{key}:")
        for item in value:
            if isinstance(item, dict):
                lines += [f"{'  ' if n else '- '}{k}: {v}" for n, (k, v) in enumerate(item.items())]
            else:
                lines.append(f"- {item}")
    return "\n".join(lines) + "\n"


def ended(process, timeout_s):
    """Whether the process has ended; waits at most that long for it."""
    try:
        process.wait(timeout_s)
        return True
    except subprocess.TimeoutExpired:
        return False


def alive(pid):
    """Whether a process runs; a zombie that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return pid > 0 and status.rpartition(")")[2].split()[0] not in "ZX"


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def arguments(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def signal_pid(pid, number):
    with contextlib.suppress(ProcessLookupError):
        if pid > 0:
            os.kill(pid, number)


def kill_all(pids):
    """None of them gets to see that another one died."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            signal_pid(pid, number)


class Daemon:
    """deployfsd with config, store, runtime and mount below @folder."""

    def __init__(self, folder, origin=None, **config):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = self.folder / "store"
        self.runtime = self.folder / "run"
        self.mount = self.folder / "mnt"
        self.apps = self.mount / "apps"
        self.socket = self.runtime / "deployfs.sock"
        self.config = self.folder / "deployfs.yaml"
        self.log = self.folder / "deployfsd.log"
        self.process = None
        self.commands = []
        self.configure(origin, **config)

    # -- configuration and life

    def configure(self, origin=None, **config):
        """Write the config; what is not named has a test's default."""
        values = {"mount": self.mount, "store": self.store, "runtime": self.runtime,
                  "reserve": "16MiB", "connect_timeout": "5s", "stall_timeout": "5s",
                  "credentials": self.folder / "credentials",
                  "known_hosts": self.folder / "known_hosts", **config}
        if origin is not None:
            values["origin"] = origin if isinstance(origin, list) else str(origin)
        self.config.write_text(config_text(values))

    def spawn(self, *args, wrapper=(), **options):
        """Start it and do not wait for anything. @wrapper: a command that executes what follows it."""
        command = [*wrapper, str(DEPLOYFSD), "--config", str(self.config), *args]
        self.commands.append(shlex.join(command) + " &")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True, **options)
        return self

    def start(self, *args):
        """Start it and return when it answers."""
        self.spawn(*args)
        wait_until(self.answers, "deployfsd answers")
        return self

    def answers(self):
        if self.process.poll() is not None and not any(map(alive, self.processes())):
            raise RuntimeError(f"deployfsd ended with {self.process.returncode}:\n{self.log_tail()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.api("GET", "/v1/status").status == 200
        return False

    def stop(self):
        """SIGTERM, and it must go by itself with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self.commands.append("kill $!; wait $!")
        self.process = None
        assert code == 0, f"deployfsd ended with {code}:\n{self.log_tail()}"

    def processes(self):
        """The pids of the supervisor and of the worker, 0 for one that is not there."""
        try:
            said = json.loads((self.runtime / "supervisor.json").read_text())
        except OSError:
            return 0, 0
        return said["pid"], said["worker"]

    def worker(self):
        """The pid of the process that does the work, once there is one."""
        return wait_until(lambda: self.processes()[1], "there is a worker")

    def supervisor(self):
        return self.processes()[0]

    def kill_worker(self, number=signal.SIGKILL):
        """Its supervisor starts the next one at once."""
        os.kill(self.worker(), number)
        self.commands.append(f"kill -{int(number)} $(pgrep deployfs-worker)")

    def job_process(self):
        """The pid of a job's process, once there is one."""
        return wait_until(lambda: next((pid for pid in children(self.worker()) if b"--job" in arguments(pid)), 0),
                          "the job's process is there")

    def recover(self):
        """After a kill of the worker: return when the next one answers."""
        wait_until(self.answers, "deployfsd answers again")

    def kill(self):
        """SIGKILL to all at once: the mount stays, dead."""
        pids = [*self.processes(), self.process.pid]
        kill_all(pids)
        self.process.wait()
        wait_until(lambda: self.has_ended(pids), "all have ended")
        self.commands.append("killall -9 deployfsd deployfs-worker; wait $!")
        self.process = None

    def has_ended(self, pids):
        """A worker whose last thread still waits for the disk has the socket, though it counts as a zombie."""
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            return not any(map(alive, pids)) and client.connect_ex(str(self.socket)) in (errno.ENOENT, errno.ECONNREFUSED)

    def gone(self):
        """After a kill of all of it by somebody else: return when it has ended."""
        self.process.wait(PATIENCE_S)
        wait_until(lambda: self.has_ended(self.processes()), "deployfsd has ended")
        self.commands.append("wait $!")
        self.process = None

    def restart(self):
        self.stop()
        return self.start()

    def cleanup(self):
        """End it however it is, and leave nothing mounted."""
        pids = [*self.processes(), self.process.pid if self.process else 0]
        if self.supervisor() and alive(self.supervisor()):
            signal_pid(self.worker(), signal.SIGCONT)
            signal_pid(self.supervisor(), signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not any(map(alive, pids)), "it has ended", 10)
        kill_all([*pids, *self.processes()])
        if self.process:
            self.process.wait()
        self.process = None
        for place in mounts_below(self.folder):
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self):
        return self.log_text()[-6000:]

    def sanitizer_reports(self):
        """What AddressSanitizer and UndefinedBehaviorSanitizer have said, of all processes."""
        lines = self.log_text().splitlines()
        return ["\n".join(lines[number:number + 40]) for number, line in enumerate(lines)
                if re.search(r"ERROR: \w+Sanitizer:|: runtime error:", line)]

    def write_repro(self):
        """What was run, as a script, for who looks into a failure."""
        lines = ["#!/bin/bash", f"# Run in: unshare -m; the folder {self.folder} was kept.", *self.commands]
        path = self.folder / "repro.sh"
        path.write_text("\n".join(lines) + "\n")
        return path

    # -- the command line

    def command(self, *args):
        return [str(DEPLOYCTL), "--config", str(self.config), *map(str, args)]

    def ctl(self, *args, user=None, timeout_s=PATIENCE_S, **options):
        """Run deployctl to its end, however it ends."""
        command = self.command(*args)
        if user is not None:
            command = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", *command]
        self.commands.append(shlex.join(command))
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout_s, **options)
        return Result(command, done.returncode, done.stdout, done.stderr)

    def run(self, *args, code=DONE, **options):
        """Run deployctl, which must exit with @code."""
        result = self.ctl(*args, **options)
        assert result.code == code, (
            f"deployctl {shlex.join(map(str, args))}: {result.code}, not {code}\n{result.text}")
        return result

    def json(self, *args, code=DONE, **options):
        """Run deployctl with --json and return what it printed."""
        reply = self.run(*args, "--json", code=code, **options).json()
        assert reply["schema"] == 1
        return reply

    def background(self, *args, **options):
        """Start deployctl and do not wait for it."""
        command = self.command(*args)
        self.commands.append(shlex.join(command) + " &")
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **options)

    # -- the API

    def connect(self):
        """A connection of one's own; the caller closes it."""
        return UnixConnection(self.socket)

    def api(self, method, path, body=None, connection=None, key=None):
        """One request. @body: an object, or bytes that are sent as they are."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.ExitStack() as stack:
            if connection is None:
                connection = stack.enter_context(contextlib.closing(self.connect()))
            connection.request(method, path, data, {} if key is None else {"Idempotency-Key": key})
            response = connection.getresponse()
            text = response.read()
        reply = Reply(response.status, json.loads(text))
        assert reply.body["schema"] == 1
        return reply

    def status(self):
        return self.api("GET", "/v1/status").body

    def app(self, app):
        return self.api("GET", f"/v1/apps/{app}").body["app"]

    def version(self, app, version):
        """The API's object of one version; None where it is not here."""
        return next((v for v in self.app(app)["versions"] if v["version"] == version), None)

    def versions(self, app):
        return [v["version"] for v in self.app(app)["versions"]]

    def channels(self, app):
        return self.app(app)["channels"]

    def history(self, app, channel="current"):
        return self.api("GET", f"/v1/apps/{app}/history?channel={channel}").body["generations"]

    # -- what is mounted

    def path(self, app, version="current"):
        return self.apps / app / version

    def read(self, app, version="current", name="VERSION"):
        return (self.path(app, version) / name).read_text().strip()

    def leftovers(self):
        """Files in the store that belong to no finished import."""
        found = []
        for name in ("tmp", "partial"):
            folder = self.store / name
            if folder.exists():
                found += [str(path) for path in folder.rglob("*") if not path.is_dir()]
        return found

    def packs(self):
        return sorted(str(path) for path in (self.store / "packs").rglob("*") if not path.is_dir())


def remove_tree(folder):
    for place in mounts_below(folder):
        subprocess.run(["umount", "-l", place], check=False)
    shutil.rmtree(folder)
