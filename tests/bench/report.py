# SPDX-License-Identifier: Apache-2.0
"""The results as a table, and docs/bench.md: what stands between the marks is written anew by each run."""
import stats

BEGIN, END = "<!-- made by tests/bench/run.sh: begin -->", "<!-- made by tests/bench/run.sh: end -->"
HEAD = ("row", "against", "ours", "theirs", "unit", "n", "ratio", "interval", "limit", "")


def number(value):
    """Four digits at most where it has a fraction."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def said(result):
    """The verdict, and what else the row has to tell."""
    words = [stats.verdict(result)]
    words += [f"{name} {count}" for name, count in sorted(result.get("operations", {}).items())]
    words.append(result.get("note", ""))
    words.append(" ".join(result.get("error", "").split())[:200])
    return ", ".join(word for word in words if word)


def cells(result):
    name = f"{result['name']} ({result['variant']})" if result["variant"] else result["name"]
    bounds = "–" if result["n"] < 2 else f"{number(result['low'])} … {number(result['high'])}"
    return (name, result["peer"], number(result["median"]), number(result["peer_median"]), result["unit"],
            str(result["n"]), number(result["ratio"]), bounds, number(result["limit"]), said(result))


def table(results):
    """In columns, and Markdown all the same."""
    rows = [HEAD, *map(cells, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def block(results, description, quick):
    how = "tests/bench/run.sh" + (" --quick" if quick else "")
    facts = "\n".join(f"- {what}: {value}" for what, value in [("command", f"`{how}`"), *description])
    worst = min((result["confidence"] for result in results if result["n"] > 1), default=None)
    honest = "" if worst is None else f"\nThe intervals cover the median with {100 * worst:.0f} % at least.\n"
    return f"{BEGIN}\n{facts}\n{honest}\n{table(results)}\n{END}\n"


def write(path, results, description, quick):
    """Put the results into @path; the prose around them stays."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise RuntimeError(f"{path} has lost the marks between which the results go: {BEGIN} {END}")
    path.write_text(before + block(results, description, quick) + after)
