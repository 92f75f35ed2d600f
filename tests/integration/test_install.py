# SPDX-License-Identifier: Apache-2.0
"""What `meson install` puts where, and that systemd understands it."""
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from deploy import BUILD

# Each of these gives a service a mount namespace of its own: the host would not see our mount.
NAMESPACE_KEYS = re.compile("^(Private|Protect|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|NoExecPaths|ExecPaths|"
                            "TemporaryFileSystem|BindPaths|BindReadOnlyPaths|MountFlags|MountAPIVFS|RootDirectory|"
                            "RootImage|DynamicUser|ExtensionImages|LogNamespace)")


@pytest.fixture(scope="module")
def installed(module_place):
    """A DESTDIR with everything in it, as the build folder was set up."""
    target = module_place.folder / "target"
    subprocess.run(["meson", "install", "--no-rebuild", "--skip-subprojects", "-C", BUILD], check=True,
                   env=dict(os.environ, DESTDIR=str(target)), stdout=subprocess.DEVNULL)
    return target


def program(installed, name):
    """Where it will be, and where it is now."""
    path = next(path for path in installed.rglob(name) if path.is_file() and path.parent.name in ("bin", "sbin"))
    return "/" + str(path.relative_to(installed)), path


def units(installed):
    return next(path.parent for path in installed.rglob("deployfs.service"))


def keys(unit):
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")


def need(program):
    if not shutil.which(program):
        pytest.skip(f"no {program} here")


def test_everything_is_there(installed):
    for name in ("deployctl", "deployfsd"):
        assert os.access(program(installed, name)[1], os.X_OK)
    for name in ("man1/deployctl.1", "man5/deployfs.yaml.5", "man8/deployfsd.8"):
        assert next(installed.rglob(f"man/{name}")).stat().st_size > 500
    found = {path.name for path in installed.rglob("*") if path.is_file()}
    assert found == {"deployctl", "deployfsd", "deployctl.1", "deployfs.yaml.5", "deployfsd.8", "_deployctl",
                     "deployctl.fish", "deployfs.service", "deployfs.conf"}


def test_the_unit_starts_the_program_that_was_installed(installed):
    later, now = program(installed, "deployfsd")
    assert keys(units(installed) / "deployfs.service")["ExecStart"] == later
    assert subprocess.run([now, "--version"], capture_output=True).returncode == 0
    assert "@" not in (units(installed) / "deployfs.service").read_text()


def test_the_unit_keeps_what_containers_need(installed):
    unit = keys(units(installed) / "deployfs.service")
    assert unit["KillMode"] == "process" and unit["Restart"] == "always" and unit["StartLimitIntervalSec"] == "0"
    assert int(unit["FileDescriptorStoreMax"]) >= 5
    assert unit["RuntimeDirectoryPreserve"] == "yes"
    assert {"docker.service", "containerd.service"} <= set(unit["Before"].split())
    assert not [key for key in unit if NAMESPACE_KEYS.match(key)]
    assert "network" not in (units(installed) / "deployfs.service").read_text().replace("No network is waited", "")


def test_docker_starts_after_it(installed):
    conf = keys(units(installed) / "docker.service.d/deployfs.conf")
    assert conf == {"Wants": "deployfs.service", "After": "deployfs.service"}


def test_systemd_finds_nothing_wrong(installed, module_place):
    """With a docker.service beside it, so that the drop-in is read too."""
    need("systemd-analyze")
    folder = module_place.folder / "units"
    shutil.copytree(units(installed), folder)
    service = folder / "deployfs.service"
    later, now = program(installed, "deployfsd")
    service.write_text(service.read_text().replace(f"ExecStart={later}", f"ExecStart={now}"))
    assert keys(service)["ExecStart"] == str(now)
    docker = folder / "docker.service"
    docker.write_text("[Service]\nExecStart=/bin/true\n")
    for unit in (service, docker):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
                              capture_output=True, text=True, env=dict(os.environ, SYSTEMD_UNIT_PATH=f"{folder}:"))
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_misspelt_key_would_be_found(installed, module_place):
    """That the test above can fail."""
    need("systemd-analyze")
    bad = module_place.folder / "bad.service"
    bad.write_text("[Service]\nExecStart=/bin/true\nKillMoode=process\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", bad], capture_output=True, text=True)
    assert "KillMoode" in done.stderr


def test_the_group_is_made(installed):
    need("systemd-sysusers")
    etc = installed / "etc"
    etc.mkdir(exist_ok=True)
    subprocess.run(["systemd-sysusers", f"--root={installed}"], check=True, capture_output=True)
    assert re.search("^deployfs:", (etc / "group").read_text(), re.M)
    assert not (etc / "passwd").exists() or "deployfs" not in (etc / "passwd").read_text()


def test_the_folders_are_made(installed):
    need("systemd-tmpfiles")
    (installed / "etc").mkdir(exist_ok=True)
    for file in ("passwd", "group"):
        with open(installed / "etc" / file, "a") as out:
            out.write("root:x:0:0::/root:/bin/sh\n" if file == "passwd" else "root:x:0:\n")
    conf = next(Path(installed).rglob("tmpfiles.d/deployfs.conf"))
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={installed}", conf], check=True, capture_output=True)
    for name, mode in (("etc/deployfs", 0o755), ("srv/deployfs", 0o755), ("var/lib/deployfs", 0o700)):
        assert stat.S_IMODE((installed / name).stat().st_mode) == mode
