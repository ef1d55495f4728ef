// A node under test: the built binary on a fresh data folder, and what tests ask of it beside the page.

import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const TARGET = path.resolve(process.env.CARGO_TARGET_DIR || path.join(ROOT, 'target'));

/** Milliseconds. Nothing here takes a tenth of it; what has not come by then will not. */
export const LIMIT = 30_000;
/** For `test`: the hard limit of each. */
export const HARD = { timeout: 4 * LIMIT };
const LOOK_AGAIN = 20;

/** A function that starts the children its event names, prints, and waits to be stopped. */
export const WAITS = `
import time

def handler(event, context):
    for child in event.get("children", []):
        context.invoke_async(child.get("function", context.getFunctionName()), child)
    if "comm" in event:
        with open("/proc/self/comm", "w") as comm:
            comm.write(event["comm"])
    for line in event.get("print", []):
        print(line, flush=True)
    while not event.get("ends"):
        time.sleep(1)
    return {}
`;

/** A running `quell serve`; ended by its pid. */
export class QuellNode {
  static async start({ data, listen = '127.0.0.1:0', options = [] } = {}) {
    const node = new QuellNode();
    node.folder = data ?? mkdtempSync(path.join(tmpdir(), 'quell-console-'));
    chmodSync(node.folder, 0o711); // runtimes of a node that is root are another user
    const binary = process.env.QUELL_TEST_BINARY || path.join(TARGET, 'debug/quell');
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('QUELL_')));
    const args = ['serve', '--listen', listen, '--data', path.join(node.folder, 'data'), '--rate-limit', '0', ...options];
    node.process = spawn(binary, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    node.ended = new Promise((resolve) => { node.process.once('exit', resolve); node.process.once('error', resolve); });
    node.killIt = () => node.process.kill('SIGKILL');
    process.once('exit', node.killIt);
    await node.listens();
    const kept = JSON.parse(readFileSync(path.join(node.folder, 'data', 'client.json'), 'utf8'));
    Object.assign(node, { endpoint: kept.endpoint, token: kept.token });
    return node;
  }

  async listens() {
    const said = [];
    const lines = createInterface({ input: this.process.stderr });
    await new Promise((resolve, reject) => {
      lines.on('line', (line) => { said.push(line); if (line.includes('listening on ')) resolve(); });
      this.ended.then(() => reject(new Error(`the node did not start; it said:\n${said.join('\n')}`)));
    });
  }

  /** Ends it at once; its data stay if they are wanted again. */
  async stop({ keep = false } = {}) {
    this.killIt();
    await this.ended;
    process.removeListener('exit', this.killIt);
    if (!keep) rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async ask(method, where, body, headers = {}) {
    const answer = await fetch(this.endpoint + where, {
      method,
      headers: { 'X-Auth-Token': this.token, 'Content-Type': 'application/json', ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(LIMIT),
    });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, body: text ? JSON.parse(text) : null };
  }

  async must(...asked) {
    const answer = await this.ask(...asked);
    if (answer.status >= 300) throw new Error(`${asked.slice(0, 2).join(' ')}: ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  /** Deploys a function of as many instances, each with as many requests at once. */
  deploy(name, { instances = 10, each = 1, source = WAITS } = {}) {
    return this.must('POST', '/v2/default/fgs/functions', {
      func_name: name, package: 'default', runtime: 'Python3.10', handler: 'index.handler', timeout: 600, memory_size: 128,
      code_type: 'inline', func_code: { file: Buffer.from(source).toString('base64') },
      strategy_config: { concurrency: instances, concurrent_num: each },
    });
  }

  async invoke(name, event = {}) {
    return (await this.must('POST', `/v2/default/fgs/functions/${name}/invocations-async`, event)).request_id;
  }

  cancel(name, body) {
    return this.ask('POST', `/v2/default/fgs/functions/${name}/cancel`, body);
  }

  /** Nothing of an earlier test lives. */
  async quiet() {
    const { requests } = await this.must('GET', '/quell/v1/node');
    for (const { request_id: request, function: name, parent } of requests) {
      if (parent === null) await this.cancel(name, { request_id: request, force: true, recursive: true });
    }
    await this.live('nothing', (rows) => rows.length === 0);
  }

  async receipts() {
    return (await this.must('GET', '/quell/v1/cancels')).receipts;
  }

  /** Live requests of the project once they are as a test wants them. */
  async live(words, wanted) {
    const end = Date.now() + LIMIT;
    for (;;) {
      const { requests } = await this.must('GET', '/quell/v1/node');
      if (wanted(requests)) return requests;
      if (Date.now() > end) throw new Error(`never: ${words}: ${JSON.stringify(requests.slice(0, 5))}`);
      await pause(LOOK_AGAIN);
    }
  }
}
