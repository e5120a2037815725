// Who may call a service: the nodes that run it are asked, and again while somebody looks.

import { $, set_text } from './dom.js';
import { Table } from './table.js';
import { ORDER, address, age, count, lines, said } from './words.js';

const AGAIN_MS = 10_000;

const rules = new Table($('policy-rules'), 'Rules for callers of this service', [
  ['Effect', ({ rule }) => rule.effect === 'deny' ? said('✕ denies', 'bad') : said('✓ allows' + only_with(rule), 'good')],
  ['Callers', ({ rule }) => callers(rule)],
  ['Methods', ({ rule }) => rule.methods.join(', ') || 'all'],
  ['Paths', ({ rule }) => lines(rule.paths) || 'all'],
  ['Declared', ({ rule }) => declared(rule.declared)],
  ['On', ({ nodes, all }) => nodes.length === all ? 'all its nodes' : nodes.join(', ')],
], 'No rule: nobody may call it.');

const audit = new Table($('policy-audit'), 'Calls that enforcing the policy would deny', [
  ['Caller', ({ one }) => one.caller],
  ['Why', ({ one }) => WHY[one.why] ?? one.why],
  ['Rule', ({ one }) => one.rule ? declared(one.rule) : ''],
  ['Calls', ({ calls }) => calls.toLocaleString('en')],
  ['Latest', ({ one, made }) => age({ made }, one.age_s, '', ' ago')],
  ['Let through on', ({ nodes }) => nodes.join(', ')],
], 'None since the agents there started.');

const WHY = {
  'no-grant': 'nothing allows it',
  narrowed: 'one revision of the document allows it, and this one, which also counts, does not',
  denied: 'a denial forbids it',
  'not-evaluable': 'a denial may be about it',
  'ambiguous-path': 'its path has more than one meaning',
};

const callers = ({ from, more_from }) => from.includes('*') ? 'every service'
  : from.join(', ') + (more_from ? ` and ${more_from} more` : '') || 'nobody';

const only_with = ({ only_with = [], more_only_with }) => only_with.length === 0 ? ''
  : ` what is also allowed by ${only_with.join(', ')}${more_only_with ? ` and ${more_only_with} more` : ''}`;

// A rule of a document leads to it.
function declared(where) {
  const [, name] = /^policy\/([^@]+)@/.exec(where) ?? [];
  return name ? { links: [[where, address('documents', 'policy', name)]] } : where;
}

let shown = { name: undefined };

export function draw_policy(name, is_run) {
  if (shown.name !== name) {
    shown = { name };
    draw([], Date.now());
    set_text($('policy-note'), 'Asking the nodes that run it …');
  }
  if (!is_run) return set_text($('policy-note'), 'No node is known to run it.');
  const now = Date.now();
  if (shown.is_asking || now - (shown.asked ?? 0) < AGAIN_MS) return;
  ask(shown, now);
}

async function ask(mine, now) {
  Object.assign(mine, { is_asking: true, asked: now });
  try {
    const response = await fetch(`/v1/policy?service=${encodeURIComponent(mine.name)}`);
    const told = response.ok ? sorted(await response.json()) : (await response.text()).trim();
    if (mine === shown) response.ok ? draw(told, Date.now()) : set_text($('policy-note'), told);
  } catch {
    if (mine === shown) set_text($('policy-note'), 'The agent does not answer.');
  }
  mine.is_asking = false;
}

const sorted = told => told.sort((a, b) => ORDER.compare(a.node, b.node));

function draw(told, made) {
  const nodes = told.filter(one => one.policy);
  const silent = told.filter(one => !one.policy);
  const modes = [...new Set(nodes.map(one => one.policy.mode))];
  const says = modes.map(mode => `Mode ${mode}: ${MODE[mode] ?? ''}`).join(' ');
  const gaps = silent.map(one => `▲ ${one.node} says nothing: ${one.problem}.`).join(' ');
  set_text($('policy-note'), [`As told by ${count(nodes.length, 'node', 'nodes')}.`, says, gaps].filter(Boolean).join(' '));
  const by_rule = new Map();
  for (const { node, policy } of nodes) {
    for (const rule of policy.rules) group(by_rule, JSON.stringify(rule), node, () => ({ rule, all: nodes.length }));
  }
  rules.update([...by_rule]);
  const by_call = new Map();
  for (const { node, policy } of nodes) {
    for (const one of policy.let_through) {
      const row = group(by_call, `${one.caller} ${one.why} ${one.rule}`, node, () => ({ one, made, calls: 0 }));
      row.calls += one.calls;
      if (one.age_s < row.one.age_s) row.one = one;
    }
  }
  audit.update([...by_call].sort(([, a], [, b]) => b.calls - a.calls));
  $('policy-strict').hidden = modes.length === 0 || modes.some(mode => mode !== 'enforce');
  $('policy-audit').hidden = !$('policy-strict').hidden || by_call.size === 0 && modes.length === 0;
}

const MODE = {
  enforce: 'what nothing allows is denied.',
  audit: 'what nothing allows goes through and is counted here.',
  permissive: 'what nothing allows goes through and is counted here.',
};

function group(rows, key, node, make) {
  if (!rows.has(key)) rows.set(key, { ...make(), nodes: [] });
  rows.get(key).nodes.push(node);
  return rows.get(key);
}
