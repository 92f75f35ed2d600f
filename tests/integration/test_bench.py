# SPDX-License-Identifier: Apache-2.0
"""What tests/bench says of its measurements: the interval, the verdict, the report. It measures nothing."""
import os
import random
import sys

import pytest

from deploy import TOP

sys.path.append(str(TOP / "tests" / "bench"))

import report
import stats
from measure import Row, alternate


def test_the_interval_of_few_ratios_says_what_it_is_worth():
    assert stats.interval([3, 1, 2]) == (1, 3, 0.75)
    assert stats.interval([1.5]) == (1.5, 1.5, 0)


def test_the_interval_of_many_leaves_outliers_out():
    low, high, confidence = stats.interval([100, *range(1, 9)])
    assert (low, high) == (2, 8)
    assert confidence == pytest.approx(0.9609375)
    assert stats.interval(range(7)) == (0, 6, pytest.approx(0.984375))


def test_the_interval_covers_the_median_as_often_as_it_says():
    seed = int(os.environ.get("DEPLOYFS_SEED", random.randrange(2 ** 32)))
    print(f"DEPLOYFS_SEED={seed}")
    noise = random.Random(seed)
    rounds = 4000
    for n in (3, 7, 11):
        hits = 0
        for _ in range(rounds):
            low, high, confidence = stats.interval([noise.lognormvariate(0, 0.3) for _ in range(n)])
            hits += low <= 1 <= high
        # Five standard deviations off: once in a million runs.
        assert abs(hits / rounds - confidence) < 5 * (confidence * (1 - confidence) / rounds) ** 0.5


def test_a_summary_is_of_pairs_and_not_of_medians():
    found = stats.summary([(1, 2), (10, 10), (3, 2)])
    assert (found["n"], found["median"], found["peer_median"]) == (3, 3, 2)
    assert (found["ratio"], found["low"], found["high"]) == (1, 0.5, 1.5)


@pytest.mark.parametrize("ratio, low, limit, expected", [
    (0.9, 0.8, 1.0, "kept"), (1.0, 1.0, 1.0, "kept"), (1.1, 1.0, 1.0, "unsure"), (1.2, 1.01, 1.0, "missed"),
    (3, 1, 0, "missed"), (0, 0, 0, "kept"), (9, 9, None, "")])
def test_a_limit_is_missed_only_if_the_whole_interval_lies_above(ratio, low, limit, expected):
    assert stats.verdict({"ratio": ratio, "low": low, "limit": limit}) == expected


def test_each_side_is_first_every_second_time():
    order = []
    found = alternate(2, {"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)})
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


def test_the_report_keeps_the_prose_around_it(tmp_path):
    path = tmp_path / "bench.md"
    path.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    results = [Row("warm-cat", "ext4", 1.05).result([(2, 1)] * 7)[1],
               Row("warm-requests", "-", 0, "requests").counted([5, 5, 5], operations={"ioctl": 5})[1],
               Row("cold-cat", "ext4", 0.85).failed(RuntimeError("no such\nmount"))]
    for _ in range(2):
        report.write(path, results, [("kernel", "6.18")], quick=True)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "stale" not in text and text.count("warm-cat") == 1
    assert "missed" in text and "ioctl 5" in text and "no such mount" in text and "--quick" in text
    path.write_text("no marks\n")
    with pytest.raises(RuntimeError, match="marks"):
        report.write(path, results, [], quick=True)
