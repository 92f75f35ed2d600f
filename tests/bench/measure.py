# SPDX-License-Identifier: Apache-2.0
"""Rows, and how a group of them that belongs together is measured."""
import statistics
from dataclasses import dataclass

import stats


@dataclass(frozen=True)
class Row:
    """@limit: of the ratio; None where it is only told. @full: not measured with --quick."""
    name: str
    peer: str
    limit: float | None = None
    unit: str = "s"
    variant: str = ""
    full: bool = False

    @property
    def title(self):
        return f"{self.name}, {self.variant}" if self.variant else self.name

    def named(self, figures, more):
        return self, {"name": self.name, "variant": self.variant, "peer": self.peer, "unit": self.unit, **figures,
                      "limit": self.limit, **more}

    def result(self, pairs, **more):
        """The row, and what bench.py prints of it. @pairs: of ours and the peer's."""
        return self.named(stats.summary(pairs), more)

    def counted(self, counts, **more):
        """The same for a number that is compared with nothing."""
        low, high, confidence = stats.interval(counts)
        middle = statistics.median(counts)
        return self.named({"n": len(counts), "median": middle, "peer_median": None, "ratio": middle, "low": low,
                           "high": high, "confidence": confidence}, more)

    def failed(self, failure):
        """The same without the row, for one that could not be measured."""
        nothing = dict.fromkeys(("median", "peer_median", "ratio", "low", "high", "confidence"))
        return self.named({"n": 0, **nothing}, {"error": f"{type(failure).__name__}: {failure}"})[1]


@dataclass(frozen=True)
class Group:
    """Rows that are measured together: @measure(bench, rows) gives what Row.result() makes of each."""
    rows: tuple
    measure: object


GROUPS = []


def group(*rows):
    """For a function that measures @rows; of those it gets the ones that were asked for."""
    def add(measure):
        GROUPS.append(Group(rows, measure))
        return measure
    return add


def alternate(n, sides):
    """Measure each of @sides, {name: a function that gives a number}, n times, in turns: {name: numbers}.
    Each round is the other way round, so that none of them always comes first."""
    found = {name: [] for name in sides}
    for number in range(n):
        for name in list(sides)[::-1 if number % 2 else 1]:
            found[name].append(sides[name]())
    return found


def pairs_of(found, ours, peer):
    return list(zip(found[ours], found[peer]))
