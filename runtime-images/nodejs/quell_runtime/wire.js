'use strict';

// The node's runtime protocol as paths, headers and bodies (README.md, and docs/api.md of the node).

const { inspect } = require('node:util');
const { NodeGone } = require('./errors.js');

const REQUEST_PATH = '/v1/runtime/invocation/request';
const CANCELLATION_PATH = '/v1/runtime/invocation/cancellation/next';
const RESPONSE_PATH = '/v1/runtime/invocation/response/';
const ERROR_PATH = '/v1/runtime/invocation/error/';
const INIT_ERROR_PATH = '/v1/runtime/init/error';

/** Of an error message: enough for any diagnosis, and an error can hold a whole body. */
const MAX_MESSAGE_CHARS = 64 * 1024;
/** Of a stack trace. */
const MAX_STACK_FRAMES = 100;
/** Kinds of error that mean something to the node; an error of user code is none of them. */
const MEANT_FOR_THE_NODE = new Set(['InvocationCanceled', 'RuntimeExited']);

/** One request as received: `{headers, body, requestId, invocationId, deadlineMs}`. Throws NodeGone. */
function readInvocation({ status, headers, body }) {
  const requestId = headers['x-cff-request-id'];
  if (status !== 200 || !requestId) throw new NodeGone(`request poll answered ${status}`);
  const deadline = Number(headers['x-quell-deadline-ms']);
  return {
    headers,
    body,
    requestId,
    invocationId: headers['x-quell-invocation-id'] || requestId,
    deadlineMs: Number.isFinite(deadline) ? deadline : null,
  };
}

/** The decoded event; a Buffer if it is not (valid) JSON. */
function readEvent({ headers, body }) {
  const kind = (headers['content-type'] || '').split(';')[0].trim().toLowerCase();
  if (kind !== 'application/json') return body;
  if (body.length === 0) return null;
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return body;
  }
}

/** One notice: `{invocationId, reason, graceMs}`. Throws NodeGone if the answer of the poll is none. */
function readNotice({ status, body }) {
  if (status !== 200) throw new NodeGone(`cancellation poll answered ${status}`);
  try {
    const told = JSON.parse(body.toString('utf8'));
    const invocationId = told.invocationId || told.requestId;
    if (typeof invocationId !== 'string') throw new Error('no id');
    return { invocationId, reason: String(told.reason || 'cancel'), graceMs: Number(told.graceMs) || 0 };
  } catch {
    throw new NodeGone(`unreadable cancellation: ${body.toString('utf8').slice(0, 200)}`);
  }
}

/** `[content type, body]` of what a handler gave. Throws TypeError for what JSON cannot express. */
function encodeResult(value) {
  if (typeof value === 'string') return ['text/plain; charset=utf-8', Buffer.from(value)];
  if (value instanceof Uint8Array) return ['application/octet-stream', Buffer.from(value)];
  if (value === undefined) return ['application/json', Buffer.from('null')];
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a result of type ${typeof value} has no JSON`);
  return ['application/json', Buffer.from(text)];
}

/** `{kind, message, stack}` of whatever user code threw. */
function describeError(error) {
  let kind = 'Error';
  let message;
  let frames = [];
  try {
    if (error !== null && typeof error === 'object' && typeof error.message === 'string') {
      kind = String(error.name || error.constructor?.name || kind);
      message = error.message;
      frames = framesOf(error);
    } else {
      message = typeof error === 'string' ? error : inspect(error);
    }
  } catch (broken) {
    message = `its message could not be built: ${broken}`;
  }
  // The name of an error is user code's to choose; these names are not.
  if (MEANT_FOR_THE_NODE.has(kind)) kind = `HandlerThrew${kind}`;
  return { kind, message: message.slice(0, MAX_MESSAGE_CHARS), stack: frames };
}

/** The lines of a stack that are not this image's. */
function framesOf(error) {
  const lines = String(error.stack || '').split('\n').filter((line) => /^\s+at /.test(line));
  return lines.filter((line) => !line.includes(__dirname)).slice(0, MAX_STACK_FRAMES).map((line) => line.trim());
}

/** The body of an error post, from what `describeError` gives. */
function errorBody({ kind, message, stack }) {
  return Buffer.from(JSON.stringify({ errorType: kind, errorMessage: message, stackTrace: stack }));
}

/** The acknowledgement: the code of this request, and what it started, has ended. */
function canceledBody(word) {
  return errorBody({ kind: 'InvocationCanceled', message: `the invocation was cancelled: ${word}`, stack: [] });
}

module.exports = {
  REQUEST_PATH, CANCELLATION_PATH, RESPONSE_PATH, ERROR_PATH, INIT_ERROR_PATH,
  readInvocation, readEvent, readNotice, encodeResult, describeError, errorBody, canceledBody,
};
