"""Each part is killed, and stands still, under load: the short form of ``make chaos``."""

import subprocess
import sys

import pytest

from loadtests.service import ROOT


@pytest.mark.timeout(600)
def test_no_answer_is_wrong_and_no_request_lost_whatever_part_breaks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.chaos", "--repeat", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("'fault'") == 9
