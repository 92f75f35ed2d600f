# SPDX-License-Identifier: Apache-2.0
"""Real and faulty servers on 127.0.0.1, for tests.

Each class: `start()` returns once the server accepts connections, `stop()` ends it by its
pid (and is harmless when it never started or died), `url` is what goes into `origin:`.
All are context managers. Nothing outside the given directory is written.
"""
import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

HOST = "127.0.0.1"


def free_port():
    """A port nobody listens on now. Another process may take it: starters retry."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_for_port(port, process=None, timeout=20.0, log=None):
    """Return when something accepts on the port; fail when @process ends before."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            text = Path(log).read_text(errors="replace") if log else ""
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}\n{text[-4000:]}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port} after {timeout} s")


def children(pid):
    """The pids of the children of @pid, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append((int(fields[19]), int(stat.parent.name)))
    return [child for _, child in sorted(found)]


def descendants(pid):
    """All processes below @pid, parents first."""
    below = []
    for child in children(pid):
        below += [child, *descendants(child)]
    return below


def kill(pid, number=signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Server:
    """A program in its own session; subclasses say which and where its files are."""

    def __init__(self, root, work):
        self.root = Path(root)  # what is served
        self.work = Path(work)  # config, logs, keys
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = self.work / f"{type(self).__name__.lower()}.log"
        self.port = None
        self.process = None

    def command(self):
        """Write the configuration for self.port and return the argument list."""
        raise NotImplementedError

    def start(self, port=None):
        """@port: the one to use, to come back where the server was before."""
        for _ in range(3):
            self.port = port or free_port()
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True)
            try:
                wait_for_port(self.port, self.process, log=self.log)
                return self
            except RuntimeError as error:
                failure = error
        raise failure

    def stop(self):
        if self.process is None:
            return
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        self.process = None
        for pid in below:
            kill(pid)

    def restart(self):
        port = self.port
        self.stop()
        return self.start(port)

    def pause(self):
        """SIGSTOP everything: connections stay open and nothing comes any more."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            kill(pid, signal.SIGSTOP)

    def resume(self):
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            kill(pid, signal.SIGCONT)

    def sessions(self):
        """The processes that serve one client each, where the server forks."""
        return descendants(self.process.pid)

    def kill_sessions(self):
        """SIGKILL what serves the clients now; the server goes on. Returns how many."""
        pids = self.sessions()
        for pid in pids:
            kill(pid)
        return len(pids)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Vsftpd(Server):
    """Anonymous FTP. @rate: bytes a second a client; @settings: more lines of its config.

    It serves as the user "ftp", who must be able to read what is below @root (the folders
    above may be closed) and must not be able to write to it.
    """

    def __init__(self, root, work, rate=0, **settings):
        super().__init__(root, work)
        self.settings = {"anon_max_rate": rate, **settings}

    @property
    def url(self):
        return f"ftp://{HOST}:{self.port}"

    def command(self):
        empty = self.work / "empty"
        empty.mkdir(exist_ok=True)
        self.root.chmod(0o755)
        lines = {
            "listen": "YES", "listen_ipv6": "NO", "listen_address": HOST,
            "listen_port": self.port, "background": "NO",
            "anonymous_enable": "YES", "local_enable": "NO", "no_anon_password": "YES",
            "ftp_username": "ftp", "anon_world_readable_only": "NO",
            "anon_root": self.root, "write_enable": "NO", "secure_chroot_dir": empty,
            "seccomp_sandbox": "NO", "isolate_network": "NO",
            "connect_from_port_20": "NO",
            "use_localtime": "NO", "xferlog_enable": "YES", "log_ftp_protocol": "YES",
            "vsftpd_log_file": self.work / "vsftpd-protocol.log",
            **self.settings,
        }
        conf = self.work / "vsftpd.conf"
        conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        return ["/usr/sbin/vsftpd", str(conf)]

    def protocol_log(self):
        """What clients said and what they were told."""
        path = self.work / "vsftpd-protocol.log"
        return path.read_text(errors="replace") if path.exists() else ""


class Ganesha(Server):
    """NFSv4 of @root as /export, on one loopback port, without rpcbind."""

    @property
    def url(self):
        return f"nfs://{HOST}:{self.port}/export"

    def command(self):
        state = self.work / "ganesha-state"
        state.mkdir(exist_ok=True)
        conf = self.work / "ganesha.conf"
        conf.write_text(f"""
NFS_CORE_PARAM {{
    NFS_Port = {self.port};
    Bind_addr = {HOST};
    Protocols = 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Nb_Worker = 8;
}}
NFSv4 {{
    Graceless = true;
    RecoveryRoot = "{state}";
    RecoveryBackend = fs;
    Minor_Versions = 0, 1, 2;
    Only_Numeric_Owners = true;
    Lease_Lifetime = 20;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{
    Export_Id = 1;
    Path = "{self.root}";
    Pseudo = "/export";
    Protocols = 4;
    Transports = TCP;
    Access_Type = RO;
    Squash = None;
    SecType = sys, none;
    PrivilegedPort = false;
    FSAL {{ Name = VFS; }}
}}
""")
        return ["/usr/bin/ganesha.nfsd", "-F", "-f", str(conf), "-L",
                str(self.work / "ganesha-server.log"), "-p", str(self.work / "ganesha.pid"),
                "-N", "NIV_EVENT"]
