// The form that asks what would become of a call.

import { $, Table, el, show } from './dom.js';
import { count, lines, said } from './words.js';

const FIELDS = ['caller', 'callee', 'method', 'path', 'from'];

const judged = new Table($('judged-table'), 'What each instance would do', [
  ['Node', one => one.node],
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

export function suggest(services, nodes, upstreams) {
  fill('callees', services);
  fill('callers', [...new Set([...upstreams, ...services])]);
  fill('froms', nodes);
}

function fill(id, names) {
  const list = $(id);
  if (list.dataset.names === names.join()) return;
  list.dataset.names = names.join();
  list.replaceChildren(...names.map(name => el('option', { value: name })));
}

$('question').addEventListener('submit', ask);
