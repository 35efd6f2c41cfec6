"""A headless Chromium for the pages' tests; skipped, with the reason, where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium import webdriver

# No GPU: WebGL2 is drawn by software. No background network: the machine may have none.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1400,1000",
)  # fmt: skip
LONGEST_WAIT = 120.0  # seconds; software rendering on a busy machine takes its time


class Page:
    """A page in the browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        """Open a file from disk and wait until its viewer, if it has one, is ready."""
        self.driver.get_log("browser")  # forgets an earlier page's
        self.driver.get(path.resolve().as_uri())
        if self.run("return document.getElementById('viewer') !== null"):
            self.wait("return document.documentElement.dataset.viewer !== 'loading'")
            assert self.run("return document.documentElement.dataset.viewer") == "ready", (
                self.errors()
            )

    def run(self, program: str, *values: Any) -> Any:
        """Run JavaScript; `return` gives its value."""
        return self.driver.execute_script(program, *values)

    def settle(self) -> None:
        """Wait until the viewer has done all that it was asked for."""
        self.driver.execute_async_script(
            "const done = arguments[0]; viewer.busy.then(() => requestAnimationFrame(done))"
        )

    def wait(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds."""
        end = time.monotonic() + LONGEST_WAIT
        while not self.run(condition):
            assert time.monotonic() < end, f"{condition} never came: {self.errors()}"
            time.sleep(0.1)

    def errors(self) -> list[str]:
        """Error messages of the console since the page was opened."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as a PNG."""
        assert self.driver.save_screenshot(str(path))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests of a process."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver_program = shutil.which("chromedriver")
    if chromium is None or driver_program is None:
        pytest.skip("no Chromium with chromedriver (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    driver.set_script_timeout(LONGEST_WAIT)
    yield Page(driver)
    driver.quit()
