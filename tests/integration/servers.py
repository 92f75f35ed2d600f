# SPDX-License-Identifier: Apache-2.0
"""Real and faulty servers on 127.0.0.1, for tests.

Each class: `start()` returns once the server accepts connections, `stop()` ends it by its
pid (and is harmless when it never started or died), `url` is what goes into `origin:`.
All are context managers. Nothing outside the given directory is written.
"""
import base64
import contextlib
import http.server
import logging
import os
import signal
import socket
import ssl
import subprocess
import threading
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

    def __init__(self, root, work, rate=0, tls=None, **settings):
        super().__init__(root, work)
        self.tls = tls  # (certificate, key): explicit TLS, and nothing without it
        self.settings = {"anon_max_rate": rate, **settings}
        if tls:
            self.settings |= {
                "ssl_enable": "YES", "allow_anon_ssl": "YES", "rsa_cert_file": tls[0],
                "rsa_private_key_file": tls[1], "force_anon_logins_ssl": "YES",
                "force_anon_data_ssl": "YES", "ssl_tlsv1": "YES", **settings}

    @property
    def url(self):
        return f"{'ftps' if self.tls else 'ftp'}://{HOST}:{self.port}"

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
    allow_set_io_flusher_fail = true;
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


class FtpFaulty:
    """An FTP server of python3-pyftpdlib that misbehaves as its attributes say.

    break_after: bytes of a file after which both connections are reset, break_times times
    ignore_rest: REST is answered with 350 and has no effect
    endless:     a file never ends
    size_wrong:  added to what SIZE answers; None: SIZE is not known
    replies:     {"RETR": "550 No."}: answers to a command instead of carrying it out;
                 a list is used up entry by entry, then the command works
    pasv_host:   the address in the reply to PASV (EPSV is refused then)
    swap:        {name: other}: bytes of another file under a name
    commands:    what clients said, for assertions
    """

    def __init__(self, root, user=None, password=None):
        self.root = Path(root)
        self.user, self.password = user, password
        self.break_after = None
        self.break_times = 0
        self.ignore_rest = False
        self.endless = False
        self.size_wrong = 0
        self.replies = {}
        self.pasv_host = None
        self.swap = {}
        self.commands = []
        self.port = None
        self.server = self.thread = None

    @property
    def url(self):
        return f"ftp://{HOST}:{self.port}"

    def reply_to(self, command):
        reply = self.replies.get(command)
        if isinstance(reply, list):
            return reply.pop(0) if reply else None
        return reply

    def start(self):
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.ioloop import IOLoop
        from pyftpdlib.servers import FTPServer

        logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
        authorizer = DummyAuthorizer()
        if self.user:
            authorizer.add_user(self.user, self.password, str(self.root), perm="elr")
        else:
            authorizer.add_anonymous(str(self.root))
        handler = _faulty_handler(self)
        handler.authorizer = authorizer
        self.server = FTPServer((HOST, 0), handler, ioloop=IOLoop())
        self.port = self.server.address[1]
        self.stopping = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        wait_for_port(self.port)
        return self

    def _serve(self):
        while not self.stopping:
            self.server.ioloop.loop(timeout=0.05, blocking=False)
        self.server.close_all()

    def stop(self):
        if self.thread:
            self.stopping = True
            self.thread.join()
            self.thread = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def _faulty_handler(faults):
    from pyftpdlib.handlers import FTPHandler

    class Producer:
        """A file's bytes, with the faults."""

        def __init__(self, handler, producer):
            self.handler, self.producer = handler, producer
            self.left = faults.break_after

        def more(self):
            if faults.endless:
                return b"x" * 65536
            data = self.producer.more()
            if self.left is None or faults.break_times == 0:
                return data
            if len(data) < self.left:
                self.left -= len(data)
                return data
            faults.break_times -= 1
            self.producer = None
            self.handler.data_channel.socket.sendall(data[:self.left])
            self.handler.close()
            return b""

    class Handler(FTPHandler):
        banner = "faulty"
        use_sendfile = False

        def process_command(self, cmd, *args, **kwargs):
            faults.commands.append(f"{cmd} {args[0] if args else ''}".strip())
            reply = faults.reply_to(cmd)
            if cmd == "EPSV" and faults.pasv_host:
                reply = "502 Not implemented."
            if reply:
                self.respond(reply)
                if reply.startswith("421"):
                    self.close_when_done()
                return None
            return super().process_command(cmd, *args, **kwargs)

        def respond(self, resp, *args, **kwargs):
            if resp.startswith("227") and faults.pasv_host:
                head, _, numbers = resp.partition("(")
                ports = numbers.rstrip(").").split(",")[4:]
                resp = f"{head}({','.join(faults.pasv_host.split('.') + ports)})."
            return super().respond(resp, *args, **kwargs)

        def ftp_REST(self, line):
            if faults.ignore_rest:
                self.respond(f"350 Restarting at position {line}.")
                return
            super().ftp_REST(line)

        def ftp_SIZE(self, path):
            if faults.size_wrong is None:
                self.respond("502 Not implemented.")
                return
            if not os.path.isfile(path):
                self.respond("550 No such file.")
                return
            self.respond(f"213 {os.path.getsize(path) + faults.size_wrong}")

        def ftp_RETR(self, file):
            other = faults.swap.get(os.path.basename(file))
            return super().ftp_RETR(os.path.join(os.path.dirname(file), other)
                                    if other else file)

        def push_dtp_data(self, data, isproducer=False, file=None, cmd=None):
            if isproducer:
                data = Producer(self, data)
            super().push_dtp_data(data, isproducer, file, cmd)

    return Handler


class HttpServer:
    """An HTTP(S) server that misbehaves as its attributes say.

    ranges:      "yes", "ignore" (a 200 with everything), "wrong" (another Content-Range)
    break_after: bytes of a body after which the connection is reset, break_times times
    rate:        bytes a second
    statuses:    {"/shop/SHA256SUMS": 404}
    redirects:   {"/shop/SHA256SUMS": "http://…"}; a callable gets the path
    bodies:      {"/shop/SHA256SUMS": b"<html>"}
    auth:        (user, password) for basic authentication
    requests:    (path, headers) of each, for assertions
    """

    def __init__(self, root, tls=None):
        self.root = Path(root)
        self.tls = tls  # (certificate, key)
        self.ranges = "yes"
        self.break_after = None
        self.break_times = 0
        self.rate = None
        self.statuses = {}
        self.redirects = {}
        self.bodies = {}
        self.auth = None
        self.requests = []
        self.port = None
        self.server = self.thread = None

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.port}"

    def start(self):
        self.server = http.server.ThreadingHTTPServer((HOST, 0), _http_handler(self))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,),
                                       daemon=True)
        self.thread.start()
        return self

    def stop(self):
        if self.thread:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
            self.thread = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def _http_handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def refuse(self, status, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def allowed(self):
            if not server.auth:
                return True
            word = base64.b64encode(":".join(server.auth).encode()).decode()
            return self.headers.get("Authorization") == f"Basic {word}"

        def body(self):
            if self.path in server.bodies:
                return server.bodies[self.path]
            file = server.root / self.path.lstrip("/")
            return file.read_bytes() if file.is_file() else None

        def send_body(self, body):
            left = server.break_after if server.break_times else None
            size = max(1, min(16384, int(server.rate / 10))) if server.rate else 65536
            for at in range(0, len(body), size):
                part = body[at:at + size]
                if left is not None and len(part) >= left:
                    server.break_times -= 1
                    self.wfile.write(part[:left])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.wfile.write(part)
                left = left and left - len(part)
                if server.rate:
                    time.sleep(len(part) / server.rate)

        def do_GET(self):
            server.requests.append((self.path, dict(self.headers)))
            if not self.allowed():
                return self.refuse(401, WWW_Authenticate='Basic realm="x"')
            if self.path in server.statuses:
                return self.refuse(server.statuses[self.path])
            target = server.redirects
            target = target(self.path) if callable(target) else target.get(self.path)
            if target:
                return self.refuse(302, Location=target)
            body = self.body()
            if body is None:
                return self.refuse(404)
            return self.answer(body)

        def answer(self, body):
            wanted = self.headers.get("Range")
            first, total = 0, len(body)
            if wanted and server.ranges != "ignore":
                first = int(wanted.removeprefix("bytes=").rstrip("-"))
                if first >= total:
                    return self.refuse(416, Content_Range=f"bytes */{total}")
                body = body[first:]
                told = first + 1 if server.ranges == "wrong" else first
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {told}-{total - 1}/{total}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.send_body(body)

    return Handler


class Sshd(Server):
    """OpenSSH with internal-sftp: root with a key, on one loopback port.

    `url` names @root; `client_key` opens it; `known_hosts_line()` is what a client must
    know; `new_host_key()` before a restart() is a server that was replaced. ssh-rsa is
    allowed because libssh2 before 1.11 knows no other signature of an RSA key.
    """

    def __init__(self, root, work, key_type="ed25519"):
        super().__init__(root, work)
        self.host_key = self.work / "host_key"
        self.client_key = self.work / "client_key"
        self.key_type = key_type
        self.new_host_key()
        self.make_key(self.client_key, "ed25519")

    @staticmethod
    def make_key(path, key_type):
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        subprocess.run(["/usr/bin/ssh-keygen", "-q", "-t", key_type, "-N", "", "-f", path],
                       check=True)

    def new_host_key(self):
        self.make_key(self.host_key, self.key_type)

    @property
    def url(self):
        return f"sftp://{HOST}:{self.port}{self.root}"

    def known_hosts_line(self):
        kind, key, *_ = self.host_key.with_suffix(".pub").read_text().split()
        return f"[{HOST}]:{self.port} {kind} {key}"

    def command(self):
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        keys = self.work / "authorized_keys"
        keys.write_text(self.client_key.with_suffix(".pub").read_text())
        conf = self.work / "sshd_config"
        conf.write_text(f"""
ListenAddress {HOST}:{self.port}
HostKey {self.host_key}
PidFile none
AuthorizedKeysFile {keys}
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
ForceCommand internal-sftp
HostKeyAlgorithms +ssh-rsa
""")
        return ["/usr/sbin/sshd", "-D", "-e", "-f", str(conf)]


class Authority:
    """A certificate authority made with openssl. `file` is its certificate."""

    def __init__(self, work):
        self.work = Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.file, self.key = self.work / "ca.pem", self.work / "ca.key"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", self.key, "-out", self.file, "-days", "2",
                     "-subj", "/CN=Test authority")

    @staticmethod
    def openssl(*args):
        subprocess.run(["/usr/bin/openssl", *map(str, args)], check=True,
                       capture_output=True)

    def issue(self, name=f"IP:{HOST}", days=2):
        """(certificate, key) for a subjectAltName; days < 0: expired."""
        stem = self.work / f"leaf-{len(list(self.work.glob('leaf-*.key')))}"
        key, request, cert, extra = (stem.with_suffix(s)
                                     for s in (".key", ".csr", ".pem", ".ext"))
        extra.write_text(f"subjectAltName={name}\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", key, "-out", request, "-subj", "/CN=Test server")
        self.openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key,
                     "-CAcreateserial", "-days", days, "-extfile", extra, "-out", cert)
        return cert, key
