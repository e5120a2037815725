"""Looks at every page of the dashboard of an agent in a real mesh, then kills another agent and watches it go.

Calls are made all the while. Prints what was looked at, as JSON.
"""

import argparse
import json
import os
import signal
import threading
import urllib.error
import urllib.request

from playwright.sync_api import expect
from stage import PATIENCE_MS, stage

# How often each call is made, so that there is something to see and a core left to see it with.
PAUSE_S = 0.1

# Page, and words that it must show.
PAGES = {
    "map": ["orders", "Who calls whom"],
    "services": ["orders", "stock"],
    "services/orders": ["web", "batch", "denied", "n2", "n3", "host=n2"],
    "services/stock": ["orders", "nothing allows it", "Mode audit"],
    "nodes": ["n1 (this one)", "n2", "n3", "ends in"],
    "nodes/n3": ["spiffe://mesh.test/node/n3", "orders", "the same"],
    "certificates": ["spiffe://mesh.test/svc/web", "n3", "intermediate of this issuer"],
    "routes": ["None: calls go to any instance."],
    "documents": ["policy/orders", "in force"],
    "documents/policy/orders": ["Revision 2", "Revision 1", 'from = ["web"]', 'from = ["web", "shop"]'],
    "host": ["/services.d/call-orders-as-web.toml:1"],
    "explain?caller=batch&callee=orders": ['denied: "nothing allows it"', "n3"],
    "tap": ["Only whoever has an operator's pass may look."],
}


def call(urls, stop):
    while not stop.wait(PAUSE_S):
        for url in urls:
            try:
                urllib.request.urlopen(url, timeout=10).read()
            except urllib.error.HTTPError:
                pass


def look(one, url):
    page = one.page
    page.goto(url)
    expect(page.locator("#live")).to_have_text("Live")
    for path, words in PAGES.items():
        page.goto(f"{url}#/{path}")
        for word in words:
            expect(page.locator("main")).to_contain_text(word)
        one.show("mesh-" + path.split("?")[0].replace("/", "-"))


def walk(one, url):
    """By keyboard alone: past the pages to the graph, from service to service, into one, and back."""
    page = one.page
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{url}#/")
    page.locator("#picture a.box").first.wait_for()
    page.locator("#picture").focus()
    page.keyboard.press("Tab")
    first = page.evaluate("document.activeElement.dataset.name")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.dataset.name")
    assert first and second and first != second, (first, second)
    page.keyboard.press("Enter")
    expect(page.locator("#service-name")).to_have_text(second)
    expect(page.locator("#service-name")).to_be_focused()
    page.go_back()
    expect(page.locator("#map")).to_be_visible()


def follow(one, url):
    """Numbers of the graph come with the calls: the edge of the denied caller, in words, in the table."""
    page = one.page
    page.goto(f"{url}#/")
    page.get_by_role("button", name="Table").click()
    row = page.locator("#map-table tr", has=page.get_by_role("link", name="batch"))
    expect(row).to_contain_text("all denied")
    expect(page.locator("#map-table tr", has=page.get_by_role("link", name="web"))).to_contain_text("100")
    # Calls that this host has no part in.
    expect(page.locator("#map-table tr", has=page.get_by_role("link", name="stock"))).to_contain_text("/s")
    page.get_by_label("Calls of").select_option("1h")
    expect(page.locator("#map-about")).to_contain_text("last hour")
    expect(row).to_contain_text("all denied")
    one.show("mesh-table")
    page.get_by_label("Calls of").select_option("1m")
    page.get_by_role("button", name="Graph").click()


def tap(one, url, pass_):
    """An address with a pass opens live calls, and does not keep the pass. A bad one is refused in words."""
    page = one.page
    page.goto(f"{url}#/tap")
    page.get_by_label("Calls to").fill("orders")
    page.locator("#tap-pass").fill("nonsense")
    page.get_by_role("button", name="Look").click()
    expect(page.locator("#tap-note")).to_contain_text("✕")
    page.goto(f"{url}#pass={pass_}")
    expect(page.locator("#tap-title")).to_be_visible()
    assert pass_ not in page.url, page.url
    page.get_by_label("Calls to").fill("orders")
    page.get_by_role("button", name="Look").click()
    calls = page.locator("#tap-calls")
    expect(calls).to_contain_text("403 denied")
    expect(calls).to_contain_text("200")
    expect(page.locator("#tap-note")).to_contain_text("asked")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#tap-note")).to_have_text("Stopped.")
    one.show("mesh-live-calls")


def lose(one, url, pid):
    """The end of an agent is seen without a reload."""
    page = one.page
    page.goto(f"{url}#/nodes")
    row = page.locator("#node-list tr", has=page.get_by_role("link", name="n3"))
    expect(row).to_contain_text("alive")
    os.kill(pid, signal.SIGKILL)
    expect(row).to_contain_text("dead")
    one.show("mesh-nodes-without-n3")
    page.goto(f"{url}#/services/orders")
    expect(page.locator("#service-tiles")).to_contain_text("1 of")
    one.show("mesh-services-orders-without-n3")
    page.goto(f"{url}#/")
    expect(page.locator("#map-gaps")).to_contain_text("n3")
    one.show("mesh-map-without-n3")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", required=True, help="address of the dashboard")
    parser.add_argument("--call", action="append", default=[], help="what is called all the while")
    parser.add_argument("--pid", type=int, required=True, help="process of the agent that is killed, n3")
    parser.add_argument("--pass", dest="pass_", required=True, help="of an operator, for live calls to orders")
    parser.add_argument("--shots", required=True, help="where pictures go")
    given = parser.parse_args()
    expect.set_options(timeout=PATIENCE_MS)
    stop = threading.Event()
    calls = threading.Thread(target=call, args=(given.call, stop), daemon=True)
    calls.start()
    with stage(given.shots) as one:
        look(one, given.at)
        walk(one, given.at)
        follow(one, given.at)
        tap(one, given.at, given.pass_)
        lose(one, given.at, given.pid)
        print(json.dumps({"pictures": one.taken}))
    stop.set()


main()
