// The form that asks what would become of a call.

import { $, el, show } from './dom.js';
import { asked } from './pages.js';
import { Table } from './table.js';
import { count, lines, link, said } from './words.js';

const FIELDS = ['caller', 'callee', 'method', 'path', 'from'];

const judged = new Table($('judged-table'), 'What each instance would do', [
  ['Node', one => link('nodes', one.node)],
  ['Calls go there', one => said(one.used ? `yes: ${one.because}` : `no: ${one.because}`, one.used ? 'good' : 'off')],
  ['Verdict', one => verdict(one)],
  ['Rule', one => one.verdict?.rule ?? ''],
  ['Mode', one => one.verdict ? lines([one.verdict.mode, one.verdict.mode_declared].filter(Boolean)) : ''],
  ['Path at the app', one => one.verdict?.path ?? ''],
], '');

function verdict({ verdict, problem }) {
  if (!verdict) return said(problem ?? 'not known', 'warn');
  return verdict.allowed ? said(`✓ allowed: ${verdict.text}`, 'good') : said(`✕ denied: ${verdict.text}`, 'bad');
}

let latest = 0;

async function ask(event) {
  event.preventDefault();
  const mine = ++latest;
  const query = FIELDS.map(name => [name, $(name).value.trim()]).filter(([, value]) => value);
  show($('answer'), 'Asking …');
  const answer = await answered(query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&'));
  // Another question was asked meanwhile.
  if (mine !== latest) return;
  show($('answer'), answer.error ? said(answer.error, 'bad') : in_words(answer));
  judged.update((answer.instances ?? []).map(one => [one.node, one]));
}

async function answered(query) {
  try {
    const response = await fetch(`/v1/explain?${query}`);
    return response.ok ? await response.json() : { error: (await response.text()).trim() };
  } catch {
    return { error: 'The agent does not answer.' };
  }
}

function in_words({ node, question, route, instances }) {
  const said = [`${question.caller} calls ${question.callee} on ${node}: ${count(instances.length, 'instance', 'instances')} known.`];
  if (route) said.push([`Route: ${route.rule ?? 'no rule decides'} (${route.declared}): ${route.action}`, ...route.to].join(' ') + '.');
  return said.join(' ');
}

export function draw_explain(live) {
  const names = kind => live.all(kind).map(([name]) => name);
  fill('callees', names('service'));
  fill('callers', [...new Set([...(live.status?.upstreams ?? []).map(one => one.caller), ...names('service')])]);
  fill('froms', names('node'));
}

function fill(id, names) {
  const list = $(id);
  if (list.dataset.names === names.join()) return;
  list.dataset.names = names.join();
  list.replaceChildren(...names.map(name => el('option', { value: name })));
}

// A link that asks fills in the form: #/explain?caller=web&callee=orders.
export function take_question() {
  const query = asked();
  if (![...query.keys()].length) return;
  for (const name of FIELDS) $(name).value = query.get(name) ?? '';
  if ($('caller').value && $('callee').value) $('question').requestSubmit();
}

$('question').addEventListener('submit', ask);
