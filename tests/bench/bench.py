# SPDX-License-Identifier: Apache-2.0
"""Measures the rows of docs/bench.md. Run it by run.sh, which gives it namespaces of its own."""
import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import deploy
import machine
import peers
import report
import stats
import trees
from measure import GROUPS

# Each of these adds its rows to GROUPS.
import reading
import moving
import scale

REPORT = deploy.TOP / "docs" / "bench.md"
REPETITIONS, QUICK_REPETITIONS = 7, 3
BIG_SIZE, QUICK_BIG_SIZE = 4 << 30, 1 << 30
SMALL_COUNT, QUICK_SMALL_COUNT = 1_000_000, 100_000


class Bench:
    """What the rows are measured with, made when it is first asked for."""

    def __init__(self, quick):
        self.quick = quick
        self.n = QUICK_REPETITIONS if quick else REPETITIONS
        self.big_size = QUICK_BIG_SIZE if quick else BIG_SIZE
        self.small_count = QUICK_SMALL_COUNT if quick else SMALL_COUNT
        self.trees = trees.Trees(os.environ.get("DEPLOYFS_BENCH", "/var/tmp/deployfs-bench"))
        self.lock = self.lock_folder()
        # On the same file system, or the comparison would be one of disks.
        self.work = Path(tempfile.mkdtemp(prefix="run-", dir=self.trees.folder))
        self.work.chmod(0o755)
        self.made = {}
        self.shown = []  # those that show something of what is read
        self.ending = contextlib.ExitStack()
        self.ending.callback(shutil.rmtree, self.work)

    def lock_folder(self):
        """One at a time. What one that was killed has left is removed."""
        lock = open(self.trees.folder / "lock", "w", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"bench: another one runs with {self.trees.folder}: it would be measured too")
        for left in self.trees.folder.glob("run-*"):
            shutil.rmtree(left)
        return lock

    def close(self):
        self.ending.close()

    def kept(self, key, make):
        """What @make() gave at the first call."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def showing(self, peer):
        """@peer, which ends with the run."""
        self.shown.append(peer)
        self.ending.callback(peer.stop)
        return peer

    # -- what is read

    @property
    def ours(self):
        """The daemon that shows the trees and the big file."""
        return self.kept("ours", lambda: self.showing(peers.Ours(self.work / "ours")))

    def peer(self, name, tree):
        return self.kept(("peer", name, tree),
                         lambda: self.showing(peers.make(name, self.trees.named(tree), self.work)))

    def our_tree(self, tree):
        """Where the daemon shows it."""
        return self.kept(("tree", tree), lambda: self.ours.add(self.trees.named(tree).zst(), tree, "1.0"))

    def our_big(self):
        """The big file in the daemon's mount."""
        return self.kept("our big", lambda: self.ours.add(self.trees.big(self.big_size), "big", "1.0") / "big")

    def big(self):
        """The same on ext4."""
        return self.kept("big", lambda: self.showing(peers.extracted_file(self.trees.big(self.big_size)))).root

    def make_cold(self):
        """Nothing that was read before is in memory: neither ours nor any peer's, nor the kernel's names."""
        if "ours" in self.made:
            self.ours.replace_worker()
        machine.drop_caches([file for peer in self.shown for file in peer.sources])


def wanted(names, quick):
    """[(group, its rows that are to be measured)]"""
    known = {row.name for group in GROUPS for row in group.rows}
    for name in names:
        if name not in known:
            sys.exit(f"bench: no row '{name}': --list names them")
    chosen = []
    for group in GROUPS:
        rows = [row for row in group.rows if (not names or row.name in names) and not (quick and row.full)]
        if rows:
            chosen.append((group, rows))
    return chosen


def list_rows():
    for group in GROUPS:
        for row in group.rows:
            limit = "" if row.limit is None else f"at most {row.limit}"
            print(f"{row.title:32} against {row.peer:14} {limit}".rstrip())


def results_of(bench, group, rows):
    """Those that could not be measured say why: nothing is left out silently."""
    left = dict.fromkeys(rows)
    try:
        for row, result in group.measure(bench, rows):
            del left[row]
            yield result
    except Exception as failure:  # of whatever it needs; the other rows do not need that
        traceback.print_exc()
        for row in left:
            yield row.failed(failure)


def measure(bench, chosen, told):
    """The results of all rows; each is written to the streams @told as soon as it is there."""
    found = []
    for group, rows in chosen:
        for result in results_of(bench, group, rows):
            for stream in told:
                print(json.dumps(result), file=stream, flush=True)
            found.append(result)
    return found


def parse():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--no-report", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    return parser.parse_args()


def key_of(result):
    return result["name"], result["variant"], result["peer"]


def remembered(path):
    """What the file has of each row, in the order of the rows: its last measurement."""
    lines = path.read_text(encoding="utf-8").splitlines()
    known = {key_of(result): result for result in map(json.loads, lines)}
    order = [(row.name, row.variant, row.peer) for group in GROUPS for row in group.rows]
    return [known[key] for key in order if key in known]


def measure_and_report(bench, arguments):
    chosen = wanted(arguments.names, arguments.quick)
    if arguments.results:
        with open(arguments.results, "a", encoding="utf-8") as file:
            measure(bench, chosen, [sys.stdout, file])
        results = remembered(arguments.results)
    else:
        results = measure(bench, chosen, [sys.stdout])
    print(report.table(results))
    if not arguments.no_report:
        report.write(REPORT, results, machine.description(bench.trees.folder), arguments.quick)
    return {stats.verdict(result) for result in results}


def main():
    arguments = parse()
    if arguments.list:
        list_rows()
        return 0
    bench = Bench(arguments.quick)
    try:
        verdicts = measure_and_report(bench, arguments)
    finally:
        bench.close()
    return 1 if "failed" in verdicts or (arguments.check and "missed" in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
