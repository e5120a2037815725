// What the agent tells, kept up to date; and whether it still tells it.

import { ORDER } from './words.js';

const LOST_MS = 12_000; // two pulses missed
const BROKEN_MS = 8_000; // the connection is known to be gone; an agent ends each one after two minutes
const AGAIN_MS = 3_000;

const KINDS = ['status', 'node', 'service', 'edge', 'gap', 'route', 'document'];

export class Live {
  // `on_refused` is called when the agent does not want to tell.
  constructor(on_news, on_refused) {
    this.items = new Map(KINDS.map(kind => [kind, new Map()]));
    this.sorted = new Map();
    this.on_news = on_news;
    this.on_refused = on_refused;
    this.heard = undefined;
    this.began = Date.now();
    this.open();
    document.addEventListener('visibilitychange', () => document.hidden ? this.close() : this.open());
  }

  open() {
    this.close();
    this.is_broken = false;
    const source = this.source = new EventSource('/v1/events');
    source.onmessage = event => this.take(JSON.parse(event.data));
    source.addEventListener('pulse', () => this.hear());
    source.onerror = () => {
      this.is_broken = true;
      // Refused, such as when too many are open: a browser does not try that again by itself.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        this.on_refused();
        this.again = setTimeout(() => this.open(), AGAIN_MS);
      }
    };
  }

  close() {
    clearTimeout(this.again);
    this.source?.close();
    this.source = undefined;
  }

  hear() {
    this.heard = Date.now();
    this.is_broken = false;
  }

  take({ whole, set, gone }) {
    this.hear();
    const changed = new Set();
    if (whole) {
      for (const [kind, items] of this.items) {
        items.clear();
        changed.add(kind);
      }
    }
    for (const [kind, name, ago_s, value] of set) {
      this.items.get(kind)?.set(name, { ...value, made: this.heard - ago_s * 1000 });
      changed.add(kind);
    }
    for (const [kind, name] of gone) {
      this.items.get(kind)?.delete(name);
      changed.add(kind);
    }
    for (const kind of changed) this.sorted.delete(kind);
    this.on_news(changed);
  }

  // [state, words, how long there was no news in ms]
  standing(now) {
    const gap = now - (this.heard ?? this.began);
    if (this.heard === undefined) return gap < LOST_MS ? ['off', 'Connecting', 0] : ['bad', 'No answer', gap];
    if (gap > LOST_MS || this.is_broken && gap > BROKEN_MS) return ['bad', 'Lost', gap];
    return ['good', 'Live', 0];
  }

  // [name, item] in the order of names.
  all(kind) {
    if (!this.sorted.has(kind)) this.sorted.set(kind, [...this.items.get(kind)].sort(([a], [b]) => ORDER.compare(a, b)));
    return [...this.sorted.get(kind)];
  }

  one(kind, name) {
    return this.items.get(kind).get(name);
  }

  get status() {
    return this.items.get('status').get('');
  }
}
