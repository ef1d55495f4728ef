// What every file of the suite does the same way.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { Bell, fg, HARD, LOOK_AGAIN, Node } from './launcher.mjs';

const JSON_TYPE = 'application/json';

export function source(name) {
  return readFileSync(new URL(`../functions/${name}`, import.meta.url));
}

/**
 * The node of a file, a bell, and the operations in short; started before its tests, ended after them.
 * `prepare` comes before them as well: hooks of a file do not wait for one another.
 */
export function withNode(prepare = async () => {}) {
  const at = { ...operations, bell: null, node: null, client: null };
  before(async () => {
    at.node = await Node.start();
    at.client = at.node.client();
    at.bell = await Bell.hang();
    await prepare();
  }, HARD);
  after(async () => {
    at.bell?.close();
    await at.node?.stop();
  }, HARD);
  return at;
}

const operations = {
  urn(name, version = ':latest') {
    return `urn:fss:local:${this.node.project}:function:default:${name}${version}`;
  },

  /** Creates a function from plain source or a zip. */
  create(name, code, more = {}) {
    const body = new fg.CreateFunctionRequestBody();
    const fields = { func_name: name, package: 'default', runtime: 'Python3.10', handler: 'index.handler',
      timeout: 120, memory_size: 128, code_type: 'inline', func_code: { file: Buffer.from(code).toString('base64') } };
    Object.assign(body, fields, more);
    return this.client.createFunction(new fg.CreateFunctionRequest(JSON_TYPE).withBody(body));
  },

  /** Sets how many instances a function has, and how many requests each serves. */
  strategy(name, concurrency, each, more = {}) {
    const body = new fg.UpdateFunctionConfigRequestBody();
    const fields = { func_name: name, runtime: 'Python3.10', handler: 'index.handler', timeout: 120,
      memory_size: 128, strategy_config: new fg.StrategyConfig(concurrency).withConcurrentNum(each) };
    Object.assign(body, fields, more);
    return this.client.updateFunctionConfig(new fg.UpdateFunctionConfigRequest(name, JSON_TYPE).withBody(body));
  },

  invoke(name, event = {}, version = 'v1', client = this.client) {
    const request = new fg.InvokeFunctionRequest(name, JSON_TYPE).withBody(event);
    if (version) request.withXCFFRequestVersion(version);
    return client.invokeFunction(request);
  },

  async invokeAsync(name, event) {
    const request = new fg.AsyncInvokeFunctionRequest(name, JSON_TYPE).withBody(event);
    const answer = await this.client.asyncInvokeFunction(request);
    assert.equal(answer.httpStatusCode, 202);
    return answer.request_id;
  },

  cancel(name, requestId, type, client = this.client) {
    const body = new fg.CancelAsyncInvocationRequestBody(requestId);
    if (type) body.withType(type);
    return client.cancelAsyncInvocation(new fg.CancelAsyncInvocationRequest(name, JSON_TYPE).withBody(body));
  },

  async listed(name, requestId) {
    const request = new fg.ListAsyncInvocationsRequest(name, JSON_TYPE).withRequestId(requestId);
    const { invocations } = await this.client.listAsyncInvocations(request);
    assert.equal(invocations.length, 1);
    return invocations[0];
  },

  /** The row once it is over. Nothing tells a client when that is, so it looks again. */
  async settled(name, requestId) {
    for (;;) {
      const row = await this.listed(name, requestId);
      if (!['WAIT', 'RUNNING'].includes(row.status)) return row;
      await pause(LOOK_AGAIN);
    }
  },

  /** A request that runs, and the line to its code. */
  async runOne(name, more = {}) {
    const request = await this.invokeAsync(name, { port: this.bell.port, ...more });
    return [request, await this.bell.ring()];
  },
};

/** The exception of the SDK that a call ends with: its class, its status, its code, its request id. */
export async function refused(status, code, promise) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.constructor.name, status < 500 ? 'ClientRequestException' : 'ServerResponseException',
      String(error.stack));
    assert.deepEqual([error.httpStatusCode, error.errorCode], [status, code], error.errorMsg);
    assert.ok(error.errorMsg);
    assert.match(error.requestId, /^[0-9a-f-]{36}$/);
    return error;
  }
  assert.fail(`nothing was refused, and it should have been with ${status} ${code}`);
}

/** Calls an operation; undefined, and the test counted as skipped, where this node does not have it. */
export async function supported(t, name, promise) {
  try {
    return await promise;
  } catch (error) {
    const none = error.httpStatusCode === 404 && error.errorMsg === 'no such operation';
    if (!none && ![405, 501].includes(error.httpStatusCode)) throw error;
    t.skip(`this node does not support it: ${name}`);
    return undefined;
  }
}
