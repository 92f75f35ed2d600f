# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests. Run them by tests/run.sh, which gives them a mount namespace."""
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("faults")

import deploy
from deploy import Daemon, Origin, small_app

WORK = Path(os.environ.get("DEPLOYFS_WORK", tempfile.gettempdir()))


def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes long, run with tests/run.sh --full")
    config.addinivalue_line("markers", "slow_under_sanitizers: left out of the sanitizer run")


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("the integration tests need root", returncode=2)
    if not deploy.DEPLOYFSD.exists():
        pytest.exit(f"{deploy.DEPLOYFSD} is not built: run tests/run.sh", returncode=2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure, show the daemon's log and keep the folder with a repro.sh."""
    report = (yield).get_result()
    if not report.failed:
        return
    for place in item.funcargs.values():
        if isinstance(place, Workplace):
            place.failed = True
            for daemon in place.daemons:
                report.sections.append((f"log of {daemon.folder}", daemon.log_tail()))
                report.sections.append(("to repeat it", str(daemon.write_repro())))


class Workplace:
    """A folder with daemons in it, which all end with the test."""

    def __init__(self, name):
        safe = "".join(c if c.isalnum() else "-" for c in name)[:40]
        self.folder = Path(tempfile.mkdtemp(prefix=f"deployfs-{safe}-", dir=WORK))
        self.folder.chmod(0o755)
        self.daemons = []
        self.failed = False
        self.origin = Origin(self.folder / "packages")

    def daemon(self, origin=None, name="d", **config):
        """One that is configured, and not started. @origin: default the folder's own packages."""
        daemon = Daemon(self.folder / name, self.origin.folder if origin is None else origin, **config)
        self.daemons.append(daemon)
        return daemon

    def close(self):
        for daemon in self.daemons:
            daemon.cleanup()
        reports = [report for daemon in self.daemons for report in daemon.sanitizer_reports()]
        if not self.failed and not reports:
            deploy.remove_tree(self.folder)
        # Of a process whose end no test notices, since another one takes its place.
        assert not reports, "\n".join(reports)


@pytest.fixture
def place(request):
    place = Workplace(request.node.name)
    yield place
    place.close()


@pytest.fixture(scope="module")
def module_place(request):
    """One for a whole file: for tests that only look at a daemon that was costly to fill."""
    place = Workplace(Path(request.node.name).stem)
    yield place
    place.close()


@pytest.fixture
def daemon(place):
    """A running daemon with an empty store; its origin has shop 1.0, 1.1 and 1.2."""
    for version in ("1.0", "1.1", "1.2"):
        place.origin.publish("shop", version, small_app(version))
    return place.daemon().start()


@pytest.fixture
def shop(daemon):
    """The same with all three fetched, and flipped to one after the other."""
    for version in ("1.0", "1.1", "1.2"):
        daemon.run("fetch", "shop", version)
        daemon.run("flip", "shop", version)
    return daemon


@pytest.fixture(scope="session")
def pyapp():
    """The folder with packages of the real application, of more than ten thousand files."""
    with tempfile.TemporaryDirectory(prefix="deployfs-pyapp-", dir=WORK) as folder:
        os.chmod(folder, 0o755)
        subprocess.run([deploy.TOP / "examples" / "make-app.sh", folder], check=True)
        yield Path(folder) / "packages"
