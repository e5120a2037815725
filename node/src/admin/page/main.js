// From what the agent tells to what is on the page. Drawn at most once a frame, and only what changed.

import { $, Table, el, set_state, set_text, show, tick } from './dom.js';
import { suggest } from './explain.js';
import { Live } from './live.js';
import { has, services, usable } from './services.js';
import { KEY, age, count, document_state, left, lines, liveness, said, some, span } from './words.js';

const NODES = 50;

const nodes = new Table($('node-table'), 'Nodes of the mesh', [
  ['Node', node => node.is_self ? `${node.node} (this one)` : node.node],
  ['Seen as', node => liveness(node.liveness)],
  ['Says', node => said(node.state, node.state === 'serving' ? undefined : 'warn')],
  ['Zone', node => node.zone],
  ['Addresses', node => lines(node.addresses)],
  ['Services', node => some(node.services)],
  ['Last word', node => age(node, node.age_s, '', ' ago')],
], 'No node is known.');

const declared = new Table($('declared-table'), 'Services that run here', [
  ['Service', one => one.service],
  ['Health', one => one.healthy ? said('● healthy', 'good') : said(`✕ ${one.problem ?? 'unhealthy'}`, 'bad')],
  ['Protocol', one => one.protocol],
  ['App at', one => one.address],
  ['Mode', one => said(one.mode, one.mode === 'enforce' ? undefined : 'warn')],
  ['Allows', one => one.allow.join(', ') || 'see its rules'],
  ['Declared', one => one.declared],
], 'None.');

const upstreams = new Table($('upstream-table'), 'Services that apps here call', [
  ['Service', one => one.service],
  ['Called at', one => one.listen],
  ['As', one => one.caller],
  ['Protocol', one => one.protocol || 'not known yet'],
  ['Instances', one => said(`${one.usable} of ${one.instances} usable`, one.usable === 0 ? 'bad' : one.usable < one.instances ? 'warn' : 'good')],
  ['Declared', one => one.declared],
], 'None.');

const plaintext = new Table($('plaintext-table'), 'Callers without the mesh', [
  ['Service', ({ one }) => one.service],
  ['From', ({ one }) => one.address],
  ['Connections', ({ one }) => one.connections],
  ['Latest', ({ one, status }) => age(status, one.age_s, '', ' ago')],
], 'None.');

const certificates = new Table($('certificate-table'), 'Certificates of this host', [
  ['Identity', ({ identity }) => identity],
  ['For', ({ use }) => use],
  ['Time left', ({ seconds_left, status }) => left(status, seconds_left)],
], 'None.');

const routes = new Table($('route-table'), 'Routes of calls from this host', [
  ['Service', ({ route }) => route.service],
  ['Rule', ({ rule }) => rule.rule],
  ['Matches', ({ rule }) => rule.matches],
  ['Does', ({ rule }) => rule.action],
  ['To', ({ rule }) => to(rule)],
  ['Declared', ({ rule }) => rule.declared],
  ['Notes', ({ route }) => notes(route)],
], 'None: calls go to any instance.');

function to(rule) {
  const targets = rule.targets.map(one => `${one.percent} % ${one.subset} (${one.is_usable ? count(one.instances, 'instance', 'instances') : 'none usable'})`);
  return said(lines(targets), rule.targets.some(one => !one.is_usable) ? 'bad' : undefined);
}

function notes(route) {
  const list = route.replaced ? [`stands before ${route.replaced}`, ...route.warnings] : route.warnings;
  return said(lines(list), list.length ? 'warn' : undefined);
}

const documents = new Table($('document-table'), 'Documents of the operators', [
  ['Document', one => `${one.kind}/${one.name}`],
  ['State', one => document_state(one.state)],
  ['Revision', one => one.revision],
  ['In force', one => one.in_force ?? 'none'],
  ['Operator', one => one.operator],
  ['Issued', one => age(one, one.age_s, '', ' ago')],
  ['Why', one => lines([one.why, one.fork && `another one under the same number by ${one.fork} lost to it`].filter(Boolean))],
], 'None is known here.');

function draw_status(status) {
  document.title = `${status.node} · starling`;
  set_text($('node'), status.node);
  set_text($('about'), `${status.trust_domain} · version ${status.version} · ${status.state} · mesh at ${status.advertise}`);
  declared.update(status.services.map(one => [one.service, one]));
  upstreams.update(status.upstreams.map(one => [`${one.service} ${one.listen}`, one]));
  plaintext.update(status.plaintext.map(one => [`${one.service} ${one.address}`, { one, status }]));
  const held = status.svids.map(one => ({ ...one, use: one.identity.includes('/node/') ? 'this node' : 'a service here', status }));
  if (status.issuer) held.push({ identity: 'intermediate of this issuer', use: 'issuing', seconds_left: status.issuer.seconds_left, status });
  certificates.update(held.map(one => [one.identity, one]));
  draw_banners(status);
}

function draw_banners(status) {
  const { refused_by_peer: refused, renewal, config, documents } = status;
  const list = [
    refused && ['bad', `${refused.by} refuses ${refused.identity}: ${refused.why}`, refused.age_s, ' ago'],
    renewal && ['bad', `${renewal.identity} cannot be renewed: ${renewal.error}`, renewal.failing_s, ' long'],
    config.last_error && ['warn', `The changed configuration is not in force: ${config.last_error}`],
    documents.forks && ['warn', `${count(documents.forks, 'document was', 'documents were')} issued twice under one number.`],
    documents.not_in_force && ['warn', `${count(documents.not_in_force, 'document has', 'documents have')} no effect here.`],
  ].filter(Boolean);
  const place = $('banners');
  // Spoken to those who cannot see them, so they are only touched when they say something else.
  const said = JSON.stringify(list.map(([state, text]) => [state, text]));
  if (place.dataset.said !== said) {
    place.dataset.said = said;
    place.replaceChildren(...list.map(([state, text]) => el('p', { class: 'banner', 'data-state': state }, text, el('span', { 'aria-live': 'off' }))));
  }
  list.forEach(([, , age_s, after], i) => {
    if (age_s !== undefined) show(place.children[i].lastElementChild, age(status, age_s, ' (', `${after})`));
  });
}

const sums = new Map();

function sum(name, value, under, state) {
  let place = sums.get(name);
  if (!place) {
    const [big, small] = [el('span'), el('small', { class: 'quiet' })];
    $('sums').append(el('div', {}, el('dt', {}, name), el('dd', {}, big, small)));
    sums.set(name, place = { big, small });
  }
  show(place.big, typeof value === 'object' ? value : said(value, state));
  show(place.small, under);
}

function draw_sums(live) {
  const status = live.status;
  if (!status) return;
  const { alive, suspect, dead } = status.gossip;
  sum('Nodes', `${alive} alive`, `${suspect} suspect, ${dead} dead`, dead ? 'bad' : suspect ? 'warn' : undefined);
  const all = live.all('service').map(([, service]) => service);
  const [instances, good] = [all.flatMap(one => one.instances).length, all.reduce((n, one) => n + usable(one), 0)];
  const empty = all.filter(one => usable(one) === 0).length;
  sum('Services', String(all.length), empty ? `${empty} without a usable instance` : 'each with a usable instance', empty ? 'bad' : undefined);
  sum('Instances', `${good} usable`, `of ${instances}`, good < instances ? 'warn' : undefined);
  sum('First certificate', left(status, Math.min(...status.svids.map(one => one.seconds_left))), 'of this host');
  sum('Up', age(status, status.uptime_s), age(status, status.config.age_s, 'configuration unchanged for '));
}

function draw_nodes(items, word, troubled) {
  const texts = node => [node.node, node.zone, node.state, node.liveness, ...node.addresses, ...node.services];
  const is_good = node => node.liveness === 'alive' && node.state === 'serving';
  const rows = items.filter(([, node]) => (!word || has(word, texts(node))) && !(troubled && is_good(node)));
  // Trouble first, so that the cap never hides it.
  nodes.update(rows.sort(([, a], [, b]) => is_good(a) - is_good(b)), NODES);
}

const pending = new Set();

function draw() {
  const [word, troubled] = [$('word').value.trim().toLowerCase(), $('troubled').checked];
  if (pending.has('status') && live.status) draw_status(live.status);
  if (pending.has('service')) services(live.all('service'), word, troubled);
  if (pending.has('node')) draw_nodes(live.all('node'), word, troubled);
  if (pending.has('route')) routes.update(live.all('route').flatMap(([, route]) => route.rules.map(rule => [`${route.service} ${rule.rule}`, { route, rule }])));
  if (pending.has('document')) documents.update(live.all('document'));
  if (pending.has('status') || pending.has('service')) draw_sums(live);
  const names = kind => live.all(kind).map(([name]) => name);
  suggest(names('service'), names('node'), (live.status?.upstreams ?? []).map(one => one.caller));
  pending.clear();
}

function changed(kinds) {
  if (pending.size === 0) requestAnimationFrame(draw);
  for (const kind of kinds) pending.add(kind);
}

function tell_time() {
  tick();
  const [state, words, gap] = live.standing(Date.now());
  set_text($('live'), words);
  set_state($('live'), state);
  set_text($('gap'), gap ? `No news from this agent for ${span(gap / 1000)}. What you see is from before.` : '');
}

set_text($('key'), KEY);
const live = new Live(changed);
$('word').addEventListener('input', () => changed(['service', 'node']));
$('troubled').addEventListener('change', () => changed(['service', 'node']));
$('filter').addEventListener('submit', event => event.preventDefault());
setInterval(tell_time, 1000);
tell_time();
