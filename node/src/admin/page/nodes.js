// The list of nodes, the page of one, and the certificates of all.

import { $, set_text } from './dom.js';
import { CALLER } from './calls.js';
import { rate, success, time } from './signals.js';
import { Table } from './table.js';
import { Tiles } from './tiles.js';
import { age, count, has, labels, left, liveness, link, links, said, standing } from './words.js';

const is_good = node => node.liveness === 'alive' && node.state === 'serving' && node.seconds_left > 3600 && !node.unproven?.length;
const named = node => link('nodes', node.node, node.is_self ? `${node.node} (this one)` : node.node);

const list = new Table($('node-list'), 'Nodes of the mesh', [
  ['Node', named, node => node.node],
  ['Seen as', node => liveness(node.liveness), node => ['alive', 'suspect', 'dead'].indexOf(node.liveness)],
  ['Says', node => said(node.state, node.state === 'serving' ? undefined : 'warn')],
  ['Zone', node => node.zone, node => node.zone],
  ['Address', node => node.addresses[0] ?? ''],
  ['Runs', node => links('services', node.services, 4), node => node.services.length],
  ['Certificate', node => left(node, node.seconds_left), node => -node.seconds_left],
  ['Last word', node => age(node, node.age_s, '', ' ago'), node => node.age_s],
], 'No node is known.');

export function draw_nodes(live, word, troubled) {
  const texts = node => [node.node, node.zone, node.state, node.liveness, ...node.addresses, ...node.services];
  const all = live.all('node');
  const rows = all.filter(([, node]) => (!word || has(word, texts(node))) && !(troubled && is_good(node)));
  // Trouble first, so that the cap never hides it.
  list.update(rows.sort(([, a], [, b]) => is_good(a) - is_good(b)));
  set_text($('node-note'), rows.length < all.length ? `${rows.length} of ${all.length} nodes shown.` : '');
}

const tiles = new Tiles($('node-tiles'));

const facts = new Table($('node-facts'), 'What this node says of itself', [
  ['Fact', ({ name }) => name],
  ['Value', ({ value }) => value],
], 'This agent does not know a node of this name.');

const runs = new Table($('node-services'), 'Services that run on this node', [
  ['Service', ({ name }) => link('services', name)],
  ['State', ({ one }) => one ? said(standing(one).slice(0, 2).join('\u00a0'), standing(one)[2]) : said('○\u00a0not counted', 'off')],
  ['Labels', ({ one }) => one ? labels(one.labels) : ''],
  ['Weight', ({ one }) => one?.weight],
  ['Protocol', ({ one }) => one?.protocol],
  ['Unchanged for', ({ one, service }) => one ? age(service, one.age_s) : ''],
], 'None.');

const told = new Table($('node-calls'), 'Calls at this node', [
  ['Caller', ({ edge }) => CALLER[1](edge)],
  ['Called', ({ edge }) => link('services', edge.callee)],
  ['It is the', ({ end }) => `${end.side}'s side`],
  ['Rate', ({ end }) => end.signals ? rate(end.signals) : ''],
  ['Success', ({ end }) => end.signals ? success(end.signals) : ''],
  ['p99', ({ end }) => time(end.signals?.p99_us)],
  ['Told', ({ edge, end }) => age(edge, end.age_s, '', ' ago')],
  ['Gap', ({ end }) => end.note ? said(`▲ ${end.note}`, 'warn') : ''],
], 'No call in the last minute is known.');

export function draw_node(live, [name]) {
  set_text($('node-name'), name);
  const node = live.one('node', name);
  $('node-tiles').hidden = !node;
  facts.update(node ? facts_of(node).map(([fact, value]) => [fact, { name: fact, value }]) : []);
  if (node) draw_tiles(node);
  const found = (node?.services ?? []).map(name => [name, live.one('service', name)]);
  runs.update(found.map(([service_name, service]) =>
    [service_name, { name: service_name, service, one: service?.instances.find(one => one.node === name) }]));
  const ends = live.all('edge').flatMap(([key, edge]) => edge.ends
    .filter(end => end.node === name)
    .map(end => [`${key} ${end.side}`, { edge, end }]));
  told.update(ends);
}

function draw_tiles(node) {
  tiles.show('Seen as', liveness(node.liveness), age(node, node.liveness_s, 'for '));
  tiles.show('Says', said(node.state, node.state === 'serving' ? undefined : 'warn'), age(node, node.age_s, 'last word ', ' ago'));
  tiles.show('Certificate', left(node, node.seconds_left), 'of the node itself');
  tiles.show('Documents', node.has_same_documents ? said('● the same', 'good') : said('▲ others', 'warn'),
    node.has_same_documents ? 'as this agent holds' : 'than this agent holds');
  const idle = node.documents_out_of_force;
  tiles.show('Not in force', idle ? said(`✕ ${count(idle, 'document', 'documents')}`, 'bad') : said('○ none', 'off'), 'by its own word');
}

const facts_of = node => [
  ['Identity', node.identity],
  ['Zone', node.zone || 'none'],
  ['Addresses', node.addresses.join('\n')],
  ['Its apps call', node.calls?.length ? links('services', node.calls, 20) : 'nothing'],
  ['Issues certificates', node.is_issuer ? 'yes' : 'no'],
  ...(node.unproven?.length ? [['No valid certificate for', said(`✕ ${node.unproven.join(', ')}`, 'bad')]] : []),
];

const certificates = new Table($('certificate-list'), 'Certificates of all nodes', [
  ['Node', named, node => node.node],
  ['Time left', node => left(node, node.seconds_left), node => -node.seconds_left],
  ['Seen as', node => liveness(node.liveness)],
  ['Identity', node => node.identity],
  ['Services without a valid one', node => said((node.unproven ?? []).join(', '), 'bad')],
  ['Told', node => age(node, node.age_s, '', ' ago')],
], 'No node is known.');

const own = new Table($('certificate-own'), 'Certificates of this host', [
  ['Identity', ({ identity }) => identity],
  ['For', ({ use }) => use],
  ['Time left', ({ seconds_left, status }) => left(status, seconds_left)],
], 'None.');

export function draw_certificates(live, word) {
  const status = live.status;
  const held = (status?.svids ?? []).map(one => ({ ...one, use: one.identity.includes('/node/') ? 'this node' : 'a service here', status }));
  if (status?.issuer) held.push({ identity: 'intermediate of this issuer', use: 'issuing', seconds_left: status.issuer.seconds_left, status });
  own.update(held.map(one => [one.identity, one]));
  const rows = live.all('node').filter(([name, node]) => !word || has(word, [name, node.zone]));
  // Whose time runs out first comes first.
  certificates.update(rows.sort(([, a], [, b]) => a.seconds_left - b.seconds_left));
}
