"""Headless Chromium that tests click in, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright import sync_api

__all__ = ["Page", "launch_chromium", "needs_chromium", "open_page"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-component-update",
    "--disable-background-networking",
    # A browser has requests of its own as well; nothing of all this shall leave the machine.
    "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing")


class Page:
    """A page; every method waits until what it asks for has happened.

    Attributes:
        tab: playwright's page.
        complaints: what the page has written to its console, and its errors.
        requests: every address that the page has asked for, its own among them.
    """

    def __init__(self, tab: sync_api.Page) -> None:
        self.tab = tab
        self.complaints: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))

    def open(self, page: Path | str, width: int = 1280, height: int = 900) -> None:
        """Load a file, or what is at an address, in a window of that size."""
        self.tab.set_viewport_size({"width": width, "height": height})
        self.tab.goto(page if isinstance(page, str) else page.as_uri())

    def emulate(
        self, *, media: Literal["print", "screen"] = "screen", scheme: Literal["dark", "light"] = "light"
    ) -> None:
        """Paper or screen, light or dark."""
        self.tab.emulate_media(media=media, color_scheme=scheme)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript gives, as data."""
        return self.tab.evaluate(script)

    def click(self, selector: str) -> None:
        """A click of the mouse on the middle of an element."""
        self.tab.click(selector)

    def type(self, selector: str, text: str) -> None:
        """Text into a field, after what is there."""
        self.tab.click(selector)
        self.tab.keyboard.insert_text(text)

    def press(self, key: str) -> None:
        """A key, where the focus is."""
        self.tab.keyboard.press(key)

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return self.tab.pdf(print_background=True, prefer_css_page_size=True)


@contextmanager
def launch_chromium() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def open_page(browser: sync_api.Browser, *, mobile: bool = False) -> Iterator[Page]:
    """A page without cookies, caches or history."""
    with browser.new_context(is_mobile=mobile) as context:
        yield Page(context.new_page())
