'use strict';

// Requests that are cancelled: what reaches the handler, and what must have ended before it is acknowledged.

const assert = require('node:assert/strict');
const test = require('node:test');
const { Bench, dead } = require('./instance.js');
const { isAlive } = require('./stub_node.js');

const bench = async (t, { handler = 'hanging.runAsync', ...options } = {}) => {
  const made = new Bench(t);
  await made.start(handler, options);
  return made;
};

async function acknowledged(node, request, word = 'cancel') {
  const answer = await node.answerOf(request);
  assert.equal(answer.errorType, 'InvocationCanceled', answer.body);
  assert.equal(answer.invocationId, request.invocationId);
  assert.match(answer.json.errorMessage, new RegExp(`: ${word}$`));
}

/** The instance has read the notice and answers others, but not this one. */
async function heldBack(made, request) {
  await made.node.noticesTaken();
  assert.equal((await made.node.call({ how: 'pid' })).kind, 'response');
  assert.equal(request.answer, null);
}

test('the signal is aborted with the reason, and finally has run before it is acknowledged', async (t) => {
  for (const handler of ['hanging.runAsync', 'hanging.run']) {
    const made = await bench(t, { handler });
    for (const [word, name] of [['cancel', 'AbortError'], ['disconnect', 'AbortError'], ['deadline', 'TimeoutError']]) {
      const [request] = await made.hang({ how: 'obedient' });
      made.node.cancel(request, { reason: word });
      const told = await made.report({ hold: true });
      assert.equal(request.answer, null);
      assert.deepEqual([told.at, told.name, told.word, told.cancelled, told.reason], ['finally', name, word, true, word]);
      assert.equal(told.message, `the invocation was cancelled: ${word}`);
      told.release();
      await acknowledged(made.node, request, word);
      assert.equal((await made.node.call({ how: 'pid' })).json, told.pid, 'the process is warm');
    }
  }
});

test('of eight requests one is cancelled, and the other seven give their right answers in the same process', async (t) => {
  const made = await bench(t, { concurrency: 9 });
  const requests = [];
  for (let tag = 0; tag < 8; tag += 1) requests.push((await made.hang({ how: 'waiting', tag }))[0]);
  const [target] = requests.splice(3, 1);
  made.node.cancel(target);
  await acknowledged(made.node, target);
  assert.ok(requests.every((request) => request.answer === null));
  const { json: pid } = await made.node.call({ how: 'pid' });
  await made.node.call({ how: 'open', word: 'go' });
  for (const request of requests) {
    const { tag } = JSON.parse(request.body);
    assert.deepEqual((await made.node.answerOf(request)).json, { told: 'go', tag, pid });
  }
});

test('a handler with a callback ends when it calls it', async (t) => {
  const made = await bench(t, { handler: 'hanging.run' });
  const [request] = await made.hang({ how: 'calledBack' });
  made.node.cancel(request);
  await acknowledged(made.node, request);
});

test('the result of a handler that swallows the reason is not delivered', async (t) => {
  const made = await bench(t);
  const [request] = await made.hang({ how: 'swallowing' });
  made.node.cancel(request);
  await acknowledged(made.node, request);
});

test('a handler that ignores the signal is not acknowledged, said to run before the grace is over, and nobody else is touched', async (t) => {
  const made = await bench(t, { concurrency: 3 });
  const [other] = await made.hang({ how: 'waiting', tag: 'other' });
  const [request] = await made.hang({ how: 'deaf' });
  made.node.cancel(request, { graceMs: 300 });
  await made.prints(new RegExp(`quell: ${request.id} was cancelled \\(cancel\\), and not acknowledged, .*: its handler`));
  await heldBack(made, request);
  await made.node.call({ how: 'open', word: 'go' });
  assert.equal((await made.node.answerOf(other)).json.tag, 'other');
  // It is over after all, and then that is true.
  await acknowledged(made.node, request);
  assert.equal(made.printed.match(/not acknowledged/g).length, 1);
});

test('a blocked loop acknowledges nothing', async (t) => {
  const made = await bench(t, { concurrency: 2 });
  const [other] = await made.hang({ how: 'waiting' });
  const [request] = await made.hang({ how: 'blocking' });
  made.node.cancel(request, { graceMs: 100 });
  made.node.cancel(other, { graceMs: 100 });
  await made.node.until(() => made.node.notices.length === 1, 'the held poll to take a notice');
  assert.deepEqual([request.answer, other.answer], [null, null]);
});

test('what is left of a request holds the acknowledgement back until it is over, alone or beside others', async (t) => {
  for (const beside of [false, true]) {
    const made = await bench(t, { concurrency: 3 });
    const neighbour = beside ? (await made.hang({ how: 'obedient' }))[0] : null;
    for (const how of [
      'interval', 'chain', 'reading', 'hashing', 'zipping', 'inflating', 'looking', 'resolving', 'connected', 'serving', 'fetching',
    ]) {
      made.node.apiAnswer = null;
      const [request] = await made.hang({ how, path: __filename });
      made.node.cancel(request);
      await heldBack(made, request);
      await made.node.call({ how: 'open', word: how });
      await acknowledged(made.node, request);
    }
    assert.equal(neighbour?.answer ?? null, null);
  }
});

test('a timer that is due soon is waited for, and one that was forgotten is ended', async (t) => {
  const made = await bench(t);
  const [soon] = await made.hang({ how: 'timer' });
  made.node.cancel(soon);
  const fired = await made.report({ hold: true });
  assert.deepEqual([fired.at, soon.answer], ['timer', null]);
  fired.release();
  await acknowledged(made.node, soon);
  const [later] = await made.hang({ how: 'forgotten' });
  made.node.cancel(later);
  await acknowledged(made.node, later);
});

test('connections that are kept for the next request hold nothing back', async (t) => {
  const made = await bench(t, { concurrency: 2 });
  for (const how of ['fetched', 'agent', 'fetched', 'agent']) {
    const [request] = await made.hang({ how });
    made.node.cancel(request, { graceMs: 1_000 });
    await acknowledged(made.node, request);
  }
  assert.ok(!made.printed.includes('not acknowledged'), made.printed);
});

test('worker threads are ended before the acknowledgement', async (t) => {
  const made = await bench(t);
  const [request] = await made.hang({ how: 'worker' });
  made.node.cancel(request);
  await acknowledged(made.node, request);
});

test('processes are dead before the acknowledgement, wherever they went, and those of others live', async (t) => {
  for (const beside of [false, true]) {
    const made = await bench(t, { concurrency: 2 });
    let neighbour = null;
    if (beside) neighbour = await made.hang({ how: 'process' });
    const others = neighbour ? [neighbour[1].child] : [];
    for (const how of ['process', 'detached', 'orphan']) {
      const [request, { child }] = await made.hang({ how });
      request.watched = [child, ...others];
      made.node.cancel(request);
      await acknowledged(made.node, request);
      assert.deepEqual(request.aliveAtAnswer, others, `${how}, beside ${beside}`);
    }
    if (neighbour) {
      neighbour[0].watched = others;
      made.node.cancel(neighbour[0]);
      await acknowledged(made.node, neighbour[0]);
      assert.deepEqual(neighbour[0].aliveAtAnswer, []);
    }
  }
});

test('processes that an ES module started by names it imported are found as well', async (t) => {
  const made = await bench(t, { handler: 'esm_processes.handler' });
  for (const how of ['spawn', 'exec']) {
    const [request, { child }] = await made.hang({ how });
    request.watched = [child];
    made.node.cancel(request);
    await acknowledged(made.node, request);
    assert.deepEqual(request.aliveAtAnswer, [], how);
  }
});

test('a process without a mark is the request\'s if it is alone, and else may be anybody\'s', async (t) => {
  const made = await bench(t, { concurrency: 3 });
  const [neighbour] = await made.hang({ how: 'waiting' });
  const [request, { child }] = await made.hang({ how: 'scrubbed' });
  request.watched = [child];
  made.node.cancel(request);
  await heldBack(made, request);
  assert.ok(isAlive(child));
  made.node.cancel(neighbour);
  await acknowledged(made.node, neighbour);
  await acknowledged(made.node, request);
  assert.deepEqual(request.aliveAtAnswer, []);
});

test('without somebody who inherits what processes leave behind, a request that started any is not acknowledged', async (t) => {
  const made = await bench(t, { reaper: false, concurrency: 2 });
  const [without] = await made.hang({ how: 'obedient' });
  made.node.cancel(without);
  await made.report();
  await acknowledged(made.node, without);
  const [request, { child }] = await made.hang({ how: 'process' });
  made.node.cancel(request, { graceMs: 100 });
  await made.prints(/what its processes may have left behind/);
  await dead(child);
  await heldBack(made, request);
});

test('processes of a finished request are left alone, also by a later cancel', async (t) => {
  const made = await bench(t);
  const [request, { child }] = await made.hang({ how: 'leftBehind' });
  assert.equal((await made.node.answerOf(request)).kind, 'response');
  const [later] = await made.hang({ how: 'process' });
  made.node.cancel(later);
  await acknowledged(made.node, later);
  assert.ok(isAlive(child));
});

test('a sub-invocation is made as the request, ends with it, and none begins after', async (t) => {
  const made = await bench(t, { concurrency: 2 });
  const { node } = made;
  node.apiAnswer = [200, '{"n": 2}'];
  const request = node.submit({ how: 'invoking' });
  assert.deepEqual((await node.answerOf(request)).json, { n: 2 });
  const [call] = node.apiCalls;
  assert.deepEqual([call.path, call.headers['x-auth-token'], call.headers['x-quell-detached'], call.body],
    ['/v2/project/fgs/functions/child/invocations', `token-${request.id}`, undefined, { n: 1 }]);
  node.apiAnswer = [202, '{"request_id": "r"}'];
  assert.equal((await node.call({ how: 'invokingAsync', detached: true })).body.toString(), 'r');
  assert.equal(node.apiCalls[1].path, '/v2/project/fgs/functions/child/invocations-async');
  assert.equal(node.apiCalls[1].headers['x-quell-detached'], 'true');
  node.apiAnswer = [500, '{"error_code": "FSS.4208", "error_msg": "function invocation canceled"}'];
  assert.deepEqual((await node.call({ how: 'failing' })).json, {
    name: 'SubInvocationError', status: 500, errorCode: 'FSS.4208', errorMsg: 'function invocation canceled',
    canceled: true, refused: true,
  });

  node.apiAnswer = null;
  const waiting = node.submit({ how: 'invoking' });
  await node.until(() => node.apiCalls.length === 4, 'the sub-invocation');
  node.cancel(waiting);
  await acknowledged(node, waiting);
  await node.until(() => node.apiCalls[3].closed, 'its connection to be closed');

  const [late] = await made.hang({ how: 'invokingLate' });
  node.cancel(late);
  assert.equal((await made.report()).same, true);
  await acknowledged(node, late);
  assert.equal(node.apiCalls.length, 4);
});

test('notices for nobody, too early, twice or too late do no harm', async (t) => {
  const made = await bench(t);
  const { node } = made;
  const done = node.submit({ how: 'pid' });
  await node.answerOf(done);
  node.cancel(done);
  node.cancel({ id: 'r', invocationId: 'i' });
  const early = node.prepare({ how: 'obedient' });
  node.cancel(early);
  await node.noticesTaken();
  node.enqueue(early);
  await acknowledged(node, early);
  const [request] = await made.hang({ how: 'swallowing' });
  node.cancel(request);
  node.cancel(request, { reason: 'deadline' });
  await acknowledged(node, request);
  assert.equal((await node.call({ how: 'pid' })).kind, 'response');
  assert.deepEqual(node.strayPosts, []);
});

test('200 cancels in a row keep the process', async (t) => {
  const made = await bench(t);
  const { json: pid } = await made.node.call({ how: 'pid' });
  for (let at = 0; at < 200; at += 1) {
    const [request, report] = await made.hang({ how: 'swallowing' });
    assert.equal(report.pid, pid);
    made.node.cancel(request);
    await acknowledged(made.node, request);
  }
  assert.deepEqual(made.node.strayPosts, []);
});

test('when the node is gone this process and all it started end at once', async (t) => {
  const made = await bench(t, { concurrency: 2 });
  const [, { child, pid }] = await made.hang({ how: 'orphan' });
  made.node.close();
  assert.equal(await made.end(), 1);
  await dead(child, pid);
});
