// One request beside the tree: what is known of it, how it can be stopped, what it prints.

import { read, Refused, said } from './api.js';
import { Cancel } from './cancel.js';
import { byId, facts, make } from './element.js';
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
    this.id = null;
    this.row = null;
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  /** Takes in what has changed. */
  change({ requests, goneRequests, instances, goneInstances }) {
    if (this.id === null) return;
    const row = requests.find((one) => one.request_id === this.id);
    if (row) this.living(row);
    if (goneRequests.includes(this.id)) this.ended(false);
    if (requests.length + goneRequests.length + instances.length + goneInstances.length > 0) this.cancel?.lookAgain();
  }

  living(row) {
    this.row = row;
    const settled = row.state === 'settled';
    if (settled) this.cancel ??= null;
    else if (!this.cancel) {
      this.cancel = new Cancel(this.id, this);
      this.stopping.replaceChildren(this.cancel.element);
    }
    if (this.cancel) this.cancel.row = row;
    this.facts.replaceChildren(facts([
      ['State', make('span', {}, badge(row.state, stateWords(row)), row.stopping ? badge('stopping', `stopping: ${row.stopping}`) : null,
        whoWaits(row))],
      ['Function', functionName(row)],
      ['Alias', row.alias],
      ['Labels', labelWords(row)],
      ['Id', make('span', { class: 'id' }, row.request_id)],
      ['Made by', row.parent ? link('requests', row.parent) : 'nobody here: it is a root'],
      ['Arrived', row.created_ms ? `${clock(row.created_ms)}, ${age(row.created_ms)} ago` : null],
      ['Handed over', row.started_ms ? `${clock(row.started_ms)}, attempt ${row.attempt}` : settled ? null : 'not yet'],
      ['Instance', row.instance ? `${row.instance}${row.pid ? `, main process ${row.pid}` : ''}` : 'none'],
      ['Cancelled by', row.cancel_id ? link('receipts', row.cancel_id) : null],
    ]));
  }

  /** It does not live: what is kept of it? */
  async ended(unseen) {
    const { id } = this;
    if (this.cancel && !this.cancel.asking && !this.cancel.over && !this.cancel.outcome.hasChildNodes()) {
      this.cancel.close();
      this.cancel = null;
      this.stopping.replaceChildren();
    } else if (this.cancel) {
      this.cancel.form.hidden = true;
    }
    const before = this.row;
    const show = (kept, words) => {
      // Its row may have come meanwhile: that says more.
      if (this.id !== id || this.live.requests.has(id)) return;
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
      show(kept, kept.state ? 'It lives, and is not among those that are shown.' : 'It is over.');
      // Its row may be on its way; or it is never told of, since it is over before the next look.
      if (kept.state && this.id === id && !this.row) setTimeout(() => { if (this.id === id && !this.row) this.ended(unseen); }, AGAIN);
    } catch (error) {
      const over = error instanceof Refused && error.status === 404;
      if (over) show(null, unseen ? 'There is no such request, or nothing of it is kept.' : 'It is over. Of requests whose caller waits nothing is kept.');
      else show(null, said(error));
    }
  }
}

const link = (view, id) => make('a', { class: 'id', href: `#${view}/${id}`, title: id }, short(id));

/** Whether somebody waits for it. Of one that is over nobody does; long after, nobody knows whether somebody did. */
function whoWaits({ asynchronous, state }) {
  if (typeof asynchronous !== 'boolean') return null;
  const over = state === 'settled';
  if (asynchronous) return over ? ' nobody waited for it' : ' nobody waits for it';
  return over ? ' its caller waited' : ' its caller waits';
}
