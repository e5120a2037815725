// What is wrong with this host, above every page; and the numbers of the mesh.

import { $, el, show } from './dom.js';
import { edges_of } from './graph.js';
import { Tiles } from './tiles.js';
import { rate, success, sum } from './signals.js';
import { age, count, left, said, usable } from './words.js';

export function draw_problems(status) {
  const { refused_by_peer: refused, renewal, config, documents } = status;
  const list = [
    refused && ['bad', `${refused.by} refuses ${refused.identity}: ${refused.why}`, undefined, refused.age_s, ' ago'],
    renewal && ['bad', `${renewal.identity} cannot be renewed: ${renewal.error}`, undefined, renewal.failing_s, ' long'],
    config.last_error && ['warn', `The changed configuration is not in force: ${config.last_error}`],
    ...(config.absent ?? []).map(({ entry, declared, why }) => ['bad', `${declared} ${entry}: ${why}`]),
    documents.forks && ['warn', `${count(documents.forks, 'document was', 'documents were')} issued twice under one number.`, '#/documents'],
    documents.not_in_force && ['warn', `${count(documents.not_in_force, 'document has', 'documents have')} no effect here.`, '#/documents'],
  ].filter(Boolean);
  const place = $('banners');
  // Spoken to those who cannot see them, so they are only touched when they say something else.
  const said = JSON.stringify(list.map(([state, text]) => [state, text]));
  if (place.dataset.said !== said) {
    place.dataset.said = said;
    place.replaceChildren(...list.map(banner));
  }
  list.forEach(([, , , age_s, after], i) => {
    if (age_s !== undefined) show(place.children[i].lastElementChild, age(status, age_s, ' (', `${after})`));
  });
}

const banner = ([state, text, where]) => el('p', { class: 'banner', 'data-state': state },
  `${state === 'bad' ? '✕' : '▲'} ${text} `, ...where ? [el('a', { href: where }, 'See them')] : [], el('span', { 'aria-live': 'off' }));

const tiles = new Tiles($('sums'));

export function draw_sums(live) {
  const status = live.status;
  if (!status) return;
  const { alive, suspect, dead } = status.gossip;
  const mark = dead ? '✕ ' : suspect ? '▲ ' : '';
  tiles.show('Nodes', said(`${mark}${alive} alive`, dead ? 'bad' : suspect ? 'warn' : undefined), `${suspect} suspect, ${dead} dead`);
  const all = live.all('service').map(([, service]) => service);
  const [instances, good] = [all.flatMap(one => one.instances).length, all.reduce((n, one) => n + usable(one), 0)];
  const empty = all.filter(one => usable(one) === 0).length;
  tiles.show('Services', said(empty ? `✕ ${all.length}` : String(all.length), empty ? 'bad' : undefined), empty ? `${empty} without a usable instance` : 'each with a usable instance');
  tiles.show('Instances', said(`${good < instances ? '▲ ' : ''}${good.toLocaleString('en')} usable`, good < instances ? 'warn' : undefined), `of ${instances.toLocaleString('en')}`);
  const calls = sum(edges_of(live));
  tiles.show('Calls', rate(calls), calls.calls ? `${success(calls).text} succeed, ${calls.denied} denied` : 'none in the last minute');
  tiles.show('First certificate', left(status, Math.min(...status.svids.map(one => one.seconds_left))), 'of this host');
  tiles.show('Up', age(status, status.uptime_s), age(status, status.config.age_s, 'configuration unchanged for '));
}
