// Tables whose rows have keys; an update touches only the cells that say something else.

import { el, keep, set_attribute, set_text, show } from './dom.js';
import { ORDER } from './words.js';

const STEP = 100;

// Columns are [name, what a cell shows, what to sort by if that is possible].
export class Table {
  constructor(place, caption, columns, empty) {
    this.columns = columns;
    this.kept = new Map();
    this.most = STEP;
    this.body = el('tbody', { role: 'rowgroup' });
    this.heads = columns.map(column => this.head(column));
    const head = el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...this.heads));
    const table = el('table', { role: 'table' }, el('caption', {}, caption), head, this.body);
    this.frame = el('div', { class: 'scroll', role: 'region', 'aria-label': `Table: ${caption}`, tabindex: '0' }, table);
    this.empty = el('p', { class: 'empty' }, empty);
    this.more = el('button', { type: 'button', class: 'more' });
    this.more.addEventListener('click', () => {
      this.most += STEP;
      this.update(this.rows);
    });
    place.append(this.frame, this.empty, this.more);
    this.update([]);
  }

  head([name, , by]) {
    if (!by) return el('th', { scope: 'col', role: 'columnheader' }, name);
    const button = el('button', { type: 'button', class: 'sort' }, name);
    button.addEventListener('click', () => this.sort(by));
    return el('th', { scope: 'col', role: 'columnheader', 'aria-sort': 'none' }, button);
  }

  // Numbers begin with the largest, words with the first; a second click turns that round, a third takes it back.
  sort(by) {
    const turn = this.by === by ? this.turn + 1 : 1;
    [this.by, this.turn] = turn > 2 ? [undefined, 0] : [by, turn];
    this.update(this.rows);
  }

  sorted(rows) {
    if (!this.by) return rows;
    const sign = this.turn === 1 ? 1 : -1;
    const order = (a, b) => typeof a === 'string' ? ORDER.compare(a, b) : b - a;
    return [...rows].sort(([, a], [, b]) => sign * order(this.by(a), this.by(b)));
  }

  // `rows` are [key, row] in order. Past some they are counted instead, until somebody asks for more.
  update(rows) {
    this.rows = rows;
    const shown = this.sorted(rows).slice(0, this.most);
    keep(this.body, this.kept, shown, () => ({ node: this.row() }), ({ node }, value) => this.fill(node, value));
    this.columns.forEach(([, , by], i) => by && set_attribute(this.heads[i], 'aria-sort', this.direction(by, rows)));
    this.frame.hidden = shown.length === 0;
    this.empty.hidden = shown.length > 0;
    this.more.hidden = rows.length <= shown.length;
    set_text(this.more, `Show more (${rows.length - shown.length} left)`);
  }

  direction(by, rows) {
    if (this.by !== by || rows.length === 0) return 'none';
    const is_word = typeof by(rows[0][1]) === 'string';
    return is_word === (this.turn === 1) ? 'ascending' : 'descending';
  }

  row() {
    const cells = this.columns.map(([name], i) => i === 0
      ? el('th', { scope: 'row', role: 'rowheader', 'data-name': name })
      : el('td', { role: 'cell', 'data-name': name }));
    return el('tr', { role: 'row' }, ...cells);
  }

  fill(row, value) {
    this.columns.forEach(([, cell], i) => {
      const place = row.children[i];
      show(place, cell(value));
      if (i > 0) place.classList.toggle('void', place.textContent === '');
    });
  }
}
