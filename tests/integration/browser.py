"""A headless Chromium that looks at the live page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """What a person sees."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, width: int = 1440, height: int = 1000, scale: float = 1.0) -> None:
        """Show a page in a window of this size."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600},
        )
        self.driver.get(url)

    def text(self, selector: str = "body") -> str:
        """What stands there, as a reader sees it; empty if there is no such part."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')"
        return str(self.js(script, selector))

    def js(self, script: str, *args: object) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *args)

    def until(self, check: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout
        while not check():
            assert time.monotonic() < deadline, f"not so after {timeout:.0f} s: {what}\n{self.text()[:3000]}"
            time.sleep(0.1)

    def complaints(self) -> list[str]:
        """What the browser wrote into its console since last asked: blocked content, failed scripts."""
        return [f"{one['level']}: {one['message']}" for one in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """The origins of everything that the page loaded."""
        script = "return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
        return set(self.js(script))

    def picture(self, file: Path) -> None:
        """Save what is seen."""
        self.driver.save_screenshot(str(file))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile folder of its own; it ends with the block."""
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
