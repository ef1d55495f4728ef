// What every file of the suite does the same way: a node and a browser of its own, and the way into the page.

import assert from 'node:assert/strict';
import { after, before, beforeEach } from 'node:test';

import { Chromium } from './chromium.mjs';
import { HARD, QuellNode } from './node.mjs';

export function withBrowser(prepare = async () => {}) {
  const at = { node: null, chromium: null };
  before(async () => {
    at.node = await QuellNode.start();
    at.chromium = await Chromium.start();
    await prepare(at);
  }, HARD);
  after(async () => {
    await Promise.allSettled([at.chromium?.stop(), at.node?.stop()]);
  }, HARD);
  return at;
}

/** The same, and each test begins with nothing that lives. */
export function withQuiet(prepare) {
  const at = withBrowser(prepare);
  beforeEach(() => at.node.quiet(), HARD);
  return at;
}

/** The page, not signed in. */
export function open(at, view = '', size = {}) {
  return at.chromium.page(`${at.node.endpoint}/console${view}`, size);
}

/** Signs in as a person does. */
export async function signIn(page, token) {
  await page.click('#token');
  await page.type(token);
  await page.press('Enter');
}

/** The page, signed in, with what lives on it. */
export async function signedIn(at, view = '', size = {}) {
  const page = await open(at, view, size);
  await signIn(page, at.node.token);
  await page.says('#who', 'project default');
  return page;
}

/** Nothing went wrong in the page: no exception, nothing that its policy refused. */
export function fine(page) {
  assert.deepEqual(page.faults, []);
}

export const row = (id) => `.row[data-id="${id}"]`;
