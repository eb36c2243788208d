"""A headless Chromium without a network, for tests of pages.

A machine without it skips such tests, unless RANK_SEARCH_REQUIRE_CHROMIUM is set: then they fail.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import pytest

from tests.required import do_without

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

REQUIRED: Final = "RANK_SEARCH_REQUIRE_CHROMIUM"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
QUIET: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_or_skip() -> str:
    """The program; skips the test, or fails it where Chromium is required, if there is none."""
    if find_spec("playwright") is None:
        do_without(REQUIRED, "playwright is not installed: pip install '.[dev]'")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        do_without(REQUIRED, "no Chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserContext]:
    """The only one of the process, with a profile of its own and no network; its clipboard may be read."""
    program = chromium_or_skip()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            headless=True,
            args=list(QUIET),
            offline=True,
            viewport={"width": 1280, "height": 900},
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(120_000)  # on a busy machine
        try:
            yield context
        finally:
            context.close()
