// From what the agent tells to what is on the page. Drawn at most once a frame, and only what is looked at.

import { $, set_state, set_text, tick } from './dom.js';
import { draw_document, draw_documents } from './documents.js';
import { draw_explain, take_question } from './explain.js';
import { draw_host, draw_routes } from './host.js';
import { Live } from './live.js';
import { choose, draw_map } from './map.js';
import { draw_certificates, draw_node, draw_nodes } from './nodes.js';
import { add, here, start } from './pages.js';
import { enter, is_locked, take_pass } from './pass.js';
import { forget_width } from './picture.js';
import { draw_problems, draw_sums } from './problems.js';
import { draw_service, draw_services } from './services.js';
import { draw_tap } from './tap.js';
import { span } from './words.js';

const filtered = draw => live => draw(live, $('word').value.trim().toLowerCase(), $('troubled').checked);

add('map', { section: 'map', kinds: ['status', 'service', 'edge', 'gap'], draw: filtered(draw_map) });
add('services', { section: 'services', kinds: ['service', 'edge'], draw: filtered(draw_services) });
add('services/', { section: 'service', kinds: ['status', 'service', 'edge', 'node', 'route'], draw: draw_service });
add('nodes', { section: 'nodes', kinds: ['node'], draw: filtered(draw_nodes) });
add('nodes/', { section: 'node-page', kinds: ['node', 'service', 'edge'], draw: draw_node });
add('certificates', { section: 'certificates', kinds: ['status', 'node'], draw: filtered(draw_certificates) });
add('routes', { section: 'routes', kinds: ['route'], draw: draw_routes });
add('documents', { section: 'documents', kinds: ['document'], draw: draw_documents });
add('documents/', { section: 'document', kinds: ['document'], draw: draw_document });
add('host', { section: 'host', kinds: ['status'], draw: draw_host });
add('explain', { section: 'explain', kinds: ['status', 'service', 'node'], draw: draw_explain });

add('tap', { section: 'tap', kinds: ['status', 'service', 'node'], draw: live => { draw_explain(live); draw_tap(live); } });

const FILTERED = ['map', 'services', 'nodes', 'certificates'];
const pending = new Set();
let is_due = false;

function draw() {
  is_due = false;
  const { page, names, name } = here();
  const status = live.status;
  if (pending.has('status') && status) draw_head(status);
  if (name === 'map') draw_sums(live);
  if (page.kinds.some(kind => pending.has(kind))) page.draw(live, names);
  pending.clear();
}

function draw_head(status) {
  document.title = `${status.node} · starling`;
  set_text($('node'), status.node);
  set_text($('about'), `${status.trust_domain}\nversion ${status.version}, ${status.state}\n${status.advertise}`);
  draw_problems(status);
}

function changed(kinds) {
  for (const kind of kinds) pending.add(kind);
  if (!is_due) requestAnimationFrame(draw);
  is_due = true;
}

function tell_time() {
  tick();
  const [state, words, gap] = is_locked() ? ['off', 'Not logged in', 0] : live.standing(Date.now());
  set_text($('live'), words);
  set_state($('live'), state);
  set_text($('gap'), gap ? `No news from this agent for ${span(gap / 1000)}. What you see is from before.` : '');
}

take_pass();
await enter();
const live = new Live(changed, enter);
const redraw = () => changed(here().page.kinds);

addEventListener('hashchange', () => {
  if (take_pass()) enter();
});
start(({ name }) => {
  $('filter').hidden = !FILTERED.includes(name);
  $('sums').hidden = name !== 'map';
  $('troubled-label').hidden = name === 'certificates';
  if (name === 'explain') take_question();
  redraw();
});
choose(redraw);
$('word').addEventListener('input', redraw);
$('troubled').addEventListener('change', redraw);
for (const form of ['filter', 'question', 'tap-form']) $(form).addEventListener('submit', event => event.preventDefault());
// The address names the page, so a link within it must not.
$('skip').addEventListener('click', event => {
  event.preventDefault();
  $('main').focus();
});
addEventListener('resize', () => {
  forget_width();
  redraw();
});
setInterval(tell_time, 1000);
tell_time();
