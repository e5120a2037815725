// A row of numbers with their names.

import { el, show } from './dom.js';

export class Tiles {
  constructor(place) {
    this.place = place;
    this.tiles = new Map();
  }

  show(name, value, under) {
    let tile = this.tiles.get(name);
    if (!tile) {
      const [big, small] = [el('span'), el('small', { class: 'quiet' })];
      this.place.append(el('div', {}, el('dt', {}, name), el('dd', {}, big, small)));
      this.tiles.set(name, tile = { big, small });
    }
    show(tile.big, value);
    show(tile.small, under);
  }
}
