# SPDX-License-Identifier: Apache-2.0
"""Reading through the mount, and elsewhere: from memory (warm) and from the disk (cold)."""
import functools

import machine
from measure import Row, alternate, group, pairs_of

OURS = "deployfs"
SOME_FILES = 2000
RANDOM_WARM, RANDOM_COLD = 200_000, 4_000
FEW_FILES = 20
# The readings that start an interpreter, and the tree in which it is.
STARTS = {"CPython": "python", "Node.js": "node"}
# Of each of these there is a row for the whole run only.
OTHERS = ("bind", "erofs", "erofs-lz4", "squashfs", "squashfuse_ll")


def others(name, *but, variant=""):
    return [Row(name, peer, variant=variant, full=True) for peer in OTHERS if peer not in but]


def told(name, variant=""):
    return Row(name, "ext4", variant=variant, full=True)


# -- trees


def read_tree(reading, bench, root):
    """Do it once: seconds. find and cat are bench-reader's, start is the interpreter's own time."""
    if reading in ("find", "cat"):
        return machine.seconds(reading, root)
    if reading in ("find-8", "cat-8"):
        return machine.seconds(reading.removesuffix("-8"), root, 8)
    if reading == "find(1)":
        return machine.timed(["find", root, "-printf", "%s %T@ %m %p\\n"])
    if reading == "files":
        return machine.seconds("list", bench.trees.python.some_files(SOME_FILES), root)
    if reading == "mmap":
        return machine.seconds("touch", bench.trees.python.some_files(SOME_FILES), root)
    command, env = bench.trees.named(STARTS[reading]).starter(root)
    return machine.timed(command, env=env)


def roots(bench, rows, tree):
    """{peer: root} of all that @rows need; ours is the first."""
    names = dict.fromkeys(row.peer for row in rows)
    return {OURS: bench.our_tree(tree), **{name: bench.peer(name, tree).root for name in names}}


def results(rows, found):
    return [row.result(pairs_of(found, OURS, row.peer)) for row in rows]


def warm(reading, bench, rows):
    work = functools.partial(read_tree, reading, bench)
    places = roots(bench, rows, STARTS.get(reading, "python"))
    for root in places.values():
        work(root)
    return results(rows, alternate(bench.n, {name: functools.partial(work, root) for name, root in places.items()}))


def cold(reading, bench, rows):
    places = roots(bench, rows, STARTS.get(reading, "python"))

    def once(root):
        bench.make_cold()
        return read_tree(reading, bench, root)

    found = alternate(bench.n, {name: functools.partial(once, root) for name, root in places.items()})
    return results(rows, found)


def add(temperature, reading, *rows):
    group(*rows)(functools.partial(temperature, reading))


add(warm, "find", Row("warm-find", "ext4", 1.05), *others("warm-find"))
add(warm, "find(1)", told("warm-find", "find(1)"))
add(warm, "find-8", told("warm-find", "8 threads"))
add(warm, "cat", Row("warm-cat", "ext4", 1.05), *others("warm-cat"))
add(warm, "cat-8", told("warm-cat", "8 threads"))
add(warm, "CPython", Row("warm-start", "ext4", 1.05, variant="CPython"), *others("warm-start", variant="CPython"))
add(warm, "Node.js", Row("warm-start", "ext4", 1.05, variant="Node.js"))
add(warm, "files", told("warm-files"))
add(warm, "mmap", told("warm-mmap"))
add(cold, "find", Row("cold-find", "ext4", 0.8), *others("cold-find", "bind"))
add(cold, "find-8", told("cold-find", "8 threads"))
add(cold, "cat", Row("cold-cat", "ext4", 0.85), Row("cold-cat-erofs", "erofs", 1.1),
    *others("cold-cat", "bind", "erofs"))
add(cold, "cat-8", told("cold-cat", "8 threads"))
add(cold, "CPython", Row("cold-start", "ext4", 1.0, variant="CPython"),
    *others("cold-start", "bind", variant="CPython"))
add(cold, "Node.js", Row("cold-start", "ext4", 1.0, variant="Node.js"))
add(cold, "files", told("cold-files"))
add(cold, "mmap", told("cold-mmap"))


@group(Row("cold-few", "archivemount", variant=f"{FEW_FILES} files", full=True))
def few_files(bench, rows):
    """It reads an archive from the beginning for each file: this many are enough."""
    names = bench.trees.python.some_files(FEW_FILES)

    def once(root):
        bench.make_cold()
        return machine.seconds("list", names, root)

    places = roots(bench, rows, "python")
    return results(rows, alternate(1, {name: functools.partial(once, root) for name, root in places.items()}))


# -- the big file


def big_files(bench):
    """{who: path}"""
    return {OURS: bench.our_big(), "ext4": bench.big()}


@group(Row("warm-random", "ext4", 1.05), Row("warm-random", "ext4", variant="8 threads", full=True))
def warm_random(bench, rows):
    files = big_files(bench)
    for file in files.values():
        machine.read("seq", file)
    for row in rows:
        threads = 8 if row.variant else 1
        yield row.result(pairs_of(alternate(bench.n, {
            name: functools.partial(machine.seconds, "random", file, RANDOM_WARM, 1, threads)
            for name, file in files.items()}), OURS, row.peer))


def cold_big(bench, *arguments):
    def once(file):
        bench.make_cold()
        return machine.seconds(arguments[0], file, *arguments[1:])

    return alternate(bench.n, {name: functools.partial(once, file) for name, file in big_files(bench).items()})


@group(Row("cold-seq", "ext4", 1.1))
def cold_seq(bench, rows):
    return results(rows, cold_big(bench, "seq"))


@group(Row("cold-random", "ext4", 1.2))
def cold_random(bench, rows):
    return results(rows, cold_big(bench, "random", RANDOM_COLD, 1))


@group(Row("cold-random", "ext4", variant="8 threads", full=True))
def cold_random_8(bench, rows):
    return results(rows, cold_big(bench, "random", RANDOM_COLD, 1, 8))


# -- requests


WARM_WORK = ("find", "cat", "files", "mmap", "random", "CPython", "Node.js")


def requests_of(bench, work):
    """{operation: how many} of the FUSE requests that it costs."""
    before = bench.ours.requests()
    work()
    after = bench.ours.requests()
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


@group(*(Row("warm-requests", "-", 0, "requests", name) for name in WARM_WORK))
def warm_requests(bench, rows):
    """The kernel may take pages back at any time; the median is not moved by that."""
    for row in rows:
        if row.variant == "random":
            work = functools.partial(machine.seconds, "random", bench.our_big(), RANDOM_WARM, 1)
            machine.read("seq", bench.our_big())
        else:
            root = bench.our_tree(STARTS.get(row.variant, "python"))
            work = functools.partial(read_tree, row.variant, bench, root)
        work()
        found = [requests_of(bench, work) for _ in range(bench.n)]
        last = min(found, key=lambda counts: sum(counts.values()))
        yield row.counted([sum(counts.values()) for counts in found], operations=last)
