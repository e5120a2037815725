// An operator's pass: for live calls, and from another host for everything.

import { $, set_text } from './dom.js';
import { Refused, refusal } from './stream.js';

// From another host nothing is shown without a pass, or a certificate. The pass is handed in once; the browser keeps it
// where no script gets it.
const is_remote = location.protocol.startsWith('https');

// It stays in this page alone; a reload forgets it.
let pass;

export const the_pass = () => pass;

// An address that `starling login` prints has it behind the #, which the browser sends nowhere. It does not stay there.
// Tells whether there was one.
export function take_pass() {
  const [, found] = /^#pass=(.+)$/.exec(location.hash) ?? [];
  if (!found) return false;
  pass = decodeURIComponent(found);
  history.replaceState(null, '', is_remote ? '#/' : '#/tap');
  return true;
}

export function keep_pass(text) {
  pass = text;
}

// Hands in the pass that there is, and asks for one where that is not enough.
export async function enter() {
  if (!is_remote) return;
  const asked = pass === undefined
    ? fetch('/readyz', { cache: 'no-store' })
    : fetch('/v1/login', { method: 'POST', headers: { 'starling-pass': pass } });
  try {
    const response = await asked;
    if (response.status === 401 || response.status === 403) throw new Refused(await refusal(response));
    set_text($('login-note'), '');
    lock(false);
  } catch (error) {
    // That nobody answers is told beside the name of the node.
    if (!(error instanceof Refused)) return;
    if (pass !== undefined) set_text($('login-note'), `✕ ${error.message}`);
    pass = undefined;
    lock(true);
  }
}

export const is_locked = () => !$('login').hidden;

function lock(is_closed) {
  const was = is_locked();
  $('login').hidden = !is_closed;
  if (is_closed && !was) $('login-pass').focus();
}

$('login').addEventListener('submit', event => {
  event.preventDefault();
  pass = $('login-pass').value.trim();
  $('login-pass').value = '';
  enter();
});
