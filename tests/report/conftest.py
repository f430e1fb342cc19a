"""Fixtures of the report's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.report.browser import Page, launch_chromium, open_page


@pytest.fixture(autouse=True)
def _blank_svg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markdown has blank pictures, for matplotlib takes most of a report's time; `real_svg` has them drawn."""
    if "real_svg" not in request.fixturenames:
        blank = '<svg xmlns="http://www.w3.org/2000/svg"/>'
        monkeypatch.setattr("hpo.report.render.markdown.render_svg", lambda figure: blank if figure.spec else None)


@pytest.fixture
def real_svg() -> None:
    """Has the figures of Markdown drawn."""


# Of the package and not of the session: playwright's event loop would be in the way of tests that run their own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of this test alone."""
    with open_page(chromium) as page:
        yield page


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    """The same on a phone."""
    with open_page(chromium, mobile=True) as page:
        yield page
