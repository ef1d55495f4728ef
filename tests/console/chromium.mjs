// A headless Chromium, driven over a pipe by its own protocol: what a page is tested with, and nothing between.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { LIMIT, TARGET } from './node.mjs';

/** Where pictures are kept. */
export const PICTURES = path.join(TARGET, 'console');
/** Milliseconds between two looks at a page. */
const LOOK_AGAIN = 25;

/** Milliseconds for a browser to end by itself. */
const CLOSE_LIMIT = 5_000;

const FLAGS = [
  '--headless=new', '--remote-debugging-pipe', '--no-first-run', '--no-default-browser-check', '--disable-gpu',
  '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-default-apps', '--disable-extensions', '--no-pings', '--no-proxy-server', '--mute-audio',
  '--hide-scrollbars', '--force-color-profile=srgb',
  // It is to talk to this machine and to nobody else.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
];

/** A browser; ended by its pid. */
export class Chromium {
  static async start() {
    const chromium = new Chromium();
    chromium.folder = mkdtempSync(path.join(tmpdir(), 'quell-console-browser-'));
    const flags = [...FLAGS, `--user-data-dir=${chromium.folder}`, 'about:blank'];
    // It makes no sandbox as root. It sees pages of this test alone.
    if (process.getuid() === 0) flags.unshift('--no-sandbox');
    chromium.process = spawn(process.env.CHROMIUM || 'chromium', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    chromium.ended = new Promise((resolve) => {
      chromium.process.once('exit', resolve);
      chromium.process.once('error', (error) => { chromium.failed = error; resolve(); });
    });
    chromium.killIt = () => chromium.process.kill('SIGKILL');
    process.once('exit', chromium.killIt);
    chromium.ended.then(() => chromium.hangUp());
    chromium.listen();
    return chromium;
  }

  constructor() {
    Object.assign(this, { number: 0, waiting: new Map(), sessions: new Map(), rest: '' });
  }

  listen() {
    const [, , , input, output] = this.process.stdio;
    Object.assign(this, { input });
    input.on('error', () => {});
    output.setEncoding('utf8');
    output.on('data', (text) => {
      const parts = (this.rest + text).split('\0');
      this.rest = parts.pop();
      for (const part of parts) this.heard(JSON.parse(part));
    });
  }

  heard({ id, error, result, method, params, sessionId }) {
    if (id === undefined) {
      this.sessions.get(sessionId)?.(method, params);
      return;
    }
    const { resolve, reject, method: asked } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Error(`${asked}: ${error.message}`));
    else resolve(result);
  }

  hangUp() {
    for (const { reject } of this.waiting.values()) reject(new Error(`the browser ended ${this.failed ?? ''}`));
    this.waiting.clear();
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.number += 1;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, method });
      this.input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  /** A page of its own: with storage that no other page has. */
  async page(url, { width = 1280, height = 800 } = {}) {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId, width, height });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId);
    this.sessions.set(sessionId, (method, params) => page.heard(method, params));
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await page.send(`${domain}.enable`);
    await page.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
    await page.go(url);
    return page;
  }

  async stop() {
    // All of its processes end with it, if it ends by itself.
    const closed = this.send('Browser.close').catch(() => {});
    await Promise.race([Promise.all([closed, this.ended]), pause(CLOSE_LIMIT, null, { ref: false })]);
    this.killIt();
    await this.ended;
    process.removeListener('exit', this.killIt);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

const KEYS = {
  Enter: { code: 'Enter', key: 13, text: '\r' }, Tab: { code: 'Tab', key: 9 }, Escape: { code: 'Escape', key: 27 },
  ' ': { code: 'Space', key: 32, text: ' ' }, Home: { code: 'Home', key: 36 }, End: { code: 'End', key: 35 },
  ArrowLeft: { code: 'ArrowLeft', key: 37 }, ArrowUp: { code: 'ArrowUp', key: 38 },
  ArrowRight: { code: 'ArrowRight', key: 39 }, ArrowDown: { code: 'ArrowDown', key: 40 },
};

/** A page as a person has it: looks, keys and clicks. */
export class Page {
  constructor(chromium, session) {
    Object.assign(this, { chromium, session, faults: [], asked: [] });
  }

  send(method, params) {
    return this.chromium.send(method, params, this.session);
  }

  heard(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      const { exceptionDetails: { text, exception } } = params;
      this.faults.push(`${text} ${exception?.description ?? ''}`);
    }
    if (method === 'Log.entryAdded' && params.entry.level === 'error' && params.entry.source !== 'network') {
      this.faults.push(`${params.entry.source}: ${params.entry.text}`);
    }
    if (method === 'Network.requestWillBeSent') this.asked.push(params.request);
  }

  async go(url) {
    await this.send('Page.navigate', { url });
    await this.until('the page is loaded', () => document.readyState === 'complete' && location.href !== 'about:blank');
  }

  /** What a function says in the page. It is sent as its text: it sees nothing but its arguments. */
  async look(what, ...args) {
    const expression = `(${what})(${args.map((arg) => JSON.stringify(arg)).join(', ')})`;
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until a function says something in the page. */
  async until(words, what, ...args) {
    const end = Date.now() + LIMIT;
    for (;;) {
      let failed = '';
      try {
        const said = await this.look(what, ...args);
        if (said) return said;
      } catch (error) {
        failed = error.message; // it may be between two documents
      }
      if (Date.now() > end) {
        await this.picture('failed');
        throw new Error(`never: ${words} ${failed}\n${await this.text().catch(() => '')}\n${this.faults.join('\n')}`);
      }
      await pause(LOOK_AGAIN);
    }
  }

  /** Waits until an element is there and shown. */
  shown(selector) {
    return this.until(`${selector} is shown`, (wanted) => document.querySelector(wanted)?.checkVisibility() ?? false, selector);
  }

  /** Waits until an element has these words. */
  says(selector, words) {
    return this.until(`${selector} says ${JSON.stringify(words)}`, (wanted, text) => {
      const element = document.querySelector(wanted);
      return (element?.checkVisibility() && element.innerText.includes(text)) ?? false;
    }, selector, words);
  }

  text() {
    return this.look(() => document.body.innerText);
  }

  async click(selector) {
    await this.until(`${selector} can be clicked`, (wanted) => {
      const element = document.querySelector(wanted);
      return (element?.checkVisibility() && !element.disabled) ?? false;
    }, selector);
    // Where it is once it has stayed there for two frames: what is on its way moves what is below it.
    const [x, y] = await this.until(`${selector} stands still`, async (wanted) => {
      const element = document.querySelector(wanted);
      element.scrollIntoView({ block: 'nearest' });
      const frame = () => new Promise((resolve) => { requestAnimationFrame(resolve); });
      const middle = () => {
        const { left, top, width, height } = element.getBoundingClientRect();
        return [left + width / 2, top + height / 2];
      };
      const before = middle();
      await frame();
      await frame();
      const after = middle();
      const hit = document.elementFromPoint(...after);
      const still = String(before) === String(after) && element.isConnected && (element.contains(hit) || hit?.contains(element));
      return still ? after : null;
    }, selector);
    const at = { x, y, button: 'left', clickCount: 1 };
    await this.send('Input.dispatchMouseEvent', { type: 'mousePressed', ...at });
    await this.send('Input.dispatchMouseEvent', { type: 'mouseReleased', ...at });
  }

  async press(name, modifiers = 0) {
    const { code, key, text } = KEYS[name];
    const event = { key: name, code, windowsVirtualKeyCode: key, modifiers };
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', text, ...event });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  /** Tab, as often as it takes to come to an element. */
  async tabTo(selector) {
    for (let step = 0; step < 60; step += 1) {
      if (await this.look((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) return;
      await this.press('Tab');
    }
    throw new Error(`Tab does not come to ${selector}`);
  }

  async type(text) {
    await this.send('Input.insertText', { text });
  }

  async media(features) {
    const list = Object.entries(features).map(([name, value]) => ({ name, value }));
    await this.send('Emulation.setEmulatedMedia', { features: list });
  }

  async picture(name) {
    mkdirSync(PICTURES, { recursive: true });
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    writeFileSync(path.join(PICTURES, `${name}.png`), Buffer.from(data, 'base64'));
  }
}
