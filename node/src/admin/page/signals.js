// How calls go, in words: rates, success, times.

import { ORDER, links, said } from './words.js';

// Names of nodes in one cell.
const NODES = 3;

// What callers met; if none of them tells, what callees saw.
export const signals = edge => edge.caller_side ?? edge.callee_side;

export function rate({ rate }) {
  if (rate === 0) return '0/s';
  if (rate < 0.1) return '< 0.1/s';
  return `${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString('en')}/s`;
}

// The share of calls that did not fail, of those that were allowed. Rounded down: only what is whole says 100 %.
export function success({ calls, failed, denied }) {
  if (calls === 0) return said('no calls', 'off');
  const allowed = calls - denied;
  if (allowed <= 0) return said('✕ all denied', 'bad');
  if (failed === 0) return said('100\u00a0%', 'good');
  const percent = Math.floor((allowed - failed) / allowed * 10_000) / 100;
  return said(`${marked(percent)}${percent}\u00a0%`, { '✕\u00a0': 'bad', '▲\u00a0': 'warn' }[marked(percent)] ?? 'good');
}

const marked = percent => percent < 95 ? '✕\u00a0' : percent < 99 ? '▲\u00a0' : '';

export function time(us) {
  if (us === undefined || us === null) return '';
  if (us < 1000) return `${us}\u00a0µs`;
  if (us < 10_000) return `${(us / 1000).toFixed(1)}\u00a0ms`;
  if (us < 1_000_000) return `${Math.round(us / 1000)}\u00a0ms`;
  return `${(us / 1_000_000).toFixed(1)}\u00a0s`;
}

// Leads to the reason.
export function denied(edge) {
  const n = signals(edge)?.denied;
  if (!n) return '';
  const question = new URLSearchParams({ caller: edge.caller, callee: edge.callee });
  return { links: [[`✕\u00a0${n.toLocaleString('en')}`], ['why?', `#/explain?${question}`]], state: 'bad' };
}

export const reasons = ({ reasons }) => Object.entries(reasons ?? {})
  .sort(([, a], [, b]) => b - a)
  .map(([reason, n]) => `${reason} ${n.toLocaleString('en')}`)
  .join('\n');

// Several edges as one. Times do not add up, so the worst stands for all.
export function sum(edges) {
  const all = edges.map(signals).filter(Boolean);
  const total = name => all.reduce((n, one) => n + one[name], 0);
  const worst = Math.max(...all.map(one => one.p99_us ?? -1));
  return {
    calls: total('calls'), failed: total('failed'), denied: total('denied'), rate: total('rate'),
    p99_us: worst < 0 ? undefined : worst,
  };
}

// How good an edge is: a state for its line.
export function standing(edge) {
  const all = signals(edge);
  if (!all || all.calls === 0) return 'off';
  const { state } = success(all);
  return all.denied && state === 'good' ? 'warn' : state;
}

// Whom the numbers come from, and what is missing in them.
export function seen_by(edge) {
  const ends = edge.ends ?? [];
  const gaps = ends.filter(end => end.note);
  const nodes = [...new Set(ends.map(end => end.node))].sort(ORDER.compare);
  if (gaps.length) return said(`▲ ${nodes.length} nodes, not whole: ${gaps[0].node}: ${gaps[0].note}`, 'warn');
  return links('nodes', nodes, NODES);
}
