// The way that the console is for: see a tree grow, look at the plan, stop it, watch it stop, read the receipt.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fine, row, signedIn, withQuiet } from './case.mjs';
import { HARD } from './node.mjs';

const at = withQuiet(async ({ node }) => {
  await node.deploy('parent', { instances: 10 });
  await node.deploy('child', { instances: 1, each: 4 });
});

const texts = (selector) => [...document.querySelectorAll(selector)].map((element) => element.innerText);

test('a tree grows, is planned, stopped with a reason, seen to stop, and its receipt is read', HARD, async () => {
  const { node } = at;
  const page = await signedIn(at);
  await page.says('#tree-none', 'No request lives now.');
  const root = await node.invoke('parent', { children: [{ function: 'child' }, { function: 'child' }], print: ['at work'] });
  await page.shown(row(root));
  await page.until('three rows, the children below the root', (id) => {
    const rows = [...document.querySelectorAll('#tree-rows .row')];
    const levels = rows.map((element) => element.getAttribute('aria-level')).join();
    return rows[0]?.dataset.id === id && levels === '1,2,2' && rows[0].getAttribute('aria-expanded') === 'true';
  }, root);
  const innocent = await node.invoke('child');
  await node.live('all run', (rows) => rows.length === 4 && rows.every((one) => one.state === 'running'));
  await page.until('four run', () => [...document.querySelectorAll('#tree-rows .row')].filter((one) => one.innerText.includes('running')).length === 4);
  await page.picture('tree');

  await page.click(`${row(root)} .id`);
  await page.says('#plan-stops', 'asked; if it is not over within its grace');
  await page.says('#plan-nobody', 'Nobody else is touched.');
  await page.says('.log', 'at work');
  await page.click('#detail input[value="both"]');
  await page.says('#detail .plan', 'Stops 3 requests');
  await page.says('#detail .plan', 'Kills 2 instances, with all their processes');
  await page.says('#plan-collateral', innocent.slice(0, 8));
  await page.until('processes by name', () => document.querySelector('#detail .plan table').innerText.includes('python3'));
  await page.says('#stop', 'Stop 3 requests and end 1 other');
  await page.picture('plan');
  assert.equal((await node.receipts()).length, 0, 'a plan stops nothing');

  await page.click('#detail input[value="recursive"]');
  await page.says('#detail .plan', 'Kills no instance at once.');
  await page.says('#plan-nobody', 'Nobody else is touched.');
  await page.click('#reason');
  await page.type('wrong input');
  await page.click('#stop');
  await page.says('#outcome', 'stopped');
  await page.says('#outcome', 'wrong input');
  await page.says('#said', 'stopped');
  await page.until('all but one are gone', (id) => {
    const rows = [...document.querySelectorAll('#tree-rows .row')];
    return rows.length === 1 && rows[0].dataset.id === id;
  }, innocent);
  await page.picture('stopped');

  const [receipt] = await node.receipts();
  assert.equal(receipt.asked_by[0].reason, 'wrong input');
  assert.deepEqual([receipt.scope, receipt.level, receipt.result], ['subtree', 'ask', 'stopped']);
  await page.click('#outcome a');
  await page.says('#receipt', '3 requests in scope');
  const phases = await page.look(() => document.querySelector('#receipt .timeline').getAttribute('aria-label'));
  for (const phase of ['Fence falls', 'On the disk', 'Settled', 'Answered']) assert.ok(phases.includes(phase), phases);
  await page.says('#receipt-rows', 'wrong input');
  assert.deepEqual(await page.look(texts, '#receipt-rows tr.chosen td:nth-child(3)'), ['recursive']);
  await page.picture('receipt');

  await page.click('#views a[href="#latency"]');
  await page.says('#latency-charts', '1 of them');
  await page.click('#views a[href="#instances"]');
  await page.says('#instance-rows', 'default:child');
  await page.click('#views a[href="#node"]');
  await page.says('#means', 'What contains instances');
  await page.says('#means', 'L0');
  await node.cancel('child', { request_id: innocent });
  fine(page);
});

test('who would be ended besides is ended by force, and the receipt names him', HARD, async () => {
  const { node } = at;
  const target = await node.invoke('child');
  const beside = await node.invoke('child');
  await node.live('both run', (rows) => rows.length === 2 && rows.every((one) => one.state === 'running'));
  const page = await signedIn(at, `#requests/${target}`);
  await page.click('#detail input[value="force"]');
  await page.says('#plan-collateral', beside.slice(0, 8));
  await page.click('#stop');
  await page.says('#outcome', '1 other that shared an instance');
  await page.says('#outcome', 'proven');
  const proof = await page.look(() => document.querySelector('#outcome').innerText);
  assert.ok(/populated_0|no_descendants|group_empty|namespace_ended/.test(proof), proof);
  await page.says('#tree-none', 'No request lives now.');
  await page.picture('forced');
  await page.click('#views a[href="#latency"]');
  await page.says('#latency-charts', 'From the first strike');
  await page.picture('latency');
  fine(page);
});

test('what the API refuses is shown in its words, and a request that is over says how', HARD, async () => {
  const { node } = at;
  const page = await signedIn(at, '#requests/11111111-2222-4333-8444-555555555555');
  await page.says('#detail', 'There is no such request');
  const short = await node.invoke('child', { ends: true });
  await page.look((id) => { location.hash = `requests/${id}`; }, short);
  await page.says('#detail', 'SUCCESS');
  await page.look(() => { location.hash = 'receipts/11111111-2222-4333-8444-555555555555'; });
  await page.says('#receipt', 'receipt not found (FSS.0404)');
  fine(page);
});
