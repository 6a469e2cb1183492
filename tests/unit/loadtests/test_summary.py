"""What is made of Locust's history."""

import csv
from pathlib import Path

from loadtests.load.summary import read, stages, table

COLUMNS = (
    "Timestamp", "User Count", "Type", "Name", "50%", "95%", "99%", "Total Request Count",
    "Total Failure Count",
)  # fmt: skip


def history(folder: Path, *rows: tuple[object, ...]) -> Path:
    with (folder / "locust_stats_history.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def test_goodput_is_what_did_not_fail_at_each_number_of_users(tmp_path: Path) -> None:
    folder = history(
        tmp_path,
        (10, 8, "POST", "/a", 20, 30, 40, 0, 0),
        (10, 8, "POST", "/b", "N/A", "N/A", "N/A", 0, 0),
        (10, 8, "first token", "/b", 5, 5, 5, 0, 0),
        (10, 8, "", "Aggregated", 1, 1, 1, 0, 0),
        (20, 8, "POST", "/a", 22, 32, 42, 100, 10),
        (20, 8, "POST", "/b", 50, 60, 70, 50, 0),
        (21, 16, "POST", "/a", 23, 33, 43, 110, 10),
        (31, 16, "POST", "/a", 24, 34, 44, 310, 10),
    )
    first, second = stages(read(folder))
    assert (first["users"], first["good"], first["failed"]) == (8, 14.0, 1.0)
    assert first["ms"] == {"/a": [22, 32, 42], "/b": [50, 60, 70]}
    assert (second["users"], second["good"], second["ms"]) == (16, 20.0, {"/a": [24, 34, 44]})
    shown = table(
        {"stages": [first, second], "machine": "2 cores", "locust": "2", "date": "2026-01-01"}
    )
    assert "22, 32, 42" in shown
    assert "2 cores" in shown
