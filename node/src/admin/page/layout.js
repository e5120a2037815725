// Places for the services of a graph: columns by how deep in the calls they are, callers before callees. Pure, and the
// same for the same graph whatever the order in which it became known.

import { ORDER } from './words.js';

export const BOX = { width: 196, height: 64 };
const GAP = { across: 128, least: 56, most: 280, down: 18 };
// How much room a line has between boxes: little where there are many.
const THREAD = { few: 10, many: 3 };
const MANY = 60;
const SWEEPS = 8;

// `names` and [caller, callee] pairs in; `places` by name and `paths` by "caller>callee", each a list of points, out.
export function layout(names, pairs, width) {
  const order = [...names].sort(ORDER.compare);
  const edges = pairs.filter(([a, b]) => a !== b).sort(([a, b], [c, d]) => ORDER.compare(a, c) || ORDER.compare(b, d));
  const used = new Set(edges.flat());
  const forward = without_cycles(order, edges);
  const depth = depths(order.filter(name => used.has(name)), forward);
  const { columns, threads } = in_columns(depth, forward, edges.length > MANY ? THREAD.many : THREAD.few);
  untangle(columns);
  settle(columns);
  return placed(columns, threads, edges, order.filter(name => !used.has(name)), width);
}

// Turns round the edges that lead back to where calls came from.
function without_cycles(order, edges) {
  const out = grouped(edges);
  const called = new Set(edges.map(([, b]) => b));
  const state = new Map();
  const back = new Set();
  const visit = name => {
    state.set(name, 'open');
    for (const next of out.get(name) ?? []) {
      if (state.get(next) === 'open') back.add(`${name}>${next}`);
      else if (!state.has(next)) visit(next);
    }
    state.set(name, 'done');
  };
  const first = order.filter(name => !called.has(name));
  for (const name of [...first, ...order]) if (!state.has(name)) visit(name);
  return edges.map(([a, b]) => back.has(`${a}>${b}`) ? [b, a] : [a, b]);
}

function grouped(edges) {
  const out = new Map();
  for (const [a, b] of edges) out.set(a, [...out.get(a) ?? [], b]);
  return out;
}

// The longest way from a service that nobody calls.
function depths(names, edges) {
  const depth = new Map(names.map(name => [name, 0]));
  const left = new Map(names.map(name => [name, 0]));
  for (const [, b] of edges) left.set(b, left.get(b) + 1);
  const out = grouped(edges);
  const ready = names.filter(name => left.get(name) === 0);
  for (const name of ready) {
    for (const next of out.get(name) ?? []) {
      depth.set(next, Math.max(depth.get(next), depth.get(name) + 1));
      left.set(next, left.get(next) - 1);
      if (left.get(next) === 0) ready.push(next);
    }
  }
  return depth;
}

// An edge over several columns is a thread: it has a spot in each column between, so that boxes make way for it.
function in_columns(depth, edges, height) {
  const columns = Array.from({ length: Math.max(-1, ...depth.values()) + 1 }, () => []);
  const spots = new Map([...depth].map(([name, at]) => [name, { name, at, height: BOX.height, before: [], after: [] }]));
  for (const spot of spots.values()) columns[spot.at].push(spot);
  const threads = new Map();
  for (const [a, b] of edges) {
    const thread = [spots.get(a)];
    for (let at = depth.get(a) + 1; at < depth.get(b); at++) {
      const spot = { at, height, before: [], after: [] };
      columns[at].push(spot);
      thread.push(spot);
    }
    thread.push(spots.get(b));
    for (let i = 1; i < thread.length; i++) {
      thread[i - 1].after.push(thread[i]);
      thread[i].before.push(thread[i - 1]);
    }
    threads.set(`${a}>${b}`, thread);
  }
  return { columns, threads };
}

const mean = list => list.reduce((sum, value) => sum + value, 0) / list.length;

// Orders each column by the middle of its neighbours, forth and back.
function untangle(columns) {
  const number = column => column.forEach((spot, i) => { spot.rank = i; });
  columns.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const is_forth = sweep % 2 === 0;
    for (const column of is_forth ? columns : [...columns].reverse()) {
      for (const spot of column) {
        const near = is_forth ? spot.before : spot.after;
        spot.wish = near.length ? mean(near.map(one => one.rank / columns[one.at].length)) * column.length : spot.rank;
      }
      column.sort((a, b) => a.wish - b.wish || a.rank - b.rank);
      number(column);
    }
  }
}

const room = spot => spot.height + (spot.name === undefined ? spot.height : GAP.down);

// Heights: each spot as near to the middle of its neighbours as the order and the boxes allow.
function settle(columns) {
  for (const column of columns) {
    let y = 0;
    for (const spot of column) {
      spot.y = y;
      y += room(spot);
    }
  }
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (const column of sweep % 2 ? [...columns].reverse() : columns) {
      const middle = one => one.y + one.height / 2;
      nearest(column, column.map(spot => {
        const near = [...spot.before, ...spot.after];
        return near.length ? mean(near.map(middle)) - spot.height / 2 : spot.y;
      }));
    }
  }
  const top = Math.min(...columns.flat().map(spot => spot.y));
  for (const spot of columns.flat()) spot.y -= top;
}

// The nearest heights to `wishes` that keep order and distance: neighbours that push each other become one block, which
// lies at the middle of its wishes.
function nearest(column, wishes) {
  const blocks = [];
  let offset = 0;
  column.forEach((spot, i) => {
    blocks.push({ sum: wishes[i] - offset, n: 1 });
    offset += room(spot);
    while (blocks.length > 1 && blocks.at(-2).sum / blocks.at(-2).n > blocks.at(-1).sum / blocks.at(-1).n) {
      const last = blocks.pop();
      blocks.at(-1).sum += last.sum;
      blocks.at(-1).n += last.n;
    }
  });
  let [i, y] = [0, 0];
  for (const { sum, n } of blocks) {
    for (const end = i + n; i < end; i++) {
      column[i].y = sum / n + y;
      y += room(column[i]);
    }
  }
}

function placed(columns, threads, edges, alone, width) {
  const free = (width - columns.length * BOX.width) / Math.max(1, columns.length - 1);
  const gap = Math.max(columns.length > 4 ? GAP.least : GAP.across, Math.min(free, GAP.most));
  const x = at => at * (BOX.width + gap);
  const places = new Map();
  for (const spot of columns.flat()) if (spot.name !== undefined) places.set(spot.name, { x: x(spot.at), y: spot.y });
  let height = Math.max(0, ...columns.flat().map(spot => spot.y + spot.height));
  const across = Math.max(1, Math.floor((Math.max(width, x(columns.length) - gap) + GAP.down) / (BOX.width + GAP.down)));
  const below = height ? height + GAP.down * 2 : 0;
  alone.forEach((name, i) => {
    const y = below + Math.floor(i / across) * (BOX.height + GAP.down);
    places.set(name, { x: i % across * (BOX.width + GAP.down), y });
    height = y + BOX.height;
  });
  const paths = new Map(edges.map(([a, b]) => [`${a}>${b}`, path(places, threads, x, a, b)]));
  const right = Math.max(0, ...[...places.values()].map(place => place.x + BOX.width));
  return { places, paths, width: right, height, columns: columns.length };
}

// The points of an edge: from its caller's right side through the spots of its thread to its callee's left side.
function path(places, threads, x, a, b) {
  const [from, to] = [places.get(a), places.get(b)];
  const start = { x: from.x + BOX.width, y: from.y + BOX.height / 2 };
  const end = { x: to.x, y: to.y + BOX.height / 2 };
  const thread = threads.get(`${a}>${b}`);
  if (!thread) return [start, end];
  const between = thread.slice(1, -1).flatMap(({ at, y, height }) => {
    const middle = y + height / 2;
    return [{ x: x(at), y: middle }, { x: x(at) + BOX.width, y: middle }];
  });
  return [start, ...between, end];
}
