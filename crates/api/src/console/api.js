// The way to the API: the token, errors in the API's own words, and answers that go on.
//
// The token is in sessionStorage: it outlives a reload of this tab, which an operator needs when a node comes back,
// and nothing else: it is gone with the tab, no other tab or site reads it, and unlike a cookie a browser never sends
// it by itself, so no other site can have anything done with it. It goes out in a header and is never in a URL.
// (What could read it here could as well use this page to ask: that is kept out by the page's policy.)

const KEY = 'quell-token';

let token = sessionStorage.getItem(KEY);
let whenSignedOut = () => {};

export const isSignedIn = () => token !== null;

export function signIn(text) {
  token = text;
  sessionStorage.setItem(KEY, text);
}

export function signOut(why = '') {
  if (token === null) return;
  token = null;
  sessionStorage.removeItem(KEY);
  whenSignedOut(why);
}

export function onSignedOut(listener) {
  whenSignedOut = listener;
}

/** What the API said no with. */
export class Refused extends Error {
  constructor(status, code, message, headers) {
    super(message);
    Object.assign(this, { status, code, headers });
  }

  /** As a person reads it. */
  get words() {
    return `${this.message} (${this.code})`;
  }
}

/** Any error in words. */
export function said(error) {
  if (error instanceof Refused) return error.words;
  return `The node did not answer: ${error.message}`;
}

/** Asks; an answer that is no 2xx is thrown. Without a right it is the credential that is at fault; where `right` is null the asker
    expects that, and nobody is signed out. */
export async function ask(path, { method = 'GET', body, headers = {}, signal, right = 'read' } = {}) {
  if (token === null) throw new Refused(403, 'FSS.0403', 'signed out');
  const sent = { 'X-Auth-Token': token, ...headers };
  if (body !== undefined) sent['Content-Type'] = 'application/json';
  const answer = await fetch(path, {
    method,
    headers: sent,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
    referrerPolicy: 'no-referrer',
  });
  if (answer.ok) return answer;
  const error = await refusal(answer);
  if ((answer.status === 401 || answer.status === 403) && right !== null && may(right)) {
    signOut(`The node does not take this token: ${error.words}. It may be wrong, expired, revoked, or without the scope read.`);
  }
  throw error;
}

/** Reads JSON. */
export async function read(path, options) {
  return (await ask(path, options)).json();
}

async function refusal(answer) {
  let code = `HTTP ${answer.status}`;
  let message = answer.statusText;
  try {
    const body = await answer.json();
    code = body.error_code ?? code;
    message = body.error_msg ?? message;
  } catch { /* it is not from the API: a proxy, say */ }
  return new Refused(answer.status, code, message, answer.headers);
}

let scopes = null;

export function setScopes(words) {
  scopes = words;
}

/** Whether the credential has this scope, as far as is known. An admin has those of his project, and an operator's is not. */
export function may(right) {
  return scopes === null || scopes.includes(right) || (right !== 'operator' && scopes.includes('admin'));
}

/** The lines of an answer that goes on; `heard` is called whenever something came. */
export async function* lines(answer, heard = () => {}) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      heard();
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Server-sent events: `{name, data}`. EventSource would read them too, but cannot send the token's header. */
export async function* events(answer, heard) {
  let name = 'message';
  let data = '';
  for await (const line of lines(answer, heard)) {
    if (line === '') {
      if (data) yield { name, data: JSON.parse(data) };
      name = 'message';
      data = '';
    } else if (line.startsWith('event: ')) {
      name = line.slice(7);
    } else if (line.startsWith('data: ')) {
      data += line.slice(6);
    }
  }
}
