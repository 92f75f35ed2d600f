# SPDX-License-Identifier: Apache-2.0
"""What is measured with: made once, then kept below one folder.

    python/          what `tar -x` gives of a CPython with libraries, as Debian has them, compiled
    python.tar       and .tar.gz, .tar.zst
    python-next.tar  95 % of the bytes lie in files that are as in python.tar
    python-next-mtime.tar   the same, and every mtime is new
    node/ node.tar … the same of a Node.js with libraries
    big-MIB.tar      one file that nothing can compress
    small-COUNT.tar.zst   that many files of some hundred bytes
"""
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

MTIME, NEW_MTIME = 1_700_000_000, 1_730_000_000
CHANGED_SHARE = 0.05
SEED = 4


def run(*command, **options):
    """Run a program to its end; what it said is shown only if it failed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


class Kept:
    """A folder in which each thing is made once."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def made(self, name, make):
        """The path of @name; made by @make(path) where it is not there, all of it or nothing."""
        path = self.folder / name
        if not path.exists():
            print(f"bench: making {path}", file=sys.stderr, flush=True)
            work = self.folder / f"making-{name}"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            make(work / name)
            (work / name).rename(path)
            shutil.rmtree(work)
        return path


# -- what is done to a folder


def files_of(tree):
    """Its regular files, in an order that is always the same."""
    found = []
    for folder, folders, names in os.walk(tree):
        folders.sort()
        found += [Path(folder, name) for name in sorted(names) if not Path(folder, name).is_symlink()]
    return found


def set_mtimes(tree, when):
    for folder, _, names in os.walk(tree, topdown=False):
        for path in [*(Path(folder, name) for name in names), Path(folder)]:
            os.utime(path, (when, when), follow_symlinks=False)


def pack(tree, archive):
    run("tar", "-C", tree, "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-cf", archive, ".")


def extract(archive, folder):
    folder.mkdir()
    run("tar", "-C", folder, "-xf", archive)


def change(tree):
    """Make the tree's next version out of it: a line more in some of its files. Returns their bytes."""
    files = files_of(tree)
    total = sum(path.stat().st_size for path in files)
    random.Random(SEED).shuffle(files)
    changed = 0
    for path in files:
        if changed >= total * CHANGED_SHARE:
            break
        data, mode = path.read_bytes() + b"\n", path.stat().st_mode
        path.unlink()  # another name of it must not change
        path.write_bytes(data)
        path.chmod(mode)
        os.utime(path, (NEW_MTIME, NEW_MTIME))
        changed += len(data)
    return changed


def unpack_packages(names, folder, work):
    """Download without installing. What Debian has in /usr becomes the root of @folder."""
    debs, root = work / "debs", work / "root"
    debs.mkdir()
    run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names, cwd=debs)
    for deb in sorted(debs.iterdir()):
        run("dpkg-deb", "-x", deb, root)
    for place in root.iterdir():
        if place.name != "usr":
            run("cp", "-a", place, root / "usr")
    (root / "usr").rename(folder)
    shutil.rmtree(debs)
    shutil.rmtree(root)


def libraries(root):
    return next(Path(root, "lib").glob("*-linux-gnu*"))


# -- trees


class Tree(Kept):
    """An interpreter and its libraries, in all the forms in which it is needed."""
    name = None
    least_files = 0

    def fill(self, tree, work):
        """Make the content in @tree, which is not there yet; @work is a folder for what is needed meanwhile."""
        raise NotImplementedError

    def starter(self, root):
        """The command that starts the interpreter below @root with many libraries, and its environment."""
        raise NotImplementedError

    def tree(self):
        """What tar -x makes of it: the ceiling."""
        return self.made(self.name, lambda path: extract(self.tar(), path))

    def tar(self):
        return self.made(f"{self.name}.tar", self.make_tar)

    def make_tar(self, path):
        tree = path.parent / "content"
        self.fill(tree, path.parent)
        count = len(files_of(tree))
        if count < self.least_files:
            raise RuntimeError(f"the tree has {count} files, fewer than {self.least_files}")
        command, env = self.starter(tree)
        run(*command, env=env)
        set_mtimes(tree, MTIME)
        pack(tree, path)

    def gz(self):
        return self.made(f"{self.name}.tar.gz", lambda path: self.compress(path, "gzip", "-6", "-n", "-c"))

    def zst(self):
        return self.made(f"{self.name}.tar.zst", lambda path: self.compress(path, "zstd", "-q", "-3", "-c"))

    def compress(self, path, *command):
        with open(path, "wb") as out:
            subprocess.run([*command, self.tar()], stdout=out, check=True)

    def next_tar(self, every_mtime=False):
        """The next version's, and how many bytes its new files have."""
        name = f"{self.name}-next-mtime.tar" if every_mtime else f"{self.name}-next.tar"
        tar = self.made(name, lambda path: self.make_next(path, every_mtime))
        return tar, int(self.folder.joinpath(f"{name}.changed").read_text())

    def make_next(self, path, every_mtime):
        tree = path.parent / "content"
        extract(self.tar(), tree)
        changed = change(tree)
        if every_mtime:
            set_mtimes(tree, NEW_MTIME)
        self.folder.joinpath(f"{path.name}.changed").write_text(str(changed))
        pack(tree, path)

    def some_files(self, count):
        """A file with the names of @count files anywhere in the tree."""
        return self.made(f"{self.name}-{count}.list", lambda path: self.choose_files(path, count))

    def choose_files(self, path, count):
        tree = self.tree()
        names = [str(file.relative_to(tree)) for file in files_of(tree)]
        path.write_text("".join(name + "\n" for name in random.Random(SEED).sample(names, count)))


class Python(Tree):
    name = "python"
    least_files = 40_000
    packages = """
        python3-django python3-asgiref python3-sqlparse python3-tz python3-sympy python3-mpmath python3-babel
        python-babel-localedata python3-pygments python3-docutils python3-setuptools python3-networkx
        python3-botocore python3-typing-extensions python3-twisted python3-sqlalchemy python3-dateutil python3-six
        python3-urllib3 python3-jmespath python3-jinja2 python3-markupsafe python3-plotly python3-numpy
        python3-scipy python3-pandas libblas3 liblapack3 libgfortran5 libquadmath0""".split()
    modules = """
        json email.mime.multipart http.client asyncio sqlite3 ssl decimal multiprocessing.pool xml.dom.minidom
        networkx django.core.management django.db.models django.forms docutils.core pygments.lexers sqlparse
        sympy sqlalchemy.orm jinja2 babel.dates numpy scipy.linalg""".split()
    # Of CPython's own tests: not meant to be compiled.
    uncompilable = r"bad_coding|badsyntax|lib2to3/tests"

    @staticmethod
    def version():
        """That of Debian's python3, such as 3.11."""
        said = run("apt-cache", "depends", "python3-minimal")
        found = re.search(r"^ *PreDepends: python(3\.\d+)-minimal$", said, re.M)
        if not found:
            raise RuntimeError("apt knows no python3: run apt-get update")
        return found.group(1)

    def fill(self, tree, work):
        v = self.version()
        unpack_packages([f"python{v}-minimal", f"libpython{v}-minimal", f"libpython{v}-stdlib",
                         f"libpython{v}-testsuite", *self.packages], tree, work)
        # As a package's installation does. By hash, so that a new mtime alone makes none of them stale.
        run(tree / f"bin/python{v}", "-m", "compileall", "-q", "-f", "-j", os.cpu_count(), "-x", self.uncompilable,
            "--invalidation-mode", "unchecked-hash", tree / "lib",
            env={"PYTHONHOME": str(tree), "PATH": os.environ["PATH"]})

    def starter(self, root):
        below = libraries(root)
        env = {"PYTHONHOME": str(root), "PYTHONPATH": f"{root}/lib/python3/dist-packages", "PATH": "/usr/bin:/bin",
               "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1",
               "LD_LIBRARY_PATH": f"{below}:{below}/blas:{below}/lapack"}
        program = (f"import sys, {', '.join(self.modules)}\n"
                   "out = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)\n"
                   "       and not m.__file__.startswith(sys.argv[1])]\n"
                   "sys.exit(f'loaded from elsewhere: {out}' if out else 0)")
        interpreter = next(Path(root, "bin").glob("python3.[0-9]*[0-9]"))
        return [interpreter, "-c", program, root], env


class Node(Tree):
    """A root of its own, as a container's is: Debian's Node.js looks for some of its files by absolute paths."""
    name = "node"
    programs = ("webpack", "eslint")

    @staticmethod
    def available(name):
        """@name with the version that can be downloaded; another one may be installed."""
        for line in run("apt-cache", "madison", name).splitlines():
            if "://" in line:
                return f"{name}={line.split('|')[1].strip()}"
        raise RuntimeError(f"apt knows no {name} that can be downloaded: run apt-get update")

    @staticmethod
    def depends(*names):
        """All packages that those need, and what these need."""
        without = [f"--no-{what}" for what in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
        return re.findall(r"^[a-z].*$", run("apt-cache", "depends", "--recurse", *without, *names), re.M)

    def fill(self, tree, work):
        engine = run("apt-cache", "search", "--names-only", "^libnode[0-9]+$").split()[0]
        needed = re.findall(r"^ *Depends: (\S+)$", run("apt-cache", "depends", engine), re.M)
        modules = [name for name in self.depends(engine, *self.programs) if name.startswith("node-")]
        names = dict.fromkeys([engine, "libc6", "libgcc-s1", *needed, *self.programs, *modules])
        tree.mkdir()
        unpack_packages([self.available("nodejs"), *names], tree / "usr", work)
        for name in ("lib", "lib64"):
            (tree / name).symlink_to(f"usr/{name}")

    def starter(self, root):
        program = f"for (const name of {json.dumps(self.programs)}) require(name)"
        return ["/usr/sbin/chroot", root, "/usr/bin/node", "-e", program], {"PATH": "/usr/bin"}


# -- single files


def make_big(path, size):
    noise = random.Random(SEED)
    info = tarfile.TarInfo("big")
    info.size, info.mtime = size, MTIME
    with open(path, "wb") as out:
        out.write(info.tobuf())
        for _ in range(size >> 20):
            out.write(noise.randbytes(1 << 20))
        out.write(bytes(10240 - 512))


def make_small(path, count):
    with subprocess.Popen(["zstd", "-q", "-1", "-o", path], stdin=subprocess.PIPE) as zstd, zstd.stdin as out:
        for n in range(count):
            data = f"file number {n}\n".encode() * 8
            info = tarfile.TarInfo(f"d{n // 1000:04}/file-{n:07}.txt")
            info.size, info.mtime = len(data), MTIME
            out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        out.write(bytes(10240))
    if zstd.returncode:
        raise RuntimeError(f"zstd ended with {zstd.returncode}")


class Trees(Kept):
    def __init__(self, folder):
        super().__init__(folder)
        self.python = Python(folder)
        self.node = Node(folder)

    def named(self, name):
        return {"python": self.python, "node": self.node}[name]

    def big(self, size):
        """A tar with one file 'big' in it. The tar itself is what the peers read: the same bytes in one file,
        and 10 KiB more. So there need not be two of it."""
        return self.made(f"big-{size >> 20}.tar", lambda path: make_big(path, size))

    def small(self, count):
        """An archive with @count small files, a thousand a folder, all different."""
        return self.made(f"small-{count}.tar.zst", lambda path: make_small(path, count))
