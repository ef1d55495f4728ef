// Versions, aliases, reserved instances, metrics and quotas: skipped, and counted, where there are none.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { supported, withNode } from './case.mjs';
import { fg, HARD } from './launcher.mjs';

const JSON_TYPE = 'application/json';
const says = (word) => `def handler(event, context):\n    return "${word}"\n`;
const at = withNode(async () => {
  for (const name of ['f', 'g']) await at.create(name, says('first'));
});

test('a version and an alias keep what they named', HARD, async (t) => {
  const version = new fg.CreateFunctionVersionRequestBody().withVersion('v1');
  const publish = new fg.CreateFunctionVersionRequest('f', JSON_TYPE).withBody(version);
  const made = await supported(t, 'CreateFunctionVersion', at.client.createFunctionVersion(publish));
  if (!made) return;
  assert.equal(made.version, 'v1');
  const alias = new fg.CreateVersionAliasRequestBody('live', 'v1');
  await at.client.createVersionAlias(new fg.CreateVersionAliasRequest('f', JSON_TYPE).withBody(alias));
  const code = new fg.UpdateFunctionCodeRequestBody();
  Object.assign(code, { code_type: 'inline', func_code: { file: Buffer.from(says('second')).toString('base64') } });
  await at.client.updateFunctionCode(new fg.UpdateFunctionCodeRequest('f', JSON_TYPE).withBody(code));
  for (const [urn, word] of [[':v1', 'first'], [':!live', 'first'], [':latest', 'second'], ['', 'second']]) {
    assert.equal((await at.invoke(at.urn('f', urn))).result, word, urn);
  }
  const versions = await at.client.listFunctionVersions(new fg.ListFunctionVersionsRequest('f', JSON_TYPE));
  assert.deepEqual(versions.versions.map((shown) => shown.version).sort(), ['latest', 'v1']);
  const gone = await at.client.deleteVersionAlias(new fg.DeleteVersionAliasRequest('f', 'live', JSON_TYPE));
  assert.equal(gone.httpStatusCode, 204);
});

test('reserved instances are set and listed', HARD, async (t) => {
  const reserve = (count) => {
    const body = new fg.UpdateFunctionReservedInstancesCountRequestBody(count);
    const request = new fg.UpdateFunctionReservedInstancesCountRequest(at.urn('g'), JSON_TYPE);
    return at.client.updateFunctionReservedInstancesCount(request.withBody(body));
  };
  const set = await supported(t, 'UpdateFunctionReservedInstancesCount', reserve(1));
  if (!set) return;
  assert.equal(set.count, 1);
  const request = new fg.ListReservedInstanceConfigsRequest(JSON_TYPE).withFunctionUrn('g');
  const configs = await at.client.listReservedInstanceConfigs(request);
  assert.deepEqual(configs.reserved_instances.map((row) => row.min_count), [1]);
  assert.equal((await reserve(0)).count, 0);
});

test('a function has its series', HARD, async (t) => {
  await at.invoke('g');
  const request = new fg.ShowFunctionMetricsRequest(at.urn('g'), '5', JSON_TYPE);
  const metrics = await supported(t, 'ShowFunctionMetrics', at.client.showFunctionMetrics(request));
  if (!metrics) return;
  const total = metrics.count.filter(({ value }) => value >= 0).reduce((sum, { value }) => sum + value, 0);
  assert.equal(total, 1);
});

test('quotas are listed', HARD, async (t) => {
  const quotas = await supported(t, 'ListQuotas', at.client.listQuotas(new fg.ListQuotasRequest(JSON_TYPE)));
  if (!quotas) return;
  assert.ok(quotas.quotas.resources.length > 0);
});
