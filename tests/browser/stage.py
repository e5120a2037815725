"""A browser for the dashboard, and what is expected of every page in it."""

import pathlib
import shutil
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

# Phone, tablet, desk.
WIDTHS = {"phone": 390, "tablet": 820, "desk": 1440}
HEIGHT = 900
# Chromium shares two cores with everything else that is tested.
PATIENCE_MS = 60_000
# Rules of the Web Content Accessibility Guidelines, and axe's own best practices.
RULES = {"resultTypes": ["violations"]}


class Stage:
    """One page of one browser. Whatever it complains of fails the test."""

    def __init__(self, page, shots):
        self.page = page
        self.shots = pathlib.Path(shots)
        self.complaints = []
        self.taken = 0
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self.listen)

    def listen(self, message):
        # Streams end when an agent does, or when the page leaves; that is told on the page.
        is_network = "Failed to load resource" in message.text or "net::ERR_" in message.text
        if message.type == "error" and not is_network:
            self.complaints.append(message.text)

    def check(self, name):
        """No complaint of the browser, nothing that axe finds."""
        found = Axe().run(self.page, options=RULES).response["violations"]
        told = [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
            for one in found
        ]
        assert not told, f"{name}: axe finds\n" + "\n".join(told)
        assert not self.complaints, f"{name}: {self.complaints}"

    def show(self, name, is_large=False):
        """Keeps how the page looks as it is, at every width, dark and light, and checks it.

        Axe takes its time, so it looks at two of them, a light desk and a dark phone. A large page is shown at these alone,
        as far as it fits the window, and axe looks at the desk.
        """
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            for size, width in WIDTHS.items():
                is_checked = (size, scheme) in (("desk", "light"), ("phone", "dark"))
                if is_large and not is_checked:
                    continue
                self.page.set_viewport_size({"width": width, "height": HEIGHT})
                if is_checked and not (is_large and size == "phone"):
                    self.check(f"{name} {size} {scheme}")
                wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, f"{name} {size}: {wide} px wider than the window"
                self.page.screenshot(path=self.shots / f"{name}-{size}-{scheme}.png", full_page=not is_large)
                self.taken += 1


@contextmanager
def stage(shots, **options):
    """A browser with one page; its pictures go to `shots`. `options` are those of its context."""
    pathlib.Path(shots).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            # The sandbox of Chromium is not for root, and the shared memory of containers is small.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            timeout=PATIENCE_MS,
        )
        try:
            yield Stage(browser.new_page(reduced_motion="reduce", **options), shots)
        finally:
            browser.close()
