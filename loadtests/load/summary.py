"""Summarize goodput and latency by load from Locust: ``python -m loadtests.load.summary``.

Reads ``<folder>/locust_stats_history.csv`` (``--csv-full-history``) and prints a table;
``--publish`` adds it to the benchmarks page. Locust's own report has the charts.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from loadtests.report import machine, markdown, save, show

PERCENTILES = ("50%", "95%", "99%")

Row = dict[str, str]


def read(folder: Path) -> list[Row]:
    """Read the rows for requests, one per second and kind.

    Raises:
        OSError: the folder has no history file.
    """
    with (folder / "locust_stats_history.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["Type"] == "POST"]


def stages(rows: list[Row]) -> list[dict[str, Any]]:
    """Summarize each number of users: good (not failed) answers per second, failures per second,
    and the latency percentiles of each kind over its last ten seconds, in milliseconds."""
    by_users: dict[int, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_users[int(row["User Count"])][row["Name"]].append(row)
    found = []
    for users, kinds in sorted(by_users.items()):
        good = failed = 0.0
        for own in kinds.values():
            seconds = int(own[-1]["Timestamp"]) - int(own[0]["Timestamp"])
            asked, lost = (
                int(own[-1][f"Total {name} Count"]) - int(own[0][f"Total {name} Count"])
                for name in ("Request", "Failure")
            )
            good += (asked - lost) / max(seconds, 1)
            failed += lost / max(seconds, 1)
        last = {kind: [_ms(own[-1][p]) for p in PERCENTILES] for kind, own in kinds.items()}
        found.append(
            {"users": users, "good": round(good, 1), "failed": round(failed, 2), "ms": last}
        )
    return found


def _ms(text: str) -> int | None:
    return int(float(text)) if text != "N/A" else None


def table(summary: dict[str, Any]) -> str:
    """Format the stages and the test setup as Markdown."""
    kinds = sorted({kind for stage in summary["stages"] for kind in stage["ms"]})
    head = ["users", "good/s", "failed/s", *(f"{kind}: p50, p95, p99 (ms)" for kind in kinds)]
    cells = [
        [
            str(stage["users"]),
            f"{stage['good']:g}",
            f"{stage['failed']:g}",
            *(", ".join(map(str, stage["ms"].get(kind, ()))) for kind in kinds),
        ]
        for stage in summary["stages"]
    ]
    line = (
        f"{summary['machine']}, with Locust {summary['locust']} on the same cores; "
        f"{summary['date']}."
    )
    return f"{markdown(head, cells)}\n\n{line}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="where Locust left its CSV files")
    parser.add_argument("--publish", metavar="NAME", help="write loadtests/results and the page")
    arguments = parser.parse_args()
    try:
        found = stages(read(arguments.folder))
    except OSError as error:
        sys.exit(f"summary: {error}")
    summary = {**machine("locust"), "stages": found}
    if not arguments.publish:
        print(table(summary))
        return
    save(arguments.publish, summary)
    show(arguments.publish, table(summary))


if __name__ == "__main__":
    main()
