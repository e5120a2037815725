// The map of the mesh: its graph, or the same as a table.

import { $, set_attribute, set_text } from './dom.js';
import { CALLEE, CALLER, calls_table, keyed } from './calls.js';
import { edges_of, graph, told_once } from './graph.js';
import { past } from './past.js';
import { picture } from './picture.js';
import { standing } from './signals.js';
import { has } from './words.js';

const table = calls_table($('map-table'), 'Calls between services', [CALLER, CALLEE], 'Nothing was called in this time.');

// Nodes that did not tell what they should, named one by one.
const GAPS = 3;

// Telephones are too narrow for a graph, but may have it.
let is_table = matchMedia('(max-width: 44rem)').matches;

export function draw_map(live, word, troubled) {
  for (const [id, is_on] of [['as-graph', !is_table], ['as-table', is_table]]) set_attribute($(id), 'aria-pressed', is_on);
  $('map-graph').hidden = is_table;
  $('map-table').hidden = !is_table;
  const { edges, gaps, note } = told(live);
  const all = graph(live, edges);
  const shown = narrowed(all, word, troubled);
  $('map-empty').hidden = shown.services.size > 0;
  $('picture').hidden = shown.services.size === 0;
  set_text($('map-empty'), all.services.size ? 'Nothing here is like that.' : 'No service is announced, and nothing calls one.');
  set_text($('map-note'), shown.services.size < all.services.size ? `${shown.services.size} of ${all.services.size} shown.` : '');
  draw_gaps(gaps);
  set_text($('map-about'), note);
  if (!is_table) return picture(shown);
  // Trouble first, so that the cap never hides it.
  const rows = [...shown.edges.values()].flatMap(edge => edge.parts);
  table.update(keyed(rows.sort((a, b) => is_ill(standing(b)) - is_ill(standing(a)))));
}

// Calls of the chosen time. The last minute comes by itself; more is asked for.
function told(live) {
  const window = $('map-window').value;
  const about = `Calls of the last ${WINDOWS[window]} in the whole mesh: rate, success, and how long 99 of 100 take at most.`;
  if (window === '1m') return { edges: edges_of(live), gaps: live.all('gap').map(([, gap]) => gap), note: about };
  const told = past(window, redraw);
  if (!told || told.problem) return { edges: [], gaps: [], note: told ? `✕ ${told.problem}` : 'Asking …' };
  return { edges: told_once(told.edges), gaps: told.gaps, note: about };
}

const WINDOWS = { '1m': 'minute', '10m': '10 minutes', '1h': 'hour' };

// Of a graph what a filter leaves: services that it is about, calls to and from them, and who is at their other end.
function narrowed({ services, edges }, word, troubled) {
  if (!word && !troubled) return { services, edges };
  const is_meant = ({ name, zones, state }) => (!word || has(word, [name, ...zones])) && (!troubled || is_ill(state));
  const left = new Map([...edges].filter(([, { caller, callee, state }]) =>
    (!word || has(word, [caller.name, callee.name, ...caller.zones, ...callee.zones])) && (!troubled || is_ill(state))));
  const touched = new Set([...left.values()].flatMap(edge => [edge.caller.name, edge.callee.name]));
  return { services: new Map([...services].filter(([name, one]) => touched.has(name) || is_meant(one))), edges: left };
}

const is_ill = state => state === 'bad' || state === 'warn';

function draw_gaps(gaps) {
  $('map-gaps').hidden = gaps.length === 0;
  const some = gaps.slice(0, GAPS).map(gap => `${gap.node}: ${gap.why}`).join('; ');
  set_text($('map-gaps'), `▲ Not all calls are in it. ${some}${gaps.length > GAPS ? `; and ${gaps.length - GAPS} more` : ''}`);
}

let redraw;

export function choose(on_change) {
  redraw = on_change;
  const to = is => () => {
    is_table = is;
    redraw();
  };
  $('as-graph').addEventListener('click', to(false));
  $('as-table').addEventListener('click', to(true));
  $('map-window').addEventListener('change', redraw);
}
