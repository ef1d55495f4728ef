// Cancel: the operation all of this is for.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { refused, source, withNode } from './case.mjs';
import { fg, HARD, UNKNOWN_ID } from './launcher.mjs';

const { FORCE, RECURSIVE } = fg.CancelAsyncInvocationRequestBodyTypeEnum;
const KINDS = [undefined, RECURSIVE, FORCE];
const at = withNode(async () => {
  for (const name of ['f', 'other']) {
    await at.create(name, source('waits.py'));
    await at.strategy(name, 4, 1);
  }
  await at.create('shared', source('waits.py'));
  await at.strategy('shared', 1, 2);
});

for (const kind of KINDS) {
  test(`a cancel of type ${kind} ends a running request and its answer is an object`, HARD, async () => {
    const [request, line] = await at.runOne('f');
    const answer = await at.cancel('f', request, kind);
    // The literal null of the API page would make this SDK throw.
    assert.deepEqual({ ...answer }, { httpStatusCode: 200 });
    await line.gone;
    const row = await at.listed('f', request);
    assert.deepEqual([row.status, row.error_code], ['FAIL', 4208]);
    assert.equal(row.error_message, 'function invocation canceled');
  });

  test(`a cancel of type ${kind} of what is unknown, finished or foreign changes nothing`, HARD, async () => {
    assert.equal((await refused(400, 'FSS.0400', at.cancel('f', UNKNOWN_ID, kind))).errorMsg, 'Invalid RequestId');
    const [request, line] = await at.runOne('f');
    const foreign = await refused(400, 'FSS.0400', at.cancel('other', request, kind));
    assert.equal(foreign.errorMsg, 'Invalid RequestId');
    line.tell();
    assert.equal((await at.settled('f', request)).status, 'SUCCESS');
    const finished = await refused(400, 'FSS.0400', at.cancel('f', request, kind));
    assert.equal(finished.errorMsg, 'Invalid RequestId: SUCCESS');
  });
}

test('recursive reaches the children and no type does not', HARD, async () => {
  for (const [kind, over] of [[undefined, 'SUCCESS'], [RECURSIVE, 'FAIL']]) {
    const children = [{ function: 'other', port: at.bell.port, tag: 'child' }];
    const parent = await at.invokeAsync('f', { port: at.bell.port, tag: 'parent', children });
    const lines = [await at.bell.ring(), await at.bell.ring()];
    const child = lines.find((line) => line.said.tag === 'child');
    assert.equal((await at.cancel('f', parent, kind)).httpStatusCode, 200);
    await lines.find((line) => line.said.tag === 'parent').gone;
    if (over === 'SUCCESS') child.tell();
    await child.gone;
    assert.equal((await at.settled('other', child.said.request)).status, over);
  }
});

test('force ends the others of the instance with 4208', HARD, async () => {
  const [request, line] = await at.runOne('shared');
  const [neighbour, beside] = await at.runOne('shared');
  assert.equal((await at.cancel('shared', request, FORCE)).httpStatusCode, 200);
  await Promise.all([line.gone, beside.gone]);
  assert.equal((await at.settled('shared', neighbour)).error_code, 4208);
});

test('a synchronous caller of a cancelled request gets a server exception with 4208', HARD, async () => {
  const call = refused(500, 'FSS.4208', at.invoke('f', { port: at.bell.port }));
  const { request } = (await at.bell.ring()).said;
  assert.equal((await at.cancel('f', request)).httpStatusCode, 200);
  const error = await call;
  assert.equal(error.errorMsg, 'function invocation canceled');
  assert.equal(error.requestId, request);
});

test('a URN goes raw over the wire and names its function, as its short forms do', HARD, async () => {
  for (const urn of [at.urn('f'), at.urn('f', ''), 'default:f', 'f']) {
    const [request, line] = await at.runOne('f');
    assert.equal((await at.cancel(urn, request)).httpStatusCode, 200, urn);
    await line.gone;
  }
});

test('a body that is wrong is refused and the request goes on', HARD, async () => {
  const [request, line] = await at.runOne('f');
  await refused(400, 'FSS.0400', at.cancel('f', request, 'bogus'));
  for (const bad of ['', 'no-id', 'x'.repeat(65)]) await refused(400, 'FSS.0400', at.cancel('f', bad));
  assert.equal((await refused(404, 'FSS.0404', at.cancel('nowhere', UNKNOWN_ID))).errorMsg, 'can not find function');
  line.tell();
  assert.equal((await at.settled('f', request)).status, 'SUCCESS');
});
