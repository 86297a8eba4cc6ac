"""A picture of the page's top and of its answers, for the README:  python -m scripts.page_picture PAGE PNG

PAGE: index.html of `python report.py page=true`. Needs the extra `browser` and Debian's chromium.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

QUIET = [  # chromium asks for nothing of its own, and needs no screen
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


SHORT = """
    main > section:not(#charts, #section-1, #answers) { display: none }
    .scroll { max-height: 20rem !important }
    body { padding-bottom: 1rem }
"""  # a board's first lines


@contextmanager
def browser() -> Iterator[BrowserContext]:
    """Debian's chromium with an empty profile."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=shutil.which("chromium"), args=QUIET
        )
        yield context
        context.close()


def ready(page: Page, file: Path) -> None:
    """Open a page from the disk and wait until its tables and charts are drawn."""
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-ready]")


def main(file: str, picture: str) -> None:
    with browser() as context:
        page = context.new_page()
        page.set_viewport_size({"width": 1200, "height": 900})
        ready(page, Path(file))
        page.locator("#step").fill("6")
        page.add_style_tag(content=SHORT)
        page.screenshot(path=picture, full_page=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
