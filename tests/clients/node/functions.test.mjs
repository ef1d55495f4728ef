// Functions, and synchronous invocations.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { refused, source, withNode } from './case.mjs';
import { fg, HARD } from './launcher.mjs';

const JSON_TYPE = 'application/json';
const PLAIN = source('plain.py');
const at = withNode();

test('a function is created, shown, changed and deleted', HARD, async () => {
  const created = await at.create('f', PLAIN, { description: 'one', user_data: '{"colour": "blue"}' });
  assert.equal(created.httpStatusCode, 200);
  assert.equal(created.func_urn, at.urn('f'));
  assert.equal(created.digest, createHash('sha512').update(PLAIN).digest('hex'));
  await at.strategy('f', 3, 2, { timeout: 9, description: 'two' });
  const shown = await at.client.showFunctionConfig(new fg.ShowFunctionConfigRequest(at.urn('f'), JSON_TYPE));
  assert.deepEqual([shown.timeout, shown.description], [9, 'two']);
  assert.equal(shown.strategy_config.concurrency, 3);
  const most = new fg.UpdateFunctionMaxInstanceConfigRequest('f', JSON_TYPE);
  most.withBody(new fg.UpdateFunctionMaxInstanceConfigRequestBody().withMaxInstanceNum(5));
  assert.equal((await at.client.updateFunctionMaxInstanceConfig(most)).strategy_config.concurrency, 5);
  const code = new fg.UpdateFunctionCodeRequestBody('inline', new fg.FuncCode());
  code.func_code = { file: Buffer.from('def handler(event, context):\n    return [2]\n').toString('base64') };
  code.code_type = 'inline';
  await at.client.updateFunctionCode(new fg.UpdateFunctionCodeRequest('f', JSON_TYPE).withBody(code));
  const kept = await at.client.showFunctionCode(new fg.ShowFunctionCodeRequest('f', JSON_TYPE));
  assert.equal(kept.func_code.file, code.func_code.file);
  assert.equal((await at.invoke('f')).result, '[2]');
  const gone = await at.client.deleteFunction(new fg.DeleteFunctionRequest(at.urn('f', ''), JSON_TYPE));
  assert.equal(gone.httpStatusCode, 204);
  await refused(404, 'FSS.1051', at.client.deleteFunction(new fg.DeleteFunctionRequest('f', JSON_TYPE)));
});

test('functions are listed by pages and by name', HARD, async () => {
  const names = ['list-0', 'list-1', 'list-2'];
  for (const name of names) await at.create(name, PLAIN);
  const seen = [];
  let marker = '0';
  do {
    const request = new fg.ListFunctionsRequest(JSON_TYPE).withMarker(marker).withMaxitems('2').withFuncName('list-');
    const page = await at.client.listFunctions(request);
    assert.ok(page.functions.length <= 2);
    seen.push(...page.functions.map((shown) => shown.func_name));
    marker = String(page.next_marker);
  } while (marker !== '0');
  assert.deepEqual(seen.sort(), names);
  const none = new fg.ListFunctionsRequest(JSON_TYPE).withFuncName('te st/\u4e2d');
  assert.deepEqual((await at.client.listFunctions(none)).functions, []);
});

test('v1 wraps the result and says the request id twice', HARD, async () => {
  await at.create('v1', PLAIN);
  const event = { k: 'v', u: '\u00e9\u4e2d', n: [1, null, { deep: true }] };
  const answer = await at.invoke('v1', event);
  assert.deepEqual([answer.httpStatusCode, answer.status], [200, 200]);
  assert.equal(typeof answer.result, 'string');
  assert.deepEqual(JSON.parse(answer.result).event, event);
  assert.equal(answer.request_id, JSON.parse(answer.result).request);
  assert.equal(answer['X-Cff-Request-Id'], answer.request_id);
});

test('a tail of the log and a memory size can be asked for', HARD, async () => {
  await at.create('tail', PLAIN);
  const request = new fg.InvokeFunctionRequest('tail', JSON_TYPE).withBody({ k: 1 }).withXCffLogType('tail');
  request.withXCFFRequestVersion('v1').withXCffInstanceMemory('256');
  const answer = await at.client.invokeFunction(request);
  assert.deepEqual(JSON.parse(answer.result).event, { k: 1 });
  assert.equal(typeof answer.log, 'string');
});

test('v0 is the result as such if that is an object', HARD, async () => {
  await at.create('v0', PLAIN);
  for (const version of ['v0', null]) {
    const answer = await at.invoke('v0', { k: 2 }, version);
    assert.deepEqual(answer.event, { k: 2 });
    assert.equal(answer['X-Cff-Request-Id'], answer.request);
  }
});

test('v0 text is what this SDK cannot take: it throws an exception of its own, and v1 is the way', HARD, async () => {
  await at.create('text', PLAIN, { handler: 'index.text' });
  await assert.rejects(at.invoke('text', {}, 'v0'), (error) => {
    assert.equal(error.constructor.name, 'ServiceResponseException');
    assert.equal(error.httpStatusCode, undefined);
    return true;
  });
  assert.match((await at.invoke('text', {}, 'v1')).result, /\u00e9\u4e2d/);
});

test('a function that raises is a server exception with its code', HARD, async () => {
  await at.create('raises', PLAIN);
  for (const version of ['v0', 'v1']) {
    const error = await refused(500, 'FSS.4002', at.invoke('raises', { raise: 'as asked' }, version));
    assert.match(error.errorMsg, /as asked/);
  }
});

test('errors come as exceptions with their code, message and request id', HARD, async () => {
  await at.create('twice', PLAIN);
  assert.equal((await refused(409, 'FSS.1061', at.create('twice', PLAIN))).errorMsg, 'The function has existed');
  await refused(400, 'FSS.1005', at.create('bad', PLAIN, { runtime: 'Cobol' }));
  await refused(404, 'FSS.1051', at.invoke('nowhere'));
  await refused(400, 'FSS.1309', at.invoke('urn:fss:a:b:c:d:e:f:g:h:i'));
  await refused(400, 'FSS.1001', at.client.listFunctions(new fg.ListFunctionsRequest(JSON_TYPE).withMaxitems('-1')));
  const none = at.client.showProjectAsyncStatusLogInfo(new fg.ShowProjectAsyncStatusLogInfoRequest(JSON_TYPE));
  await refused(501, 'FSS.0501', none);
});
