// Live calls, for whoever has an operator's pass.

import { $, set_text, show } from './dom.js';
import { keep_pass, the_pass } from './pass.js';
import { time } from './signals.js';
import { Refused, follow } from './stream.js';
import { Table } from './table.js';
import { count, lines, link, said } from './words.js';

// Calls that stay on the page; older ones make room.
const CALLS = 500;
// An agent ends each connection after two minutes.
const AGAIN_MS = 1_000;
const FIELDS = { callee: 'tap-callee', caller: 'tap-caller', method: 'tap-method', path: 'tap-path', status: 'tap-status', side: 'tap-side' };

const table = new Table($('tap-calls'), 'Live calls', [
  ['Ended', ({ call }) => CLOCK.format(call.at_ms)],
  ['Told by', ({ call }) => link('nodes', call.node)],
  ['Side', ({ call }) => call.side],
  ['Caller', ({ call }) => caller(call.caller)],
  ['Instance', ({ call }) => call.instance ? link('nodes', call.instance) : ''],
  ['Request', ({ call }) => [call.method, call.path].filter(Boolean).join(' ') || call.protocol],
  ['Answer', ({ call }) => answer(call)],
  ['Took', ({ call }) => time(call.duration_us)],
  ['Header fields', ({ call }) => lines((call.headers ?? []).map(({ name, value }) => `${name}: ${value ?? '(not shown)'}`))],
  ['Trace', ({ call }) => call.trace_id ?? ''],
], 'No call yet.');

const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 });

// A caller that the called one does not know is told by its identity.
let mesh;
function caller(told) {
  const own = `spiffe://${mesh}/svc/`;
  const name = told.startsWith(own) ? told.slice(own.length) : told;
  return name.includes(':') ? name : link('services', name);
}

function answer({ status, reason, rule }) {
  const text = [status, reason, rule].filter(Boolean).join(' ');
  if (reason || status >= 500) return said(`✕ ${text}`, 'bad');
  return status >= 400 ? said(`▲ ${text}`, 'warn') : said(text || 'ended', 'good');
}

export function draw_tap(live) {
  mesh = live.status?.trust_domain;
  draw_pass();
}

function draw_pass() {
  const has_pass = the_pass() !== undefined;
  $('tap-pass-field').hidden = has_pass;
  set_text($('tap-pass-note'), !has_pass
    ? 'Only whoever has an operator\'s pass may look. `starling login --tap NAME` prints an address that brings it; or paste the pass here.'
    : 'This page has a pass, until it is reloaded. Every node that is asked writes down who looks at what.');
}

let open;
let calls = [];
let missing = { left_out: 0, lost: 0 };
let is_due = false;

function start(event) {
  event.preventDefault();
  if (open) return stop('Stopped.');
  if ($('tap-pass').value.trim()) keep_pass($('tap-pass').value.trim());
  $('tap-pass').value = '';
  draw_pass();
  [calls, missing] = [[], { left_out: 0, lost: 0 }];
  table.update([]);
  open = new AbortController();
  set_text($('tap-go'), 'Stop');
  listen(open, query());
}

function query() {
  const asked = Object.entries(FIELDS).map(([name, id]) => [name, $(id).value.trim()]).filter(([, value]) => value);
  if ($('tap-errors').checked) asked.push(['errors', 'true']);
  return asked.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
}

async function listen(mine, question) {
  show($('tap-note'), 'Asking …');
  while (mine === open) {
    try {
      const pass = the_pass();
      await follow(`/v1/tap?${question}`, pass === undefined ? {} : { 'starling-pass': pass }, mine.signal, take);
    } catch (error) {
      if (mine !== open) return;
      if (error instanceof Refused) return stop(said(`✕ ${error.message}`, 'bad'));
    }
    await new Promise(done => setTimeout(done, AGAIN_MS));
  }
}

function stop(why) {
  open?.abort();
  open = undefined;
  set_text($('tap-go'), 'Look');
  show($('tap-note'), why);
}

let next = 0;

function take(news) {
  if (news.kind === 'call') calls.unshift([next++, { call: news }]);
  if (news.kind === 'missing') missing = { left_out: missing.left_out + news.left_out, lost: missing.lost + news.lost };
  if (news.kind === 'nodes') show($('tap-note'), of_nodes(news));
  if (news.kind === 'end') return stop(said(`▲ Ended: ${news.why}`, 'warn'));
  if (!is_due) requestAnimationFrame(draw);
  is_due = true;
}

function of_nodes({ nodes, unasked }) {
  const silent = nodes.filter(one => one.state === 'silent');
  const parts = [
    `${count(nodes.length - silent.length, 'node is', 'nodes are')} asked.`,
    ...silent.map(one => `▲ ${one.node} is silent: ${one.why ?? 'no answer'}.`),
    unasked && `▲ ${count(unasked, 'node is', 'nodes are')} not asked, as there are too many.`,
  ];
  return said(parts.filter(Boolean).join(' '), silent.length || unasked ? 'warn' : undefined);
}

function draw() {
  is_due = false;
  // Nodes tell in batches; the latest call comes first.
  calls = calls.sort(([, a], [, b]) => b.call.at_ms - a.call.at_ms).slice(0, CALLS);
  table.update(calls);
  const { left_out, lost } = missing;
  set_text($('tap-missing'), left_out || lost ? `▲ ${count(left_out, 'call', 'calls')} left out by the rate, ${lost.toLocaleString('en')} lost as they came too fast.` : '');
}

$('tap-form').addEventListener('submit', start);
