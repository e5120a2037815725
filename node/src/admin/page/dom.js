// The only place that makes elements. Whatever came from the mesh becomes text and nothing else.

export const $ = id => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function set_text(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set_state(node, state) {
  if (node.dataset.state === state) return;
  if (state) node.dataset.state = state; else delete node.dataset.state;
}

// What grows older by itself, to be said anew each second.
const clocks = new Map();

// Shows a value: a string, `{text, state}`, or `{words, state}` where both are functions of the time.
export function show(node, value) {
  if (typeof value === 'object' && value.words) {
    clocks.set(node, value);
    return tell(node, value, Date.now());
  }
  clocks.delete(node);
  const { text, state } = typeof value === 'object' ? value : { text: String(value ?? '') };
  set_text(node, text);
  set_state(node, state);
}

function tell(node, { words, state }, now) {
  set_text(node, words(now));
  set_state(node, state?.(now));
}

export function tick() {
  const now = Date.now();
  for (const [node, value] of clocks) {
    if (node.isConnected) tell(node, value, now); else clocks.delete(node);
  }
}

// A table whose rows have keys; an update touches only the cells that say something else.
export class Table {
  constructor(place, caption, columns, empty) {
    this.columns = columns;
    this.rows = new Map();
    this.body = el('tbody', { role: 'rowgroup' });
    const heads = columns.map(([name]) => el('th', { scope: 'col', role: 'columnheader' }, name));
    const head = el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...heads));
    const table = el('table', { role: 'table' }, el('caption', {}, caption), head, this.body);
    this.frame = el('div', { class: 'scroll', role: 'region', 'aria-label': `Table: ${caption}`, tabindex: '0' }, table);
    this.empty = el('p', { class: 'empty' }, empty);
    this.note = el('p', { class: 'quiet' });
    place.append(this.frame, this.empty, this.note);
    this.update([]);
  }

  // `rows` are [key, row] in order. Past `most` they are counted instead, and the note says how many.
  update(rows, most = 400) {
    const shown = rows.slice(0, most);
    const keys = new Set(shown.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (!keys.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    }
    let next = this.body.firstElementChild;
    for (const [key, value] of shown) {
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, row = this.row());
      if (row === next) next = next.nextElementSibling; else this.body.insertBefore(row, next);
      this.columns.forEach(([, cell], i) => {
        show(row.children[i], cell(value));
        row.children[i].classList.toggle('void', row.children[i].textContent === '');
      });
    }
    this.frame.hidden = shown.length === 0;
    this.empty.hidden = shown.length > 0;
    set_text(this.note, rows.length > shown.length ? `${rows.length - shown.length} more; the filter finds them.` : '');
  }

  row() {
    const cells = this.columns.map(([name], i) => i === 0
      ? el('th', { scope: 'row', role: 'rowheader', 'data-name': name })
      : el('td', { role: 'cell', 'data-name': name }));
    return el('tr', { role: 'row' }, ...cells);
  }
}
