'use strict';

// Requests nobody cancels: events in, results and errors out, starting and failing to.

const assert = require('node:assert/strict');
const test = require('node:test');
const { Bench, FUNCTIONS } = require('./instance.js');

const bench = async (t, handler, options) => {
  const made = new Bench(t);
  await made.start(handler, options);
  return made;
};

test('every form of handler gets the event and gives the result', async (t) => {
  for (const handler of ['plain.echo', 'plain.returned', 'plain.calledBack', 'esm.handler']) {
    const { node } = await bench(t, handler);
    const request = node.submit({ a: ['ü', 1.5, null] });
    const answer = await node.answerOf(request);
    assert.deepEqual([answer.kind, answer.json, answer.contentType, answer.invocationId],
      ['response', { a: ['ü', 1.5, null] }, 'application/json', request.invocationId], handler);
  }
});

test('a handler is found below folders, in either kind of module, and among what is exported by default', async (t) => {
  const cases = {
    'deep/er/index.handler': 'deep', 'module/index.handler': 'a module', 'module/old.handler': 'common', 'esm.other': 'by default',
  };
  for (const [handler, result] of Object.entries(cases)) {
    const { node } = await bench(t, handler);
    assert.equal((await node.call()).body.toString(), result, handler);
  }
});

test('text and bytes go as they are and the rest as JSON', async (t) => {
  const { node } = await bench(t, 'plain.pick');
  for (const [name, body, kind] of [
    ['object', '{"ü":[1,null,true]}', 'application/json'],
    ['text', 'grüße', 'text/plain; charset=utf-8'],
    ['bytes', Buffer.from([0, 255]), 'application/octet-stream'],
    ['nothing', 'null', 'application/json'],
    ['number', '7', 'application/json'],
  ]) {
    const answer = await node.call(name);
    assert.deepEqual([answer.kind, answer.body, answer.contentType], ['response', Buffer.from(body), kind], name);
  }
  assert.equal((await node.call('bigint')).errorType, 'TypeError');
  assert.equal((await node.call('function')).errorType, 'TypeError');
  // Cut behind the limit: that it is too large is all there is to say.
  assert.equal((await node.call('large')).body.length, 6291457);
});

test('an event that is not JSON arrives as bytes', async (t) => {
  const { node } = await bench(t, 'plain.represent');
  assert.match((await node.call(Buffer.from([1, 2]), { contentType: 'application/octet-stream' })).body.toString(), /<Buffer 01 02>/);
  assert.match((await node.call(Buffer.from('{broken'))).body.toString(), /<Buffer 7b/);
});

test('a large event passes', async (t) => {
  const { node } = await bench(t, 'plain.echo');
  const event = 'x'.repeat(6 * 1024 * 1024);
  assert.equal((await node.call(event)).body.toString(), event);
});

test('what a handler throws is posted with the frames of user code only, and printed', async (t) => {
  for (const handler of ['plain.fail', 'plain.failAtOnce']) {
    const made = await bench(t, handler);
    const answer = await made.node.call();
    assert.deepEqual([answer.errorType, answer.json.errorMessage], ['TypeError', 'nothing there']);
    assert.ok(answer.json.stackTrace.length >= 1 && answer.json.stackTrace[0].includes('plain.js'), answer.body);
    assert.ok(!answer.body.includes('quell_runtime'), answer.body);
    await made.prints(/TypeError: nothing there\n {4}at /);
  }
  const cases = [
    ['plain.calledBackWithError', 'RangeError', 'too far'], ['plain.throwText', 'Error', 'just text'],
    ['plain.pretend', 'HandlerThrewInvocationCanceled', 'x'], ['plain.circular', 'TypeError', /circular/],
  ];
  for (const [handler, kind, message] of cases) {
    const { node } = await bench(t, handler);
    const answer = await node.call();
    assert.equal(answer.errorType, kind, handler);
    assert.match(answer.json.errorMessage, new RegExp(message), handler);
  }
});

test('the context tells what the node told', async (t) => {
  const made = await bench(t, 'plain.describe');
  const headers = {
    'X-CFF-Access-Key': 'ak', 'X-CFF-Secret-Key': 'sk', 'X-CFF-Security-Token': 'st',
    'X-Quell-Deadline-Ms': String(1e15), 'X-Quell-Alias': 'prod',
  };
  const request = made.node.submit(null, { headers });
  const { remaining, ...told } = (await made.node.answerOf(request)).json;
  assert.ok(remaining > 1e13);
  assert.deepEqual(told, {
    id: request.id, timeout: 30, colour: 'blue', missing: 'round', name: 'function', version: 'latest', alias: 'prod',
    memory: 256, cpu: 400, project: 'project', package: 'default', token: `token-${request.id}`, ak: 'ak', sk: 'sk',
    st: 'st', old: ['ak', 'sk'], cancelled: false, cwd: FUNCTIONS,
  });
  await made.prints(new RegExp(`T[0-9:.]+Z INFO ${request.id} one of 2\n`));
  await made.prints(/^printed by the function$/m);
});

test('beside others, what a request prints says which it is', async (t) => {
  const made = await bench(t, 'plain.describe', { concurrency: 2 });
  const request = made.node.submit();
  await made.node.answerOf(request);
  await made.prints(new RegExp(`Z INFO ${request.id} printed by the function\n`));
});

test('the initializer runs once before any request, in either form', async (t) => {
  for (const [initializer, told] of [['plain.initializer', ['function']], ['plain.asyncInitializer', ['async function']]]) {
    const { node } = await bench(t, 'plain.initialized', { env: { RUNTIME_INITIALIZER_HANDLER: initializer } });
    assert.deepEqual((await node.call()).json, told);
    assert.deepEqual((await node.call()).json, told);
  }
});

test('what cannot start says why and ends', async (t) => {
  for (const [handler, initializer, kind, message] of [
    ['missing.handler', '', 'LoadError', /none of missing.js/],
    ['plain.missing', '', 'LoadError', /exports no "missing"/],
    ['plain.number', '', 'LoadError', /is no function/],
    ['plain', '', 'LoadError', /file\.function/],
    ['../instance.Bench', '', 'LoadError', /not inside the code/],
    ['broken.handler', '', 'Error', /while loading/],
    ['syntax.handler', '', 'SyntaxError', /./],
    ['plain.echo', 'plain.brokenInitializer', 'Error', /initializer plain.brokenInitializer: no such database/],
    ['broken_later.handler', 'broken_later.initializer', 'Error', /in a callback/],
  ]) {
    const made = await bench(t, handler, { env: { RUNTIME_INITIALIZER_HANDLER: initializer } });
    assert.equal(await made.end(), 1, handler);
    assert.equal(made.node.initError.errorType, kind, handler);
    assert.match(made.node.initError.errorMessage, message);
    assert.deepEqual(made.node.order, [], 'it asked for nothing');
  }
});

test('the cancellation poll is held before the first request poll, and there are never more polls than places', async (t) => {
  const { node } = await bench(t, 'plain.echo', { concurrency: 3 });
  const requests = Array.from({ length: 50 }, (_, at) => node.submit(at));
  for (const [at, request] of requests.entries()) assert.equal((await node.answerOf(request)).json, at);
  assert.equal(node.order[0], 'cancellation');
  assert.equal(node.mostPolls, 1);
});

test('an unusable environment ends it with a word about what', async (t) => {
  for (const [env, word] of [[{ RUNTIME_API_ADDR: 'nowhere' }, 'RUNTIME_API_ADDR'], [{ RUNTIME_TIMEOUT: 'x' }, 'RUNTIME_TIMEOUT']]) {
    const made = await bench(t, 'plain.echo', { env });
    assert.equal(await made.end(), 1);
    assert.match(made.printed, new RegExp(`unusable environment: ${word}`));
  }
});

test('at SIGTERM the pre-stop handler runs once, and whatever becomes of it the end is orderly', async (t) => {
  for (const [hook, printed] of [
    ['plain.preStop', /^goodbye from function$/m],
    ['plain.brokenPreStop', /cannot let go/],
    ['plain.endlessPreStop', /took longer than 0.1 s/],
  ]) {
    const made = await bench(t, 'plain.pid', { env: { PRE_STOP_HANDLER: hook, PRE_STOP_TIMEOUT: '0.1' } });
    const pid = (await made.node.call()).json;
    process.kill(pid, 'SIGTERM');
    assert.equal(await made.end(), 0, made.printed);
    assert.match(made.printed, printed);
  }
  const made = await bench(t, 'plain.pid', { reaper: false });
  process.kill((await made.node.call()).json, 'SIGTERM');
  assert.equal(await made.end(), 'SIGTERM', 'without one it is the default');
});

