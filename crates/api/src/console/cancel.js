// Stopping a request: how, what that would do (the plan, before anything is done), why, and what came of it.

import { ask, may, read, said } from './api.js';
import { fill, make, table } from './element.js';
import { processesOf } from './instances.js';
import { renderReceipt } from './receipts.js';
import { badge, clock, counted, functionName, RESULTS, short } from './words.js';

/** A plan is looked at again when something has changed, but not more often. */
const PLAN_PAUSE = 1_000;

const MODES = [
  { name: 'plain', words: 'Ask it to stop', body: {} },
  { name: 'recursive', words: 'Ask all below it, too', body: { type: 'recursive' } },
  { name: 'force', words: 'Force: kill its instance', body: { type: 'force' } },
  { name: 'both', words: 'Force: all below it, too', body: { force: true, recursive: true } },
];

const HOW = {
  removed: () => 'taken out of the queue',
  asked: (stop) => {
    if (!stop.instance) return 'asked; what happens if it is not over within its grace is known there';
    return stop.at_grace_end === 'drain'
      ? `asked; if it is not over within its grace, ${stop.instance} drains: it may run there until the last innocent request ends`
      : `asked; if it is not over within its grace, ${stop.instance} is killed`;
  },
  killed: (stop) => `killed with ${stop.instance ?? 'its instance'}`,
  stopping: () => 'is being stopped already',
  draining: (stop) => `has settled; its code may run until ${stop.instance} has drained`,
};

/** How a request of a plan is stopped, and where, if another node has it. */
const howOf = (stop) => [stop.node ? ['on node ', make('code', {}, stop.node), ', '] : '', (HOW[stop.how] ?? (() => stop.how))(stop)];

export class Cancel {
  constructor(id, { live, say }) {
    Object.assign(this, { id, live, say });
    this.mode = MODES[0];
    this.plan = null;
    this.asking = false;
    this.timer = null;
    this.number = 0;
    this.cut = new AbortController();
    const choice = (mode) => make('label', {},
      make('input', { type: 'radio', name: 'mode', value: mode.name, checked: mode === this.mode, change: () => this.choose(mode) }),
      ` ${mode.words}`);
    this.shown = make('div', { class: 'plan', 'aria-live': 'polite' }, make('p', {}, 'Asking what it would do…'));
    this.reason = make('textarea', { id: 'reason', maxlength: '1000', placeholder: 'For the receipt: who reads it later wants to know' });
    this.button = make('button', { type: 'submit', class: 'stop', id: 'stop', disabled: true }, 'Stop');
    this.outcome = make('div', { id: 'outcome' });
    this.form = make('form', { class: 'ask', submit: (event) => { event.preventDefault(); this.ask(); } },
      make('fieldset', {}, make('legend', {}, 'Stop it'), MODES.map(choice)),
      make('label', { for: 'reason' }, 'Why'), this.reason,
      make('h3', {}, 'What that does'), this.shown,
      make('div', { class: 'actions' }, this.button,
        may('cancel') ? null : make('span', { class: 'error' }, 'This token may look, but not cancel.')));
    this.element = make('div', {}, this.form, this.outcome);
    this.lookAgain(0);
  }

  close() {
    this.cut.abort();
    clearTimeout(this.timer);
  }

  choose(mode) {
    this.mode = mode;
    this.plan = null;
    this.button.disabled = true;
    clearTimeout(this.timer);
    this.timer = null;
    this.lookAgain(0);
  }

  /** Something has changed: the plan may be another. */
  lookAgain(pause = PLAN_PAUSE) {
    if (this.timer !== null || this.asking || this.over) return;
    this.timer = setTimeout(() => { this.timer = null; this.look(); }, pause);
  }

  async look() {
    const { mode } = this;
    const number = this.number += 1;
    const query = new URLSearchParams();
    if (mode.name === 'recursive' || mode.name === 'both') query.set('recursive', 'true');
    if (mode.name === 'force' || mode.name === 'both') query.set('force', 'true');
    try {
      const plan = await read(`/quell/v1/requests/${encodeURIComponent(this.id)}/plan?${query}`, { signal: this.cut.signal });
      if (number === this.number && !this.asking) this.showPlan(plan);
    } catch (error) {
      if (this.cut.signal.aborted || number !== this.number) return;
      this.plan = null;
      this.button.disabled = true;
      this.shown.replaceChildren(make('p', {}, `There is no plan: ${said(error)}`));
    }
  }

  showPlan(plan) {
    const words = JSON.stringify(plan);
    if (this.plan === words) return;
    this.plan = words;
    const { stops, kills, collateral, requeued, elsewhere = 0 } = plan;
    const others = collateral.length;
    this.shown.classList.toggle('wide', others > 0);
    fill(this.shown,
      make('p', {}, make('strong', {}, `Stops ${counted(stops.length, 'request')}`)),
      make('ul', { id: 'plan-stops' }, stops.map((stop) => make('li', {},
        `${functionName(stop)} `, idOf(stop.request_id), ': ', howOf(stop)))),
      ...killed(kills, elsewhere),
      ...this.touched(collateral, 'plan-collateral', (count) => `Ends ${counted(count, 'other')} with 4208, as they share an instance that dies`),
      ...this.touched(requeued, 'plan-requeued', (count) => `${counted(count, 'other')} would wait again`),
      others + requeued.length === 0 ? make('p', { id: 'plan-nobody' }, `Nobody else is touched${onThis(elsewhere)}.`) : null,
      elsewhere > 0 ? make('p', { id: 'plan-elsewhere' },
        `${elsewhere === 1 ? '1 of them is' : `${elsewhere} of them are`} on other nodes or wait for any: whom else that touches is seen there.`) : null,
      make('p', { class: 'hint' }, `As of ${clock(Date.now())}. It is decided anew when you press; the receipt says what was.`),
    );
    this.button.disabled = !may('cancel') || stops.length === 0;
    this.button.textContent = `Stop ${counted(stops.length, 'request')}${others > 0 ? ` and end ${counted(others, 'other')}` : ''}`;
  }

  touched(ids, id, words) {
    if (ids.length === 0) return [];
    const named = (request) => {
      const row = this.live.requests.get(request);
      return make('li', {}, row ? `${functionName(row)} ` : '', idOf(request));
    };
    return [make('p', {}, make('strong', {}, words(ids.length))), make('ul', { id }, ids.map(named))];
  }

  async ask() {
    if (this.asking || this.button.disabled) return;
    const row = this.live.requests.get(this.id) ?? this.row;
    this.asking = true;
    this.button.disabled = true;
    this.button.textContent = 'Stopping…';
    this.outcome.replaceChildren();
    this.say('Asked to stop.');
    const reason = this.reason.value.trim();
    const body = { request_id: this.id, ...this.mode.body, ...(reason ? { reason } : {}) };
    const path = `/v2/${encodeURIComponent(this.live.project)}/fgs/functions/${encodeURIComponent(row.function)}/cancel`;
    try {
      const answer = await ask(path, { method: 'POST', body, right: 'cancel' });
      await this.answered(answer.headers, null);
    } catch (error) {
      await this.answered(error.headers ?? new Headers(), error);
    } finally {
      this.asking = false;
    }
  }

  async answered(headers, error) {
    const stop = headers.get('x-quell-stop');
    const cancel = headers.get('x-quell-cancel-id');
    const words = error ? said(error) : RESULTS[stop] ?? stop;
    const first = make('p', { class: error ? 'error' : null, tabindex: '-1' }, stop ? badge(stop) : null, ' ', words);
    this.outcome.replaceChildren(make('h3', {}, 'What came of it'), first);
    this.say(error ? `Not done: ${words}` : `${stop}: ${words}`);
    this.over = stop === 'stopped' && !error;
    this.form.hidden = this.over;
    if (this.over) first.focus();
    else { this.button.textContent = 'Stop'; this.plan = null; }
    if (!cancel) { if (!this.over) setTimeout(() => this.lookAgain(0)); return; }
    try {
      const receipt = await read(`/quell/v1/cancels/${encodeURIComponent(cancel)}`, { signal: this.cut.signal });
      this.outcome.append(
        make('p', {}, make('a', { href: `#receipts/${cancel}` }, 'The receipt by itself')),
        ...renderReceipt(receipt, { said: receipt.result === stop }));
    } catch (failed) {
      if (!this.cut.signal.aborted) this.outcome.append(make('p', { class: 'error' }, `The receipt cannot be read: ${said(failed)}`));
    }
    if (!this.over) setTimeout(() => this.lookAgain(0));
  }
}

const idOf = (id) => make('span', { class: 'id', title: id }, short(id));

/** What is not known of other nodes is not said of them. */
const onThis = (elsewhere) => (elsewhere > 0 ? ' on this node' : '');

function killed(kills, elsewhere) {
  if (kills.length === 0) return [make('p', { id: 'plan-kills' }, `Kills no instance${elsewhere > 0 ? ' of this node' : ''} at once.`)];
  return [
    make('p', {}, make('strong', {}, `Kills ${counted(kills.length, 'instance')}${elsewhere > 0 ? ' of this node' : ''}, with all ${kills.length === 1 ? 'its' : 'their'} processes`)),
    table(['Instance', 'Function', 'Processes'], kills.map((row) => [row.instance, functionName(row), processesOf(row)])),
  ];
}
