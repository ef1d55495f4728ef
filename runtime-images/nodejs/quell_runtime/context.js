'use strict';

// The `context` a handler gets: FunctionGraph's methods, and ours for cancelling and invoking.

const subinvoke = require('./subinvoke.js');
const { RequestLogger } = require('./log.js');

/** A signal that never comes, for code that is no request's. */
const NEVER = new AbortController().signal;

/** One request as user code sees it. With no invocation: what an initializer gets. */
class Context {
  #settings;
  #headers;
  #requestId;
  #deadlineMs;

  constructor(settings, invocation = null, signal = NEVER) {
    this.#settings = settings;
    this.#headers = invocation?.headers ?? {};
    this.#requestId = invocation?.requestId ?? '';
    this.#deadlineMs = invocation?.deadlineMs ?? Date.now() + settings.timeoutS * 1000;
    /** Aborted when this request is cancelled; its `reason.word` is "cancel", "deadline" or "disconnect". */
    this.signal = signal;
  }

  /** Whether this request has been cancelled. */
  get cancelled() {
    return this.signal.aborted;
  }

  /** "cancel", "deadline" or "disconnect"; null while it is not cancelled. */
  get cancelReason() {
    return this.signal.aborted ? this.signal.reason.word : null;
  }

  /**
   * Invokes a function (name or URN) and resolves to its result, decoded if it is JSON. Rejects with a
   * SubInvocationError if it is refused or fails, and with `signal.reason` if this request, or
   * `options.signal`, is aborted.
   */
  async invoke(functionName, event, { signal } = {}) {
    return subinvoke.resultOf(await this.#perform('invocations', functionName, event, { signal }));
  }

  /**
   * Has a function invoked later; resolves to its request id. `detached`: not as a child of this request.
   * Rejects with what `invoke` rejects with.
   */
  async invokeAsync(functionName, event, { detached = false, signal } = {}) {
    return subinvoke.requestIdOf(await this.#perform('invocations-async', functionName, event, { detached, signal }));
  }

  async #perform(operation, functionName, event, { detached = false, signal }) {
    const { endpoint, projectId } = this.#settings;
    const limited = signal ? eitherOf(this.signal, signal) : { signal: this.signal, release() {} };
    try {
      return await subinvoke.perform({
        endpoint, projectId, token: this.getToken(), functionName, event, operation, detached, signal: limited.signal,
      });
    } finally {
      limited.release();
    }
  }

  /** The id of this request. */
  getRequestID() {
    return this.#requestId;
  }

  /** How long the function may still run, in ms; 0 when the time is over. */
  getRemainingTimeInMilliSeconds() {
    return Math.max(0, Math.floor(this.#deadlineMs - Date.now()));
  }

  /** The timeout of the function, in s. */
  getRunningTimeInSeconds() {
    return this.#settings.timeoutS;
  }

  /** A value of the function's user data. */
  getUserData(key, otherwise) {
    const { userData } = this.#settings;
    return Object.hasOwn(userData, key) ? userData[key] : otherwise;
  }

  /** The name of the function. */
  getFunctionName() {
    return this.#settings.functionName;
  }

  /** The version of the function. */
  getVersion() {
    return this.#settings.version;
  }

  /** The alias it was invoked by; "" if by version. */
  getAlias() {
    return this.#headers['x-quell-alias'] ?? '';
  }

  /** The W3C trace context of this request: what is begun in it is below that; "" if it is in no trace. */
  getTraceparent() {
    return this.#headers.traceparent ?? '';
  }

  /** The tracestate that goes with it. */
  getTracestate() {
    return this.#headers.tracestate ?? '';
  }

  /** The memory of the function, in MB. */
  getMemorySize() {
    return this.#settings.memoryMb;
  }

  /** The CPU share of the function, in the unit the node tells. */
  getCPUNumber() {
    return this.#settings.cpu;
  }

  /** The project the function belongs to. */
  getProjectID() {
    return this.#settings.projectId;
  }

  /** The package (application) of the function. */
  getPackage() {
    return this.#settings.package;
  }

  /** The token of this attempt: what is invoked with it is a child of this request. */
  getToken() {
    return this.#headers['x-cff-auth-token'] ?? '';
  }

  /** A logger with debug, info, warn and error. */
  getLogger() {
    return new RequestLogger(this.#requestId);
  }

  /** The temporary access key of this attempt; "" if the node gave none. */
  getSecurityAccessKey() {
    return this.#headers['x-cff-access-key'] ?? '';
  }

  /** The temporary secret key of this attempt. */
  getSecuritySecretKey() {
    return this.#headers['x-cff-secret-key'] ?? '';
  }

  /** The security token that goes with the temporary keys. */
  getSecurityToken() {
    return this.#headers['x-cff-security-token'] ?? '';
  }

  /** As `getSecurityAccessKey`. */
  getAccessKey() {
    return this.getSecurityAccessKey();
  }

  /** As `getSecuritySecretKey`. */
  getSecretKey() {
    return this.getSecuritySecretKey();
  }
}

/** A signal that is aborted with either of two; Node 18 has no AbortSignal.any. */
function eitherOf(one, other) {
  const both = new AbortController();
  const pass = (event) => both.abort(event.target.reason);
  for (const signal of [one, other]) {
    if (signal.aborted) both.abort(signal.reason);
    signal.addEventListener('abort', pass);
  }
  const release = () => [one, other].forEach((signal) => signal.removeEventListener('abort', pass));
  return { signal: both.signal, release };
}

module.exports = { Context };
