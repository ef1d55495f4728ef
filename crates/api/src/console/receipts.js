// Receipts: the list of them, and one with the timeline of its phases.

import { read, said } from './api.js';
import { byId, draw, facts, make, table } from './element.js';
import { badge, clock, counted, functionName, howAsked, micros, RESULTS, short } from './words.js';

const PAGE = 100;
/** A receipt that is not closed is read again when something has changed, but not more often. */
const AGAIN = 1_000;

export class Receipts {
  constructor({ onClose }) {
    this.body = byId('receipt-rows');
    this.aside = byId('receipt');
    this.more = byId('receipts-more');
    this.onClose = onClose;
    this.next = 0;
    this.id = null;
    this.isOpen = false;
    this.timer = null;
    this.isShown = false;
    byId('receipts-again').addEventListener('click', () => this.read());
    this.more.addEventListener('click', () => this.read(this.next));
    this.aside.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') { event.preventDefault(); this.onClose(); }
    });
  }

  async read(marker = 0) {
    try {
      const page = await read(`/quell/v1/cancels?limit=${PAGE}&marker=${marker}`);
      const rows = page.receipts.map(rowOf);
      if (marker === 0) this.body.replaceChildren(...rows);
      else this.body.append(...rows);
      this.next = page.next_marker;
      this.more.hidden = this.next === 0;
      byId('receipts-none').textContent = 'Nothing has been cancelled yet.';
      byId('receipts-none').hidden = this.body.childElementCount > 0;
      this.mark();
    } catch (error) {
      byId('receipts-none').textContent = said(error);
      byId('receipts-none').hidden = false;
    }
  }

  async open(id) {
    const again = this.id === id;
    this.id = id;
    try {
      const receipt = await read(`/quell/v1/cancels/${encodeURIComponent(id)}`);
      if (this.id !== id) return;
      this.isOpen = isOpen(receipt);
      this.show(renderReceipt(receipt), again);
    } catch (error) {
      if (this.id === id) this.show([make('p', { class: 'error' }, said(error))], again);
    }
    this.mark();
  }

  show(parts, again) {
    const title = make('h2', { tabindex: '-1' }, 'Receipt ', make('span', { class: 'id' }, short(this.id)));
    const close = make('button', { type: 'button', click: () => this.onClose(), 'aria-label': 'Close the receipt' }, 'Close');
    this.aside.replaceChildren(make('div', { class: 'top' }, title, close), ...parts);
    this.aside.hidden = false;
    if (!again) title.focus();
  }

  close() {
    this.id = null;
    this.aside.hidden = true;
    this.aside.replaceChildren();
    this.mark();
  }

  mark() {
    for (const row of this.body.children) row.classList.toggle('chosen', row.dataset.id === this.id);
  }

  /** Something has changed: what was not over may be. */
  change() {
    if (!this.isShown || !this.isOpen || this.id === null || this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.id !== null) this.open(this.id);
    }, AGAIN);
  }
}

const isOpen = (receipt) => receipt.closed_ms === null
  || (['draining', 'unkillable'].includes(receipt.result) && receipt.stopped_later_ms === null);

function rowOf(receipt) {
  const target = receipt.requests.find((row) => row.request_id === receipt.request_id);
  const reasons = receipt.asked_by.map((asker) => asker.reason).filter(Boolean).join('; ');
  const cells = [
    make('a', { href: `#receipts/${receipt.cancel_id}`, class: 'nowrap' }, clock(receipt.fenced_ms)),
    target ? functionName(target) : receipt.function_urn,
    howAsked(receipt),
    badge(receipt.result),
    make('span', { class: 'nowrap' }, micros(receipt.took_us)),
    touched(receipt),
    reasons || (receipt.cause === 'asked' ? '' : receipt.cause),
  ];
  return make('tr', { 'data-id': receipt.cancel_id }, cells.map((cell) => make('td', {}, cell)));
}

/** Requests in scope, those they took with them, and the parts that nodes were asked for, whose requests are in receipts of their own. */
function touched({ requests, co_tenants: others, parts = [] }) {
  const here = String(requests.length) + (others.length > 0 ? ` + ${others.length}` : '');
  if (parts.length === 0) return here;
  return [requests.length + others.length > 0 ? `${here}, ` : '', make('span', { class: 'nowrap' }, counted(parts.length, 'part'))];
}

/** A receipt as elements; without its result where that has been said. */
export function renderReceipt(receipt, { said: isSaid = false } = {}) {
  return [
    isSaid ? null : make('p', {}, badge(receipt.result), ' ', RESULTS[receipt.result] ?? ''),
    facts([
      ['Asked', `${howAsked(receipt)}${receipt.cause === 'asked' ? '' : `, by ${receipt.cause}`}`],
      ['Request', make('a', { class: 'id', href: `#requests/${receipt.request_id}` }, receipt.request_id)],
      ['Function', receipt.function_urn],
      ['Took', receipt.took_us === null ? 'not over' : micros(receipt.took_us)],
      ['Cancel', make('span', { class: 'id' }, receipt.cancel_id)],
    ]),
    make('h3', {}, 'Who, and why'),
    make('ul', { class: 'askers' }, receipt.asked_by.map(asker)),
    make('h3', {}, 'Phases'),
    timeline(phases(receipt), 'Phases of the cancel, from the fence'),
    ...instancesOf(receipt),
    ...scopeOf(receipt),
    receipt.co_tenants.length > 0 ? make('h3', {}, `${counted(receipt.co_tenants.length, 'other')} that shared an instance`) : null,
    receipt.co_tenants.length > 0 ? requestsOf(receipt.co_tenants) : null,
  ].filter((part) => part !== null);
}

function asker({ at_ms: at, credential, remote, reason, ...how }) {
  const who = `${credential || 'the node'}${remote ? ` from ${remote}` : ''}`;
  return make('li', {}, `${clock(at)}, ${who}: ${howAsked(how)}`, reason ? make('div', { class: 'reason' }, reason) : null);
}

function phases(receipt) {
  const after = (ms) => Math.max(0, ms - receipt.fenced_ms);
  const settled = receipt.requests.map((row) => row.settled_ms).filter((ms) => ms !== null).map(after);
  const rows = [{ name: 'Fence falls', from: 0, to: 0, whole: true }];
  if (receipt.recorded_ms !== null) rows.push({ name: 'On the disk', from: 0, to: after(receipt.recorded_ms), whole: true });
  if (settled.length > 0) rows.push({ name: 'Settled', from: Math.min(...settled), to: Math.max(...settled), whole: true });
  if (receipt.took_us !== null) rows.push({ name: 'Answered', from: 0, to: receipt.took_us / 1000, last: true });
  if (receipt.stopped_later_ms !== null) rows.push({ name: 'Gone after all', from: 0, to: after(receipt.stopped_later_ms), whole: true, last: true });
  return rows;
}

function instancesOf(receipt) {
  if (receipt.instances.length === 0) return [];
  const ms = (us) => us / 1000;
  const rows = receipt.instances.flatMap((row) => [
    ['exited', row.exited_us], ['empty', row.emptied_us], ['proven', row.proven_us],
  ].filter(([, us]) => us !== null && us !== undefined).map(([what, us]) =>
    ({ name: `${row.instance} ${what}`, from: 0, to: ms(us), last: what === 'proven' })));
  const told = (row) => [
    row.instance, row.signals.join(', '), [row.exit, row.other_processes > 0 ? `${row.other_processes} more processes` : null].filter(Boolean).join('; '),
    row.proof.join(', '), [...row.survivors, ...row.cannot_see].join('; '),
  ];
  return [
    make('h3', {}, `${counted(receipt.instances.length, 'instance')} signalled`),
    rows.length > 0 && rows.length <= MAX_BARS ? timeline(rows, 'From the first strike at each instance') : null,
    table(['Instance', 'Sent', 'Exit', 'Proof', 'Not seen, or alive'], receipt.instances.map(told)),
  ].filter((part) => part !== null);
}

/** What was stopped: by the node that was asked, and by those that it asked. Where all is with those, there is no empty table. */
function scopeOf({ requests, parts = [] }) {
  const own = requests.length > 0 || parts.length === 0;
  return [
    ...own ? [make('h3', {}, `${counted(requests.length, 'request')} in scope`), requestsOf(requests)] : [],
    ...parts.length > 0 ? [make('h3', {}, `${counted(parts.length, 'part')} by node`), partsOf(parts)] : [],
  ];
}

const partsOf = (parts) => make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Parts by node' },
  table(['Request', 'On node', 'Result', 'Receipt, or why'], parts.map((part) => [
    make('a', { class: 'id', href: `#requests/${part.request_id}`, title: part.request_id }, short(part.request_id)),
    make('code', { title: part.node }, part.node), badge(part.result),
    RECEIPT.test(part.detail) ? make('a', { class: 'id', href: `#receipts/${part.detail}`, title: part.detail }, short(part.detail)) : part.detail,
  ])));

/** A part's detail that is the id of a receipt. */
const RECEIPT = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Instances of which bars are drawn; more are in the table alone. */
const MAX_BARS = 24;

const requestsOf = (rows) => table(['Request', 'Function', 'Found', 'Evidence', 'Code'], rows.map((row) => [
  make('span', { class: 'id', title: row.request_id }, short(row.request_id)), functionName(row), row.found,
  row.evidence ?? '', row.code === null ? '' : String(row.code)]));

/** Bars from a beginning, to scale. Its numbers are texts beside the bars: nothing is told by a length alone. */
function timeline(rows, label) {
  const [left, width, height, right] = [96, 250, 20, 120];
  const longest = Math.max(...rows.map((row) => row.to), 0.001);
  const at = (value) => left + (value / longest) * width;
  const parts = rows.flatMap(({ name, from, to, last, whole }, index) => {
    const y = index * height + 4;
    const words = from === to || from === 0 ? shown(to, whole) : `${shown(from, whole)} to ${shown(to, whole)}`;
    return [
      draw('text', { x: left - 8, y: y + 10, 'text-anchor': 'end' }, name),
      draw('line', { class: 'axis', x1: left, x2: left + width, y1: y + 6, y2: y + 6 }),
      draw('rect', { class: last ? 'dot last' : 'dot', x: at(from) - 2, y: y + 2, width: Math.max(4, at(to) - at(from) + 2), height: 8, rx: 2 }),
      draw('text', { x: left + width + 10, y: y + 10 }, words),
    ];
  });
  const words = rows.map((row) => `${row.name} ${shown(row.to, row.whole)}`).join(', ');
  return draw('svg', { class: 'timeline', viewBox: `0 0 ${left + width + right} ${rows.length * height + 4}`, role: 'img',
    'aria-label': `${label}: ${words}` }, parts);
}

/** Milliseconds; of what is only known in whole ones, whole ones. */
const shown = (ms, whole) => `${whole || ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
