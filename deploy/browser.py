"""A real browser for tests and for ``make page-preview``, which draws the README's picture.

It is the machine's Chromium, or Debian's package as ``make browser`` unpacks it.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from deploy.observability.prometheus import UNPACKED
from loadtests.service import ROOT, own_ports, service
from serving.process import StartError
from serving.tasks.profile import LIFTS

PICTURE = ROOT / "docs" / "page.png"
WEIGHTS = dict(zip(LIFTS, (80, 100, 120, 50), strict=True))
"""1RMs in kg for a form."""
HINT = "Chromium is not installed: `make browser`, or install Debian's package chromium"
FLAGS = (
    "--no-sandbox",  # root, as in a container, has none
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _chromium() -> tuple[str, dict[str, str]]:
    """Return the program and what it needs in its environment."""
    if found := shutil.which("chromium"):
        return found, {}
    program = UNPACKED / "lib" / "chromium" / "chromium"
    if not program.exists():
        raise StartError(HINT)
    libraries = {str(path.parent) for path in (UNPACKED / "lib").rglob("*.so*")}
    fonts = str(UNPACKED / "share")
    return str(program), {"LD_LIBRARY_PATH": ":".join(libraries), "XDG_DATA_HOME": fonts}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser.

    Raises:
        StartError: it is not installed.
    """
    program, variables = _chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, env={**os.environ, **variables}, args=list(FLAGS)
        )
        yield browser
        browser.close()


def fill(page: Page, **weights: object) -> None:
    """Fill the form of the page at ``/`` with ``WEIGHTS``, but for those given."""
    for lift, kg in (WEIGHTS | weights).items():
        page.fill(f"#profile [name='rm_weight.{lift}']", str(kg))


def submit(page: Page) -> None:
    """Send the form."""
    page.click("#profile button[type=submit]")


def draw(browser: Browser, url: str) -> None:
    """Take a picture of the page with a plan on it."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    page.goto(url)
    fill(page)
    page.select_option("[name=experience]", "3")
    for _ in range(2):  # the first answer after a start takes longer
        submit(page)
        page.wait_for_selector("#plan:not([hidden])")
        page.wait_for_selector("#profile button:not([aria-disabled])")
    page.screenshot(
        path=PICTURE, full_page=True, clip={"x": 0, "y": 0, "width": 1100, "height": 1500}
    )


def main() -> None:
    environment, url, _ = own_ports()
    try:
        with chromium() as browser, service(environment, url):
            draw(browser, url)
    except StartError as error:
        sys.exit(f"page-preview: {error}")
    sys.stdout.write(f"wrote {PICTURE}\n")


if __name__ == "__main__":
    main()
