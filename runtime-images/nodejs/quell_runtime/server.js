'use strict';

// Takes up to N requests at once, passes cancellations on, answers.

const wire = require('./wire.js');
const processes = require('./processes.js');
const ownership = require('./ownership.js');
const { Attempt } = require('./attempt.js');

/** Cancelled invocation ids kept whose request has not come: more than can be on their way to one instance. */
const REMEMBERED = 256;
/** How long a handler may run on after its request failed, ms: enough for one that is about to be over. */
const ENDS_SOON_MS = 100;

// Taken before user code is loaded, which may put its own in their place.
const { setTimeout, clearTimeout } = globalThis;

class Server {
  #settings;
  #node;
  #handler;
  #initial;
  #live = new Map();
  #early = new Map();
  #taken = 0; // until their answers have arrived
  #spoilt = false;
  #fail = () => {};
  #freed = () => {};

  constructor(settings, node, handler) {
    this.#settings = settings;
    this.#node = node;
    this.#handler = handler;
    this.#initial = processes.baseline(); // what the initializer started
  }

  /** The requests in work. */
  get size() {
    return this.#taken;
  }

  /** Rejects with NodeGone when the node is gone; resolves when this instance is spoilt and has nothing to do. */
  async run() {
    let begun;
    const listening = new Promise((resolve) => { begun = resolve; });
    const cancellations = this.#holdCancellations(begun);
    await Promise.race([listening, cancellations]);
    const failed = new Promise((_, reject) => { this.#fail = reject; });
    await Promise.race([cancellations, failed, this.#holdRequests()]);
  }

  /** Something happened that another process is better off without: this one ends when it has nothing to do. */
  spoil() {
    this.#spoilt = true;
    this.#endIfIdle();
  }

  async #holdCancellations(onSent) {
    for (;;) this.#onNotice(await this.#node.nextNotice(onSent));
  }

  #onNotice(notice) {
    const attempt = this.#live.get(notice.invocationId);
    if (attempt !== undefined) return attempt.cancel(notice);
    // Perhaps the request is on its way on the other connection.
    this.#early.set(notice.invocationId, notice);
    if (this.#early.size > REMEMBERED) this.#early.delete(this.#early.keys().next().value);
  }

  async #holdRequests() {
    for (;;) {
      while (this.#taken >= this.#settings.concurrency) {
        await new Promise((resolve) => { this.#freed = resolve; });
      }
      if (this.#spoilt && this.#taken === 0) return;
      const invocation = await this.#node.nextInvocation();
      if (invocation === null) return;
      this.#taken += 1;
      this.#serve(invocation).then(() => this.#free()).catch(this.#fail);
    }
  }

  async #serve(invocation) {
    const spared = ownership.processesWereStarted() ? processes.baseline() : this.#initial;
    const attempt = new Attempt(this.#settings, this.#handler, invocation, spared);
    const early = this.#early.get(invocation.invocationId);
    this.#early.delete(invocation.invocationId);
    if (early !== undefined) return this.#node.postError(invocation, wire.canceledBody(early.reason));
    this.#live.set(invocation.invocationId, attempt);
    attempt.start();
    const { encoded, failure } = await attempt.outcome;
    if (attempt.reason !== null) await attempt.end(() => this.#others(attempt));
    // Before the post: a notice from now on finds nothing to cancel.
    this.#live.delete(invocation.invocationId);
    if (attempt.reason !== null) {
      await this.#node.postError(invocation, wire.canceledBody(attempt.reason));
    } else if (failure) {
      await this.#node.postError(invocation, wire.errorBody(failure));
      // Its code goes on in a place that the node takes for free.
      if (!attempt.hasEnded) await this.#endsSoon(attempt);
    } else {
      await this.#node.postResponse(invocation, encoded);
    }
  }

  #free() {
    this.#taken -= 1;
    this.#freed();
    this.#endIfIdle();
  }

  /** A handler whose request failed meanwhile (by what it did not await) is over in a moment, or spoils the instance. */
  async #endsSoon(attempt) {
    let limit;
    await Promise.race([attempt.ended, new Promise((resolve) => { limit = setTimeout(resolve, ENDS_SOON_MS); })]);
    clearTimeout(limit);
    if (!attempt.hasEnded) this.#spoilt = true;
  }

  /** What may be of others: of requests that run, and are not ending themselves. */
  #others(attempt) {
    return [...this.#live.values()].filter((other) => other !== attempt && !other.isEnding).map((other) => other.owner);
  }

  #endIfIdle() {
    if (this.#spoilt && this.#taken === 0) this.#node.withdraw();
  }
}

module.exports = { Server };
