// What this host itself was told: its services, its upstreams, its routes.

import { $ } from './dom.js';
import { Table } from './table.js';
import { age, count, lines, link, said, whole } from './words.js';

const declared = new Table($('declared-list'), 'Services that run here', [
  ['Service', one => link('services', one.service)],
  ['Health', one => one.healthy ? said('●\u00a0healthy', 'good') : said(`✕ ${one.problem ?? 'unhealthy'}`, 'bad')],
  ['Protocol', one => one.protocol],
  ['App at', one => one.address],
  ['Mode', one => said(one.mode, one.mode === 'enforce' ? undefined : 'warn')],
  ['Allows', one => one.allow.join(', ') || 'see its rules'],
  ['Declared', one => one.declared],
], 'None.');

const upstreams = new Table($('upstream-list'), 'Services that apps here call', [
  ['Service', one => link('services', one.service)],
  ['Called at', one => one.listen],
  ['As', one => one.caller],
  ['Protocol', one => one.protocol || 'not known yet'],
  ['Usable', one => usable(one)],
  ['Declared', one => one.declared],
], 'None.');

function usable({ usable, instances }) {
  const [mark, state] = whole(usable, instances);
  return said(`${mark} ${usable} of ${instances}`.replaceAll(' ', '\u00a0'), state);
}

const plaintext = new Table($('plaintext-list'), 'Callers without the mesh', [
  ['Service', ({ one }) => link('services', one.service)],
  ['From', ({ one }) => one.address],
  ['Connections', ({ one }) => one.connections],
  ['Latest', ({ one, status }) => age(status, one.age_s, '', ' ago')],
], 'None.');

export function draw_host(live) {
  const status = live.status;
  if (!status) return;
  declared.update(status.services.map(one => [one.service, one]));
  upstreams.update(status.upstreams.map(one => [`${one.service} ${one.listen}`, one]));
  plaintext.update(status.plaintext.map(one => [`${one.service} ${one.address}`, { one, status }]));
}

const routes = new Table($('route-list'), 'Routes of calls from this host', [
  ['Service', ({ route }) => link('services', route.service), ({ route }) => route.service],
  ['Rule', ({ rule }) => rule.rule],
  ['Matches', ({ rule }) => rule.matches],
  ['Does', ({ rule }) => rule.action],
  ['To', ({ rule }) => to(rule)],
  ['Declared', ({ rule }) => rule.declared],
  ['Notes', ({ route }) => notes(route)],
], 'None: calls go to any instance.');

function to(rule) {
  const targets = rule.targets.map(one => `${one.percent} % ${one.subset} (${one.is_usable ? count(one.instances, 'instance', 'instances') : '✕ none usable'})`);
  return said(lines(targets), rule.targets.some(one => !one.is_usable) ? 'bad' : undefined);
}

function notes(route) {
  const list = route.replaced ? [`stands before ${route.replaced}`, ...route.warnings] : route.warnings;
  return said(lines(list.map(one => `▲ ${one}`)), list.length ? 'warn' : undefined);
}

const rules = ([, route]) => route.rules.map(rule => [`${route.service} ${rule.rule}`, { route, rule }]);

export const draw_routes = live => routes.update(live.all('route').flatMap(rules));
