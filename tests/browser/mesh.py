"""Looks at the dashboard of an agent in a real mesh, then kills another agent and watches it go.

    mesh.py URL PID SHOTS

PID is the agent of n3. Prints what was looked at, as JSON.
"""

import json
import os
import signal
import sys

from playwright.sync_api import expect
from stage import PATIENCE_MS, stage


def look(stage, url):
    page = stage.page
    page.goto(url)
    expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE_MS)
    expect(page.locator("#service-list")).to_contain_text("orders")
    page.locator("summary").first.click()
    stage.show("mesh")


def lose(stage, pid):
    """The end of an agent is seen without a reload."""
    row = stage.page.locator("#node-table tr", has_text="n3")
    expect(row).to_contain_text("alive")
    os.kill(pid, signal.SIGKILL)
    expect(row).to_contain_text("dead", timeout=PATIENCE_MS)
    stage.show("mesh-without-n3")


def main(url, pid, shots):
    with stage(shots) as one:
        look(one, url)
        lose(one, int(pid))
        print(json.dumps({"pictures": one.taken}))


main(*sys.argv[1:])
