// Who may look: signing in and out, tokens that are wrong, revoked or may not cancel; and a node that goes away.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fine, open, row, signedIn, signIn, withQuiet } from './case.mjs';
import { HARD, QuellNode } from './node.mjs';

const at = withQuiet(({ node }) => node.deploy('waits'));

/** Everything that a browser keeps or shows of where it has been and what it asked. */
const traces = () => JSON.stringify([location.href, { ...localStorage }, document.cookie, performance.getEntries().map(({ name }) => name)]);

test('a wrong token is refused in the API\'s words, a right one opens the page, and no URL ever has it', HARD, async () => {
  const page = await open(at);
  await page.shown('#sign-in');
  await page.until('the field has the focus', () => document.activeElement.id === 'token');
  await page.picture('sign-in');
  await signIn(page, 'qk.nobody.nothing');
  await page.says('#sign-in-error', 'invalid token (FSS.0403)');
  assert.equal(await page.look(() => sessionStorage.length), 0);
  await page.look(() => { document.getElementById('token').value = ''; });
  await signIn(page, at.node.token);
  await page.says('#who', 'project default');
  assert.equal(await page.look(() => document.getElementById('token').value), '', 'it does not stay in the field');
  await page.until('the row', () => document.querySelector('#tree-none').checkVisibility());

  // A reload of the tab goes on; a new tab does not know it.
  await page.look(() => location.reload());
  await page.says('#who', 'project default');
  const other = await open(at);
  await other.shown('#sign-in');
  const secret = at.node.token.split('.')[2];
  assert.ok(!(await page.look(traces)).includes(secret));
  for (const { url, method } of page.asked) assert.ok(!url.includes(secret), `${method} ${url}`);
  const hosts = new Set(page.asked.map(({ url }) => new URL(url).origin));
  assert.deepEqual([...hosts], [at.node.endpoint], 'it talks to its node and to nobody else');

  await page.click('#out');
  await page.shown('#sign-in');
  assert.equal(await page.look(() => sessionStorage.length), 0);
  assert.equal(await page.look(() => document.querySelectorAll('.row[data-id]').length), 0, 'nothing stays of what was shown');
  fine(page);
});

test('a token that may look sees the plan and cannot press', HARD, async () => {
  const { node } = at;
  const made = await node.must('POST', '/quell/v1/credentials', { scopes: ['read'] });
  const request = await node.invoke('waits');
  const page = await open(at, `#requests/${request}`);
  await signIn(page, made.token);
  await page.says('#detail', 'This token may look, but not cancel.');
  await page.says('#detail .plan', 'Stops 1 request');
  assert.equal(await page.look(() => document.getElementById('stop').disabled), true);

  // Revoked: the node says so by itself, and the page is back at its beginning.
  await node.must('DELETE', `/quell/v1/credentials/${made.key_id}`);
  await page.says('#sign-in-error', 'not valid any more');
  assert.equal(await page.look(() => document.querySelectorAll('.row[data-id]').length), 0);
  fine(page);
  await node.cancel('waits', { request_id: request, type: 'force' });
});

test('a token that expires leads back to signing in', HARD, async () => {
  const made = await at.node.must('POST', '/quell/v1/credentials', { scopes: ['read'], expires_in_s: 3 });
  const page = await open(at);
  await signIn(page, made.token);
  await page.says('#sign-in-error', 'valid');
  fine(page);
});

test('a node that goes away is said so, and when it is back the rows are those that live now', HARD, async () => {
  const first = await QuellNode.start();
  const own = { ...at, node: first };
  await first.deploy('waits');
  const kept = await first.invoke('waits');
  const page = await signedIn(own);
  await page.shown(row(kept));
  await page.look((id) => { document.querySelector(`.row[data-id="${id}"]`).same = true; }, kept);
  const over = await first.invoke('waits');
  await page.shown(row(over));
  const { host } = new URL(first.endpoint);
  await first.stop({ keep: true });
  await page.says('#banner', 'Not connected');
  await page.picture('not-connected');
  const second = await QuellNode.start({ data: first.folder, listen: host });
  try {
    await second.cancel('waits', { request_id: over, type: 'force' });
    await page.click('#banner button').catch(() => {}); // it may be back by itself
    await page.until('the banner is gone', () => !document.getElementById('banner').checkVisibility());
    await page.until('only what lives', (id) => {
      const rows = [...document.querySelectorAll('#tree-rows .row')];
      return rows.length === 1 && rows[0].dataset.id === id && rows[0].same;
    }, kept);
    fine(page);
  } finally {
    await second.stop();
  }
});
