// Which page is shown: the one that the address names behind its #, such as #/services/orders.

import { $, set_attribute } from './dom.js';

const pages = new Map();

// A page has a section of index.html, the kinds of news that it shows, and `draw(live, names)`.
// A list and its items are two pages: `nodes` and `nodes/`.
export function add(name, page) {
  pages.set(name, { section: $(page.section), kinds: page.kinds, draw: page.draw });
}

// Of the address as it is: its page and the names behind that.
export function here() {
  const [path] = location.hash.replace(/^#\/?/, '').split('?');
  const [first, ...names] = path.split('/').filter(Boolean).map(decoded);
  const name = names.length ? `${first}/` : first ?? 'map';
  return pages.has(name) ? { name, names, page: pages.get(name) } : { name: 'map', names: [], page: pages.get('map') };
}

// What stands behind a `?` in the address.
export const asked = () => new URLSearchParams(location.hash.split('?')[1] ?? '');

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Calls `on_turn` when another page is to be drawn.
export function start(on_turn) {
  let shown;
  const turn = () => {
    const at = here();
    for (const { section } of pages.values()) section.hidden = section !== at.page.section;
    for (const a of document.querySelectorAll('nav a')) {
      const is_here = a.getAttribute('href') === `#/${at.name.replace(/^map$|\/$/, '')}`;
      set_attribute(a, 'aria-current', is_here ? at.names.length ? 'true' : 'page' : 'false');
    }
    reveal();
    on_turn(at);
    // Those who listen or use the keyboard begin where the new page does. The first page is where they are anyway.
    if (shown !== undefined && shown !== location.hash) {
      at.page.section.querySelector('h2').focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    shown = location.hash;
  };
  addEventListener('hashchange', turn);
  addEventListener('resize', reveal);
  turn();
}

// Where the window is too narrow for all pages, the one that is shown is among those that are named.
function reveal() {
  const here = document.querySelector('nav [aria-current=page], nav [aria-current=true]');
  const nav = here?.parentElement;
  if (nav) nav.scrollLeft = here.offsetLeft - nav.offsetLeft - (nav.clientWidth - here.clientWidth) / 2;
}
