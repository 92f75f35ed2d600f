# SPDX-License-Identifier: Apache-2.0
"""The main job: a version is fetched, mounted, flipped to, rolled back and removed."""
import contextlib
import errno
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import tempfile

import pytest

import deploy
from deploy import (CONFLICT, DONE, FAILED, NO_SPACE, NOT_FOUND, UNCHANGED, USAGE, VERIFICATION, File,
                    mount_line, noise, small_app, wait_until)
from servers import Authority, Ganesha, HttpServer, Sshd, Vsftpd, free_port

NOBODY = 65534


def partial_bytes(daemon):
    """What downloads that are not finished have written so far."""
    total = 0
    for path in (daemon.store / "partial").rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def job(daemon, number):
    return daemon.api("GET", f"/v1/jobs/{number}").body["job"]


def wait_for_resumed_job(daemon, number, least):
    """Wait for its end, and watch that what was there is never thrown away meanwhile."""
    def ended_with_all_kept():
        there = partial_bytes(daemon)
        state = job(daemon, number)
        assert there >= least or state["stage"] != "download" or state["state"] == "done"
        return state["state"] not in ("queued", "running") and state
    done = wait_until(ended_with_all_kept, f"job {number} has ended")
    assert done["state"] == "done", done
    return done


def wait_for_job(daemon, number):
    return wait_until(lambda: (j := job(daemon, number))["state"] not in ("queued", "running") and j,
                      f"job {number} has ended")


@contextlib.contextmanager
def holder(folder):
    """A process whose working directory is @folder."""
    process = subprocess.Popen(["cat"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


@pytest.fixture
def slow_ftp(place):
    """An origin that takes some seconds for big 1.0, so that a test can step in."""
    place.origin.publish("big", "1.0", {"noise": noise(6 << 20)}, ending=".tar")
    with Vsftpd(place.origin.folder, place.folder / "ftp", rate=2_000_000) as server:
        yield server


# -- the whole of it -----------------------------------------------------------------------


def test_fetch_list_flip_rollback_remove(daemon):
    for version in ("1.0", "1.1"):
        daemon.run("fetch", "shop", version)
        assert daemon.read("shop", version) == version
    assert "1.1" in daemon.run("list", "shop").out
    daemon.run("flip", "shop", "1.0")
    assert daemon.read("shop") == "1.0"
    daemon.run("flip", "shop", "1.1", "-m", "ticket 17")
    assert daemon.read("shop") == "1.1"
    assert os.readlink(daemon.path("shop")) == "1.1"
    assert os.readlink(daemon.path("shop", "previous")) == "1.0"
    daemon.run("rollback", "shop")
    assert daemon.read("shop") == "1.0"
    assert not os.path.lexists(daemon.path("shop", "previous"))
    daemon.run("remove", "shop", "1.1")
    assert sorted(os.listdir(daemon.apps / "shop")) == ["1.0", "current"]


def test_every_verb_has_json_with_a_schema(daemon):
    daemon.json("fetch", "shop", "1.0")
    daemon.json("fetch", "shop", "--latest")
    assert daemon.versions("shop") == ["1.2", "1.0"]
    daemon.json("list")
    daemon.json("list", "shop")
    daemon.json("list", "shop", "--available")
    assert daemon.json("flip", "shop", "1.0")["to"] == "1.0"
    assert daemon.json("flip", "shop", "1.2")["previous"] == "1.0"
    assert daemon.json("rollback", "shop")["to"] == "1.0"
    assert daemon.json("status")["healthy"] is True
    assert len(daemon.json("history", "shop")["generations"]) == 3
    daemon.json("verify")
    daemon.json("pin", "shop", "1.2")
    daemon.json("unpin", "shop", "1.2")
    daemon.json("remove", "shop", "1.2")
    daemon.json("gc", "--dry-run")
    daemon.json("gc")
    daemon.json("daemon", "reload")
    refusal = daemon.json("flip", "shop", "9.9", code=NOT_FOUND)
    assert refusal["error"]["code"] == "not-found"
    daemon.json("daemon", "stop")
    assert daemon.process.wait(deploy.PATIENCE_S) == 0


def test_import_of_a_file(place, daemon):
    package = deploy.make_package(place.folder / "any-name.tar.xz", small_app("7"))
    daemon.run("import", package, "--app", "tool", "--version", "7", "--sha256", deploy.sha256(package))
    assert daemon.read("tool", "7") == "7"
    assert daemon.version("tool", "7")["verified"] == "sha256"
    daemon.run("import", package, "--app", "tool", "--version", "7", code=UNCHANGED)
    daemon.run("import", package, "--app", "tool", "--version", "8", "--sha256", "0" * 64, code=VERIFICATION)
    assert daemon.versions("tool") == ["7"]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_endings_of_packages(place, ending):
    place.origin.publish("shop", "1.0", small_app("1.0"), ending=ending)
    daemon = place.daemon().start()
    daemon.run("fetch", "shop", "1.0")
    assert daemon.read("shop", "1.0") == "1.0"


def test_history_tells_who_when_from_to_and_why(shop):
    shop.run("flip", "shop", "1.0", "-m", "ticket 17: ünïcode")
    newest, *_, first = shop.history("shop")
    assert (newest["from"], newest["to"], newest["reason"]) == ("1.2", "1.0", "ticket 17: ünïcode")
    assert (newest["who"], newest["verb"], newest["result"]) == ("root", "flip", "ok")
    assert newest["time"].endswith("Z")
    assert first["from"] is None
    numbers = [g["generation"] for g in shop.history("shop")]
    assert numbers == sorted(set(numbers), reverse=True)
    assert "ticket 17: ünïcode" in shop.run("history", "shop").out


def test_flip_to_what_is_current_changes_nothing(shop):
    before = shop.history("shop")
    result = shop.run("flip", "shop", "1.2", code=UNCHANGED)
    assert "1.2" in result.text
    assert shop.history("shop") == before
    assert shop.run("fetch", "shop", "1.2", code=UNCHANGED)


# -- previous, rollback, marks -------------------------------------------------------------


def test_rollback_goes_back_one_by_one_and_then_refuses(shop):
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1"}
    shop.run("rollback", "shop")
    assert shop.channels("shop") == {"current": "1.1", "previous": "1.0"}
    shop.run("rollback", "shop")
    assert shop.channels("shop") == {"current": "1.0"}
    assert not os.path.lexists(shop.path("shop", "previous"))
    before = shop.history("shop")
    shop.run("rollback", "shop", code=NOT_FOUND)
    assert shop.history("shop") == before
    assert shop.read("shop") == "1.0"
    assert [v["version"] for v in shop.app("shop")["versions"] if v["bad"]] == ["1.2", "1.1"]


def test_explicit_flip_to_a_bad_version_clears_the_mark_and_says_so(shop):
    shop.run("rollback", "shop")
    assert shop.version("shop", "1.2")["bad"]
    result = shop.run("flip", "shop", "1.2")
    assert "bad" in result.text
    assert not shop.version("shop", "1.2")["bad"]
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1"}


def test_previous_passes_over_what_is_bad_current_or_removed(shop):
    shop.run("flip", "shop", "1.1")
    assert shop.channels("shop") == {"current": "1.1", "previous": "1.2"}
    shop.run("flip", "shop", "1.2")
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1"}
    shop.run("remove", "shop", "1.0")
    shop.run("rollback", "shop")
    assert shop.channels("shop") == {"current": "1.1"}
    shop.run("rollback", "shop", code=NOT_FOUND)


def test_rollback_of_an_app_that_was_never_flipped(daemon):
    daemon.run("fetch", "shop", "1.0")
    daemon.run("rollback", "shop", code=NOT_FOUND)


def test_latest_is_neither_bad_nor_a_pre_release(place, shop):
    place.origin.publish("shop", "2.0-rc1", small_app("2.0-rc1"))
    shop.run("rollback", "shop")
    shop.run("remove", "shop", "1.2")
    assert shop.versions("shop") == ["1.1", "1.0"]
    shop.ctl("fetch", "shop", "--latest")
    assert "2.0-rc1" not in shop.versions("shop")
    place.origin.publish("shop", "1.10", small_app("1.10"))
    shop.run("fetch", "shop", "--latest")
    assert shop.versions("shop")[0] == "1.10"
    shop.run("fetch", "shop", "2.0-rc1")
    place.origin.publish("shop", "2.0", small_app("2.0"))
    shop.run("fetch", "shop", "--latest")
    assert shop.versions("shop") == ["2.0", "2.0-rc1", "1.10", "1.1", "1.0"]


def test_channels_have_generations_of_their_own(shop):
    shop.run("flip", "shop", "1.0", "--channel", "canary")
    shop.run("flip", "shop", "1.1", "--channel", "canary")
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1", "canary": "1.1"}
    assert os.readlink(shop.path("shop", "canary")) == "1.1"
    assert [g["to"] for g in shop.history("shop", "canary")] == ["1.1", "1.0"]
    assert len(shop.history("shop")) == 3
    shop.run("rollback", "shop", "--channel", "canary")
    assert shop.read("shop", "canary") == "1.0"
    # The mark belongs to the app: 1.1 is bad for every channel.
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.0", "canary": "1.0"}


@pytest.mark.parametrize("version", ["previous", "current", ".hidden", "a/b", "..", "-x", "", "a b", "x" * 129])
def test_names_that_cannot_be_versions(place, daemon, version):
    package = deploy.make_package(place.folder / "p.tar", small_app("1"))
    daemon.run("import", package, "--app", "shop", f"--version={version}", code=USAGE)
    assert not os.path.lexists(daemon.apps / "shop")
    assert daemon.leftovers() == []


def test_channel_and_version_cannot_share_a_name(place, shop):
    package = deploy.make_package(place.folder / "p.tar", small_app("1"))
    shop.run("flip", "shop", "1.0", "--channel", "canary")
    assert shop.ctl("import", package, "--app", "shop", "--version", "canary").code in (USAGE, CONFLICT)
    assert shop.ctl("flip", "shop", "1.0", "--channel", "1.1").code in (USAGE, CONFLICT)
    assert shop.ctl("flip", "shop", "1.0", "--channel", "previous").code in (USAGE, CONFLICT)
    assert shop.read("shop", "1.1") == "1.1"
    assert shop.read("shop", "previous") == "1.1"


def test_a_rollback_says_which_other_channel_it_concerns(shop):
    shop.run("flip", "shop", "1.1", "--channel", "beta")
    shop.run("flip", "shop", "1.2", "--channel", "beta")
    rolled = shop.run("rollback", "shop", "--channel", "beta")
    assert "'current' still points at it" in rolled.text
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1", "beta": "1.1"}


def test_a_channel_given_for_a_version_is_explained(shop):
    refused = shop.run("flip", "shop", "current", "--channel", "beta", code=NOT_FOUND)
    assert "'current' is a channel of 'shop' and points at '1.2'" in refused.text


def test_what_is_here_but_not_listed_any_more_is_here(place, shop):
    (place.origin.folder / "shop" / "SHA256SUMS").write_text("")
    assert "does not have this version" in shop.run("fetch", "shop", "1.2", code=UNCHANGED).text


def test_a_version_is_immutable(place, shop):
    place.origin.publish("shop", "1.0", {"VERSION": b"forged\n"})
    shop.run("fetch", "shop", "1.0", code=CONFLICT)
    package = deploy.make_package(place.folder / "p.tar", {"VERSION": b"forged\n"})
    shop.run("import", package, "--app", "shop", "--version", "1.0", code=CONFLICT)
    assert shop.read("shop", "1.0") == "1.0"


# -- origins -------------------------------------------------------------------------------


def test_fetch_from_vsftpd(place, daemon):
    with Vsftpd(place.origin.folder, place.folder / "ftp") as server:
        ftp = place.daemon(server.url, name="by-ftp").start()
        ftp.run("fetch", "shop", "1.0")
        assert ftp.read("shop", "1.0", "lib/same.txt") == small_app("1.0")["lib/same.txt"].decode().strip()


def test_fetch_over_https_trusts_the_configured_authority_only(place, daemon):
    authority = Authority(place.folder / "authority")
    with HttpServer(place.origin.folder, tls=authority.issue()) as server:
        https = place.daemon(server.url, name="by-https").start()
        https.run("fetch", "shop", "1.0", code=FAILED)
        https.configure(server.url, ca_file=authority.file)
        https.run("daemon", "reload")
        https.run("fetch", "shop", "1.0")
        assert https.read("shop", "1.0") == "1.0"


def test_fetch_over_ftps_logs_in_under_tls(place, daemon):
    authority = Authority(place.folder / "authority")
    with Vsftpd(place.origin.folder, place.folder / "ftps", tls=authority.issue()) as server:
        ftps = place.daemon(server.url, name="by-ftps", ca_file=authority.file).start()
        ftps.run("fetch", "shop", "1.0")
        assert ftps.read("shop", "1.0") == "1.0"


def test_fetch_over_sftp_needs_the_host_key(place, daemon):
    with Sshd(place.origin.folder, place.folder / "sshd") as server:
        sftp = place.daemon(server.url, name="by-sftp")
        credentials = sftp.folder / "credentials"
        credentials.touch(mode=0o600)
        credentials.write_text(f"sftp://127.0.0.1:{server.port} root key={server.client_key}\n")
        sftp.start()
        refused = sftp.run("fetch", "shop", "1.0", code=FAILED)
        assert server.known_hosts_line() in refused.text
        (sftp.folder / "known_hosts").write_text(server.known_hosts_line() + "\n")
        sftp.run("fetch", "shop", "1.0")
        assert sftp.read("shop", "1.0") == "1.0"
        assert str(server.client_key) not in sftp.ctl("status", "--json").text


def test_fetch_resumes_when_the_session_is_killed(place, slow_ftp):
    daemon = place.daemon(slow_ftp.url).start()
    started = daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"})
    assert started.status == 202
    wait_until(lambda: partial_bytes(daemon) > 1 << 20, "a part is there")
    assert slow_ftp.kill_sessions() > 0
    wait_for_resumed_job(daemon, started.body["job"]["id"], 1 << 20)
    assert re.search(r'"REST [1-9][0-9]{5,}"', slow_ftp.protocol_log())
    assert (daemon.path("big", "1.0") / "noise").read_bytes() == noise(6 << 20)


def test_fetch_resumes_after_the_server_was_away(place, slow_ftp):
    daemon = place.daemon(slow_ftp.url).start()
    client = daemon.background("fetch", "big", "1.0")
    wait_until(lambda: partial_bytes(daemon) > 1 << 20, "a part is there")
    slow_ftp.restart()
    out, err = client.communicate(timeout=deploy.PATIENCE_S)
    assert client.returncode == DONE, out + err
    assert (daemon.path("big", "1.0") / "noise").read_bytes() == noise(6 << 20)


def test_fetch_from_ganesha_resumes_when_it_is_killed(place):
    size = 192 << 20
    place.origin.publish("big", "1.0", {"noise": noise(size)}, ending=".tar")
    with Ganesha(place.origin.folder, place.folder / "nfs") as server:
        daemon = place.daemon(server.url).start()
        started = daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"})
        assert started.status == 202
        wait_until(lambda: partial_bytes(daemon) > 1 << 20, "a part is there")
        server.pause()
        there = partial_bytes(daemon)
        assert there < size
        server.restart()
        wait_for_resumed_job(daemon, started.body["job"]["id"], there)
    with open(daemon.path("big", "1.0") / "noise", "rb") as file:
        assert file.read() == noise(size)


def test_wrong_checksum_is_refused(place, daemon):
    package = place.origin.publish("shop", "1.3", small_app("1.3"), listed=False)
    place.origin.list(package, checksum="0" * 64)
    result = daemon.run("fetch", "shop", "1.3", code=VERIFICATION)
    assert "1.3" in result.text
    assert not os.path.lexists(daemon.path("shop", "1.3"))


def test_a_version_without_checksum_is_refused_unless_configured(place, daemon):
    place.origin.publish("shop", "1.3", small_app("1.3"), listed=False)
    assert daemon.ctl("fetch", "shop", "1.3").code in (NOT_FOUND, VERIFICATION)
    daemon.configure(place.origin.folder, apps=[{"name": "shop", "verify": "off"}])
    daemon.run("daemon", "reload")
    daemon.run("fetch", "shop", "1.3")
    assert daemon.version("shop", "1.3")["verified"] == "off"


def test_the_next_mirror_is_used_when_the_first_is_dead(place, daemon):
    dead = f"ftp://127.0.0.1:{free_port()}/packages"
    other = place.daemon([dead, str(place.origin.folder)], name="mirrors").start()
    other.run("fetch", "shop", "1.0")
    assert other.read("shop", "1.0") == "1.0"
    origins = {origin["url"]: origin for origin in other.status()["origins"]}
    assert origins[dead]["state"] == "offline"
    assert origins[dead]["error"]


def test_two_requests_are_one_job_and_the_last_waiter_cancels(place, slow_ftp):
    daemon = place.daemon(slow_ftp.url).start()
    first = daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"}).body
    second = daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"}).body
    number = first["job"]["id"]
    assert second["job"]["id"] == number
    assert first["waiter"] != second["waiter"]
    wait_until(lambda: partial_bytes(daemon) > 0, "a part is there")
    daemon.api("DELETE", f"/v1/jobs/{number}?waiter={first['waiter']}")
    assert job(daemon, number)["state"] == "running"
    daemon.api("DELETE", f"/v1/jobs/{number}?waiter={second['waiter']}")
    assert wait_for_job(daemon, number)["state"] == "cancelled"
    assert partial_bytes(daemon) > 0
    again = daemon.api("POST", "/v1/apps/big/fetch", {"version": "1.0"}).body
    done = wait_for_job(daemon, again["job"]["id"])
    assert done["state"] == "done", done
    assert done["result"]["resumed_bytes"] > 0


def test_ctrl_c_cancels(place, slow_ftp):
    daemon = place.daemon(slow_ftp.url).start()
    client = daemon.background("fetch", "big", "1.0")
    wait_until(lambda: partial_bytes(daemon) > 0, "a part is there")
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=deploy.PATIENCE_S)
    assert client.returncode in (FAILED, -signal.SIGINT, 128 + signal.SIGINT), out + err
    [cancelled] = daemon.api("GET", "/v1/jobs").body["jobs"]
    assert wait_for_job(daemon, cancelled["id"])["state"] == "cancelled"


def test_a_lost_client_cancels_nothing(place, slow_ftp):
    daemon = place.daemon(slow_ftp.url).start()
    client = daemon.background("fetch", "big", "1.0")
    wait_until(lambda: partial_bytes(daemon) > 0, "a part is there")
    client.kill()
    client.communicate()
    [left] = daemon.api("GET", "/v1/jobs").body["jobs"]
    assert wait_for_job(daemon, left["id"])["state"] == "done"
    assert daemon.versions("big") == ["1.0"]


def test_space_is_checked_before(place, daemon):
    other = place.daemon(name="full", reserve="500000GiB").start()
    result = other.run("fetch", "shop", "1.0", code=NO_SPACE)
    assert "space" in result.text or "reserve" in result.text
    package = place.origin.folder / "shop" / "shop-1.0.tar.gz"
    other.run("import", package, "--app", "shop", "--version", "1.0", code=NO_SPACE)
    assert other.packs() == [] and other.leftovers() == []


# -- what the mount looks like -------------------------------------------------------------


def test_mount_flags(shop):
    apps = mount_line(shop.apps)
    assert {"ro", "nosuid", "nodev"} <= set(apps["options"])
    assert apps["type"].startswith("fuse")
    assert {"allow_other", "default_permissions"} <= set(apps["super"])
    assert any(field.startswith("shared:") for field in mount_line(shop.mount)["optional"])


def test_where_the_root_is_shared_it_is_mounted_once(place):
    """As on every machine with systemd. A second one, below the base, would keep it from being unmounted."""
    daemon = place.daemon()
    daemon.spawn(wrapper=["unshare", "--mount", "--propagation", "shared"])
    wait_until(daemon.answers, "deployfsd answers")
    lines = pathlib.Path(f"/proc/{daemon.worker()}/mountinfo").read_text().splitlines()
    places = [line.split()[4] for line in lines if " fuse.deployfs " in line]
    assert places.count(str(daemon.apps)) == 1
    daemon.stop()


CHANGES = {
    "create": lambda d: os.open(d / "new", os.O_CREAT | os.O_WRONLY),
    "mkdir": lambda d: os.mkdir(d / "new"),
    "symlink": lambda d: os.symlink("x", d / "new"),
    "mknod": lambda d: os.mknod(d / "new"),
    "mkfifo": lambda d: os.mkfifo(d / "new"),
    "chmod of the directory": lambda d: os.chmod(d, 0o700),
    "utime of the directory": lambda d: os.utime(d, (1, 1)),
    "rename of the directory": lambda d: os.rename(d, f"{d}-new"),
    "rmdir of the directory": lambda d: os.rmdir(d),
}


@pytest.mark.parametrize("change", CHANGES)
def test_directories_cannot_be_changed(shop, change):
    for folder in (shop.apps, shop.apps / "shop", shop.path("shop", "1.0"), shop.path("shop", "1.0") / "empty",
                   shop.apps / ".deployfs"):
        if folder == shop.apps and change.startswith(("rename", "rmdir")):
            continue  # that one is a mount point: EBUSY
        with pytest.raises(OSError) as caught:
            CHANGES[change](folder)
        assert caught.value.errno == errno.EROFS, f"{change} in {folder}"


def test_files_and_links_cannot_be_changed(shop):
    folder = shop.path("shop", "1.0")
    changes = [
        lambda path: os.open(path, os.O_WRONLY),
        lambda path: os.open(path, os.O_RDWR),
        lambda path: os.open(path, os.O_WRONLY | os.O_TRUNC),
        lambda path: os.open(path, os.O_WRONLY | os.O_APPEND),
        lambda path: os.truncate(path, 0),
        os.unlink,
        lambda path: os.rename(path, f"{path}-new"),
        lambda path: os.link(path, f"{path}-new"),
        lambda path: os.chmod(path, 0o777),
        lambda path: os.chown(path, 1, 1),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.setxattr(path, "user.x", b"y"),
    ]
    for change in changes:
        with pytest.raises(OSError) as caught:
            change(folder / "VERSION")
        assert caught.value.errno == errno.EROFS
    for link in (folder / "bin/start", shop.path("shop"), shop.path("shop", "previous")):
        for change in (os.unlink, lambda path: os.rename(path, f"{path}-new"),
                       lambda path: os.chown(path, 1, 1, follow_symlinks=False)):
            with pytest.raises(OSError) as caught:
                change(link)
            assert caught.value.errno == errno.EROFS


def test_virtual_files_tell_containers_what_is_current(shop):
    folder = shop.apps / ".deployfs"
    assert sorted(os.listdir(folder)) == ["status.json", "version"]
    text = (folder / "status.json").read_text()
    assert json.loads(text)["schema"] == 1
    wait_until(lambda: '"1.2"' in (folder / "status.json").read_text(), "status.json follows the last flip")
    assert (folder / "version").read_text().strip() in shop.run("--version").out
    for version in ("1.0", "1.1"):
        shop.run("flip", "shop", version)
        wait_until(lambda: json.loads((folder / "status.json").read_text())["apps"]["shop"]["current"] == version,
                   "status.json follows the flip")
        assert (folder / "status.json").stat().st_size == len((folder / "status.json").read_bytes())


def test_statfs_and_directories(shop):
    assert os.statvfs(shop.apps).f_flag & os.ST_RDONLY
    assert os.statvfs(shop.path("shop")).f_blocks > 0
    for folder, names, _ in os.walk(shop.apps):
        info = os.lstat(folder)
        assert stat.S_ISDIR(info.st_mode)
        below = sum(not os.path.islink(os.path.join(folder, name)) for name in names)
        assert info.st_nlink in (1, 2 + below), folder
    assert sorted(os.listdir(shop.apps)) == [".deployfs", "shop"]
    assert os.listdir(shop.path("shop") / "empty") == []


def test_names_types_modes_and_content(shop):
    folder = shop.path("shop", "1.1")
    for name, what in small_app("1.1").items():
        info = os.lstat(folder / name)
        assert (info.st_uid, info.st_gid) == (0, 0)
        if isinstance(what, bytes):
            what = File(what)
        if isinstance(what, File):
            assert (folder / name).read_bytes() == what.data
            assert stat.S_IMODE(info.st_mode) == what.mode
            assert (info.st_size, info.st_mtime_ns) == (len(what.data), what.mtime * 10**9)
        elif isinstance(what, deploy.Symlink):
            assert os.readlink(folder / name) == what.target
    with pytest.raises(FileNotFoundError):
        os.lstat(folder / "missing")


def test_inode_numbers_follow_identity(shop):
    def inode(version, name):
        info = os.lstat(shop.path("shop", version) / name)
        assert info.st_nlink >= 2
        return info.st_ino
    assert inode("1.0", "lib/same.txt") == inode("1.1", "lib/same.txt")
    assert inode("1.0", "lib/changed.txt") != inode("1.1", "lib/changed.txt")
    assert inode("1.0", "lib/same.txt") == inode("1.0", "lib/linked.txt")
    assert inode("1.0", "lib/same.txt") != inode("1.0", "lib/copy.txt")


def test_a_new_version_is_seen_at_once_where_it_was_missed_before(daemon):
    with pytest.raises(FileNotFoundError):
        os.stat(daemon.path("shop", "1.0"))
    assert os.listdir(daemon.apps) == [".deployfs"]
    daemon.run("fetch", "shop", "1.0")
    assert os.listdir(daemon.apps / "shop") == ["1.0"]
    with pytest.raises(FileNotFoundError):
        os.stat(daemon.path("shop"))
    daemon.run("fetch", "shop", "1.1")
    assert sorted(os.listdir(daemon.apps / "shop")) == ["1.0", "1.1"]
    daemon.run("flip", "shop", "1.0")
    assert daemon.read("shop") == "1.0"
    assert sorted(os.listdir(daemon.apps / "shop")) == ["1.0", "1.1", "current"]
    daemon.run("remove", "shop", "1.1")
    with pytest.raises(FileNotFoundError):
        os.stat(daemon.path("shop", "1.1"))
    daemon.run("fetch", "shop", "1.1")
    assert daemon.read("shop", "1.1") == "1.1"


def test_open_files_and_directories_stay_on_their_version_over_a_flip(shop):
    folder = os.open(shop.path("shop"), os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(shop.path("shop") / "VERSION", os.O_RDONLY)
    try:
        shop.run("flip", "shop", "1.0")
        assert os.read(file, 100) == b"1.2\n"
        late = os.open("VERSION", os.O_RDONLY, dir_fd=folder)
        assert os.read(late, 100) == b"1.2\n"
        os.close(late)
        assert shop.read("shop") == "1.0"
    finally:
        os.close(file)
        os.close(folder)


# -- removal, gc, verify -------------------------------------------------------------------


def test_remove_refuses_what_is_needed(shop):
    shop.run("pin", "shop", "1.0")
    for version in ("1.0", "1.1", "1.2"):
        result = shop.run("remove", "shop", version, code=CONFLICT)
        assert version in result.text
    shop.run("pin", "shop", "1.0", code=UNCHANGED)
    shop.run("unpin", "shop", "1.0")
    shop.run("unpin", "shop", "1.0", code=UNCHANGED)
    shop.run("remove", "shop", "1.0")
    shop.run("remove", "shop", "1.0", code=NOT_FOUND)
    assert shop.versions("shop") == ["1.2", "1.1"]


def test_removed_data_stays_until_its_holder_lets_go(place, daemon):
    body = noise(1 << 20)
    place.origin.publish("big", "1", {"VERSION": b"1\n", "body": body})
    daemon.run("fetch", "big", "1")
    file = os.open(daemon.path("big", "1") / "body", os.O_RDONLY)
    try:
        daemon.run("remove", "big", "1")
        assert not os.path.lexists(daemon.path("big", "1"))
        assert daemon.version("big", "1")["state"] == "removing"
        assert b"".join(iter(lambda: os.read(file, 65536), b"")) == body
    finally:
        os.close(file)
    gone = lambda: not any(v["version"] == "1" for v in app_versions(daemon, "big"))
    wait_until(gone, "the version is gone")
    wait_until(lambda: sum(os.stat(p).st_blocks * 512 for p in daemon.packs()) < 1 << 19, "its space is free")


def app_versions(daemon, app):
    """Its versions; none where the app itself is gone."""
    reply = daemon.api("GET", f"/v1/apps/{app}")
    return reply.body["app"]["versions"] if reply.status == 200 else []


def test_gc_keeps_what_is_needed_and_says_why(place):
    for number in range(7):
        place.origin.publish("shop", f"1.{number}", small_app(f"1.{number}"))
    daemon = place.daemon(keep=2).start()
    for number in range(7):
        daemon.run("fetch", "shop", f"1.{number}")
    daemon.run("flip", "shop", "1.0")
    daemon.run("flip", "shop", "1.1")
    daemon.run("pin", "shop", "1.3")
    plan = daemon.json("gc", "--dry-run")
    assert plan["dry_run"] is True
    assert len(daemon.versions("shop")) == 7
    actions = {v["version"]: v["action"] for v in plan["versions"]}
    assert [v for v in actions if actions[v] == "remove"] in (["1.2", "1.4"], ["1.4", "1.2"])
    assert all(v["reason"] for v in plan["versions"])
    text = daemon.run("gc").out
    assert "1.2" in text and "1.4" in text
    assert daemon.versions("shop") == ["1.6", "1.5", "1.3", "1.1", "1.0"]
    assert all(v["action"] == "keep" for v in daemon.json("gc")["versions"])


def test_verify_finds_bit_rot_and_wrong_bytes_are_not_served(place, daemon):
    place.origin.publish("shop", "1.5", {"VERSION": b"1.5\n", "good": noise(300_000, b"good"), "dir/rotten": noise(300_000)})
    daemon.run("fetch", "shop", "1.5")
    daemon.run("verify", "shop", "1.5")
    [pack] = [path for path in daemon.packs() if noise(300_000) in open(path, "rb").read()]
    with open(pack, "r+b") as file:
        at = file.read().index(noise(300_000)) + 150_000
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    place.origin.folder.rename(place.folder / "away")  # or it would be repaired at once
    result = daemon.run("verify", "shop", "1.5", code=VERIFICATION)
    assert "dir/rotten" in result.text
    with pytest.raises(OSError) as caught:
        (daemon.path("shop", "1.5") / "dir/rotten").read_bytes()
    assert caught.value.errno == errno.EIO
    assert (daemon.path("shop", "1.5") / "good").read_bytes() == noise(300_000, b"good")
    assert "dir/rotten" in daemon.log_text()


def test_a_removed_version_leaves_the_others_whole(shop):
    shop.run("remove", "shop", "1.0")
    shop.run("verify")
    for version in ("1.1", "1.2"):
        assert shop.read("shop", version, "lib/linked.txt") == small_app("")["lib/same.txt"].decode().strip()


# -- the daemon ----------------------------------------------------------------------------


@pytest.mark.parametrize("text, line", [
    ("orgin: /x\n", 1),
    ("# fine\nkeep: many\n", 2),
    ("keep: 3\n\nreserve: 5 parsecs\n", 3),
    ("connect_timeout: 10 bananas\n", 1),
    ("origin: gopher://x/y\n", 1),
    ("keep: 3\norigin: ftp://user:secret@x/y\n", 2),
    ("mount: relative/path\n", 1),
    ("apps:\n  - name: shop\n    kep: 3\n", 3),
    ("apps:\n  - name: ../shop\n", 2),
    ("keep: [1\n", None),
])
def test_config_errors_name_file_and_line(place, text, line):
    config = place.folder / "bad.yaml"
    config.write_text(text)
    done = subprocess.run([deploy.DEPLOYFSD, "--check", "--config", config], capture_output=True, text=True)
    assert done.returncode == USAGE, done.stderr
    assert f"{config}:{line}" in done.stderr if line else str(config) in done.stderr
    assert "secret" not in done.stderr


def test_config_check_accepts_what_is_right(place):
    daemon = place.daemon(keep=5, apps=[{"name": "shop", "owner": "1000:1000", "verify": "off"}])
    done = subprocess.run([deploy.DEPLOYFSD, "--check", "--config", daemon.config], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one_line = place.folder / "one.yaml"
    one_line.write_text("origin: ftp://files.example/packages\n")
    done = subprocess.run([deploy.DEPLOYFSD, "--check"], env={"DEPLOYFS_CONFIG": str(one_line)})
    assert done.returncode == 0


def test_a_bad_reload_keeps_the_old_config(daemon):
    good = daemon.config.read_text()
    daemon.config.write_text(good + "kep: 3\n")
    assert daemon.ctl("daemon", "reload").code == USAGE
    daemon.config.write_text(good)
    daemon.run("fetch", "shop", "1.0")


def test_owner_comes_from_the_config(place):
    place.origin.publish("shop", "1.0", small_app("1.0"))
    daemon = place.daemon(apps=[{"name": "shop", "owner": "1234:4321"}]).start()
    daemon.run("fetch", "shop", "1.0")
    info = os.stat(daemon.path("shop", "1.0") / "VERSION")
    assert (info.st_uid, info.st_gid) == (1234, 4321)


def test_a_second_daemon_on_the_same_store_is_refused(place, shop):
    second = place.daemon(name="second", store=shop.store)
    second.spawn()
    assert second.process.wait(deploy.PATIENCE_S) == CONFLICT
    assert str(shop.store) in second.log_text()
    assert shop.read("shop") == "1.2"


def test_a_second_daemon_on_the_same_mountpoint_is_refused(place, shop):
    second = place.daemon(name="second", mount=shop.mount)
    second.spawn()
    assert second.process.wait(deploy.PATIENCE_S) == CONFLICT
    assert shop.read("shop") == "1.2"


def test_a_mountpoint_with_empty_directories_is_mounted_over(place):
    daemon = place.daemon()
    (daemon.apps / "shop" / "current").mkdir(parents=True)
    daemon.start()
    assert os.listdir(daemon.apps) == [".deployfs"]
    assert str(daemon.mount) in daemon.log_text()


def test_a_mountpoint_with_a_file_is_refused(place):
    daemon = place.daemon()
    daemon.apps.mkdir(parents=True)
    (daemon.apps / "precious").write_text("data")
    daemon.spawn()
    assert daemon.process.wait(deploy.PATIENCE_S) in (FAILED, CONFLICT)
    assert "not empty" in daemon.log_text()
    assert (daemon.apps / "precious").read_text() == "data"


def test_stop_unmounts(shop):
    shop.run("daemon", "stop")
    assert shop.process.wait(deploy.PATIENCE_S) == 0
    assert deploy.mounts_below(shop.folder) == []
    assert not shop.socket.exists()


def test_stop_names_the_holder_and_force_works(shop):
    with holder(shop.path("shop")) as pid:
        result = shop.run("daemon", "stop", code=CONFLICT)
        assert str(pid) in result.text
        assert shop.read("shop") == "1.2"
        shop.run("daemon", "stop", "--force")
        assert shop.process.wait(deploy.PATIENCE_S) == 0
    assert deploy.mounts_below(shop.folder) == []


def test_sigterm_with_a_holder_says_who_and_goes_on(shop):
    with holder(shop.path("shop")) as pid:
        shop.process.send_signal(signal.SIGTERM)
        wait_until(lambda: str(pid) in shop.log_text(), "the log names the holder")
        assert shop.read("shop") == "1.2"
        assert shop.status()["healthy"]
    shop.stop()


# -- who may -------------------------------------------------------------------------------


def test_others_may_read_and_not_change(shop):
    assert "1.2" in shop.run("list", "shop", user=NOBODY).out
    shop.run("status", user=NOBODY)
    shop.run("history", "shop", user=NOBODY)
    for verb in (["flip", "shop", "1.0"], ["rollback", "shop"], ["remove", "shop", "1.0"], ["fetch", "shop", "1.0"],
                 ["pin", "shop", "1.0"], ["gc"], ["daemon", "stop"], ["daemon", "reload"]):
        shop.run(*verb, code=FAILED, user=NOBODY)
    assert shop.channels("shop") == {"current": "1.2", "previous": "1.1"}
    assert subprocess.run(["setpriv", "--reuid", str(NOBODY), "--clear-groups", "cat", shop.path("shop") / "VERSION"],
                          capture_output=True).stdout == b"1.2\n"


def test_members_of_the_group_may_change_with_their_own_rights(place):
    place.origin.publish("shop", "1.0", small_app("1.0"))
    daemon = place.daemon(group="daemon").start()
    member = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", "1"]
    done = subprocess.run([*member, *daemon.command("fetch", "shop", "1.0")], capture_output=True, text=True)
    assert done.returncode == DONE, done.stderr

    def imports(package):
        done = subprocess.run([*member, *daemon.command("import", package, "--app", "shop", "--version", "2")],
                              capture_output=True, text=True)
        return done.returncode == DONE

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        package = deploy.make_package(pathlib.Path(folder) / "package.tar", small_app("2"))
        package.chmod(0o640)
        assert not imports(package)
        assert daemon.versions("shop") == ["1.0"]
        os.chown(package, 0, 1)
        assert imports(package)
    assert daemon.versions("shop") == ["2", "1.0"]


def test_curl_can_do_what_deployctl_does(shop):
    curl = ["curl", "-sS", "--unix-socket", shop.socket]
    body = subprocess.run([*curl, "-d", '{"version":"1.0"}', "http://d/v1/apps/shop/flip"],
                          capture_output=True, check=True).stdout
    assert json.loads(body)["to"] == "1.0"
    assert shop.read("shop") == "1.0"


def test_the_api_refuses_what_is_malformed(shop):
    for body in (b"{", b"[]", b"", b'{"version":1}', b'{"version":"1.0","x":1}', b'{"version":"../x"}', b"\xff\xfe"):
        reply = shop.api("POST", "/v1/apps/shop/flip", body)
        assert (reply.status, reply.body["error"]["code"]) == (400, "usage"), body
    assert shop.api("GET", "/v1/apps/nothing").status == 404
    assert shop.api("GET", "/v1/nothing").status == 404
    assert shop.api("DELETE", "/v1/status").status == 405
    assert shop.api("POST", "/v1/apps/shop/flip", b" " * 70_000).status == 413
    assert shop.read("shop") == "1.2"
