# SPDX-License-Identifier: Apache-2.0
"""Pairs of measurements: their median ratio, how sure that is, and whether a limit is kept."""
import math
import statistics

CONFIDENCE = 0.95


def coverage(n, left_out):
    """How probable it is that the true median lies within the sorted @n ratios, @left_out less at each end."""
    outside = sum(math.comb(n, k) for k in range(left_out + 1)) / 2 ** n
    return max(0.0, 1 - 2 * outside)


def interval(ratios):
    """(low, high, confidence) for the median, by order statistics: nothing is assumed about how they are
    distributed. The narrowest that has CONFIDENCE. Fewer than six have none such: then it is from the least to
    the largest, and the confidence says what that is worth."""
    ordered = sorted(ratios)
    n = len(ordered)
    left_out = 0
    while 2 * (left_out + 2) <= n and coverage(n, left_out + 1) >= CONFIDENCE:
        left_out += 1
    return ordered[left_out], ordered[n - 1 - left_out], coverage(n, left_out)


def summary(pairs):
    """Of (ours, the peer's) measured one after the other."""
    ratios = [ours / peer for ours, peer in pairs]
    low, high, confidence = interval(ratios)
    return {"n": len(pairs), "median": statistics.median(ours for ours, _ in pairs),
            "peer_median": statistics.median(peer for _, peer in pairs), "ratio": statistics.median(ratios),
            "low": low, "high": high, "confidence": confidence}


def verdict(row):
    """What a row with a limit has come to: it is missed only if the whole interval lies above."""
    if "error" in row:
        return "failed"
    if row["limit"] is None:
        return ""
    if row["low"] > row["limit"]:
        return "missed"
    return "kept" if row["ratio"] <= row["limit"] else "unsure"
