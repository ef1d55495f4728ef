'use strict';

// What user code does to the whole process: it fails the request to which it belongs, and no other.

const assert = require('node:assert/strict');
const test = require('node:test');
const { Bench } = require('./instance.js');

const bench = async (t, options) => {
  const made = new Bench(t);
  await made.start('hanging.runAsync', options);
  return made;
};

test('an exception that nobody caught fails its request, the others finish, and then the process makes room for a fresh one', async (t) => {
  for (const [event, kind, message] of [
    [{ how: 'throwing' }, 'RangeError', 'in a timer'],
    [{ how: 'leaving' }, 'ProcessExit', 'the handler called process.exit(3)'],
    [{ how: 'rejecting', hang: true }, 'RangeError', 'nobody awaits'],
  ]) {
    const made = await bench(t, { concurrency: 3 });
    const [other] = await made.hang({ how: 'waiting', tag: 'other' });
    const answer = await made.node.call(event);
    assert.deepEqual([answer.errorType, answer.json.errorMessage], [kind, message]);
    // It goes on while it has something to do.
    assert.equal((await made.node.call({ how: 'pid' })).kind, 'response');
    await made.node.call({ how: 'open', word: 'go' });
    assert.equal((await made.node.answerOf(other)).json.tag, 'other');
    assert.equal(await made.end(), 1, made.printed);
    assert.deepEqual(made.node.strayPosts, []);
  }
});

test('alone, the process ends with the request that spoilt it', async (t) => {
  const made = await bench(t);
  assert.equal((await made.node.call({ how: 'throwing' })).errorType, 'RangeError');
  assert.equal(await made.end(), 1);
});

test('a rejection that nobody awaits fails its request and leaves the process as it was', async (t) => {
  const made = await bench(t);
  const { json: pid } = await made.node.call({ how: 'pid' });
  const answer = await made.node.call({ how: 'rejecting' });
  assert.deepEqual([answer.errorType, answer.json.errorMessage], ['RangeError', 'nobody awaits']);
  assert.equal((await made.node.call({ how: 'pid' })).json, pid);
});

test('what a listener of the signal throws is its request\'s', async (t) => {
  const made = await bench(t, { concurrency: 2 });
  const [other] = await made.hang({ how: 'waiting', tag: 'other' });
  const [request] = await made.hang({ how: 'throwingListener' });
  made.node.cancel(request);
  assert.equal((await made.node.answerOf(request)).errorType, 'InvocationCanceled');
  await made.node.call({ how: 'open', word: 'go' });
  assert.equal((await made.node.answerOf(other)).json.tag, 'other');
});
