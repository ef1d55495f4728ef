'use strict';

// The errors user code meets, and the one the image keeps to itself.

/** FunctionGraph's code for a cancelled invocation, also seen as `FSS.4208`. */
const CANCELED_ERROR_CODE = '4208';

/**
 * The reason of `context.signal`: a DOMException named AbortError, for a deadline TimeoutError.
 * Its `word` is "cancel", "deadline" or "disconnect".
 */
function cancellation(word) {
  const name = word === 'deadline' ? 'TimeoutError' : 'AbortError';
  const error = new DOMException(`the invocation was cancelled: ${word}`, name);
  Object.defineProperty(error, 'word', { value: word, enumerable: true });
  return error;
}

/**
 * The node refused a sub-invocation, or the invoked function failed. `status` is the HTTP status,
 * `errorCode` and `errorMsg` are those of the answer ("" where it had none).
 */
class SubInvocationError extends Error {
  constructor(status, errorCode, errorMsg) {
    super(`${status} ${errorCode || '-'}: ${errorMsg}`);
    this.name = 'SubInvocationError';
    this.status = status;
    this.errorCode = errorCode;
    this.errorMsg = errorMsg;
  }

  /** Whether the answer says that a cancellation is the cause. */
  get canceled() {
    return this.errorCode.split('.').pop() === CANCELED_ERROR_CODE;
  }

  /** Whether this request may start no more children (it is being stopped). */
  get refused() {
    return this.canceled || this.status === 401 || this.status === 403;
  }
}

/** The node refused or closed a connection: this instance has to end. */
class NodeGone extends Error {
  constructor(message) {
    super(message);
    this.name = 'NodeGone';
  }
}

module.exports = { NodeGone, SubInvocationError, cancellation };
