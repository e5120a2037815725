// How things are said. A state is one of good, warn, bad, off; its words always tell it too, never colour alone.

export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

// A time that the page keeps: `seconds` was right when the item was made at `made`.
export const age = (item, seconds, before = '', after = '') =>
  ({ words: now => before + span(seconds + (now - item.made) / 1000) + after });

export function left(item, seconds) {
  const now_left = now => seconds - (now - item.made) / 1000;
  return {
    words: now => now_left(now) < 0 ? `ended ${span(-now_left(now))} ago` : `ends in ${span(now_left(now))}`,
    state: now => now_left(now) < 0 ? 'bad' : now_left(now) < 3600 ? 'warn' : undefined,
  };
}

export const said = (text, state) => ({ text, state });
export const lines = list => list.join('\n');
export const some = (names, most = 5) => names.slice(0, most).join(', ') + (names.length > most ? ` and ${names.length - most} more` : '');
export const count = (n, one, many) => `${n} ${n === 1 ? one : many}`;

// What an instance is worth to callers on this host: mark, words, state.
export function standing(one) {
  if (one.liveness === 'dead') return ['✕', 'dead', 'bad'];
  if (!one.healthy) return ['✕', 'unhealthy', 'bad'];
  if (one.liveness === 'suspect') return ['▲', 'suspect', 'warn'];
  if (one.ejected_s !== undefined) return ['▲', 'left out', 'warn'];
  if (one.weight === 0) return ['○', 'weight 0', 'off'];
  return ['●', 'usable', 'good'];
}

export const KEY = '● usable   ▲ suspect, or left out here because calls failed   ✕ unhealthy or dead   ○ weight 0';

export const labels = labels => Object.entries(labels).map(([name, value]) => `${name}=${value}`).join('\n');

export function liveness(word) {
  return said(word, { alive: 'good', suspect: 'warn', dead: 'bad' }[word] ?? 'off');
}

export function document_state(word) {
  return said(word, { 'in force': 'good', deleted: 'off', 'held back': 'warn' }[word] ?? 'bad');
}
