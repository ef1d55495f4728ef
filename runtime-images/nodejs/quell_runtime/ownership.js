'use strict';

// Requests share one event loop: which of them made a timer, a socket, a job, a thread or a process, and
// what of that is left. Whatever is made while code of a request runs belongs to that request.
//
// The hook sees things being made and nothing else: to be told of their ends as well would have every promise
// tracked by the collector. Whether something is left is asked when a cancelled request has to be ended.

const { AsyncLocalStorage, createHook } = require('node:async_hooks');
const diagnostics = require('node:diagnostics_channel');
const childProcess = require('node:child_process');

// Taken before user code is loaded, which may put its own in their place.
const { clearTimeout, performance } = globalThis;

const context = new AsyncLocalStorage();
/** On a handle or a pending operation: whose it is. A connection that is used again is the later one's. */
const OWNER = Symbol('quell owner');
/** What lives in the loop until it is closed, by the names that Node gives in its hooks. */
const HANDLES = new Set([
  'TCPWRAP', 'TCPSERVERWRAP', 'PIPEWRAP', 'PIPESERVERWRAP', 'UDPWRAP', 'TTYWRAP', 'PROCESSWRAP', 'FSEVENTWRAP',
  'STATWATCHER', 'WORKER', 'MESSAGEPORT',
]);
/** What is under way until it calls back. */
const OPERATIONS = new Set([
  'FSREQCALLBACK', 'FSREQPROMISE', 'GETADDRINFOREQWRAP', 'GETNAMEINFOREQWRAP', 'TCPCONNECTWRAP', 'PIPECONNECTWRAP',
  'WRITEWRAP', 'SHUTDOWNWRAP', 'UDPSENDWRAP',
]);
/** The variable that names the invocation a process belongs to. */
const MARKER = 'QUELL_INVOCATION';
/** Things kept of a request before it is looked which of them are over. */
const FIRST_SWEEP = 256;

/** Things of one kind; those that are over are dropped when as many as were alive have been added. */
class Things {
  #list = [];
  #sweepAt = FIRST_SWEEP;
  #isAlive;

  constructor(isAlive) {
    this.#isAlive = isAlive;
  }

  add(thing) {
    this.#list.push(thing);
    if (this.#list.length >= this.#sweepAt) this.alive();
  }

  alive() {
    this.#list = this.#list.filter(this.#isAlive);
    this.#sweepAt = Math.max(FIRST_SWEEP, this.#list.length * 2);
    return this.#list;
  }
}

/** What one request has made and may still run. */
class Owned {
  constructor(requestId, invocationId) {
    this.requestId = requestId;
    this.invocationId = invocationId;
    // Set by its attempt: fails the request, and tells whether it had no answer yet.
    this.fail = () => false;
    this.isCancelled = () => false;
    this.timers = new Things((timer) => !timer._destroyed);
    this.handles = new Things((handle) => handle[OWNER] === this && handle.hasRef() === true);
    this.jobs = new Set();
    this.fetches = new Set();
    this.workers = new Set();
    this.processes = new Set();
    this.startedProcesses = false;
    this.scope = { owner: this, counts: true };
    // Connections and timers of `fetch` are shared by all requests: its requests are counted, not those.
    this.insideFetch = { owner: this, counts: false };
  }

  /** Runs code of this request. */
  run(work) {
    return context.run(this.scope, work);
  }

  note(type, resource) {
    if (type === 'Timeout') {
      // Without a reference from the beginning: Node's own, such as the time limit of a socket.
      if (resource.hasRef()) this.timers.add(resource);
    } else if (type === 'Immediate') {
      this.timers.add(resource);
    } else if (HANDLES.has(type)) {
      const handle = resource.handle ?? resource; // of a kept connection that is used again
      handle[OWNER] = this;
      if (typeof handle.hasRef === 'function') this.handles.add(handle);
    } else if (OPERATIONS.has(type)) {
      resource[OWNER] = this;
    } else if (type.endsWith('REQUEST') && resource.constructor.name.endsWith('Job')) {
      this.#noteJob(resource, 'ondone');
    } else if (type === 'QUERYWRAP') {
      this.#noteJob(resource, 'oncomplete');
    } else if (type === 'ZLIB') {
      this.#noteStream(resource);
    }
  }

  /** A job of `crypto` or `dns` tells its end through a function that is put on it when it is made, or before. */
  #noteJob(job, name) {
    const given = job[name];
    let done;
    Object.defineProperty(job, name, {
      configurable: true,
      get: () => done,
      set: (told) => {
        this.jobs.add(job);
        done = (...args) => {
          this.jobs.delete(job);
          return told.apply(job, args);
        };
      },
    });
    if (typeof given === 'function') job[name] = given;
  }

  /** A stream of `zlib` is at work from each write until it tells by the function that it was begun with. */
  #noteStream(stream) {
    const { init, write, close } = stream;
    const over = () => this.jobs.delete(stream);
    stream.init = (...args) => {
      const told = args.findIndex((arg) => typeof arg === 'function');
      if (told >= 0) {
        const tell = args[told];
        args[told] = function tellOnceOver(...results) {
          over();
          return tell.apply(this, results);
        };
      }
      return init.apply(stream, args);
    };
    stream.write = (...args) => {
      this.jobs.add(stream);
      return write.apply(stream, args);
    };
    stream.close = (...args) => {
      over();
      return close.apply(stream, args);
    };
  }

  /**
   * Ends what can be ended without harm to others, and names what is left. A timer that fires once, but not
   * within `longMs`, is one that was forgotten: nobody else waits for it. (A sooner one may be what sends off
   * a batch that others have put something into.)
   */
  endLeftovers(longMs) {
    const left = [];
    for (const timer of [...this.timers.alive()]) {
      const once = timer._repeat === null;
      const dueMs = timer._idleStart + timer._idleTimeout - performance.now();
      if (once && dueMs > longMs) clearTimeout(timer);
      else left.push(once ? 'a timer' : timer._repeat === undefined ? 'an immediate' : 'an interval');
    }
    for (const worker of this.workers) worker.terminate();
    for (const handle of this.handles.alive()) left.push(handle.constructor.name);
    for (const operation of process._getActiveRequests()) {
      if (operation[OWNER] === this) left.push(operation.constructor.name);
    }
    for (const job of this.jobs) left.push(job.constructor.name);
    if (this.fetches.size > 0) left.push('fetch');
    if (this.workers.size > 0) left.push('a worker thread');
    return left;
  }
}

/** The request whose code runs now, or null. */
function current() {
  return context.getStore()?.owner ?? null;
}

/** Runs work that is the image's own, whoever calls it. */
function outside(work) {
  return context.exit(work);
}

/** Whether any process was ever started by a known way; if not, there is no need to look for them. */
let anyProcess = false;

function processesWereStarted() {
  return anyProcess;
}

/** Begins to watch. Before user code is loaded. */
function install() {
  createHook({
    init(_id, type, _trigger, resource) {
      if (type === 'PROMISE') return; // most of all, and first: it runs no code that nothing else here shows
      const scope = context.getStore();
      if (scope?.counts === true) scope.owner.note(type, resource);
    },
  }).enable();
  installFetch();
  installProcesses();
  process.on('worker', (worker) => {
    const owner = current();
    anyProcess = true; // what a thread starts is not seen
    if (owner === null) return;
    owner.startedProcesses = true;
    owner.workers.add(worker);
    worker.once('exit', () => owner.workers.delete(worker));
  });
}

function installFetch() {
  const original = globalThis.fetch;
  if (typeof original !== 'function') return;
  globalThis.fetch = function fetch(input, init) {
    const owner = current();
    if (owner === null) return original(input, init);
    return context.run(owner.insideFetch, original, input, init);
  };
  const owners = new WeakMap();
  diagnostics.subscribe('undici:request:create', ({ request }) => {
    const owner = current();
    if (owner === null) return;
    owners.set(request, owner);
    owner.fetches.add(request);
  });
  const over = ({ request }) => owners.get(request)?.fetches.delete(request);
  diagnostics.subscribe('undici:request:trailers', over);
  diagnostics.subscribe('undici:request:error', over);
}

/** All of spawn, exec, execFile and fork go through one method; the synchronous ones are only noted. */
function installProcesses() {
  const { spawn } = childProcess.ChildProcess.prototype;
  childProcess.ChildProcess.prototype.spawn = function spawnMarked(options) {
    const owner = current();
    anyProcess = true;
    if (owner !== null) {
      owner.startedProcesses = true;
      if (Array.isArray(options?.envPairs)) {
        const pairs = options.envPairs.filter((pair) => !pair.startsWith(`${MARKER}=`));
        options = { ...options, envPairs: [...pairs, `${MARKER}=${owner.invocationId}`] };
      }
    }
    const result = spawn.call(this, options);
    const { pid } = this;
    if (owner !== null && pid) {
      owner.processes.add(pid);
      this.once('exit', () => owner.processes.delete(pid)); // the number may be another's soon
    }
    return result;
  };
  for (const name of ['spawnSync', 'execSync', 'execFileSync']) {
    const original = childProcess[name];
    childProcess[name] = function startAndWait(...args) {
      anyProcess = true;
      const owner = current();
      if (owner !== null) owner.startedProcesses = true;
      return original.apply(this, args);
    };
  }
  require('node:module').syncBuiltinESMExports();
}

module.exports = { MARKER, Owned, current, install, outside, processesWereStarted };
