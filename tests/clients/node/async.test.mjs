// Asynchronous invocations, the lists that show them, and what a function says of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { refused, source, withNode } from './case.mjs';
import { fg, HARD, UNKNOWN_ID } from './launcher.mjs';

const JSON_TYPE = 'application/json';
const known = {};
const at = withNode(async () => {
  await at.create('f', source('waits.py'));
  await at.create('g', source('plain.py'));
  await at.strategy('f', 1, 1);
  const [done, first] = await at.runOne('f');
  first.tell();
  await at.settled('f', done);
  const [running, line] = await at.runOne('f');
  const waiting = await at.invokeAsync('f', { port: at.bell.port });
  const dropped = await at.invokeAsync('f', { port: at.bell.port });
  await at.cancel('f', dropped);
  Object.assign(known, { done, running, waiting, dropped, line });
});

async function ids(with_ = (request) => request, client = at.client) {
  const page = await client.listAsyncInvocations(with_(new fg.ListAsyncInvocationsRequest('f', JSON_TYPE)));
  return new Set(page.invocations.map((row) => row.request_id));
}

async function activeIds(with_ = (request) => request, client = at.client) {
  const request = with_(new fg.ListActiveAsyncInvocationsRequest('f', JSON_TYPE));
  const page = await client.listActiveAsyncInvocations(request);
  return new Set(page.invocations.map((row) => row.request_id));
}

const all = () => new Set([known.done, known.running, known.waiting, known.dropped]);
const active = () => new Set([known.running, known.waiting]);
const text = (date) => date.toISOString().slice(0, 19);
const hour = (hours) => new Date(Date.now() + hours * 3_600_000);

test('the list says of every request how it ended', HARD, async () => {
  assert.deepEqual(await ids(), all());
  const done = await at.listed('f', known.done);
  assert.deepEqual([done.status, done.error_code, done.error_message], ['SUCCESS', 0, '']);
  assert.match(done.end_time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$/);
  const dropped = await at.listed('f', known.dropped);
  assert.deepEqual([dropped.status, dropped.error_code], ['DISCARD', 4208]);
});

test('the lists are filtered by status, id and time', HARD, async () => {
  const wanted = { WAIT: [known.waiting], RUNNING: [known.running], SUCCESS: [known.done], FAIL: [],
    DISCARD: [known.dropped] };
  for (const [status, set] of Object.entries(wanted)) {
    assert.deepEqual(await ids((request) => request.withStatus(status)), new Set(set), status);
  }
  assert.deepEqual(await ids((request) => request.withRequestId(UNKNOWN_ID)), new Set());
  const between = (request) => request.withQueryBeginTime(text(hour(-1))).withQueryEndTime(text(hour(1)));
  assert.deepEqual(await ids(between), all());
  assert.deepEqual(await ids((request) => request.withQueryBeginTime(text(hour(1)))), new Set());
  assert.deepEqual(await activeIds(between), active());
  assert.deepEqual(await activeIds((request) => request.withRequests(`${known.running},${known.done}`)),
    new Set([known.running]));
  assert.deepEqual(await activeIds((request) => request.withStatus('WAIT')), new Set([known.waiting]));
});

test('an empty time is none, and so is a Date, which this SDK sends empty', HARD, async () => {
  assert.deepEqual(await ids((request) => request.withQueryBeginTime('').withQueryEndTime('')), all());
  // By token: where the SDK signs a Date, it signs another query than it sends.
  const client = at.node.client({ mode: 'token' });
  const dated = (request) => request.withQueryBeginTime(hour(-1));
  assert.deepEqual(await ids(dated, client), all());
  assert.deepEqual(await activeIds(dated, client), active());
});

test('the lists are read in pages', HARD, async () => {
  const seen = new Set();
  let marker = '0';
  do {
    const request = new fg.ListAsyncInvocationsRequest('f', JSON_TYPE).withMarker(marker).withLimit('3');
    const page = await at.client.listAsyncInvocations(request);
    assert.equal(page.count, 4);
    page.invocations.forEach((row) => seen.add(row.request_id));
    marker = String(page.next_marker);
  } while (marker !== '0');
  assert.deepEqual(seen, all());
  assert.equal((await activeIds((request) => request.withMarker('1').withLimit('1'))).size, 1);
});

test('what is wrong in a list is an exception', HARD, async () => {
  const list = (request) => at.client.listAsyncInvocations(request);
  await refused(404, 'FSS.0404', list(new fg.ListAsyncInvocationsRequest('nowhere', JSON_TYPE)));
  await refused(400, 'FSS.1001', list(new fg.ListAsyncInvocationsRequest('f', JSON_TYPE).withStatus('CANCELED')));
});

test('what a function says of its asynchronous requests is set, shown, listed and removed', HARD, async () => {
  const body = new fg.UpdateFunctionAsyncInvokeConfigRequestBody();
  Object.assign(body, { max_async_event_age_in_seconds: 60, max_async_retry_attempts: 3 });
  body.destination_config = { on_failure: { destination: 'FunctionGraph', param: '{"func_urn": "f"}' } };
  const put = new fg.UpdateFunctionAsyncInvokeConfigRequest('g', JSON_TYPE).withBody(body);
  assert.equal((await at.client.updateFunctionAsyncInvokeConfig(put)).max_async_retry_attempts, 3);
  const show = () => at.client.showFunctionAsyncInvokeConfig(new fg.ShowFunctionAsyncInvokeConfigRequest('g', JSON_TYPE));
  assert.equal((await show()).destination_config.on_failure.param, '{"func_urn": "f"}');
  const list = new fg.ListFunctionAsyncInvokeConfigRequest('g', JSON_TYPE).withMarker('0').withLimit('10');
  const listed = await at.client.listFunctionAsyncInvokeConfig(list);
  assert.deepEqual([listed.count, listed.page_info.current_count], [1, 1]);
  const gone = await at.client.deleteFunctionAsyncInvokeConfig(
    new fg.DeleteFunctionAsyncInvokeConfigRequest('g', JSON_TYPE));
  assert.equal(gone.httpStatusCode, 204);
  await refused(404, 'FSS.0404', show());
  body.max_async_retry_attempts = 4;
  await refused(400, 'FSS.1001', at.client.updateFunctionAsyncInvokeConfig(put));
});
