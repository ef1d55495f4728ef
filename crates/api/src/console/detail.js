// One request beside the tree: what is known of it, how it can be stopped, what it prints.

import { read, Refused, said } from './api.js';
import { Cancel } from './cancel.js';
import { byId, facts, fill, make } from './element.js';
import { Log } from './log.js';
import { age, badge, clock, functionName, labelWords, short, stateWords } from './words.js';

/** Milliseconds between two looks at a request that lives and is not told of. */
const AGAIN = 1_000;

export class Detail {
  constructor({ live, say, onClose }) {
    Object.assign(this, { live, say, onClose });
    this.element = byId('detail');
    this.id = null;
    this.row = null;
    this.timer = null;
    this.element.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.preventDefault();
      this.onClose();
    });
  }

  open(id) {
    if (this.id === id) return;
    this.close();
    this.id = id;
    const row = this.live.requests.get(id);
    this.facts = make('div');
    this.cancel = null;
    this.isUntold = false;
    this.log = new Log(id);
    this.title = make('h2', { tabindex: '-1', id: 'detail-title' }, 'Request ', make('span', { class: 'id' }, short(id)));
    this.stopping = make('div');
    this.element.replaceChildren(
      make('div', { class: 'top' }, this.title,
        make('button', { type: 'button', click: () => this.onClose(), 'aria-label': 'Close the request' }, 'Close')),
      this.facts, this.stopping, make('h3', {}, 'Log'), this.log.element);
    this.element.hidden = false;
    if (row) this.living(row);
    else this.ended(true);
    this.title.focus();
  }

  close() {
    this.cancel?.close();
    this.log?.close();
    clearTimeout(this.timer);
    this.id = null;
    this.row = null;
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  /** Takes in what has changed. */
  change({ requests, goneRequests, instances, goneInstances }) {
    if (this.id === null) return;
    const row = requests.find((one) => one.request_id === this.id);
    if (row) { this.here(); this.living(row); }
    if (goneRequests.includes(this.id)) this.ended(false);
    if (requests.length + goneRequests.length + instances.length + goneInstances.length > 0) this.cancel?.lookAgain();
  }

  /** What was on no node, or on another, is on this one now: its log begins. */
  here() {
    if (!this.isUntold) return;
    this.isUntold = false;
    this.log.close();
    const before = this.log.element;
    this.log = new Log(this.id);
    before.replaceWith(this.log.element);
  }

  living(row, where = null) {
    this.row = row;
    const settled = row.state === 'settled';
    if (settled) this.cancel ??= null;
    else if (!this.cancel) {
      this.cancel = new Cancel(this.id, this);
      this.stopping.replaceChildren(this.cancel.element);
    }
    if (this.cancel) this.cancel.row = row;
    fill(this.facts, where, facts([
      ['State', make('span', {}, badge(row.state, stateWords(row)), row.stopping ? badge('stopping', `stopping: ${row.stopping}`) : null,
        whoWaits(row))],
      ['Function', functionName(row)],
      ['Alias', row.alias],
      ['Labels', labelWords(row)],
      ['Id', make('span', { class: 'id' }, row.request_id)],
      ['Made by', row.parent ? link('requests', row.parent) : 'nobody here: it is a root'],
      ['Arrived', row.created_ms ? `${clock(row.created_ms)}, ${age(row.created_ms)} ago` : null],
      ['Handed over', row.started_ms ? `${clock(row.started_ms)}, attempt ${row.attempt}` : settled ? null : 'not yet'],
      ['Node', row.node ? make('code', {}, row.node) : null],
      ['Instance', row.instance ? `${row.instance}${row.pid ? `, main process ${row.pid}` : ''}` : row.node ? null : 'none'],
      ['Cancelled by', row.cancel_id ? link('receipts', row.cancel_id) : null],
    ]));
  }

  /** It lives, and nothing tells this page of it: another node has it, or it waits for any, or so many live here. */
  untold(row) {
    const { node } = row;
    this.isUntold = true;
    this.log.elsewhere(node);
    const before = JSON.stringify(this.row);
    if (before === JSON.stringify(row)) return;
    this.living(row, make('p', { id: 'where' }, node
      ? ['It is on another node, ', make('code', {}, node), '. Its log and its processes, and whom else stopping it would touch, are at the console of that node; it can be stopped from here.']
      : 'It lives, and is not among those that are shown.'));
    if (before !== 'null') this.cancel?.lookAgain();
  }

  /** It does not live here any more. */
  ended(unseen) {
    this.unstoppable();
    this.look(unseen);
  }

  /** What came of stopping it stays. */
  unstoppable() {
    if (this.cancel && !this.cancel.asking && !this.cancel.over && !this.cancel.outcome.hasChildNodes()) {
      this.cancel.close();
      this.cancel = null;
      this.stopping.replaceChildren();
    } else if (this.cancel) {
      this.cancel.form.hidden = true;
    }
  }

  /** What is known of one that no row tells of? */
  async look(unseen) {
    const { id } = this;
    const before = this.row;
    clearTimeout(this.timer);
    // Its row may come meanwhile: that says more.
    const isTold = () => this.id !== id || this.live.requests.has(id);
    const show = (kept, words) => {
      if (isTold()) return;
      this.unstoppable();
      this.facts.replaceChildren(
        make('p', {}, words),
        facts([
          ['Status', kept?.status ? badge(kept.status === 'SUCCESS' ? 'stopped' : 'ending', kept.status) : null],
          ['Error', kept?.error_code ? `${kept.error_code} ${kept.error_message ?? ''}` : null],
          ['Function', before ? functionName(before) : kept?.function],
          ['Id', make('span', { class: 'id' }, id)],
          ['Cancelled by', kept?.cancel_id ?? before?.cancel_id ? link('receipts', kept?.cancel_id ?? before.cancel_id) : null],
        ]));
    };
    try {
      const kept = await read(`/quell/v1/requests/${encodeURIComponent(id)}`);
      if (isTold()) return;
      if (kept.state && kept.state !== 'settled') this.untold(kept);
      else show(kept, 'It is over.');
      // Its row may be on its way; or it is never told of, since it is over before the next look, or is on another node.
      if (kept.state) this.timer = setTimeout(() => { if (!isTold()) this.look(unseen); }, AGAIN);
    } catch (error) {
      const over = error instanceof Refused && error.status === 404;
      if (over) show(null, unseen && !before ? NOTHING_KEPT : 'It is over. Of requests whose caller waits nothing is kept.');
      else show(null, said(error));
    }
  }
}

const NOTHING_KEPT = 'There is no such request, or nothing of it is kept; or its caller waits for it at another node: then that one\'s console shows it.';

const link = (view, id) => make('a', { class: 'id', href: `#${view}/${id}`, title: id }, short(id));

/** Whether somebody waits for it. Of one that is over nobody does; long after, nobody knows whether somebody did. */
function whoWaits({ asynchronous, state }) {
  if (typeof asynchronous !== 'boolean') return null;
  const over = state === 'settled';
  if (asynchronous) return over ? ' nobody waited for it' : ' nobody waits for it';
  return over ? ' its caller waited' : ' its caller waits';
}
