# SPDX-License-Identifier: Apache-2.0
"""Fetching from real and faulty servers, as the job does it (tests/tools/fetch_try).

DEPLOYFS_BUILD names the build folder (default: build).
"""
import contextlib
import errno
import hashlib
import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from servers import (HOST, Authority, FtpFaulty, Ganesha, HttpServer, Sshd, Vsftpd,
                     free_port)

TRY = Path(os.environ.get("DEPLOYFS_BUILD", "build")).resolve() / "tests/tools/fetch_try"
TESTS = Path(__file__).resolve().parent.parent
# Bugs of libraries, for a build with -Db_sanitize=address
SANITIZER = {"ASAN_OPTIONS": f"suppressions={TESTS / 'asan.supp'}",
             "LSAN_OPTIONS": "print_suppressions=0",
             "UBSAN_OPTIONS": "halt_on_error=1"}
MIB = 1024 * 1024


class Shop:
    """An origin's folder with one package."""

    def __init__(self, root, size=3 * MIB, seed=1):
        self.root = root
        self.folder = root / "shop"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "shop-1.0.tar.zst"
        self.file.write_bytes(random.Random(seed).randbytes(size))
        self.list()

    @property
    def size(self):
        return self.file.stat().st_size

    @property
    def sha256(self):
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def list(self):
        (self.folder / "SHA256SUMS").write_text(f"{self.sha256}  {self.file.name}\n")


class Run:
    """What fetch_try printed, and how it ended."""

    def __init__(self, lines, status):
        self.status = status
        self.lines = lines
        self.result = lines[-1].get("result") if lines else None
        self.error = lines[-1].get("error") if lines else None
        self.warnings = [line["warning"] for line in lines if "warning" in line]
        self.progress = [line["progress"] for line in lines if "progress" in line]
        self.origins = [line["origin"] for line in lines if "origin" in line]

    def code(self):
        assert self.error, self.lines[-1:]
        return errno.errorcode[self.error["code"]]


class Fetcher:
    def __init__(self, partial):
        self.partial = partial
        self.partial.mkdir()
        self.process = None

    def command(self, urls, version="1.0", **options):
        words = [f"--{name.replace('_', '-')}" + (f"={value}" if value is not True else "")
                 for name, value in options.items()]
        return [str(TRY), *words, "shop", version, str(self.partial), *urls]

    def start(self, *urls, **options):
        self.process = subprocess.Popen(self.command(urls, **options),
                                        stdout=subprocess.PIPE, text=True,
                                        env=os.environ | SANITIZER)
        return self.process

    def wait_for_bytes(self, count):
        """Lines up to the first that tells of @count bytes of the package."""
        lines = []
        for line in self.process.stdout:
            lines.append(json.loads(line))
            told = lines[-1].get("progress", {})
            if told.get("stage") == "download" and told["bytes"] >= count:
                return lines
        raise AssertionError(f"ended before {count} bytes: {lines[-1:]}")

    def finish(self, lines=(), timeout=60):
        rest, _ = self.process.communicate(timeout=timeout)
        return Run([*lines, *map(json.loads, rest.splitlines())], self.process.returncode)

    def __call__(self, *urls, timeout=60, **options):
        done = subprocess.run(self.command(urls, **options), stdout=subprocess.PIPE,
                              text=True, timeout=timeout, env=os.environ | SANITIZER)
        return Run([json.loads(line) for line in done.stdout.splitlines()], done.returncode)


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path / "origin")


@pytest.fixture
def fetch(tmp_path):
    fetcher = Fetcher(tmp_path / "partial")
    yield fetcher
    if fetcher.process:
        fetcher.process.kill()
        fetcher.process.wait()
        fetcher.process.stdout.close()


@pytest.fixture
def serve():
    """serve(server) starts it and stops it after the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def assert_fetched(run, shop):
    assert run.result, run.lines[-1:]
    assert run.result["sha256"] == shop.sha256
    assert run.result["size"] == shop.size
    assert Path(run.result["partial"]).read_bytes() == shop.file.read_bytes()


@pytest.fixture(params=["vsftpd", "ganesha", "http", "sftp", "file"])
def origin(request, shop, serve, tmp_path):
    """Each protocol by a server that does nothing wrong; its url and its options."""
    work, options = tmp_path / "work", {}
    if request.param == "file":
        return str(shop.root), options
    if request.param == "sftp":
        server = serve(Sshd(shop.root, work))
        (tmp_path / "known_hosts").write_text(server.known_hosts_line() + "\n")
        write_credentials(tmp_path, f"sftp://{HOST}:{server.port} root "
                                    f"key={server.client_key}")
        options = {"known_hosts": tmp_path / "known_hosts",
                   "credentials": tmp_path / "credentials"}
    else:
        server = serve({"vsftpd": lambda: Vsftpd(shop.root, work),
                        "ganesha": lambda: Ganesha(shop.root, work),
                        "http": lambda: HttpServer(shop.root)}[request.param]())
    return server.url, options


def write_credentials(tmp_path, text):
    path = tmp_path / "credentials"
    path.touch(mode=0o600)
    path.write_text(text + "\n")
    return path


# every protocol

def test_package_is_fetched_and_verified(origin, shop, fetch):
    url, options = origin
    run = fetch(url, **options)
    assert_fetched(run, shop)
    assert run.result["listed"] and run.result["resumed"] == 0
    assert run.result["origin"] == url
    assert run.progress[-1] == {"stage": "download", "bytes": shop.size,
                                "total": shop.size, "source": url}
    assert run.origins and all(o["error"] is None for o in run.origins)


def test_partial_file_is_continued(origin, shop, fetch):
    url, options = origin
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes()[:MIB + 17])
    run = fetch(url, **options)
    assert_fetched(run, shop)
    assert run.result["resumed"] == MIB + 17


def test_complete_partial_file_is_not_read_again(origin, shop, fetch):
    url, options = origin
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes())
    shop.file.rename(shop.file.with_suffix(".away"))
    run = fetch(url, **options)
    shop.file.with_suffix(".away").rename(shop.file)
    assert_fetched(run, shop)
    assert run.result["resumed"] == shop.size


@pytest.mark.parametrize("rest", ["wrong", "longer"])
def test_partial_file_of_another_content_is_dropped(origin, shop, fetch, rest):
    url, options = origin
    there = b"other" * 1000 if rest == "wrong" else shop.file.read_bytes() + b"more"
    (fetch.partial / shop.file.name).write_bytes(there)
    run = fetch(url, **options)
    assert_fetched(run, shop)
    assert run.result["resumed"] == 0 and not run.warnings


def test_missing_list_says_how_to_make_one(origin, shop, fetch):
    url, options = origin
    (shop.folder / "SHA256SUMS").unlink()
    run = fetch(url, **options)
    assert run.code() == "ENOENT" and run.status == 3
    assert "sha256sum *.tar.* > SHA256SUMS" in run.error["text"]


def test_missing_version_names_the_newest(origin, fetch):
    url, options = origin
    run = fetch(url, version="2.0", **options)
    assert run.code() == "ENOENT"
    assert "no version '2.0'" in run.error["text"] and "newest: 1.0" in run.error["text"]


def test_listed_file_that_is_not_there_yet(origin, shop, fetch):
    url, options = origin
    shop.file.unlink()
    run = fetch(url, **options)
    assert run.code() == "ENOENT" and "not complete yet" in run.error["text"]
    assert not list(fetch.partial.iterdir())


def test_without_a_list_the_endings_are_tried(origin, shop, fetch):
    url, options = origin
    (shop.folder / "SHA256SUMS").unlink()
    shop.file = shop.file.rename(shop.folder / "shop-1.0.tar.xz")
    run = fetch(url, no_verify=True, **options)
    assert_fetched(run, shop)
    assert not run.result["listed"]


def test_wrong_bytes_are_never_handed_on(origin, shop, fetch):
    url, options = origin
    shop.file.write_bytes(b"!" + shop.file.read_bytes()[1:])
    run = fetch(url, **options)
    assert run.code() == "EBADMSG" and run.status == 6
    assert url in run.error["text"] and run.warnings
    assert not list(fetch.partial.iterdir())


def test_file_larger_than_allowed_is_refused(origin, shop, fetch):
    url, options = origin
    run = fetch(url, size_max=MIB, **options)
    assert run.code() == "EFBIG"
    assert not list(fetch.partial.iterdir())


def test_reserve_is_not_touched(origin, fetch):
    url, options = origin
    run = fetch(url, reserve=1 << 60, **options)
    assert run.code() == "ENOSPC" and run.status == 7
    assert "must be free" in run.error["text"]


def test_empty_package_is_a_file(origin, shop, fetch):
    url, options = origin
    shop.file.write_bytes(b"")
    shop.list()
    assert_fetched(fetch(url, **options), shop)


def test_next_mirror_is_asked_when_one_is_bad(origin, shop, fetch, tmp_path):
    url, options = origin
    bad = Shop(tmp_path / "bad", seed=2)
    (bad.folder / "SHA256SUMS").write_text((shop.folder / "SHA256SUMS").read_text())
    run = fetch(str(bad.root), url, **options)
    assert_fetched(run, shop)
    assert run.result["origin"] == url
    assert any(str(bad.root) in warning for warning in run.warnings)


def test_next_mirror_is_asked_when_one_is_off(origin, shop, fetch):
    url, options = origin
    off = f"ftp://{HOST}:{free_port()}/packages"
    begin = time.monotonic()
    run = fetch(off, url, **options)
    assert_fetched(run, shop)
    assert time.monotonic() - begin < 4
    assert run.origins[0]["url"] == off and run.origins[0]["error"]


@pytest.mark.parametrize("scheme", ["ftp", "ftps", "sftp", "http", "https", "nfs"])
def test_port_nobody_listens_on(fetch, scheme):
    run = fetch(f"{scheme}://{HOST}:{free_port()}/packages")
    assert run.code() == "EHOSTUNREACH"
    assert f"cannot read '{scheme}://{HOST}:" in run.error["text"]


@pytest.mark.parametrize("scheme", ["ftp", "ftps", "sftp", "http", "https", "nfs"])
def test_server_that_says_nothing(fetch, scheme):
    import socket
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        begin = time.monotonic()
        run = fetch(f"{scheme}://{HOST}:{silent.getsockname()[1]}/p", connect_ms=1000,
                    stall_ms=1500)
        assert run.code() == "ETIMEDOUT"
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("scheme", ["ftp", "http", "nfs", "sftp"])
def test_server_that_talks_nonsense(fetch, scheme):
    import socket
    import threading
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()

        def talk():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(OSError):
                        client.sendall(random.Random(7).randbytes(200_000))

        threading.Thread(target=talk, daemon=True).start()
        run = fetch(f"{scheme}://{HOST}:{server.getsockname()[1]}/p", connect_ms=500,
                    stall_ms=1000)
        assert run.status == 1 and run.error
        server.shutdown(socket.SHUT_RDWR)


def test_host_that_does_not_resolve(fetch):
    for scheme in "ftp", "nfs":
        run = fetch(f"{scheme}://no-such-host.invalid/p", connect_ms=2000)
        assert run.code() in ("EHOSTUNREACH", "ETIMEDOUT")


# in the middle

@pytest.fixture
def slow(shop):
    shop.file.write_bytes(random.Random(3).randbytes(12 * MIB))
    shop.list()
    return shop


def test_ftp_session_killed_in_the_middle(slow, serve, fetch, tmp_path):
    server = serve(Vsftpd(slow.root, tmp_path / "work", rate=6 * MIB))
    fetch.start(server.url)
    lines = fetch.wait_for_bytes(2 * MIB)
    assert server.kill_sessions()
    run = fetch.finish(lines)
    assert_fetched(run, slow)
    assert server.protocol_log().count('"RETR shop-1.0.tar.zst"') == 2
    assert '"REST ' in server.protocol_log()


def test_ftp_server_killed_and_come_back(slow, serve, fetch, tmp_path):
    server = serve(Vsftpd(slow.root, tmp_path / "work", rate=6 * MIB))
    fetch.start(server.url)
    lines = fetch.wait_for_bytes(2 * MIB)
    server.restart()
    assert_fetched(fetch.finish(lines), slow)


def test_ftp_server_stalls(slow, serve, fetch, tmp_path):
    server = serve(Vsftpd(slow.root, tmp_path / "work", rate=6 * MIB))
    fetch.start(server.url, stall_ms=1000, connect_ms=1000)
    lines = fetch.wait_for_bytes(2 * MIB)
    server.pause()
    begin = time.monotonic()
    run = fetch.finish(lines)
    assert run.code() == "ETIMEDOUT" and time.monotonic() - begin < 15
    server.resume()
    kept = (fetch.partial / slow.file.name).stat().st_size
    assert kept >= 2 * MIB
    run = fetch(server.url)
    assert_fetched(run, slow)
    assert run.result["resumed"] == kept


def test_job_killed_and_run_again(slow, serve, fetch, tmp_path):
    server = serve(Vsftpd(slow.root, tmp_path / "work", rate=6 * MIB))
    fetch.start(server.url)
    fetch.wait_for_bytes(2 * MIB)
    fetch.process.kill()
    fetch.process.wait()
    run = fetch(server.url)
    assert_fetched(run, slow)
    assert run.result["resumed"] >= 2 * MIB


def test_second_job_waits_for_the_first(slow, serve, fetch, tmp_path):
    server = serve(Vsftpd(slow.root, tmp_path / "work", rate=6 * MIB))
    fetch.start(server.url)
    lines = fetch.wait_for_bytes(MIB)
    second = fetch(server.url)
    assert_fetched(second, slow)
    assert second.result["resumed"] == slow.size
    assert_fetched(fetch.finish(lines), slow)
    assert server.protocol_log().count('"RETR shop-1.0.tar.zst"') == 1


def test_ftp_server_with_too_many_clients(shop, serve, fetch, tmp_path):
    server = serve(Vsftpd(shop.root, tmp_path / "work", max_clients=1))
    import socket
    with contextlib.ExitStack() as stack:
        greeting = b""
        while not greeting.startswith(b"220"):  # the probe of start() may still be there
            other = stack.enter_context(socket.create_connection((HOST, server.port)))
            greeting = other.recv(100)
        run = fetch(server.url)
        assert run.code() == "EPROTO" and "421" in run.error["text"]


@pytest.fixture
def big(shop):
    shop.file.write_bytes(random.Random(4).randbytes(8 * MIB) * 40)
    shop.list()
    return shop


def test_nfs_server_restarted_in_the_middle(big, serve, fetch, tmp_path):
    server = serve(Ganesha(big.root, tmp_path / "work"))
    fetch.start(server.url)
    lines = fetch.wait_for_bytes(8 * MIB)
    server.restart()
    run = fetch.finish(lines)
    assert_fetched(run, big)
    assert run.result["resumed"] == 0


def test_nfs_server_stalls_and_is_given_up(big, serve, fetch, tmp_path):
    server = serve(Ganesha(big.root, tmp_path / "work"))
    fetch.start(server.url, stall_ms=1000, connect_ms=1000)
    lines = fetch.wait_for_bytes(8 * MIB)
    server.pause()
    begin = time.monotonic()
    run = fetch.finish(lines)
    assert run.code() == "ETIMEDOUT" and time.monotonic() - begin < 20
    server.resume()
    assert_fetched(fetch(server.url), big)


def test_nfs_folder_below_the_export(shop, serve, fetch, tmp_path):
    server = serve(Ganesha(tmp_path, tmp_path / "work"))
    assert_fetched(fetch(f"{server.url}/origin/"), shop)
    run = fetch(f"{server.url}/nothing")
    assert run.code() == "ENOENT"


def test_nfs_without_a_port_is_the_usual_one(shop, serve, fetch, tmp_path):
    server = Ganesha(shop.root, tmp_path / "work")
    try:
        server.start(2049)
    except RuntimeError:
        pytest.skip("port 2049 is in use")
    try:
        assert_fetched(fetch(f"nfs://{HOST}/export"), shop)
    finally:
        server.stop()


def test_nfs_version_3_by_the_portmapper(shop, fetch, tmp_path):
    """In namespaces of its own, as the portmapper has one port and one socket only."""
    (tmp_path / "ganesha.conf").write_text(f"""
NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = "{shop.root}"; Pseudo = "/export"; Protocols = 3;
    Transports = TCP; Access_Type = RO; Squash = None; SecType = sys;
    PrivilegedPort = false; FSAL {{ Name = VFS; }} }}
""")
    url = f"nfs://{HOST}{shop.root}"
    script = f"""
ip link set lo up && ip addr add 10.9.9.1/24 dev lo || exit 77
mount -t proc none /proc && mount -t tmpfs none /run && mkdir /run/rpcbind || exit 77
rpcbind -w -f >&2 & until rpcinfo -p {HOST} >&2; do sleep 0.05; done
ganesha.nfsd -F -f {tmp_path}/ganesha.conf -L {tmp_path}/ganesha.log -p /run/pid >&2 &
until rpcinfo -t {HOST} nfs 3 >&2; do sleep 0.05; done
{" ".join(fetch.command([url]))}
{" ".join(fetch.command([url + "/nothing"]))}
true
"""
    done = subprocess.run(["unshare", "-n", "-m", "-p", "-f", "--kill-child", "timeout", "40",
                           "bash", "-c", script], stdout=subprocess.PIPE, text=True,
                          env=os.environ | SANITIZER)
    if done.returncode == 77 or not Path("/usr/sbin/rpcbind").exists():
        pytest.skip("no namespaces, or no rpcbind")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ended = [i for i, line in enumerate(lines) if "result" in line or "error" in line]
    assert_fetched(Run(lines[:ended[0] + 1], 0), shop)
    assert Run(lines, 3).code() in ("ENOENT", "EACCES")  # mountd says either


def test_ssh_session_killed_in_the_middle(big, serve, fetch, tmp_path):
    server = serve(Sshd(big.root, tmp_path / "work"))
    (tmp_path / "known_hosts").write_text(server.known_hosts_line() + "\n")
    write_credentials(tmp_path, f"sftp://{HOST}:{server.port} root key={server.client_key}")
    fetch.start(server.url, known_hosts=tmp_path / "known_hosts",
                credentials=tmp_path / "credentials")
    lines = fetch.wait_for_bytes(2 * MIB)
    assert server.kill_sessions()
    assert_fetched(fetch.finish(lines), big)


def test_file_that_changes_while_it_is_read(big, fetch):
    fetch.start(str(big.root))
    lines = fetch.wait_for_bytes(8 * MIB)
    with open(big.file, "r+b") as file:
        file.write(b"!!!")
    run = fetch.finish(lines)
    if run.result:  # what was changed had been read before
        assert run.result["sha256"] in (big.folder / "SHA256SUMS").read_text()
    else:
        assert run.code() == "EBADMSG"


# a faulty FTP server

@pytest.fixture
def faulty(shop, serve):
    return serve(FtpFaulty(shop.root))


def test_ftp_connection_breaks_again_and_again(faulty, shop, fetch):
    faulty.break_after, faulty.break_times = 700_000, 4
    assert_fetched(fetch(faulty.url), shop)
    assert sum(c.startswith("REST") for c in faulty.commands) == 4


def test_ftp_server_that_ignores_rest(faulty, shop, fetch):
    faulty.ignore_rest = True
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes()[:MIB])
    run = fetch(faulty.url)
    assert_fetched(run, shop)
    assert run.result["resumed"] == 0


def test_ftp_server_that_refuses_rest(faulty, shop, fetch):
    faulty.replies = {"REST": "502 Not implemented."}
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes()[:MIB])
    run = fetch(faulty.url)
    assert_fetched(run, shop)
    assert run.result["resumed"] == 0


def test_ftp_server_without_rest_that_always_breaks(faulty, shop, fetch):
    faulty.replies = {"REST": "502 Not implemented."}
    faulty.break_after, faulty.break_times = MIB, 1000
    assert fetch(faulty.url).code() == "ECONNRESET"


def test_ftp_endless_data(faulty, fetch):
    faulty.endless = True
    run = fetch(faulty.url, size_max=64 * MIB)
    assert run.error
    faulty.size_wrong = None
    run = fetch(faulty.url, size_max=64 * MIB)
    assert run.code() == "EFBIG"
    assert not any(file.stat().st_size > 64 * MIB for file in fetch.partial.iterdir())


@pytest.mark.parametrize("wrong", [-1000, 1000, None])
def test_ftp_wrong_size(faulty, shop, fetch, wrong):
    faulty.size_wrong = wrong
    run = fetch(faulty.url)
    if wrong is None:
        assert_fetched(run, shop)
    else:
        assert run.code() in ("EPROTO", "ECONNRESET")


@pytest.mark.parametrize("command", ["USER", "PASS", "EPSV", "RETR", "SIZE", "CWD"])
@pytest.mark.parametrize("reply", ["421 Too many.", "425 No.", "426 No.", "450 Busy.",
                                   "451 Error.", "530 No.", "550 No."])
def test_ftp_reply_once(faulty, shop, fetch, command, reply):
    """Refused once: a transient refusal is tried again; a final one says what."""
    faulty.replies = {command: [reply]}
    run = fetch(faulty.url)
    if run.result:
        assert_fetched(run, shop)
    else:
        assert reply[0] == "5" and run.code() in ("ENOENT", "EACCES", "EPROTO")
        assert "SHA256SUMS" in run.error["text"]


def test_ftp_reply_for_ever(faulty, fetch):
    faulty.replies = {"RETR": "451 Local error."}
    run = fetch(faulty.url)
    assert run.code() == "EPROTO" and "451 Local error." in run.error["text"]
    assert faulty.commands.count("RETR shop/SHA256SUMS") + sum(
        c.startswith("RETR") for c in faulty.commands) <= 8


def test_ftp_pasv_that_points_elsewhere(faulty, shop, fetch):
    faulty.pasv_host = "10.255.255.1"
    assert_fetched(fetch(faulty.url), shop)


def test_ftp_user_and_password(shop, serve, fetch, tmp_path):
    server = serve(FtpFaulty(shop.root, user="deploy", password="s3cret word"))
    run = fetch(server.url)
    assert run.code() == "EACCES"
    file = write_credentials(tmp_path, f"ftp://{HOST}:{server.port} deploy s3cret word")
    assert_fetched(fetch(server.url, credentials=file), shop)
    server.replies = {"PASS": "530 'PASS s3cret word' is wrong."}
    run = fetch(server.url, credentials=file)
    assert run.code() == "EACCES" and "s3cret" not in json.dumps(run.lines)


def test_credentials_others_can_read_are_refused(shop, faulty, fetch, tmp_path):
    file = write_credentials(tmp_path, f"{faulty.url} deploy s3cret")
    file.chmod(0o644)
    run = fetch(faulty.url, credentials=file)
    assert run.code() == "EPERM" and not faulty.commands


def test_environment_and_netrc_are_not_heard(faulty, shop, fetch, monkeypatch, tmp_path):
    for name in "ftp_proxy", "all_proxy", "ALL_PROXY", "http_proxy":
        monkeypatch.setenv(name, f"http://{HOST}:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(f"machine {HOST} login eve password evil\n")
    assert_fetched(fetch(faulty.url), shop)
    assert not any("eve" in command for command in faulty.commands)


# HTTP

@pytest.fixture
def http(shop, serve):
    return serve(HttpServer(shop.root))


PACKAGE = "/shop/shop-1.0.tar.zst"


def test_http_connection_breaks(http, shop, fetch):
    http.break_after, http.break_times = 700_000, 3
    assert_fetched(fetch(http.url), shop)
    assert sum("Range" in headers for _, headers in http.requests) == 3
    assert {h["Accept-Encoding"] for _, h in http.requests} == {"identity"}


@pytest.mark.parametrize("ranges", ["ignore", "wrong"])
def test_http_server_that_cannot_resume(http, shop, fetch, ranges):
    http.ranges = ranges
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes()[:MIB])
    run = fetch(http.url)
    assert_fetched(run, shop)
    assert run.result["resumed"] == 0


def test_http_redirect_is_followed(http, shop, fetch):
    http.redirects = {PACKAGE: f"{http.url}/elsewhere"}
    http.bodies = {"/elsewhere": shop.file.read_bytes()}
    assert_fetched(fetch(http.url), shop)


def test_http_redirect_loop_ends(http, fetch):
    http.redirects = lambda path: http.url + path
    run = fetch(http.url)
    assert run.code() == "EPROTO" and len(http.requests) <= 4 * 6


@pytest.mark.parametrize("target", ["ftp://127.0.0.1:1/x", "file:///etc/passwd"])
def test_http_redirect_to_another_scheme(http, fetch, target):
    http.redirects = {PACKAGE: target}
    assert fetch(http.url).code() == "EPROTO"


@pytest.mark.parametrize("status, code", [(401, "EACCES"), (403, "EACCES"),
                                          (410, "ENOENT"), (500, "EPROTO"),
                                          (503, "EPROTO")])
def test_http_status(http, fetch, status, code):
    http.statuses = {PACKAGE: status}
    run = fetch(http.url)
    assert run.code() == code and str(status) in run.error["text"]


def test_http_login_page_is_no_list(http, fetch):
    http.bodies = {"/shop/SHA256SUMS": b"<html>Please log in</html>\n"}
    run = fetch(http.url)
    assert run.code() == "EBADMSG" and "line 1" in run.error["text"]


def test_http_login_page_is_no_package(http, fetch):
    http.bodies = {PACKAGE: b"<html>Please log in</html>\n"}
    assert fetch(http.url).code() == "EBADMSG"


def test_http_list_of_a_gigabyte_is_refused(http, fetch):
    http.bodies = {"/shop/SHA256SUMS": b"#" * (9 * MIB)}
    assert fetch(http.url).code() == "EFBIG"


def test_http_trickle_is_given_up(http, fetch):
    http.bodies = {"/shop/SHA256SUMS": b"#" * MIB}
    http.rate = 100  # never still for the stall timeout
    begin = time.monotonic()
    run = fetch(http.url, stall_ms=1000)
    assert run.code() == "ETIMEDOUT" and time.monotonic() - begin < 30
    assert "less than 1 KiB a second" in run.error["text"]


def test_http_password(http, shop, fetch, tmp_path):
    http.auth = ("deploy", "s3cret")
    assert fetch(http.url).code() == "EACCES"
    file = write_credentials(tmp_path, f"{http.url} deploy s3cret")
    assert_fetched(fetch(http.url, credentials=file), shop)


def test_http_password_is_not_sent_to_another_host(http, shop, serve, fetch, tmp_path):
    other = serve(HttpServer(shop.root))
    http.auth = ("deploy", "s3cret")
    http.redirects = lambda path: other.url + path
    file = write_credentials(tmp_path, f"{http.url} deploy s3cret")
    assert_fetched(fetch(http.url, credentials=file), shop)
    assert not any("Authorization" in headers for _, headers in other.requests)


# TLS

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def https(shop, serve, tls):
    return serve(HttpServer(shop.root, tls=tls))


def test_https(authority, shop, serve, fetch):
    server = https(shop, serve, authority.issue())
    assert_fetched(fetch(server.url, ca_file=authority.file), shop)


def test_https_by_the_systems_authorities_only(authority, shop, serve, fetch):
    server = https(shop, serve, authority.issue())
    run = fetch(server.url)
    assert run.code() == "EPERM" and "certificate" in run.error["text"]
    assert not server.requests


@pytest.mark.parametrize("name, days", [("DNS:other.example", 2), (f"IP:{HOST}", -1)])
def test_https_wrong_name_or_expired(authority, shop, serve, fetch, name, days, tmp_path):
    server = https(shop, serve, authority.issue(name, days))
    file = write_credentials(tmp_path, f"{server.url} deploy s3cret")
    run = fetch(server.url, ca_file=authority.file, credentials=file)
    assert run.code() == "EPERM" and not server.requests


def test_https_other_authority(authority, shop, serve, fetch, tmp_path):
    server = https(shop, serve, Authority(tmp_path / "other").issue())
    assert fetch(server.url, ca_file=authority.file).code() == "EPERM"


def test_https_is_not_redirected_to_http(authority, shop, serve, fetch):
    plain = serve(HttpServer(shop.root))
    server = https(shop, serve, authority.issue())
    server.redirects = lambda path: plain.url + path
    assert fetch(server.url, ca_file=authority.file).code() == "EPROTO"
    assert not plain.requests


def test_http_may_be_redirected_to_https(authority, http, shop, serve, fetch):
    server = https(shop, serve, authority.issue())
    http.redirects = lambda path: server.url + path
    assert_fetched(fetch(http.url, ca_file=authority.file), shop)


def test_ftps_with_auth_tls(authority, shop, serve, fetch, tmp_path):
    server = serve(Vsftpd(shop.root, tmp_path / "work", tls=authority.issue()))
    assert_fetched(fetch(server.url, ca_file=authority.file), shop)
    (fetch.partial / shop.file.name).write_bytes(shop.file.read_bytes()[:MIB])
    run = fetch(server.url, ca_file=authority.file)
    assert run.result["resumed"] == MIB
    assert "PROT P" in server.protocol_log()
    assert fetch(server.url).code() == "EPERM"


def test_ftps_from_the_first_byte_on_its_port(authority, shop, serve, fetch, tmp_path):
    server = Vsftpd(shop.root, tmp_path / "work", tls=authority.issue(), implicit_ssl="YES")
    try:
        server.start(990)
    except RuntimeError:
        pytest.skip("port 990 is in use")
    try:
        assert_fetched(fetch(f"ftps://{HOST}", ca_file=authority.file), shop)
        assert_fetched(fetch(f"ftps://{HOST}:990", ca_file=authority.file), shop)
    finally:
        server.stop()


@pytest.mark.parametrize("reply", ["500 Unknown.", "502 Not implemented.", "431 No TLS."])
def test_ftps_is_not_talked_down(shop, serve, fetch, tmp_path, reply):
    server = serve(FtpFaulty(shop.root, user="deploy", password="s3cret"))
    server.replies = {"AUTH": reply}
    url = server.url.replace("ftp:", "ftps:")
    file = write_credentials(tmp_path, f"{url} deploy s3cret")
    run = fetch(url, credentials=file)
    assert run.code() == "EPERM"
    assert not any(c.startswith(("USER", "PASS")) for c in server.commands)


# SFTP

@pytest.fixture(params=["ed25519", "rsa", "ecdsa"])
def sshd(request, shop, serve, tmp_path):
    server = serve(Sshd(shop.root, tmp_path / "work", key_type=request.param))
    write_credentials(tmp_path, f"sftp://{HOST}:{server.port} root key={server.client_key}")
    return server


def test_sftp_unknown_host_key_is_refused_with_the_line(sshd, shop, fetch, tmp_path):
    known, file = tmp_path / "known_hosts", tmp_path / "credentials"
    run = fetch(sshd.url, known_hosts=known, credentials=file)
    assert run.code() == "EPERM"
    line = run.error["text"].rpartition(": ")[2]
    assert line == sshd.known_hosts_line()
    known.write_text(line + "\n")
    assert_fetched(fetch(sshd.url, known_hosts=known, credentials=file), shop)


def test_sftp_without_known_hosts_is_refused(sshd, fetch, tmp_path):
    assert fetch(sshd.url, credentials=tmp_path / "credentials").code() == "EPERM"


def test_sftp_changed_host_key_is_refused(sshd, fetch, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts_line() + "\n")
    sshd.new_host_key()
    sshd.restart()
    run = fetch(sshd.url, known_hosts=known, credentials=tmp_path / "credentials")
    assert run.code() == "EPERM" and "CHANGED" in run.error["text"]
    assert known.read_text().count("\n") == 1


def test_sftp_wrong_client_key(sshd, fetch, tmp_path):
    (tmp_path / "known_hosts").write_text(sshd.known_hosts_line() + "\n")
    Sshd.make_key(tmp_path / "other_key", "ed25519")
    file = write_credentials(tmp_path, f"sftp://{HOST}:{sshd.port} root "
                                       f"key={tmp_path / 'other_key'}")
    run = fetch(sshd.url, known_hosts=tmp_path / "known_hosts", credentials=file)
    assert run.code() == "EACCES"
