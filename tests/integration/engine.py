# SPDX-License-Identifier: Apache-2.0
"""A container engine of one's own: Debian's dockerd with its own data, socket and no network."""
import os
import signal
import subprocess
from pathlib import Path

from deploy import PATIENCE_S, TOP, ended, wait_until

DOCKER = "/usr/bin/docker"  # Debian's; another client may come first on PATH
IMAGE = "deployfs-test"


class Engine:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.socket = self.folder / "docker.sock"
        self.log = self.folder / "dockerd.log"
        self.process = None
        self.shells = []

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                 "--pidfile", self.folder / "pid", "--host", f"unix://{self.socket}", "--bridge=none",
                 "--iptables=false", "--ip6tables=false"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.answers, "dockerd answers")
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"dockerd ended:\n{self.log.read_text(errors='replace')[-4000:]}")
        return self.docker("version", check=False).returncode == 0

    def command(self, *args):
        return [DOCKER, "--host", f"unix://{self.socket}", *map(str, args)]

    def docker(self, *args, check=True, **options):
        done = subprocess.run(self.command(*args), capture_output=True, timeout=PATIENCE_S, **options)
        assert not check or done.returncode == 0, (args, done.stderr.decode())
        return done

    def make_image(self, app):
        """From busybox and the libraries that the interpreter of the version in @app needs."""
        tar = subprocess.run([TOP / "examples/make-image.sh", app], stdout=subprocess.PIPE, check=True).stdout
        self.docker("import", "-", IMAGE, input=tar)

    def shell(self, *options):
        shell = Shell(self.command("run", "-i", "--rm", "--network=none", *options, IMAGE, "/bin/sh"))
        self.shells.append(shell)
        return shell

    def stop(self):
        for shell in self.shells:
            shell.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if not ended(self.process, PATIENCE_S):
                self.process.kill()
                self.process.wait()
        self.process = None


class Shell:
    """One container, whose first process is a shell that is told what to do line by line."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

    def run(self, command):
        """(exit code, output) of @command, run by the shell itself: cd and exec last."""
        self.process.stdin.write(f"{{ {command}; }} 2>&1; echo \"\n= $?\"\n")
        self.process.stdin.flush()
        lines = []
        while not (line := self.process.stdout.readline()).startswith("= "):
            assert line, f"the container ended: {lines}"
            lines.append(line)
        return int(line.split()[1]), "".join(lines).removesuffix("\n").strip()

    def out(self, command):
        code, out = self.run(command)
        assert code == 0, (command, out)
        return out

    def close(self):
        self.process.stdin.close()
        if not ended(self.process, 20):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
