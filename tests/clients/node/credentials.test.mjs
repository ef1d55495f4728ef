// Who may ask: tokens, and signatures by access key.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { refused, source, withNode } from './case.mjs';
import { fg, HARD, UNKNOWN_ID } from './launcher.mjs';

const JSON_TYPE = 'application/json';
const at = withNode();
const list = (client, name = '') =>
  client.listFunctions(new fg.ListFunctionsRequest(JSON_TYPE).withFuncName(name));

async function refusedEverywhere(client) {
  await refused(401, 'FSS.0401', list(client));
  await refused(401, 'FSS.0401', at.invoke('f', {}, 'v1', client));
  assert.equal((await refused(403, 'FSS.0403', at.cancel('f', UNKNOWN_ID, undefined, client))).errorMsg,
    'invalid token');
}

/** A test that needs keys to sign with; counted as skipped without. */
function signed(name, body) {
  test(name, HARD, async (t) => {
    if (!at.node.accessKey) return t.skip('no access_key in client.json: this node does not take signatures');
    return body((more) => at.node.client({ mode: 'signed', ...more }));
  });
}

test('a token opens its project, and a wrong one nothing', HARD, async () => {
  assert.deepEqual((await list(at.node.client({ mode: 'token' }))).functions, []);
  for (const token of ['wrong', `${at.node.token}0`]) {
    await refusedEverywhere(at.node.client({ mode: 'token', token }));
  }
  await refused(403, 'FSS.0403', list(at.node.client({ mode: 'token', project: 'elsewhere' })));
});

signed('signed requests of every method are taken', async (client) => {
  await at.create('signed', source('plain.py'), { description: '\u00e9\u4e2d' });
  const by = client();
  assert.equal((await list(by, 'te st/\u4e2d&x=~')).count, 0);
  const event = { text: '\u00e9\u4e2d', large: 'x'.repeat(1_000_000) };
  const answer = await at.invoke(at.urn('signed'), event, 'v1', by);
  assert.deepEqual(JSON.parse(answer.result).event, event);
  const gone = await by.deleteFunction(new fg.DeleteFunctionRequest(at.urn('signed', ''), JSON_TYPE));
  assert.equal(gone.httpStatusCode, 204);
});

signed('a wrong secret and an unknown access key are refused', async (client) => {
  await refusedEverywhere(client({ sk: 'wrong' }));
  await refusedEverywhere(client({ ak: 'AKUNKNOWN00000000000' }));
});

signed('the keys of one project are forbidden in another', async (client) => {
  await refused(403, 'FSS.0403', list(client({ project: 'elsewhere' })));
});

signed('a date as a JavaScript Date is signed wrongly by this SDK and refused', async (client) => {
  await at.create('dated', source('plain.py'));
  const request = new fg.ListAsyncInvocationsRequest('dated', JSON_TYPE).withQueryBeginTime(new Date());
  await refused(403, 'FSS.0403', client().listAsyncInvocations(request));
});
