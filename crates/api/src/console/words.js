// How numbers, times, states and results are said.

import { make } from './element.js';

/** Milliseconds the node's clock is ahead of ours: ages are by the node's. */
let ahead = 0;

export function setNodeClock(nowMs) {
  ahead = nowMs - Date.now();
}

export const nodeNow = () => Date.now() + ahead;

/** How long ago, coarse: a number that changes each second is not read anyway. */
export function age(sinceMs, nowMs = nodeNow()) {
  if (!sinceMs) return '';
  const seconds = Math.max(0, Math.floor((nowMs - sinceMs) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A time of day, with its day if that is not today. */
export function clock(ms) {
  if (!ms) return '';
  const at = new Date(ms);
  const time = `${at.toLocaleTimeString('en-GB')}.${String(at.getMilliseconds()).padStart(3, '0')}`;
  const today = new Date().toDateString() === at.toDateString();
  return today ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

const two = (number) => String(number).padStart(2, '0');

/** Microseconds, in the unit a person would choose. */
export function micros(us) {
  if (us === null || us === undefined) return '';
  if (us < 1000) return `${us} µs`;
  if (us < 10_000) return `${(us / 1000).toFixed(2)} ms`;
  if (us < 1_000_000) return `${(us / 1000).toFixed(1)} ms`;
  return `${(us / 1_000_000).toFixed(2)} s`;
}

/** The first letters of an id: enough to tell requests apart on one page; the whole is in its title. */
export const short = (id) => (id ? id.slice(0, 8) : '');

export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** A function with its version, unless that is the usual one. */
export const functionName = (row) =>
  (row.version && row.version !== 'latest' ? `${row.function}:${row.version}` : row.function);

const KINDS = {
  running: 'busy', ready: 'good', stopped: 'good', queued: '', placed: '', starting: '', settled: '',
  draining: 'warn', stopping: 'warn', fenced: 'warn', ending: 'warn', interrupted: 'warn',
  quarantined: 'bad', unkillable: 'bad', not_recorded: 'bad',
};

/** A word in its colour. The colour says nothing that the word does not. */
export function badge(word, text = word) {
  return make('span', { class: `badge ${KINDS[word] ?? ''}`.trim() }, text);
}

/** Where a request stands, in words. */
export function stateWords(row) {
  if (row.state === 'settled') return row.code ? `settled ${row.code}` : 'settled';
  return row.state;
}

/** What `X-Quell-Stop` and the result of a receipt mean. */
export const RESULTS = {
  running: 'It is under way.',
  stopped: 'No code of it runs any more; what was killed is proven dead.',
  draining: 'Settled and fenced. Its code may run until the last innocent request of its instance ends; then that is killed.',
  fenced: 'Nothing of it can start any more; the receipt tells the rest.',
  unkillable: 'Fenced, but processes could not be killed in time.',
  not_recorded: 'Stopped, but it could not be recorded.',
  interrupted: 'The node ended before this did, and nothing proves more.',
};

/** Scope and level of a cancel. */
export const howAsked = ({ scope, level }) =>
  `${scope === 'subtree' ? 'recursive' : 'one request'}${level === 'kill' ? ', by force' : ''}`;

/** The labels of a request, as whoever invoked it wrote them; nothing if there are none. */
export function labelWords({ labels }) {
  const words = Object.entries(labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return words.length > 0 ? words.join(', ') : null;
}
