"""The dashboard of a mesh of 250 nodes, 200 services and 2,000 instances, all of which change every second.

Looks at each page at each width, and measures how long frames take while everything changes. Prints that as JSON.
"""

import argparse
import json
import threading

from fixture import LONG, Mesh
from playwright.sync_api import expect
from serve import Agent
from stage import PATIENCE_MS, stage

PAGES = ["map", "services", "services/audit-3", f"services/{LONG}", "nodes", "nodes/node-010", "certificates", "routes", "documents",
         "documents/policy/orders", "host", "explain?caller=cart-1&callee=audit-3", "tap"]
# Large pages, which are looked at while they change.
BUSY = ["map", "services", "nodes", "services/audit-3"]

SECOND_S = 1
MEASURE_MS = 4000
FRAMES = """async length => {
  const frames = [];
  let last = performance.now();
  const end = last + length;
  await new Promise(done => {
    const frame = now => {
      frames.push(now - last);
      last = now;
      if (now < end) requestAnimationFrame(frame); else done();
    };
    requestAnimationFrame(frame);
  });
  frames.sort((a, b) => a - b);
  const at = share => Math.round(frames[Math.floor((frames.length - 1) * share)] * 10) / 10;
  return { median_ms: at(0.5), p99_ms: at(0.99), longest_ms: at(1) };
}"""

OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll('#picture .box')].map(box => {
    const { e, f } = box.transform.baseVal.consolidate().matrix;
    return [e, f];
  });
  let overlaps = 0;
  boxes.forEach(([x, y], i) => boxes.slice(i + 1).forEach(([u, v]) => {
    if (Math.abs(x - u) < 196 && Math.abs(y - v) < 64) overlaps++;
  }));
  return { boxes: boxes.length, overlaps };
}"""


# The graph is the same in whatever order its parts became known, cycles and all; and what changed is found by line.
PURE = """async () => {
  const { layout } = await import('/page/layout.js');
  const { diff } = await import('/page/diff.js');
  const [names, pairs] = [['a', 'b', 'c', 'd', 'e'], [['a', 'b'], ['b', 'c'], ['a', 'c'], ['c', 'a'], ['d', 'd'], ['c', 'e'], ['a', 'e']]];
  const drawn = (names, pairs) => {
    const { places, paths } = layout(names, pairs, 900);
    return JSON.stringify([[...places].sort(), [...paths].sort()]);
  };
  const changed = diff('same\\nold\\nlast\\n', 'same\\nnew\\nlast\\nmore\\n').map(line => line.join(' ')).join(', ');
  return { is_same: drawn(names, pairs) === drawn([...names].reverse(), [...pairs].reverse()), changed };
}"""


def compute(one):
    found = one.page.evaluate(PURE)
    assert found == {"is_same": True, "changed": "same same, old old, new new, same last, new more"}, found


def look(one, url):
    for path in PAGES:
        one.page.goto(f"{url}#/{path}")
        expect(one.page.locator("main section:visible h2")).not_to_be_empty()
        one.show("crowd-" + path.split("?")[0].replace("/", "-"), is_large=True)


def narrow(one, url):
    """Filters find what is wrong, and one service, in the crowd."""
    page = one.page
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{url}#/")
    page.get_by_role("button", name="Graph").click()
    page.get_by_label("only with trouble").check()
    expect(page.locator("#map-note")).to_contain_text("of 201 shown")
    one.show("crowd-map-trouble", is_large=True)
    page.get_by_label("only with trouble").uncheck()
    page.get_by_label("Filter").fill(LONG[:12])
    expect(page.locator("#picture .box").filter(has_text=LONG[:12])).to_have_count(1)
    one.show("crowd-map-filtered", is_large=True)
    page.get_by_label("Filter").fill("")
    expect(page.locator("#picture .box")).to_have_count(200 + 1)
    placed = page.evaluate(OVERLAPS)
    assert placed["overlaps"] == 0, placed
    return placed["boxes"]


def measure(one, url, agent):
    stop = threading.Event()

    def change():
        while not stop.wait(SECOND_S):
            agent.change()

    threading.Thread(target=change, daemon=True).start()
    measured = {}
    for path in BUSY:
        one.page.goto(f"{url}#/{path}")
        expect(one.page.locator("main section:visible h2")).not_to_be_empty()
        measured[path] = one.page.evaluate(FRAMES, MEASURE_MS)
    stop.set()
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", required=True, help="where pictures go")
    given = parser.parse_args()
    expect.set_options(timeout=PATIENCE_MS)
    agent = Agent(Mesh())
    with stage(given.shots) as one:
        one.page.goto(agent.url)
        expect(one.page.locator("#live")).to_have_text("Live")
        compute(one)
        look(one, agent.url)
        boxes = narrow(one, agent.url)
        frames = measure(one, agent.url, agent)
        print(json.dumps({"pictures": one.taken, "boxes": boxes, "frames": frames}))


main()
