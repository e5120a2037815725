"""Comes to a dashboard from another host: without a pass, with a bad one, with a good one, and by the address that brings one.

Prints what was looked at, as JSON.
"""

import argparse
import json

from playwright.sync_api import expect
from stage import PATIENCE_MS, stage


def paste(one, url, pass_):
    page = one.page
    page.goto(url)
    field = page.locator("#login-pass")
    expect(field).to_be_focused()
    expect(page.locator("#live")).to_have_text("Not logged in")
    expect(page.locator("#map")).to_be_hidden()
    one.show("login")
    field.fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.locator("#login-note")).to_contain_text("this is not a pass")
    field.fill(pass_)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#login")).to_be_hidden()
    expect(page.locator("#map")).to_contain_text("Who calls whom")


def come_back(one, url):
    """The browser keeps what a script cannot read."""
    page = one.page
    page.reload()
    expect(page.locator("#live")).to_have_text("Live")
    assert page.evaluate("document.cookie") == "", "a script reads the pass"
    page.evaluate("fetch('/v1/logout', { method: 'POST' })")
    page.reload()
    expect(page.locator("#login")).to_be_visible()


def follow_address(one, url, pass_):
    page = one.page
    page.goto("about:blank")
    page.goto(f"{url}#pass={pass_}")
    expect(page.locator("#live")).to_have_text("Live")
    assert pass_ not in page.url, page.url


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", required=True, help="address of the dashboard")
    parser.add_argument("--pass", dest="pass_", required=True, help="of an operator, for this dashboard")
    parser.add_argument("--shots", required=True, help="where pictures go")
    given = parser.parse_args()
    expect.set_options(timeout=PATIENCE_MS)
    # The node's own certificate, which no browser knows.
    with stage(given.shots, ignore_https_errors=True) as one:
        paste(one, given.at, given.pass_)
        come_back(one, given.at)
        follow_address(one, given.at, given.pass_)
        print(json.dumps({"pictures": one.taken}))


main()
