// The list of services; the instances of one are only made once somebody opens it.

import { $, Table, el, set_state, set_text } from './dom.js';
import { age, labels, said, standing } from './words.js';

const STRIP = 40;
const INSTANCES = 200;

const COLUMNS = [
  ['Node', ({ one }) => one.node],
  ['State', ({ one, service }) => state(one, service)],
  ['Labels', ({ one }) => labels(one.labels)],
  ['Zone', ({ one }) => one.zone],
  ['Weight', ({ one }) => one.weight],
  ['Protocol', ({ one }) => one.protocol],
  ['Address', ({ one }) => one.address],
  ['In flight', ({ one }) => one.in_flight ?? ''],
  ['Unchanged', ({ one, service }) => age(service, one.age_s, 'for ')],
];

function state(one, service) {
  const [mark, words, state] = standing(one);
  // Mark and word stay on one line.
  if (one.ejected_s === undefined || words !== 'left out') return said(`${mark}\u00a0${words}`, state);
  const left = now => Math.max(0, Math.ceil(one.ejected_s - (now - service.made) / 1000));
  return { words: now => `${mark} ${words}, ${left(now)} s`, state: () => state };
}

class Entry {
  constructor(name) {
    this.name = el('span', { class: 'name' }, name);
    this.sum = el('span', {});
    this.strip = el('span', { class: 'strip', 'aria-hidden': 'true' });
    this.inside = el('div', {});
    this.details = el('details', {}, el('summary', {}, this.name, this.sum, this.strip), this.inside);
    this.details.addEventListener('toggle', () => this.fill());
  }

  update(service, instances, usable) {
    this.service = service;
    this.instances = instances;
    set_text(this.sum, `${usable} of ${service.instances.length} usable`);
    set_state(this.sum, usable === 0 ? 'bad' : usable < service.instances.length ? 'warn' : 'good');
    const marks = service.instances.slice(0, STRIP).map(one => standing(one)[0]).join('');
    set_text(this.strip, service.instances.length > STRIP ? marks + ' …' : marks);
    this.fill();
  }

  fill() {
    if (!this.details.open) return;
    this.table ??= new Table(this.inside, `Instances of ${this.service.service}`, COLUMNS, 'No instance.');
    // Trouble first, so that a cap never hides it.
    const rank = one => ['bad', 'warn', 'off', 'good'].indexOf(standing(one)[2]);
    const rows = [...this.instances].sort((a, b) => rank(a) - rank(b));
    this.table.update(rows.map(one => [one.node, { one, service: this.service }]), INSTANCES);
  }
}

const entries = new Map();

export const usable = service => service.instances.filter(one => standing(one)[1] === 'usable').length;

const texts = one => [one.node, one.zone, one.address, one.protocol, ...Object.entries(one.labels).map(pair => pair.join('='))];

export const has = (word, texts) => texts.some(text => text.toLowerCase().includes(word));

// The instances that a filter leaves: all if the service's name has the word.
function matching(service, word) {
  if (!word || has(word, [service.service])) return service.instances;
  return service.instances.filter(one => has(word, texts(one)));
}

export function services(items, word, troubled) {
  const list = $('service-list');
  const names = new Set(items.map(([name]) => name));
  for (const [name, entry] of entries) {
    if (!names.has(name)) {
      entry.details.remove();
      entries.delete(name);
    }
  }
  let shown = 0;
  let next = list.firstElementChild;
  for (const [name, service] of items) {
    let entry = entries.get(name);
    if (!entry) entries.set(name, entry = new Entry(name));
    if (entry.details === next) next = next.nextElementSibling; else list.insertBefore(entry.details, next);
    const good = usable(service);
    const instances = matching(service, word);
    const is_shown = instances.length > 0 && !(troubled && good === service.instances.length);
    entry.details.hidden = !is_shown;
    shown += is_shown;
    // An item is a new object whenever it changed.
    if (is_shown && (entry.service !== service || entry.word !== word)) {
      entry.word = word;
      entry.update(service, instances, good);
    }
  }
  const all = items.length === 0 ? 'No service is announced.' : '';
  set_text($('service-note'), shown === items.length ? all : `${shown} of ${items.length} services shown.`);
}
