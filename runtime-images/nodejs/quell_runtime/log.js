'use strict';

// Lines that say which request they are of.

const { format } = require('node:util');
const ownership = require('./ownership.js');

/** The levels of console's methods. */
const LEVELS = { debug: 'DEBUG', log: 'INFO', info: 'INFO', warn: 'WARNING', error: 'ERROR' };

/** `<UTC time> <LEVEL> <request id> <message>`, in one write so that lines do not mix. */
function writeLine(stream, level, requestId, args) {
  stream.write(`${new Date().toISOString()} ${level} ${requestId} ${format(...args)}\n`);
}

/** The logger of `context.getLogger()`. */
class RequestLogger {
  #requestId;

  constructor(requestId) {
    this.#requestId = requestId;
  }

  /** Writes at level DEBUG; as `console.log`, `args` are put into a message with % places. */
  debug(...args) {
    writeLine(process.stdout, 'DEBUG', this.#requestId, args);
  }

  /** Writes at level INFO. */
  info(...args) {
    writeLine(process.stdout, 'INFO', this.#requestId, args);
  }

  /** Writes at level WARNING. */
  warn(...args) {
    writeLine(process.stdout, 'WARNING', this.#requestId, args);
  }

  /** The same. */
  warning(...args) {
    this.warn(...args);
  }

  /** Writes at level ERROR. */
  error(...args) {
    writeLine(process.stdout, 'ERROR', this.#requestId, args);
  }
}

/**
 * Has what is printed with `console` inside a request say which one. Where requests follow one another the
 * lines are left as they are: there is no doubt.
 */
function markConsole() {
  for (const [name, level] of Object.entries(LEVELS)) {
    const original = console[name];
    const stream = name === 'warn' || name === 'error' ? process.stderr : process.stdout;
    console[name] = (...args) => {
      const owner = ownership.current();
      if (owner === null) original.apply(console, args);
      else writeLine(stream, level, owner.requestId, args);
    };
  }
}

/** A line of the image itself, on standard error. */
function say(text) {
  process.stderr.write(`quell: ${text}\n`);
}

module.exports = { RequestLogger, markConsole, say };
