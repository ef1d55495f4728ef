'use strict';

// A node as a runtime sees it: hands out requests and notices, collects answers. Everything a test waits for
// is a condition here, with a hard limit.

const http = require('node:http');
const fs = require('node:fs');
const { randomUUID } = require('node:crypto');

/** Nothing a test waits for takes a second; this only turns a hang into a failure. */
const LIMIT_MS = 20_000;

class StubNode {
  constructor() {
    this.queue = [];
    this.notices = [];
    this.requests = new Map();
    this.polls = { request: [], cancellation: [] };
    this.mostPolls = 0;
    this.order = [];
    this.initError = null;
    this.apiCalls = [];
    this.apiAnswer = [200, 'null'];
    this.strayPosts = [];
    this.waiting = new Set();
    this.server = http.createServer((request, response) => this.#on(request, response));
  }

  async listen() {
    await new Promise((resolve) => { this.server.listen(0, '127.0.0.1', resolve); });
    this.port = this.server.address().port;
    return this;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  prepare(event = null, { contentType = 'application/json', headers = {} } = {}) {
    const request = {
      id: randomUUID(), invocationId: randomUUID(), contentType, headers, answer: null, watched: [],
      body: Buffer.isBuffer(event) ? event : Buffer.from(JSON.stringify(event)),
    };
    this.requests.set(request.id, request);
    return request;
  }

  submit(event, options) {
    return this.enqueue(this.prepare(event, options));
  }

  enqueue(request) {
    this.queue.push(request);
    this.#changed();
    return request;
  }

  async answerOf(request) {
    await this.until(() => request.answer !== null, 'an answer');
    return request.answer;
  }

  call(event, options) {
    return this.answerOf(this.submit(event, options));
  }

  cancel(request, { reason = 'cancel', graceMs = 15_000 } = {}) {
    this.notices.push({ requestId: request.id, invocationId: request.invocationId, reason, graceMs });
    this.#changed();
  }

  async noticesTaken() {
    await this.until(() => this.notices.length === 0 && this.polls.cancellation.length === 1, 'the notices to be taken');
  }

  /** Resolves once `condition` holds; looked at whenever something happens here. */
  until(condition, what) {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => {
        this.waiting.delete(look);
        reject(new Error(`waited in vain for ${what}`));
      }, LIMIT_MS);
      const look = () => {
        if (!condition()) return;
        clearTimeout(limit);
        this.waiting.delete(look);
        resolve();
      };
      this.waiting.add(look);
      look();
    });
  }

  #changed() {
    this.#deal('request', this.queue, (response, request) => {
      response.writeHead(200, {
        'Content-Type': request.contentType,
        'X-Cff-Request-Id': request.id,
        'X-CFF-Auth-Token': `token-${request.id}`,
        'X-Quell-Invocation-Id': request.invocationId,
        ...request.headers,
      });
      response.end(request.body);
    });
    this.#deal('cancellation', this.notices, (response, notice) => {
      response.writeHead(200, { 'Content-Type': 'application/json' });
      response.write(JSON.stringify(notice).slice(0, 10)); // in chunks, to have that read too
      response.end(JSON.stringify(notice).slice(10));
    });
    this.look();
  }

  /** Something happened that somebody may wait for. */
  look() {
    for (const look of [...this.waiting]) look();
  }

  #deal(kind, source, send) {
    while (source.length > 0 && this.polls[kind].length > 0) send(this.polls[kind].shift(), source.shift());
  }

  async #on(request, response) {
    const parts = [];
    try {
      for await (const part of request) parts.push(part);
    } catch {
      return; // a runtime that was killed
    }
    const body = Buffer.concat(parts);
    const held = { '/v1/runtime/invocation/request': 'request', '/v1/runtime/invocation/cancellation/next': 'cancellation' }[request.url];
    if (held !== undefined) {
      this.order.push(held);
      this.polls[held].push(response);
      this.mostPolls = Math.max(this.mostPolls, this.polls.request.length);
      response.on('close', () => {
        this.polls[held] = this.polls[held].filter((other) => other !== response);
        this.#changed();
      });
    } else if (request.url.startsWith('/v2/')) {
      const call = { path: request.url, headers: request.headers, body: JSON.parse(body), closed: false };
      response.on('close', () => { call.closed = true; this.#changed(); });
      this.apiCalls.push(call);
      if (this.apiAnswer !== null) response.writeHead(this.apiAnswer[0]).end(this.apiAnswer[1]);
    } else {
      this.#take(request, body);
      response.writeHead(202).end();
    }
    this.#changed();
  }

  #take({ url, headers }, body) {
    const [kind, id] = url.slice('/v1/runtime/'.length).split('/').slice(-2);
    if (url === '/v1/runtime/init/error') {
      this.initError = JSON.parse(body);
      return;
    }
    const request = this.requests.get(id);
    if (request === undefined || request.answer !== null) {
      this.strayPosts.push([url, body.toString()]);
      return;
    }
    request.aliveAtAnswer = request.watched.filter(isAlive);
    request.answer = {
      kind, body, contentType: headers['content-type'], invocationId: headers['x-quell-invocation-id'],
      get json() { return JSON.parse(body); },
      get errorType() { return kind === 'error' ? JSON.parse(body).errorType : `no error but ${body}`; },
    };
  }
}

/** Whether a process runs: one that is dead and not collected does not. */
function isAlive(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    return !'ZX'.includes(stat[stat.lastIndexOf(')') + 2]);
  } catch {
    return false;
  }
}

module.exports = { LIMIT_MS, StubNode, isAlive };
