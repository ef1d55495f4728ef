'use strict';

// An instance of the image against a stub node, and a way for handlers to report.

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { LIMIT_MS, StubNode, isAlive } = require('./stub_node.js');

const IMAGE = path.dirname(__dirname);
const FUNCTIONS = path.join(__dirname, 'functions');

/** Starts nodes and instances for one test; what is left at its end is killed. */
class Bench {
  constructor(test) {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'quell-node-image-'));
    this.endings = [];
    test.after(() => this.#end());
    // Anywhere but where it was written: it is unpacked from a binary.
    this.image = path.join(this.folder, 'image');
    fs.cpSync(path.join(IMAGE, 'quell_runtime'), path.join(this.image, 'quell_runtime'), { recursive: true });
    fs.copyFileSync(path.join(IMAGE, 'bootstrap.js'), path.join(this.image, 'bootstrap.js'));
    this.reports = [];
    this.lines = [];
  }

  async #end() {
    for (const ending of this.endings.reverse()) await ending();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** `reaper`: below a process that inherits what the instance leaves behind, as the node's helper does. */
  async start(handler, { concurrency = 1, env = {}, reaper = true } = {}) {
    this.node = await new StubNode().listen();
    this.endings.push(() => this.node.close());
    await this.#hearReports();
    const settings = {
      PATH: process.env.PATH,
      RUNTIME_API_ADDR: `127.0.0.1:${this.node.port}`,
      RUNTIME_CODE_ROOT: FUNCTIONS,
      RUNTIME_HANDLER: handler,
      RUNTIME_TIMEOUT: '30',
      RUNTIME_MEMORY: '256',
      RUNTIME_CPU: '400',
      RUNTIME_USERDATA: '{"colour": "blue"}',
      RUNTIME_PROJECT_ID: 'project',
      RUNTIME_FUNC_NAME: 'function',
      RUNTIME_FUNC_VERSION: 'latest',
      RUNTIME_PACKAGE: 'default',
      QUELL_CONCURRENCY: String(concurrency),
      QUELL_API_ENDPOINT: `http://127.0.0.1:${this.node.port}`,
      REPORTS: path.join(this.folder, 'reports'),
      ...env,
    };
    const bootstrap = [process.execPath, path.join(this.image, 'bootstrap.js')];
    fs.copyFileSync(path.join(__dirname, 'reaper.py'), path.join(this.folder, '__instance-init'));
    const [program, ...args] = reaper ? ['python3', '__instance-init', ...bootstrap] : bootstrap;
    this.process = spawn(program, args, { cwd: this.folder, env: settings, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    this.printed = '';
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.on('data', (data) => {
        this.printed += data;
        this.node.look();
      });
    }
    const { process: started } = this;
    this.exited = once(started, 'close');
    this.endings.push(async () => {
      if (started.exitCode === null && started.signalCode === null) process.kill(-started.pid, 'SIGKILL');
      await this.exited;
    });
    return this.node;
  }

  async #hearReports() {
    if (this.listener) return;
    this.listener = net.createServer((line) => {
      line.setEncoding('utf8');
      line.on('error', () => {});
      let text = '';
      line.on('data', (data) => {
        text += data;
        if (!text.endsWith('\n')) return;
        const report = { ...JSON.parse(text), release: () => line.end() };
        text = '';
        const waiting = this.reports.shift();
        if (waiting) waiting(report);
        else this.lines.push(report);
      });
    });
    this.listener.listen(path.join(this.folder, 'reports'));
    await once(this.listener, 'listening');
    this.endings.push(() => this.listener.close());
  }

  /** What a handler reports next. With `hold` it waits until `release` is called. */
  async report({ hold = false } = {}) {
    const report = this.lines.shift() ?? await limited('a report', new Promise((resolve) => { this.reports.push(resolve); }));
    if (!hold) report.release();
    return report;
  }

  /** A request whose handler has reported. */
  async hang(event, options) {
    const request = this.node.submit(event);
    return [request, await this.report(options)];
  }

  /** Resolves when that has been printed; output has a way of its own. */
  async prints(pattern) {
    await this.node.until(() => pattern.test(this.printed), `output like ${pattern}`);
  }

  async end() {
    const [code, signal] = await limited('the end of the instance', this.exited);
    return code ?? signal;
  }
}

function limited(what, work) {
  let limit;
  const late = new Promise((_, reject) => {
    limit = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), LIMIT_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(limit));
}

/** Resolves when none of these processes runs. */
async function dead(...pids) {
  await limited('the death of processes', (async () => {
    while (pids.some(isAlive)) await new Promise((resolve) => { setTimeout(resolve, 5); });
  })());
}

module.exports = { Bench, FUNCTIONS, dead };
