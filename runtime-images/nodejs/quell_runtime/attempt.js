'use strict';

// One attempt of a request: the handler's run, what it gives, and its cancellation.

const { setMaxListeners } = require('node:events');
const wire = require('./wire.js');
const processes = require('./processes.js');
const ownership = require('./ownership.js');
const { Context } = require('./context.js');
const { cancellation } = require('./errors.js');
const { say } = require('./log.js');

/** Of the grace, after which it is said what still runs: the node is about to act. */
const GIVEN_UP_SHARE = 0.8;
/** Until what was left is looked at again, ms: the first time, and at most. Ends of other things are not told. */
const FIRST_LOOK_MS = 2;
const LAST_LOOK_MS = 100;

// Taken before user code is loaded, which may put its own in their place.
const { setTimeout, clearTimeout, setImmediate } = globalThis;

class Attempt {
  #handler;
  #controller = new AbortController();
  #context;
  #settle;
  #spared;
  #graceMs = 0;
  #givenUp = null;
  #left = ['its handler'];

  constructor(settings, handler, invocation, spared) {
    this.#handler = handler;
    this.#spared = spared;
    this.invocation = invocation;
    this.owner = new ownership.Owned(invocation.requestId, invocation.invocationId);
    this.owner.fail = (error) => this.#fail(error);
    this.owner.isCancelled = () => this.reason !== null;
    setMaxListeners(0, this.#controller.signal); // one for each thing that takes it
    this.#context = new Context(settings, invocation, this.#controller.signal);
    /** Why it is cancelled: the node's word; null while it is not. */
    this.reason = null;
    /** What it gave, once it did: `{encoded}` or `{failure}`. */
    this.outcome = new Promise((resolve) => { this.#settle = resolve; });
    this.isSettled = false;
    /** Whether the handler is over: not before its promise is, or its callback was called. */
    this.hasEnded = false;
    this.ended = null;
    /** Whether it ends only with what it left: its place and its processes are nobody else's before. */
    this.isEnding = false;
  }

  /** Calls the handler. `outcome` and `ended` tell the rest. */
  start() {
    this.ended = this.owner.run(() => this.#call()).then(() => { this.hasEnded = true; });
  }

  /** Resolves when the handler is over; never rejects. */
  async #call() {
    let called;
    const calledBack = new Promise((resolve) => { called = resolve; });
    const callback = (error, result) => {
      called();
      if (error === null || error === undefined) this.#succeed(result);
      else this.#fail(error);
    };
    try {
      const returned = this.#handler(wire.readEvent(this.invocation), this.#context, callback);
      if (typeof returned?.then === 'function') this.#succeed(await returned);
      // Whoever takes a callback may return anything, such as the timer that will call it.
      else if (this.#handler.length >= 3) await calledBack;
      else this.#succeed(returned);
    } catch (error) {
      this.#fail(error);
    }
  }

  #succeed(result) {
    if (this.isSettled) return;
    try {
      this.#finish({ encoded: wire.encodeResult(result) });
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Whether it was this that failed the request: it had not settled. */
  #fail(error) {
    if (this.isSettled) return false;
    // What a cancelled handler throws is no news.
    const failure = this.reason === null ? wire.describeError(error) : null;
    if (failure !== null) {
      // Whoever wrote the function looks for this in its output; in one write, so that it stays together.
      process.stderr.write([`${failure.kind}: ${failure.message}`, ...failure.stack].join('\n    ') + '\n');
    }
    this.#finish({ failure });
    return true;
  }

  #finish(outcome) {
    this.isSettled = true;
    this.#settle(outcome);
  }

  /** The node's notice: aborts the signal, once. */
  cancel({ reason, graceMs }) {
    if (this.reason !== null) return;
    this.reason = reason;
    this.#graceMs = graceMs;
    this.#givenUp = setTimeout(() => this.#giveUp(), graceMs * GIVEN_UP_SHARE);
    // Those who listen are code of the request.
    this.owner.run(() => this.#controller.abort(cancellation(reason)));
  }

  #giveUp() {
    const what = [...new Set(this.#left)].join(', ');
    say(`${this.invocation.requestId} was cancelled (${this.reason}), and not acknowledged, as there runs still: ${what}`);
  }

  /**
   * Resolves when the handler is over and nothing that is known to be of this request is left, which may be
   * never. `others` gives those who run besides it.
   */
  async end(others) {
    await this.ended;
    this.isEnding = true;
    let pause = FIRST_LOOK_MS;
    for (;;) {
      await new Promise((resolve) => { setImmediate(resolve); }); // what it has on its last steps
      this.#left = this.owner.endLeftovers(this.#graceMs);
      if (ownership.processesWereStarted()) {
        this.#left.push(...processes.endOwned(this.owner, this.#spared, others()));
      }
      if (this.#left.length === 0) break;
      await new Promise((resolve) => { setTimeout(resolve, pause); });
      pause = Math.min(pause * 2, LAST_LOOK_MS);
    }
    clearTimeout(this.#givenUp);
  }
}

module.exports = { Attempt };
