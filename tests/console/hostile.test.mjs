// What comes from functions and users is text; and other sites can do nothing with a console that is open.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';

import { fine, signedIn, withQuiet } from './case.mjs';
import { HARD } from './node.mjs';

const MARKUP = '<img src=x onerror="window.broken=1"><b id=bold>&amp;</b><script>window.broken=2</script>';
/** As long as the name of a process may be. */
const COMM = '<b id=c>x</b>';

const at = withQuiet(({ node }) => node.deploy('waits'));

/** Elements in what was made from rows, that no part of the page makes. */
const foreign = () => document.querySelectorAll('main img, main b, main script, main iframe, #bold, #c').length;

test('markup in names of processes, lines of logs and reasons is shown as it is', HARD, async () => {
  const { node } = at;
  assert.equal((await node.ask('POST', '/v2/default/fgs/functions', {
    func_name: MARKUP, runtime: 'Python3.10', handler: 'index.handler', timeout: 60, memory_size: 128, code_type: 'inline',
    func_code: { file: '' },
  })).status, 400, 'a function cannot have such a name');
  const request = await node.invoke('waits', { comm: COMM, print: [MARKUP] });
  const page = await signedIn(at, `#requests/${request}`);
  await page.says('.log', MARKUP);
  await page.click('#detail input[value="force"]');
  await page.says('#detail .plan', COMM);
  assert.equal(await page.look(foreign), 0);
  await page.look(() => { location.hash = 'instances'; });
  await page.says('#instance-rows', COMM);
  assert.equal(await page.look(foreign), 0);
  await page.look((id) => { location.hash = `requests/${id}`; }, request);
  await page.click('#reason');
  await page.type(MARKUP);
  await page.click('#stop');
  await page.says('#outcome', MARKUP);
  assert.equal(await page.look(foreign), 0);
  await page.says('#detail', 'It is over.');
  await page.click('#outcome a');
  await page.says('#receipt-rows', MARKUP);
  await page.says('#receipt', MARKUP);
  await page.picture('markup');
  assert.equal(await page.look(foreign), 0);
  assert.equal(await page.look(() => window.broken ?? null), null);
  fine(page);
});

test('no text can be made markup or code in the page, nor can it load or send anything elsewhere', HARD, async () => {
  const page = await signedIn(at);
  const refused = await page.look(async () => {
    const tried = {};
    const attempt = (name, what) => { try { what(); tried[name] = 'done'; } catch (error) { tried[name] = error.name; } };
    attempt('markup', () => { document.createElement('div').innerHTML = '<b>x</b>'; });
    attempt('policy', () => trustedTypes.createPolicy('mine', {}));
    const script = document.createElement('script');
    attempt('script', () => { script.text = 'window.broken = 3'; });
    document.head.append(script);
    tried.elsewhere = await fetch('http://localhost:1/').then(() => 'done', (error) => error.name);
    return tried;
  });
  assert.deepEqual(refused, { markup: 'TypeError', policy: 'TypeError', script: 'TypeError', elsewhere: 'TypeError' });
  assert.equal(await page.look(() => window.broken ?? null), null);
  assert.ok(page.faults.length > 0, 'the browser says what it refused');
});

test('another site can neither send a cancel, nor read anything, nor frame the console', HARD, async () => {
  const { node } = at;
  const request = await node.invoke('waits');
  const page = await signedIn(at);
  const evil = http.createServer((_, answer) => {
    answer.setHeader('Content-Type', 'text/html');
    answer.end(`<form method="post" enctype="text/plain" target="to" action="${node.endpoint}/v2/default/fgs/functions/waits/cancel">
      <input name='{"request_id": "${request}", "type": "force", "x": "' value='"}'></form>
      <iframe name="to"></iframe><iframe id="console" src="${node.endpoint}/console"></iframe>`);
  });
  await new Promise((resolve) => { evil.listen(0, '127.0.0.1', resolve); });
  try {
    // Opened by the very browser session that has the console open: what it has, it sends.
    await page.go(`http://localhost:${evil.address().port}/`);
    const asked = await page.look(async (endpoint, id) => {
      document.forms[0].submit();
      await new Promise((resolve) => { document.querySelector('iframe[name=to]').addEventListener('load', resolve); });
      const body = JSON.stringify({ request_id: id, type: 'force' });
      const to = `${endpoint}/v2/default/fgs/functions/waits/cancel`;
      const tried = (options, where = to) => fetch(where, options).then((answer) => answer.type, (error) => error.name);
      return [
        await tried({ method: 'POST', body, mode: 'no-cors', credentials: 'include' }),
        await tried({ method: 'POST', body, headers: { 'X-Auth-Token': 'guess' } }),
        await tried({}, `${endpoint}/quell/v1/node`),
        await tried({}, `${endpoint}/quell/v1/events`),
      ];
    }, node.endpoint, request);
    assert.deepEqual(asked, ['opaque', 'TypeError', 'TypeError', 'TypeError']);
    const framed = page.faults.filter((fault) => fault.includes('frame-ancestors'));
    assert.ok(framed.length > 0, 'the frame is refused');
  } finally {
    evil.closeAllConnections();
    evil.close();
  }
  const live = await node.must('GET', '/quell/v1/node');
  assert.deepEqual(live.requests.map((one) => [one.request_id, one.stopping]), [[request, null]]);
  assert.ok((await node.receipts()).every((receipt) => receipt.request_id !== request));
});
