'use strict';

// The client of the node: kept connections, held polls, answers.

const http = require('node:http');
const wire = require('./wire.js');
const { NodeGone } = require('./errors.js');

/** Ten times FunctionGraph's 6 MiB limit of events: only a broken peer sends more. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;

// Taken before user code is loaded, which may put its own in their place.
const { request } = http;

/** One exchange. Rejects with what the connection failed of; `error.reused` if it was a kept one. */
function exchange(options, body, onRequest = () => {}) {
  return new Promise((resolve, reject) => {
    const sent = request(options);
    const fail = (error) => reject(Object.assign(error, { reused: sent.reusedSocket === true }));
    sent.on('error', fail);
    sent.on('response', (response) => {
      const parts = [];
      let size = 0;
      response.on('error', fail);
      response.on('data', (part) => {
        size += part.length;
        if (size > MAX_BODY_BYTES) response.destroy(new Error(`body over ${MAX_BODY_BYTES} bytes`));
        else parts.push(part);
      });
      response.on('end', () => {
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) });
      });
    });
    onRequest(sent);
    sent.end(body);
  });
}

/** The node at its Runtime API. Everything here rejects with NodeGone when it cannot be reached. */
class NodeClient {
  constructor({ apiHost, apiPort, concurrency, maxResponseBytes }) {
    this._base = { host: apiHost, port: apiPort };
    // Each poll has a connection of its own, so that an answer never waits behind one.
    this._agents = {
      request: new http.Agent({ keepAlive: true, maxSockets: 1 }),
      cancellation: new http.Agent({ keepAlive: true, maxSockets: 1 }),
      answers: new http.Agent({ keepAlive: true, maxSockets: concurrency + 1 }),
    };
    this._maxResponseBytes = maxResponseBytes;
    this._held = null;
    this._withdrawn = false;
  }

  /** Holds the request poll; null if it was withdrawn and nothing came. */
  async nextInvocation() {
    this._withdrawn = false;
    try {
      const get = this._get('request', wire.REQUEST_PATH, (sent) => { this._held = sent; });
      return wire.readInvocation(await get);
    } catch (error) {
      if (this._withdrawn) return null;
      throw error;
    } finally {
      this._held = null;
    }
  }

  /**
   * Takes the request poll back: our side of its connection ends, and either the node ends its own, or a
   * request that was on its way arrives after all.
   */
  withdraw() {
    this._withdrawn = true;
    this._held?.socket?.end();
  }

  /** Holds the cancellation poll; `onSent` is called when the node has it. */
  async nextNotice(onSent) {
    const sent = (asked) => asked.once('finish', onSent);
    return wire.readNotice(await this._get('cancellation', wire.CANCELLATION_PATH, sent));
  }

  /** Hands in a result. What is too large is cut: one byte over the limit says so as well as all of them. */
  async postResponse(invocation, [contentType, body]) {
    const sent = body.length > this._maxResponseBytes ? body.subarray(0, this._maxResponseBytes + 1) : body;
    await this._post(wire.RESPONSE_PATH + invocation.requestId, sent, contentType, invocation.invocationId);
  }

  /** Hands in an error or an acknowledgement. */
  async postError(invocation, body) {
    await this._post(wire.ERROR_PATH + invocation.requestId, body, 'application/json', invocation.invocationId);
  }

  /** Tells that this instance cannot start. */
  async postInitError(body) {
    await this._post(wire.INIT_ERROR_PATH, body, 'application/json');
  }

  _get(kind, path, onRequest) {
    return this._try({ ...this._base, agent: this._agents[kind], method: 'GET', path }, undefined, onRequest);
  }

  /** The node's status does not matter, it drops late answers itself. */
  _post(path, body, contentType, invocationId) {
    const headers = { 'Content-Type': contentType, 'Content-Length': body.length };
    // The nonce lets the node drop a late one.
    if (invocationId) headers['X-Quell-Invocation-Id'] = invocationId;
    return this._try({ ...this._base, agent: this._agents.answers, method: 'POST', path, headers }, body);
  }

  /**
   * Once more on a new connection if a kept one failed: it may have been closed as idle. Answers carry the
   * invocation id, so the second of two is dropped; a poll that failed was not answered.
   */
  async _try(options, body, onRequest) {
    let tries = 0;
    for (;;) {
      try {
        return await exchange(options, body, onRequest);
      } catch (error) {
        tries += 1;
        if (!error.reused || tries > 1 || this._withdrawn) {
          throw new NodeGone(`${options.method} ${options.path}: ${error.message}`);
        }
        options = { ...options, agent: new http.Agent() };
      }
    }
  }
}

module.exports = { NodeClient, exchange };
