// The list of services, and the page of one.

import { $, set_text } from './dom.js';
import { CALLEE, CALLER, calls_table, keyed } from './calls.js';
import { calls_of, edges_of } from './graph.js';
import { draw_policy } from './policy.js';
import { rate, success, sum, time } from './signals.js';
import { Table } from './table.js';
import { Tiles } from './tiles.js';
import { ORDER, age, count, has, labels, link, said, some, standing, usable, whole, zones } from './words.js';

const STRIP = 20;
const ZONES = 3;

const list = new Table($('service-list'), 'Services', [
  ['Service', ({ service }) => link('services', service.service), ({ service }) => service.service],
  ['Usable', ({ service, good }) => health(good, service.instances.length), ({ service, good }) => service.instances.length - good],
  ['Instances', ({ service }) => strip(service.instances)],
  ['Zones', ({ service }) => some(zones(service.instances), ZONES)],
  ['Callers', ({ edges }) => edges.length || '', ({ edges }) => edges.length],
  ['Rate', ({ all }) => all.calls ? rate(all) : '', ({ all }) => all.rate],
  ['Success', ({ all }) => all.calls ? success(all) : '', ({ all }) => all.calls ? all.failed / all.calls : -1],
  ['Worst p99', ({ all }) => time(all.p99_us), ({ all }) => all.p99_us ?? -1],
], 'No service is announced.');

function health(good, all) {
  const [mark, state] = whole(good, all);
  return said(`${mark} ${good} of ${all}`.replaceAll(' ', '\u00a0'), state);
}

function strip(instances) {
  const marks = instances.slice(0, STRIP).map(one => standing(one)[0]).join('');
  return instances.length > STRIP ? `${marks} …` : marks;
}

const texts = one => [one.node, one.zone, one.address, one.protocol, ...Object.entries(one.labels).map(pair => pair.join('='))];

export function draw_services(live, word, troubled) {
  const to = new Map();
  for (const edge of edges_of(live)) to.set(edge.callee, [...to.get(edge.callee) ?? [], edge]);
  const all = live.all('service');
  const rows = all.map(([name, service]) => {
    const edges = to.get(name) ?? [];
    return [name, { service, edges, all: sum(edges), good: usable(service) }];
  });
  const is_ill = ({ service, all, good }) => good < service.instances.length || all.denied > 0 || !['good', 'off'].includes(success(all).state);
  const shown = rows.filter(([name, row]) =>
    (!word || has(word, [name]) || row.service.instances.some(one => has(word, texts(one)))) && (!troubled || is_ill(row)));
  // Trouble first, so that the cap never hides it.
  list.update(shown.sort(([, a], [, b]) => is_ill(b) - is_ill(a)));
  set_text($('service-note'), shown.length < all.length ? `${shown.length} of ${all.length} services shown.` : '');
}

const tiles = new Tiles($('service-tiles'));

const callers = calls_table($('service-callers'), 'Callers of this service', [CALLER], 'Nobody called it in the last minute.');
const called = calls_table($('service-called'), 'Services that it calls', [CALLEE], 'It called nothing in the last minute.');

const instances = new Table($('service-instances'), 'Instances of this service', [
  ['Node', ({ one }) => link('nodes', one.node), ({ one }) => one.node],
  ['State', ({ one, service }) => state(one, service), ({ one }) => RANK.length - RANK.indexOf(standing(one)[2])],
  ['Rate', ({ signals }) => signals ? rate(signals) : '', ({ signals }) => signals?.rate ?? -1],
  ['Success', ({ signals }) => signals?.calls ? success(signals) : '', ({ signals }) => signals?.calls ? signals.failed / signals.calls : -1],
  ['p99', ({ signals }) => time(signals?.p99_us), ({ signals }) => signals?.p99_us ?? -1],
  ['Labels', ({ one }) => labels(one.labels)],
  ['Zone', ({ one }) => one.zone, ({ one }) => one.zone],
  ['Weight', ({ one }) => one.weight, ({ one }) => one.weight],
  ['Protocol', ({ one }) => one.protocol],
  ['Address', ({ one }) => one.address],
  ['From here', ({ one }) => from_here(one), ({ one }) => one.latency_us ?? -1],
  ['Unchanged for', ({ one, service }) => age(service, one.age_s)],
], 'No instance is known here.');

const RANK = ['bad', 'warn', 'off', 'good'];

const from_here = one => [one.latency_us && time(one.latency_us), one.in_flight && `${one.in_flight} under way`].filter(Boolean).join(', ');

function state(one, service) {
  const [mark, words, state] = standing(one);
  // Mark and word stay on one line.
  if (words !== 'left out') return said(`${mark}\u00a0${words}`, state);
  const left = now => Math.max(0, Math.ceil(one.ejected_s - (now - service.made) / 1000));
  return { words: now => `${mark} ${words}, ${left(now)} s`, state: () => state };
}

const routes_here = new Table($('service-routes'), 'Rules for calls from this host', [
  ['Rule', ({ rule }) => rule.rule],
  ['Matches', ({ rule }) => rule.matches],
  ['Does', ({ rule }) => rule.action],
  ['Declared', ({ rule }) => rule.declared],
], 'None on this host: calls go to any instance.');

export function draw_service(live, [name]) {
  const service = live.one('service', name) ?? { service: name, instances: [], made: Date.now() };
  const { to, from } = calls_of(live, name);
  set_text($('service-name'), name);
  draw_tiles(service, to, live);
  callers.update(keyed(to));
  called.update(keyed(from));
  const told = told_by_nodes(live, name);
  const rows = service.instances.map(one =>
    [one.node, { one, service, signals: told.get(one.node) }]);
  // Trouble first, so that a cap never hides it.
  const rank = ([, { one }]) => RANK.indexOf(standing(one)[2]);
  instances.update(rows.sort((a, b) => rank(a) - rank(b) || ORDER.compare(a[0], b[0])));
  const route = live.one('route', name);
  routes_here.update((route?.rules ?? []).map(rule => [rule.rule, { rule }]));
  draw_policy(name, service.instances.length > 0);
}

// What each node says of the calls to its instance, by node.
function told_by_nodes(live, service) {
  const ends = live.all('edge').filter(([, edge]) => edge.callee === service).flatMap(([, edge]) => edge.ends);
  const by_node = new Map();
  for (const { node, side, signals } of ends) {
    if (side === 'callee') by_node.set(node, [...by_node.get(node) ?? [], { callee_side: signals }]);
  }
  return new Map([...by_node].map(([node, edges]) => [node, sum(edges)]));
}

function draw_tiles(service, to, live) {
  const all = sum(to);
  const good = usable(service);
  const plaintext = (live.status?.plaintext ?? []).filter(one => one.service === service.service);
  tiles.show('Instances', service.instances.length ? health(good, service.instances.length) : said('none', 'off'),
    service.instances.length ? some(zones(service.instances), ZONES) : 'it only calls others, or nobody runs it');
  tiles.show('Calls', all.calls ? rate(all) : 'none', all.calls ? `${count(all.calls, 'call', 'calls')} in the last minute` : 'in the last minute');
  tiles.show('Success', success(all), all.denied ? `and ${count(all.denied, 'call', 'calls')} denied` : 'in the last minute');
  tiles.show('Worst p99', time(all.p99_us) || 'not known', 'of its callers');
  const proved = to.length ? `${to.length} by mTLS` : 'none';
  tiles.show('Callers', plaintext.length ? said(`▲ ${plaintext.length} without the mesh`, 'warn') : proved,
    plaintext.length ? `${proved === 'none' ? 'none by mTLS' : proved}, as seen on this host` : 'in the last minute');
}
