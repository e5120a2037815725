// Tables of calls between services, as the map and the page of a service show them.

import { OTHER } from './graph.js';
import { denied, rate, reasons, seen_by, signals, success, time } from './signals.js';
import { Table } from './table.js';
import { link, said } from './words.js';

const of = (edge, word, none = '') => signals(edge) ? word(signals(edge)) : none;
const number = name => edge => signals(edge)?.[name] ?? -1;
const failed = edge => {
  const all = signals(edge);
  return all?.calls ? all.failed / all.calls : -1;
};

const caller = edge => edge.caller === OTHER ? said('others, not in its rules', 'off') : link('services', edge.caller);

export const CALLER = ['Caller', caller, edge => edge.caller];
export const CALLEE = ['Called', edge => link('services', edge.callee), edge => edge.callee];

const NUMBERS = [
  ['Protocol', edge => edge.protocol],
  ['Rate', edge => of(edge, rate), number('rate')],
  ['Success', edge => of(edge, success), failed],
  ['Denied', denied, number('denied')],
  ['Median', edge => of(edge, all => time(all.p50_us)), number('p50_us')],
  ['p99', edge => of(edge, all => time(all.p99_us)), number('p99_us')],
  ['Under way', edge => of(edge, all => all.open || ''), number('open')],
  ['The mesh failed', edge => of(edge, reasons)],
  ['Told by', seen_by],
];

export const calls_table = (place, caption, sides, empty) => new Table(place, caption, [...sides, ...NUMBERS], empty);
export const keyed = edges => edges.map(edge => [`${edge.caller}>${edge.callee} ${edge.protocol}`, edge]);
