// What lives, kept up to date by the node's events; and the connection to it, made again when it is lost.

import { ask, events, isSignedIn, Refused, setScopes, signOut } from './api.js';
import { setNodeClock } from './words.js';

/** Milliseconds before the first try to connect again; doubled for each further one. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** So many heartbeats without a sign of the node are a lost connection. */
const SILENT_BEATS = 3;
const USUAL_BEAT = 5_000;

export class Live {
  constructor() {
    this.requests = new Map();
    this.instances = new Map();
    this.head = { live: 0, truncated: false, draining: false, unwritten: 0 };
    this.project = null;
    this.listeners = new Set();
    this.onConnection = () => {};
    this.abort = null;
    this.wake = null;
    this.beat = USUAL_BEAT;
  }

  /** Called after each change with what has changed. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Connects, again and again, until it is stopped. */
  async run() {
    const own = new AbortController();
    this.abort?.abort();
    this.abort = own;
    let failed = 0;
    while (!own.signal.aborted && isSignedIn()) {
      let why;
      try {
        why = await this.connection(own.signal, () => { failed = 0; });
      } catch (error) {
        if (own.signal.aborted) return;
        why = error instanceof Refused ? error.words : 'the node cannot be reached';
      }
      if (own.signal.aborted || !isSignedIn()) return;
      const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failed);
      failed += 1;
      // Spread: the pages of many people must not all come back at the same moment.
      const pause = longest / 2 + Math.random() * longest / 2;
      this.onConnection({ lost: true, why, pause });
      await this.paused(pause, own.signal);
    }
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
    this.wake?.();
    this.apply(gone(this.requests), gone(this.instances), [], [], { live: 0 });
  }

  /** Tries at once. */
  hurry() {
    this.wake?.();
  }

  paused(ms, signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => { clearTimeout(timer); resolve(); };
      signal.addEventListener('abort', () => this.wake?.(), { once: true });
    });
  }

  /** One connection, from its first event to its last; returns why it ended. */
  async connection(signal, connected) {
    const cut = new AbortController();
    const stop = () => cut.abort();
    signal.addEventListener('abort', stop, { once: true });
    let silent = false;
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => { silent = true; cut.abort(); }, SILENT_BEATS * this.beat);
    };
    try {
      heard();
      const answer = await ask('/quell/v1/events', { signal: cut.signal });
      // Of the first moment, which is all there is: what is not in it is gone.
      let seen = { requests: new Set(), instances: new Set() };
      for await (const { name, data } of events(answer, heard)) {
        if (name === 'hello') {
          this.greeted(data);
        } else if (name === 'changes') {
          this.changes(data, seen);
          if (seen && !data.more) {
            seen = null;
            connected();
            this.onConnection({ lost: false });
          }
        } else if (name === 'end') {
          if (data.error_code === 'FSS.0403') signOut('This token is not valid any more: it has expired, or was revoked.');
          return data.error_msg;
        }
      }
      return 'the node closed the connection';
    } catch (error) {
      if (silent) return 'the node has been silent for too long';
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      cut.abort();
    }
  }

  greeted(hello) {
    this.project = hello.project;
    this.beat = hello.heartbeat_ms;
    setScopes(hello.scopes);
    setNodeClock(hello.now_ms);
  }

  changes(data, seen) {
    let goneRequests = data.gone;
    let goneInstances = data.gone_instances;
    if (seen) {
      for (const row of data.requests) seen.requests.add(row.request_id);
      for (const row of data.instances) seen.instances.add(row.instance);
      if (!data.more) {
        goneRequests = [...this.requests.keys()].filter((id) => !seen.requests.has(id));
        goneInstances = [...this.instances.keys()].filter((id) => !seen.instances.has(id));
      }
    }
    const { live, truncated, draining, unwritten } = data;
    this.apply(goneRequests, goneInstances, data.requests, data.instances, { live, truncated, draining, unwritten });
  }

  apply(goneRequests, goneInstances, requests, instances, head) {
    for (const id of goneRequests) this.requests.delete(id);
    for (const id of goneInstances) this.instances.delete(id);
    // A row that was there may come again after a reconnection: nothing of it has changed then.
    const news = requests.filter((row) => !same(this.requests.get(row.request_id), row));
    for (const row of news) this.requests.set(row.request_id, row);
    const fresh = instances.filter((row) => !same(this.instances.get(row.instance), row));
    for (const row of fresh) this.instances.set(row.instance, row);
    Object.assign(this.head, head);
    for (const listener of this.listeners) listener({ goneRequests, goneInstances, requests: news, instances: fresh });
  }
}

const gone = (map) => [...map.keys()];
const same = (one, other) => one !== undefined && JSON.stringify(one) === JSON.stringify(other);
