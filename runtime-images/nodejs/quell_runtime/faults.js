'use strict';

// What user code does to the whole process, and to whom it is charged: exceptions that nobody caught, and
// `process.exit`.

const ownership = require('./ownership.js');
const { say } = require('./log.js');
const wire = require('./wire.js');

/** Thrown in the place of an exit, which a request has no right to: others may be in this process. */
class ProcessExit extends Error {
  constructor(code) {
    super(`the handler called process.exit(${code ?? ''})`);
    this.name = 'ProcessExit';
  }
}

/**
 * Fails the request to which a fault belongs. `spoil` is called where the process should not go on for long:
 * what an exception left half done in the middle of a callback is not known.
 */
function install(spoil) {
  process.on('uncaughtException', (error, origin) => {
    const owner = ownership.current();
    if (owner === null || !owner.fail(error)) report(error, origin, owner);
    spoil();
  });
  process.on('unhandledRejection', (error) => {
    const owner = ownership.current();
    if (owner === null || !owner.fail(error)) report(error, 'unhandledRejection', owner);
  });
  const { exit } = process;
  process.exit = (code) => {
    const owner = ownership.current();
    if (owner === null) return exit.call(process, code);
    const error = new ProcessExit(code);
    owner.fail(error);
    spoil();
    throw error;
  };
}

/** One that fails nobody: its request has its answer, or it belongs to none. */
function report(error, origin, owner) {
  if (error instanceof ProcessExit) return;
  if (owner?.isCancelled() && ['AbortError', 'TimeoutError'].includes(error?.name)) return; // as it was asked to
  const { kind, message, stack } = wire.describeError(error);
  const whose = owner === null ? 'of no request' : `of ${owner.requestId}, which is answered`;
  say([`${origin} ${whose}: ${kind}: ${message}`, ...stack].join('\n    '));
}

module.exports = { install };
