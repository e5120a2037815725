// What operators issued: the list, and one document with its history.

import { $, el, set_text } from './dom.js';
import { diff } from './diff.js';
import { Table } from './table.js';
import { address, age, document_state, lines, said, visible } from './words.js';

const list = new Table($('document-list'), 'Documents of the operators', [
  ['Document', one => ({ links: [[`${one.kind}/${one.name}`, address('documents', one.kind, one.name)]] }), one => `${one.kind}/${one.name}`],
  ['State', one => document_state(one.state)],
  ['Revision', one => one.revision, one => one.revision],
  ['In force', one => one.in_force ?? 'none'],
  ['Operator', one => one.operator, one => one.operator],
  ['Issued', one => age(one, one.age_s, '', ' ago'), one => one.age_s],
  ['Why', one => why(one)],
], 'None is known here.');

const fork = one => `another one under the same number by ${one.fork} lost to it`;
const why = one => visible(lines([one.why, one.fork && fork(one)].filter(Boolean)));

export const draw_documents = live => list.update(live.all('document'));

let shown = { key: '' };

// Its history is asked for when it is opened, and anew when a revision comes.
export function draw_document(live, [kind, name]) {
  const one = live.one('document', `${kind}/${name}`);
  const key = `${kind}/${name} ${one?.revision} ${one?.state}`;
  set_text($('document-name'), `${kind}/${name}`);
  if (shown.key === key) return;
  shown = { key };
  set_text($('document-note'), 'Asking …');
  $('document-history').replaceChildren();
  ask(shown, kind, name);
}

async function ask(mine, kind, name) {
  try {
    const response = await fetch(`/v1/documents/${encodeURIComponent(kind)}/${encodeURIComponent(name)}`);
    const told = response.ok ? await response.json() : undefined;
    if (mine !== shown) return;
    if (told) draw({ ...told, made: Date.now() }); else set_text($('document-note'), 'There is nothing of this name.');
  } catch {
    if (mine === shown) {
      shown = { key: '' };
      set_text($('document-note'), 'The agent does not answer.');
    }
  }
}

function draw({ document, revisions, made }) {
  const state = document_state(document.state);
  set_text($('document-note'), revisions.length
    ? `${[state.text, document.why && visible(document.why), document.fork && fork(document)].filter(Boolean).join(': ')}. In force here: ${document.in_force ? `revision ${document.in_force}` : 'none'}.`
    : 'Nobody ever issued it.');
  const winners = revisions.filter(one => !one.lost);
  $('document-history').replaceChildren(...revisions.map(one => {
    const before = winners.find(other => other.revision < one.revision);
    return revision(one, before, document, made);
  }));
}

function revision(one, before, document, made) {
  const marks = [
    one.revision === document.in_force && !one.lost && one.standing === 'counts' && said('● in force', 'good'),
    one.lost && said('▲ lost to another one of its number', 'warn'),
    one.deleted && said('○ deletes it', 'off'),
  ].filter(Boolean);
  const issued = age({ made }, one.age_s, '', ' ago').words(made);
  const head = el('h3', {}, `Revision ${one.revision}`, ...marks.flatMap(({ text, state }) => [' ', el('span', { class: 'chip', 'data-state': state }, text)]));
  const by = el('p', { class: 'quiet' }, `by ${one.operator}, ${issued}, key ${one.public_key}`);
  const name = `revision ${one.revision}${before ? ` against ${before.revision}` : ''}`;
  const text = el('pre', { tabindex: '0', role: 'region', 'aria-label': `Text of ${name}` }, ...diff(before?.body ?? '', one.deleted ? '' : one.body).map(changed));
  const hash = el('p', { class: 'quiet small' }, `SHA-256 ${one.hash}`);
  return el('article', { class: 'revision' }, head, by, text, hash);
}

const SIGN = { same: ' ', new: '+', old: '−' };

const changed = ([kind, text]) => el(kind === 'new' ? 'ins' : kind === 'old' ? 'del' : 'span', {}, `${SIGN[kind]} ${visible(text)}\n`);
