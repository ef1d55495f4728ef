// Without a mouse, in the dark, on a small screen, without motion: the same work can be done.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fine, open, row, signedIn, withQuiet } from './case.mjs';
import { HARD } from './node.mjs';
import { pale, unnamed } from './readable.mjs';

const at = withQuiet(({ node }) => node.deploy('waits', { instances: 5 }));

const focused = (page) => page.look(() => document.activeElement.dataset.id ?? document.activeElement.id);

/** A root with two children, and one that has nobody. */
async function tree(node) {
  const root = await node.invoke('waits', { children: [{}, {}] });
  await node.live('three', (rows) => rows.filter((one) => one.state === 'running').length === 3);
  const alone = await node.invoke('waits');
  const rows = await node.live('four', (all) => all.filter((one) => one.state === 'running').length === 4);
  const children = rows.filter((one) => one.parent === root).map((one) => one.request_id);
  return { root, alone, children };
}

test('with the keyboard alone one signs in, walks the tree, plans, stops, and reads the receipt', HARD, async () => {
  const { node } = at;
  const { root, alone, children } = await tree(node);
  const page = await open(at);
  await page.until('the field has the focus', () => document.activeElement.id === 'token');
  await page.type(node.token);
  await page.press('Enter');
  await page.shown(row(alone));
  await page.tabTo('#tree-rows .row');
  await page.press('Home');
  assert.equal(await focused(page), root);
  await page.press('ArrowRight');
  assert.ok(children.includes(await focused(page)));
  await page.press('ArrowDown');
  await page.press('ArrowDown');
  assert.equal(await focused(page), alone);
  await page.press('ArrowUp');
  await page.press('ArrowLeft');
  assert.equal(await focused(page), root, 'from a child to its parent');
  await page.press('ArrowLeft');
  const state = (id) => page.look((one) => {
    const element = document.querySelector(`.row[data-id="${one}"]`);
    return [element.getAttribute('aria-expanded'), [...document.querySelectorAll('#tree-rows .row')].filter((each) => !each.hidden).length];
  }, id);
  assert.deepEqual(await state(root), ['false', 2], 'closed');
  await page.press('End');
  assert.equal(await focused(page), alone);
  await page.press('Home');
  await page.press('ArrowRight');
  assert.deepEqual(await state(root), ['true', 4], 'open again');
  await page.picture('focus');

  await page.press('Enter');
  await page.until('the request has the focus', () => document.activeElement.id === 'detail-title');
  await page.press('Escape');
  await page.until('the row has it again', (id) => document.activeElement.dataset.id === id, root);
  await page.press('Enter');
  await page.tabTo('#detail input[name="mode"]');
  await page.press('ArrowDown');
  await page.says('#detail .plan', 'Stops 3 requests');
  await page.tabTo('#reason');
  await page.type('by hand');
  await page.until('it may be pressed', () => !document.getElementById('stop').disabled);
  await page.tabTo('#stop');
  await page.press('Enter');
  await page.says('#outcome', 'stopped');
  await page.until('the outcome has the focus', () => document.activeElement.closest('#outcome') !== null);
  await page.tabTo('#outcome a');
  await page.press('Enter');
  await page.says('#receipt', 'by hand');
  await page.until('the receipt has the focus', () => document.activeElement.closest('#receipt') !== null);
  await page.press('Escape');
  await page.until('it is closed', () => document.getElementById('receipt').hidden);
  await page.tabTo('#views a[href="#requests"]');
  fine(page);
  await node.cancel('waits', { request_id: alone });
});

test('in light and dark every text can be read and every control has a name', HARD, async () => {
  const { node } = at;
  const { root, alone } = await tree(node);
  await node.cancel('waits', { request_id: root, type: 'force', recursive: true, reason: 'for the pictures' });
  const [{ cancel_id: cancel }] = await node.receipts();
  const page = await signedIn(at);
  const views = [`requests/${alone}`, 'instances', `receipts/${cancel}`, 'latency', 'node'];
  const there = ['.plan ul', '#instance-rows td', '#receipt .timeline', '.chart svg', '#means table'];
  for (const scheme of ['light', 'dark']) {
    await page.media({ 'prefers-color-scheme': scheme });
    for (const [index, view] of views.entries()) {
      await page.look((hash) => { location.hash = hash; }, view);
      await page.shown(there[index]);
      assert.deepEqual(await page.look(pale), [], `${view} in ${scheme}`);
      assert.deepEqual(await page.look(unnamed), [], `${view} in ${scheme}`);
      await page.picture(`${scheme}-${view.split('/')[0]}`);
    }
  }
  const back = await page.look(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(back, 'rgb(15, 19, 23)', 'the dark is dark');
  fine(page);
  await node.cancel('waits', { request_id: alone, type: 'force' });
});

test('on a small screen nothing is wider than it, and without motion nothing moves', HARD, async () => {
  const { node } = at;
  const request = await node.invoke('waits');
  const page = await signedIn(at, `#requests/${request}`, { width: 420, height: 800 });
  await page.media({ 'prefers-reduced-motion': 'reduce' });
  await page.shown('.plan ul');
  assert.ok(await page.look(() => document.documentElement.scrollWidth <= innerWidth), 'no sideways scrolling of the page');
  const moving = await page.look(() => document.getAnimations().length);
  assert.equal(moving, 0);
  await page.picture('small');
  fine(page);
  await node.cancel('waits', { request_id: request, type: 'force' });
});
