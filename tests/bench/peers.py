# SPDX-License-Identifier: Apache-2.0
"""Who shows a tree: deployfs, and what it is measured against."""
import subprocess
from pathlib import Path

from deploy import Daemon, wait_until
from trees import run

MOUNT_OPTIONS = "loop,ro,noatime"

class Peer:
    """A tree below `root`, whose content comes from `sources` on the disk."""

    def __init__(self, name, root, sources):
        self.name = name
        self.root = Path(root)
        self.sources = sources

    def stop(self):
        pass


class Mounted(Peer):
    """Something that is mounted at @root by a command."""

    def __init__(self, name, root, source, *command):
        super().__init__(name, root, [source] if source else [])
        self.root.mkdir(parents=True)
        run(*command)

    def stop(self):
        run("umount", self.root)


SAMPLE = 2000


def extracted(tree):
    """As tar leaves it. Of so many files, not all are looked at when they are to be out of memory."""
    names = tree.some_files(SAMPLE).read_text().splitlines()
    return Peer("ext4", tree.tree(), [tree.tree() / name for name in names])


def extracted_file(file):
    return Peer("ext4", file, [file])


def image(tree, root, name, ending, make_file, mount):
    """A tree in a file, which @make_file(file, folder) makes; @mount: the command, less file and root."""
    file = tree.made(f"{tree.name}.{ending}", lambda path: make_file(path, tree.tree()))
    return Mounted(name, root, file, *mount, file, root)


def mkfs_erofs(*options):
    return lambda file, tree: run("mkfs.erofs", "--quiet", *options, file, tree)


def mksquashfs(file, tree):
    run("mksquashfs", tree, file, "-comp", "zstd", "-quiet", "-no-progress")


def make(name, tree, work):
    """The peer of that name that shows @tree, a trees.Tree, ready to be read."""
    root = work / f"{name}-{tree.name}"
    kernel = ("mount", "-o", MOUNT_OPTIONS, "-t")
    if name == "ext4":
        return extracted(tree)
    if name == "bind":
        return Mounted(name, root, None, "mount", "--bind", tree.tree(), root)
    if name == "erofs":
        return image(tree, root, name, "erofs", mkfs_erofs(), (*kernel, "erofs"))
    if name == "erofs-lz4":
        return image(tree, root, name, "erofs-lz4", mkfs_erofs("-zlz4hc"), (*kernel, "erofs"))
    if name == "squashfs":
        return image(tree, root, name, "squashfs", mksquashfs, (*kernel, "squashfs"))
    if name == "squashfuse_ll":
        return image(tree, root, name, "squashfs", mksquashfs, ("squashfuse_ll",))
    if name == "archivemount":
        return Mounted(name, root, tree.gz(), "archivemount", "-o", "readonly", tree.gz(), root)
    raise ValueError(f"no peer '{name}'")


class Ours(Peer):
    """A daemon with a store of its own below @folder."""

    def __init__(self, folder, origin=None):
        self.daemon = Daemon(folder, origin)
        self.daemon.start()
        super().__init__("deployfs", self.daemon.apps, [])

    def add(self, archive, app, version):
        self.daemon.run("import", archive, "--app", app, "--version", version, timeout_s=1200)
        self.sources = self.daemon.packs()
        return self.daemon.path(app, version)

    def replace_worker(self):
        """The next one has read nothing."""
        before = self.generation()
        self.daemon.run("daemon", "upgrade")
        wait_until(lambda: self.generation() > before and self.daemon.answers(), "the next worker answers")

    def generation(self):
        return self.daemon.status()["supervisor"]["generation"]

    def requests(self):
        """FUSE requests so far by operation, less those by which the kernel gives memory back."""
        counts = dict(self.daemon.status()["fuse"]["requests"])
        counts.pop("forget")
        return counts

    def stop(self):
        self.daemon.cleanup()
        subprocess.run(["rm", "-rf", self.daemon.folder], check=True)
