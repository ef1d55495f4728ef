// Nodes that share a store: seen in the console of each by an operator, and by nobody else; and none on a node alone.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Chromium } from './chromium.mjs';
import { fine, open, row, signedIn, signIn } from './case.mjs';
import { HARD, QuellNode } from './node.mjs';
import { Postgres } from './postgres.mjs';
import { pale, unnamed } from './readable.mjs';

const at = { node: null, chromium: null };
let database = null;
let other = null;
let alone = null;

before(async () => {
  [database, alone, at.chromium] = await Promise.all([Postgres.start(), QuellNode.start(), Chromium.start()]);
  const options = ['--store', database.url];
  at.node = await QuellNode.start({ options });
  other = await QuellNode.start({ options });
}, HARD);

after(async () => {
  await Promise.allSettled([at.chromium?.stop(), at.node?.stop(), other?.stop(), alone?.stop()]);
  await database?.stop();
}, HARD);

const cells = () => [...document.querySelectorAll('#nodes tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent));

test('an operator sees every node, how it stands and what is left of its lease, in light and dark', HARD, async () => {
  const { nodes, this: asked } = await at.node.must('GET', '/quell/v1/nodes');
  const page = await signedIn(at, '#node');
  await page.shown('#nodes table');
  const rows = await page.look(cells);
  assert.deepEqual(rows.map(([name]) => name), nodes.map(({ node }) => (node === asked ? `${node} (this one)` : node)));
  for (const [index, [, state, lease, requests, version, endpoint]] of rows.entries()) {
    assert.match(lease, /^\d+\.\d s$/);
    assert.deepEqual([state, requests, version, endpoint], ['live', '0', nodes[index].version, nodes[index].endpoint]);
  }
  for (const scheme of ['light', 'dark']) {
    await page.media({ 'prefers-color-scheme': scheme });
    assert.deepEqual(await page.look(pale), [], scheme);
    assert.deepEqual(await page.look(unnamed), [], scheme);
    await page.picture(`${scheme}-nodes`);
  }
  fine(page);
});

test('on a small screen the nodes scroll by themselves, and the page does not', HARD, async () => {
  const page = await signedIn(at, '#node', { width: 420, height: 800 });
  await page.shown('#nodes table');
  assert.ok(await page.look(() => document.documentElement.scrollWidth <= innerWidth));
  fine(page);
});

test('whoever is no operator sees no nodes and stays signed in, and on a node alone there are none to see', HARD, async () => {
  const made = await at.node.must('POST', '/quell/v1/credentials', { project: 'default', scopes: ['admin'] });
  const page = await open(at, '#node');
  await signIn(page, made.token);
  await page.says('#who', 'project default');
  await page.says('#means', 'What contains instances');
  await page.says('#means', 'Fork servers');
  assert.equal(await page.look(() => document.getElementById('nodes')), null);
  assert.ok(await page.look(() => document.getElementById('sign-in').hidden), 'signed in still');
  const lone = await signedIn({ node: alone, chromium: at.chromium }, '#node');
  await lone.says('#means', 'Fork servers');
  assert.equal(await lone.look(() => document.getElementById('nodes')), null);
  fine(lone);
});

test('a request of another node is said to be there and is stopped from here, and its receipt shows what each node did', HARD, async () => {
  await other.deploy('spread', { instances: 1 });
  const wanted = (count) => (rows) => rows.length === count && rows.every((one) => one.state === 'running');
  // The other node has no room left for the child: this one takes it.
  const root = await other.invoke('spread', { print: ['at work'], children: [{}] });
  await other.live('the root runs', wanted(1));
  const [child] = await at.node.live('the child runs', wanted(1));
  const { node: there } = await other.must('GET', '/quell/v1/node');

  const page = await signedIn(at, `#requests/${root}`);
  await page.says('#where', `It is on another node, ${there}`);
  await page.says('#detail', `is in the log of node ${there}`);
  await page.says('#plan-stops', `on node ${there}, asked`);
  await page.says('#plan-nobody', 'Nobody else is touched on this node.');
  assert.equal(await page.look((one) => document.querySelector(one), row(root)), null, 'the list is of the node that is asked');
  await page.click('#detail input[value="both"]');
  await page.says('#detail .plan', 'Stops 2 requests');
  await page.says('#plan-elsewhere', '1 of them is on other nodes');
  await page.picture('elsewhere');
  await page.click('#stop');
  await page.says('#outcome', 'stopped');
  await page.says('#detail', 'It is over.');
  await page.says('#outcome', 'by node');

  const [receipt] = (await at.node.receipts()).filter((one) => one.request_id === root && one.parts?.length > 0);
  await page.go(`${at.node.endpoint}/console#receipts/${receipt.cancel_id}`);
  await page.says('#receipt', `${receipt.parts.length} part`);
  for (const { node, request_id: request, result, detail } of receipt.parts) {
    for (const words of [node, request.slice(0, 8), result, detail.slice(0, 8)]) await page.says('#receipt', words);
  }
  assert.ok(receipt.parts.some((one) => one.node === there && one.request_id === root), JSON.stringify(receipt));
  await page.says('#receipt-rows', `${receipt.parts.length} part`);
  assert.ok(!(await page.look(() => document.getElementById('receipt').innerText)).includes('0 requests in scope'));
  for (const scheme of ['light', 'dark']) {
    await page.media({ 'prefers-color-scheme': scheme });
    assert.deepEqual(await page.look(pale), [], scheme);
    assert.deepEqual(await page.look(unnamed), [], scheme);
    await page.picture(`${scheme}-parts`);
  }
  assert.ok(receipt.parts.some((one) => one.node !== there && one.request_id === child.request_id), 'the child was stopped here');
  fine(page);
});
