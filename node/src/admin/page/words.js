// How things are said. A state is one of good, warn, bad, off; its words always tell it too, never colour alone.

// n2 before n10.
export const ORDER = new Intl.Collator('en', { numeric: true });

// A number and its unit stay on one line.
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const parts = s < 60 ? [s, 's']
    : s < 3600 ? [Math.floor(s / 60), 'min']
      : s < 86400 ? [Math.floor(s / 3600), 'h', Math.floor(s % 3600 / 60), 'min']
        : [Math.floor(s / 86400), 'd', Math.floor(s % 86400 / 3600), 'h'];
  return parts.join('\u00a0');
}

// A time that the page keeps: `seconds` was right when the item was made at `made`.
export const age = (item, seconds, before = '', after = '') =>
  ({ words: now => before + span(seconds + (now - item.made) / 1000) + after });

export function left(item, seconds) {
  const now_left = now => seconds - (now - item.made) / 1000;
  return {
    words: now => now_left(now) < 0 ? `✕ ended ${span(-now_left(now))} ago` : `ends in ${span(now_left(now))}`,
    state: now => now_left(now) < 0 ? 'bad' : now_left(now) < 3600 ? 'warn' : undefined,
  };
}

export const said = (text, state) => ({ text, state });
export const lines = list => list.join('\n');
export const count = (n, one, many) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

// Where to read on.
export const address = (page, ...names) => ['#', page, ...names.map(encodeURIComponent)].join('/');
export const link = (page, name, text = name, state = undefined) => ({ links: [[text, address(page, name)]], state });
export function links(page, names, most = 5) {
  const list = names.slice(0, most).map(name => [name, address(page, name)]);
  return { links: names.length > most ? [...list, [`${names.length - most} more`]] : list };
}

// What an instance is worth to callers on this host: mark, words, state.
export function standing(one) {
  if (one.liveness === 'dead') return ['✕', 'dead', 'bad'];
  if (!one.healthy) return ['✕', 'unhealthy', 'bad'];
  if (one.liveness === 'suspect') return ['▲', 'suspect', 'warn'];
  if (one.ejected_s !== undefined) return ['▲', 'left out', 'warn'];
  if (one.weight === 0) return ['○', 'weight 0', 'off'];
  return ['●', 'usable', 'good'];
}

export const usable = service => service.instances.filter(one => standing(one)[1] === 'usable').length;

// All that is good or not: mark and state.
export function whole(good, all) {
  if (good === 0) return ['✕', 'bad'];
  return good < all ? ['▲', 'warn'] : ['●', 'good'];
}

export const labels = labels => Object.entries(labels).map(([name, value]) => `${name}=${value}`).join('\n');

export const zones = instances => [...new Set(instances.map(one => one.zone).filter(Boolean))].sort(ORDER.compare);
export const some = (names, most) => names.slice(0, most).join(',\u00a0') + (names.length > most ? ` and ${names.length - most} more` : '');

const LIVENESS = { alive: ['●', 'good'], suspect: ['▲', 'warn'], dead: ['✕', 'bad'] };
export function liveness(word) {
  const [mark, state] = LIVENESS[word] ?? ['○', 'off'];
  return said(`${mark}\u00a0${word}`, state);
}

const DOCUMENT = { 'in force': ['●', 'good'], deleted: ['○', 'off'], 'being checked': ['○', 'off'], 'held back': ['▲', 'warn'] };
export function document_state(word) {
  const [mark, state] = DOCUMENT[word] ?? ['✕', 'bad'];
  return said(`${mark}\u00a0${word}`, state);
}

export const has = (word, texts) => texts.some(text => text.toLowerCase().includes(word));

// What cannot be seen, or moves what stands beside it, as TOML escapes it: the text that is read is the text that is in force.
const INVISIBLE = /[^\P{C}\n\t]|[\p{Zl}\p{Zp}]|[^\P{Zs} ]|[\u034f\u115f\u1160\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/gu;

export const visible = text => text.replace(INVISIBLE, char => {
  const code = char.codePointAt(0).toString(16).toUpperCase();
  return code.length > 4 ? `\\U${code.padStart(8, '0')}` : `\\u${code.padStart(4, '0')}`;
});
