"""A real browser for tests and for ``make page-preview``, which draws the README's picture.

It is the machine's Chromium, or Debian's package as ``make browser`` unpacks it.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from loadtests.service import ROOT, own_ports, service
from serving.tasks.profile import LIFTS

PICTURE = ROOT / "docs" / "page.png"
UNPACKED = Path(sys.prefix) / "debian" / "usr"
HINT = "Chromium is not installed: `make browser`, or install Debian's package chromium"
FLAGS = (
    "--no-sandbox",  # root, as in a container, has none
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _chromium() -> tuple[str, dict[str, str]] | None:
    """Return the program and its environment; None if there is none."""
    if found := shutil.which("chromium"):
        return found, {}
    program = UNPACKED / "lib" / "chromium" / "chromium"
    if not program.exists():
        return None
    libraries = {str(path.parent) for path in (UNPACKED / "lib").rglob("*.so*")}
    fonts = str(UNPACKED / "share")
    return str(program), {"LD_LIBRARY_PATH": ":".join(libraries), "XDG_DATA_HOME": fonts}


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """Run the browser; yield None if there is none."""
    if (found := _chromium()) is None:
        yield None
        return
    program, variables = found
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, env={**os.environ, **variables}, args=list(FLAGS)
        )
        yield browser
        browser.close()


def main() -> None:
    environment, url, _ = own_ports()
    with chromium() as browser, service(environment, url):
        if browser is None:
            sys.exit(f"page-preview: {HINT}")
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.goto(url)
        for lift, kg in zip(LIFTS, (80, 100, 120, 50), strict=True):
            page.fill(f"#profile [name='rm_weight.{lift}']", str(kg))
        page.select_option("[name=experience]", "3")
        for _ in range(2):  # the first answer after a start takes longer
            page.click("#profile button[type=submit]")
            page.wait_for_selector("#plan:not([hidden])")
            page.wait_for_selector("#profile button:not([aria-disabled])")
        page.screenshot(
            path=PICTURE, full_page=True, clip={"x": 0, "y": 0, "width": 1100, "height": 1500}
        )
    sys.stdout.write(f"wrote {PICTURE}\n")


if __name__ == "__main__":
    main()
