// A thousand live requests: what changes is changed, and nothing else. Counted in changes of the document, as times
// say more about the machine than about the page.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fine, row, signedIn, withBrowser } from './case.mjs';
import { HARD } from './node.mjs';

const LIVE = 1_000;
const CHANGED = 20;

const waiting = [];
const at = withBrowser(async ({ node }) => {
  await node.deploy('waits', { instances: 1 });
  for (let made = 0; made < LIVE; made += 50) {
    waiting.push(...await Promise.all(Array.from({ length: 50 }, () => node.invoke('waits'))));
  }
});

/** Counts what becomes of rows from now on, and marks those that are there. */
function count() {
  const rows = document.getElementById('tree-rows');
  for (const element of rows.children) element.same = true;
  const counts = { added: 0, removed: 0, inside: 0, attributes: 0 };
  new MutationObserver((records) => {
    for (const { type, target, addedNodes, removedNodes } of records) {
      if (type === 'attributes') counts.attributes += 1;
      else if (target === rows) { counts.added += addedNodes.length; counts.removed += removedNodes.length; }
      else if (!target.closest?.('.age') && !target.parentElement?.closest('.age')) counts.inside += 1;
    }
  }).observe(rows, { childList: true, subtree: true, characterData: true, attributes: true });
  window.counts = counts;
}

test('of a thousand rows only those are touched of which something changes', HARD, async () => {
  const { node } = at;
  const page = await signedIn(at);
  await page.says('#figures', `${LIVE} live requests`);
  await page.until('a thousand rows', (wanted) => document.querySelectorAll('#tree-rows .row').length === wanted, LIVE);
  await page.picture('thousand');
  await page.look(count);

  const over = waiting.slice(-CHANGED);
  for (const request of over) assert.equal((await node.cancel('waits', { request_id: request })).status, 200);
  const fresh = [];
  for (let made = 0; made < CHANGED; made += 1) fresh.push(await node.invoke('waits'));
  await page.until('the new rows, and not the old', (there, gone) => {
    const has = (id) => document.querySelector(`.row[data-id="${id}"]`) !== null;
    return there.every(has) && !gone.some(has);
  }, fresh, over);
  const counts = await page.look(() => window.counts);
  const same = await page.look(() => [...document.querySelectorAll('#tree-rows .row')].filter((element) => element.same).length);
  assert.equal(same, LIVE - CHANGED, 'the other rows are the very same');
  // Each of them is added, perhaps seen being stopped, and removed; nothing is done to any other.
  assert.ok(counts.added <= CHANGED && counts.removed <= 2 * CHANGED, JSON.stringify(counts));
  assert.ok(counts.inside <= 4 * CHANGED, JSON.stringify(counts));
  assert.ok(counts.attributes <= 4 * CHANGED, JSON.stringify(counts));
  fine(page);
});

test('filters show what is wanted of a thousand, and all of it again', HARD, async () => {
  const page = await signedIn(at);
  await page.until('a thousand rows', (wanted) => document.querySelectorAll('#tree-rows .row').length === wanted, LIVE);
  await page.look(() => { for (const element of document.querySelectorAll('#tree-rows .row')) element.same = true; });
  const shown = () => [...document.querySelectorAll('#tree-rows .row')].filter((element) => !element.hidden).length;
  const choose = (id, value) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const wanted = waiting[500];
  await page.click('#filter-text');
  await page.type(wanted);
  await page.says('#filtered', `1 of ${LIVE}`);
  assert.equal(await page.look(shown), 1);
  await page.shown(row(wanted));
  await page.look(choose, 'filter-text', '');
  await page.look(choose, 'filter-state', 'running');
  assert.equal(await page.look(shown), 1);
  await page.picture('filtered');
  await page.look(choose, 'filter-state', '');
  await page.look(choose, 'filter-function', 'default:waits');
  assert.equal(await page.look(shown), LIVE);
  await page.look(choose, 'filter-text', 'no such thing');
  await page.says('#tree-none', 'No request is as the filters say.');
  await page.look(choose, 'filter-text', '');
  assert.equal(await page.look(() => [...document.querySelectorAll('#tree-rows .row')].filter((element) => element.same).length), LIVE);
  fine(page);
});
