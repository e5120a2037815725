// The graph as a drawing. Its table says the same; keys move from service to service in the drawing too.

import { $, keep, set_attribute, set_state, set_text, svg } from './dom.js';
import { OTHER, OUTSIDE } from './graph.js';
import { BOX, layout } from './layout.js';
import { rate, success, time } from './signals.js';
import { address } from './words.js';

const MARGIN = 12;
// With more edges than these, only those of the service that is looked at have words.
const WORDY = 40;
// Letters that a box has room for, in its first line and below.
const NAME = 22;
const UNDER = 29;
const LAYERS = ['off', 'good', 'warn', 'bad'];

const frame = $('picture');
const [lines, boxes, words] = [svg('g', {}), svg('g', {}), svg('g', { class: 'words' })];
const drawing = svg('svg', { role: 'group', 'aria-label': 'Services and their calls' },
  svg('defs', {}, ...LAYERS.map(arrow)), lines, boxes, words);
frame.append(drawing);

const kept = { lines: new Map(), boxes: new Map(), words: new Map() };
let shape = { key: '', width: 0, places: new Map(), paths: new Map() };

function arrow(state) {
  const attributes = { id: `arrow-${state}`, class: `arrow ${state}`, viewBox: '0 0 8 8', refX: 7, refY: 4, orient: 'auto', markerUnits: 'userSpaceOnUse', markerWidth: 9, markerHeight: 9 };
  return svg('marker', attributes, svg('path', { d: 'M0 0L8 4L0 8z' }));
}

export function picture({ services, edges }) {
  const key = [...services.keys(), '', ...edges.keys()].join('\n');
  const width = frame.clientWidth - 2 * MARGIN;
  if (shape.key !== key || shape.width !== width) place(key, width, services, edges);
  // What is bad is drawn last, over the rest.
  const list = [...edges.values()].sort((a, b) => LAYERS.indexOf(a.state) - LAYERS.indexOf(b.state));
  drawing.classList.toggle('dense', list.length > WORDY);
  keep(lines, kept.lines, list.map(edge => [edge.key, edge]), line, draw_line);
  keep(boxes, kept.boxes, [...services], box, draw_box);
  keep_reachable();
  const wordy = list.length <= WORDY ? list : list.filter(is_near);
  keep(words, kept.words, wordy.map(edge => [edge.key, edge]), () => ({ node: svg('text', {}) }), draw_words);
  last = { services, edges };
}

function place(key, width, services, edges) {
  const pairs = [...edges.values()].map(edge => [edge.caller.name, edge.callee.name]);
  shape = { key, width, ...layout(services.keys(), pairs, width) };
  shape.curves = new Map([...shape.paths].map(([edge, points]) => [edge, curve(points)]));
  const size = { width: shape.width + 2 * MARGIN, height: shape.height + 2 * MARGIN };
  set_attribute(drawing, 'viewBox', `${-MARGIN} ${-MARGIN} ${size.width} ${size.height}`);
  for (const [name, value] of Object.entries(size)) set_attribute(drawing, name, value);
}

const SAID = {
  [OUTSIDE]: ['plaintext callers', 'seen on this host'],
  [OTHER]: ['callers that the rules', 'of the called do not name'],
};

const is_page = name => name !== OUTSIDE && name !== OTHER;

const line = () => ({ node: svg('path', {}) });

// Bows between the points; it leaves and arrives level.
function curve(points) {
  const parts = points.slice(1).map((to, i) => {
    const from = points[i];
    const bow = to.y === from.y && to.x > from.x ? 0 : Math.max(36, Math.abs(to.x - from.x) / 2);
    return `C${from.x + bow} ${from.y} ${to.x - bow} ${to.y} ${to.x} ${to.y}`;
  });
  return `M${points[0].x} ${points[0].y}${parts.join('')}`;
}

function draw_line({ node }, edge) {
  set_attribute(node, 'd', shape.curves.get(edge.key) ?? '');
  const kind = edge.is_plaintext ? 'plaintext' : edge.signals.calls ? 'busy' : 'idle';
  set_attribute(node, 'class', regarded !== undefined && is_near(edge) ? `${kind} near` : kind);
  set_attribute(node, 'stroke-width', (1.5 + Math.min(4, Math.log10(1 + edge.signals.rate))).toFixed(1));
  set_attribute(node, 'marker-end', `url(#arrow-${edge.state})`);
  set_state(node, edge.state);
}

function draw_words(one, edge) {
  set_attribute(one.node, 'class', regarded !== undefined && is_near(edge) ? 'near' : '');
  const points = shape.paths.get(edge.key) ?? [{ x: 0, y: 0 }, { x: 0, y: 0 }];
  const [from, to] = points;
  set_attribute(one.node, 'x', (from.x + to.x) / 2);
  set_attribute(one.node, 'y', (from.y + to.y) / 2);
  set_text(one.node, edge.is_plaintext ? 'not encrypted' : edge.signals.calls ? short(edge.signals) : 'no calls');
  set_state(one.node, edge.state);
}

const flow_of = signals => [rate(signals), success(signals).text, time(signals.p99_us)].filter(Boolean).join(' · ');

function short(signals) {
  const is_some = signals.denied > 0 && signals.denied < signals.calls;
  return is_some ? `${flow_of(signals)} · ▲ some denied` : flow_of(signals);
}

function box(name) {
  const texts = [svg('text', { class: 'name', x: 14, y: 21 }), svg('text', { x: 14, y: 39 }), svg('text', { class: 'quiet', x: 14, y: 55 })];
  const title = svg('title', {});
  const inside = [title, svg('rect', { ...BOX, rx: 8 }), svg('rect', { class: 'edge', width: 5, height: BOX.height, rx: 2.5 }), ...texts];
  const node = svg(is_page(name) ? 'a' : 'g', { class: 'box', 'data-name': name }, ...inside);
  if (is_page(name)) {
    node.setAttribute('href', address('services', name));
    node.setAttribute('tabindex', -1);
  }
  for (const [event, look] of [['pointerenter', true], ['focus', true], ['pointerleave', false], ['blur', false]]) {
    node.addEventListener(event, () => regard(look ? name : undefined));
  }
  return { node, title, texts };
}

function draw_box({ node, title, texts }, service) {
  const { x, y } = shape.places.get(service.name);
  const { signals, instances, mark } = service;
  set_attribute(node, 'transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  set_state(node, service.state);
  const zones = service.zones.length > 1 ? `${service.zones.length} zones` : service.zones[0];
  const health = instances.length
    ? [`${mark} ${service.usable} of ${instances.length} usable`, zones].filter(Boolean).join(' · ')
    : 'only calls others';
  const flow = signals.calls ? flow_of(signals) : service.edges.length ? 'no calls' : '';
  const said = SAID[service.name] ?? [health, flow];
  set_text(texts[0], cut(service.name, NAME));
  set_text(texts[1], cut(said[0], UNDER));
  set_text(texts[2], cut(said[1], UNDER));
  set_text(title, [`${service.name}: ${said[0]}`, flow, service.zones.join(', ')].filter(Boolean).join('; '));
  if (node.tagName === 'a') set_attribute(node, 'aria-label', title.textContent);
}

const cut = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

// The service that is pointed at: its calls come to the front, the rest steps back.
let regarded;
let last;

const is_near = edge => edge.caller.name === regarded || edge.callee.name === regarded;

function regard(name) {
  regarded = name;
  drawing.classList.toggle('regards', name !== undefined);
  if (!last) return;
  const near = new Set([name]);
  for (const edge of last.edges.values()) {
    const is_here = name !== undefined && is_near(edge);
    if (is_here) near.add(edge.caller.name).add(edge.callee.name);
  }
  for (const [other, { node }] of kept.boxes) node.classList.toggle('near', near.has(other));
  picture(last);
}

// One box is reached by Tab; arrows go to the nearest one in their direction.
function keep_reachable() {
  if (boxes.querySelector('a[tabindex="0"]')) return;
  const places = [...shape.places].filter(([name]) => is_page(name));
  const first = places.reduce((a, b) => a && (a[1].x - b[1].x || a[1].y - b[1].y) <= 0 ? a : b, undefined);
  if (first) kept.boxes.get(first[0]).node.setAttribute('tabindex', 0);
}

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

drawing.addEventListener('keydown', event => {
  const way = ARROWS[event.key];
  const here = event.target.closest?.('a.box');
  if (!way || !here) return;
  event.preventDefault();
  const next = nearest(here.dataset.name, way);
  if (!next) return;
  here.setAttribute('tabindex', -1);
  next.setAttribute('tabindex', 0);
  next.focus();
});

function nearest(name, [right, down]) {
  const from = shape.places.get(name);
  const far = ([, place]) => {
    const [dx, dy] = [place.x - from.x, place.y - from.y];
    const ahead = dx * right + dy * down;
    return ahead > 1 ? ahead + 3 * Math.abs(dx * down + dy * right) : Infinity;
  };
  const others = [...shape.places].filter(([other]) => other !== name && is_page(other));
  const best = others.reduce((a, b) => !a || far(b) < far(a) ? b : a, undefined);
  return best && far(best) < Infinity ? kept.boxes.get(best[0]).node : undefined;
}

export const forget_width = () => { shape.width = -1; };
