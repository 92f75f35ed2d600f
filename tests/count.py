#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the results that a suite left: count.py RESULT... -> "PASSED FAILED SKIPPED".

A RESULT is pytest's JUnit file (.xml) or meson's testlog.json. A file that is missing, that
holds no test, or in which every test was skipped counts as one failure more: a required suite ran not at all.
"""
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def count_pytest(path):
    counts = Counter()
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
    return counts


def count_binary(test):
    """One binary's cmocka tests, by its TAP lines; at least one failure when it failed."""
    counts = Counter()
    for line in test.get("stdout", "").splitlines():
        if found := re.match(r"(not )?ok \d+( .*# SKIP)?", line):
            counts["failed" if found[1] else "skipped" if found[2] else "passed"] += 1
    if test["result"] in ("SKIP", "EXPECTEDFAIL"):
        counts["skipped"] += not counts
    elif test["result"] != "OK":
        counts["failed"] += not counts["failed"]
    else:
        counts["passed"] += not counts
    return counts


def count_meson(path):
    counts = Counter()
    for line in path.read_text().splitlines():
        counts += count_binary(json.loads(line))
    return counts


def count(path):
    try:
        counts = count_pytest(path) if path.suffix == ".xml" else count_meson(path)
    except (OSError, ElementTree.ParseError, json.JSONDecodeError):
        counts = Counter()
    if not counts["passed"] and not counts["failed"]:
        counts["failed"] += 1
    return counts


def main():
    total = Counter()
    for name in sys.argv[1:]:
        total += count(Path(name))
    print(total["passed"], total["failed"], total["skipped"])


main()
