// The only place that makes elements. Whatever came from the mesh becomes text and nothing else.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = id => document.getElementById(id);

const filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

export const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

export function set_text(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set_attribute(node, name, value) {
  const text = String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

export function set_state(node, state) {
  if (node.dataset.state === state) return;
  if (state) node.dataset.state = state; else delete node.dataset.state;
}

// What grows older by itself, to be said anew each second.
const clocks = new Map();

// Shows a value: a string, `{text, state}`, `{links: [[text, address], …], state}`, or `{words, state}` where both are
// functions of the time.
export function show(node, value) {
  if (value?.words) {
    clocks.set(node, value);
    return tell(node, value, Date.now());
  }
  clocks.delete(node);
  if (value?.links) return show_links(node, value);
  delete node.dataset.links;
  const { text, state } = typeof value === 'object' && value ? value : { text: String(value ?? '') };
  set_text(node, text);
  set_state(node, state);
}

function show_links(node, { links, state }) {
  const key = JSON.stringify(links);
  if (node.dataset.links !== key) {
    node.dataset.links = key;
    const parts = links.flatMap(([text, address], i) => [i ? ', ' : '', address ? el('a', { href: address }, text) : text]);
    node.replaceChildren(el('span', {}, ...parts.filter(Boolean)));
  }
  set_state(node, state);
}

function tell(node, { words, state }, now) {
  set_text(node, words(now));
  set_state(node, state?.(now));
}

export function tick() {
  const now = Date.now();
  for (const [node, value] of clocks) {
    if (node.isConnected) tell(node, value, now); else clocks.delete(node);
  }
}

// Makes the children of `place` those of `rows`, [key, value] in order: kept by key, made by `make`, told by `update`.
export function keep(place, kept, rows, make, update) {
  const keys = new Set(rows.map(([key]) => key));
  for (const [key, one] of kept) {
    if (!keys.has(key)) {
      one.node.remove();
      kept.delete(key);
    }
  }
  let next = place.firstElementChild;
  for (const [key, value] of rows) {
    let one = kept.get(key);
    if (!one) kept.set(key, one = make(key, value));
    if (one.node === next) next = next.nextElementSibling; else place.insertBefore(one.node, next);
    update(one, value);
  }
}
