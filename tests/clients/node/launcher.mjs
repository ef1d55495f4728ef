// A node under test: the built binary on a fresh data folder, and clients of the vendor's SDK for it.

import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.resolve(HERE, '../../..');
const TARGET = path.resolve(process.env.CARGO_TARGET_DIR || path.join(ROOT, 'target'));

/** Milliseconds. Nothing here takes a tenth of it; what has not come by then will not. */
export const LIMIT = 60_000;
/** Milliseconds between two looks at something that nothing tells of. */
export const LOOK_AGAIN = 10;
/** For `test`: the hard limit of each. */
export const HARD = { timeout: LIMIT };
export const UNKNOWN_ID = '1167bf8c-87b0-43ab-8f5f-26b16c64f252';

// The SDK writes ~/.huaweicloud/application_id when a client is made: not into the user's own home.
const HOME = mkdtempSync(path.join(tmpdir(), 'quell-clients-home-'));
process.env.HOME = HOME;
process.on('exit', () => rmSync(HOME, { recursive: true, force: true }));
for (const name of Object.keys(process.env)) {
  if (/^(https?|all)_proxy$/i.test(name) || name.startsWith('HUAWEICLOUD_SDK_')) delete process.env[name];
}

// The modules lie below the target folder, not in the tree of the sources.
const fromInstalled = createRequire(path.join(TARGET, 'clients/node/package.json'));
export const fg = fromInstalled('@huaweicloud/huaweicloud-sdk-functiongraph/v2/public-api.js');
export const core = fromInstalled('@huaweicloud/huaweicloud-sdk-core');

/** A credential of the SDK that carries a token. This SDK has none; it lets credentials be extended. */
class TokenCredentials extends core.BasicCredentials {
  constructor(token, projectId) {
    super({ ak: 'none', sk: 'none', projectId });
    this.token = token;
  }

  async processAuthRequest(client, request) {
    const signed = await super.processAuthRequest(client, request);
    signed.headers = { ...signed.headers, Authorization: 'none', 'X-Auth-Token': this.token };
    return signed;
  }
}

/** A running `quell serve`; ended by its pid. */
export class Node {
  static async start() {
    const node = new Node();
    node.folder = mkdtempSync(path.join(tmpdir(), 'quell-clients-'));
    chmodSync(node.folder, 0o711); // runtimes of a node that is root are another user
    const data = path.join(node.folder, 'data');
    const binary = process.env.QUELL_TEST_BINARY || path.join(TARGET, 'debug/quell');
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('QUELL_')));
    node.process = spawn(binary, ['serve', '--listen', '127.0.0.1:0', '--data', data], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    node.ended = new Promise((resolve) => {
      node.process.once('exit', resolve);
      node.process.once('error', resolve);
    });
    node.killIt = () => node.process.kill('SIGKILL');
    process.once('exit', node.killIt);
    try {
      await node.listens();
    } catch (error) {
      await node.stop();
      throw error;
    }
    const kept = JSON.parse(readFileSync(path.join(data, 'client.json'), 'utf8'));
    Object.assign(node, { endpoint: kept.endpoint, project: kept.project, token: kept.token });
    Object.assign(node, { accessKey: kept.access_key, secretKey: kept.secret_key });
    node.mode = modeFor(node);
    return node;
  }

  async listens() {
    const said = [];
    const lines = createInterface({ input: this.process.stderr });
    const listening = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        said.push(line);
        if (line.includes('listening on ')) resolve();
      });
      this.ended.then((why) => reject(new Error(`the node did not start: ${why}\n${said.join('\n')}`)));
    });
    await listening;
  }

  /** SIGTERM, then a second signal that stops at once; its exit is collected. */
  async stop() {
    this.process.kill('SIGTERM');
    this.process.kill('SIGINT');
    const slow = new AbortController();
    const patience = pause(LIMIT, undefined, { signal: slow.signal }).then(this.killIt, () => {});
    await this.ended;
    slow.abort();
    await patience;
    process.removeListener('exit', this.killIt);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** A client of the SDK; by default with the node's own credential in the mode of the run. */
  client({ mode = this.mode, ak = this.accessKey, sk = this.secretKey, token = this.token, securityToken,
    project = this.project } = {}) {
    const credentials = mode === 'signed'
      ? new core.BasicCredentials({ ak, sk, projectId: project, securityToken })
      : new TokenCredentials(token, project);
    return fg.FunctionGraphClient.newBuilder().withCredential(credentials).withEndpoint(this.endpoint).build();
  }
}

/** The one switch: QUELL_CLIENTS_MODE, else signed as soon as the node has keys to sign with. */
function modeFor(node) {
  const mode = process.env.QUELL_CLIENTS_MODE || (node.accessKey ? 'signed' : 'token');
  if (!['signed', 'token'].includes(mode)) throw new Error(`QUELL_CLIENTS_MODE is ${mode}, not signed or token`);
  if (mode === 'signed' && !node.accessKey) {
    throw new Error('QUELL_CLIENTS_MODE is signed, and client.json of this node has no access_key');
  }
  return mode;
}

/** A loopback listener that functions ring; a line that ends says that the code at its end is gone. */
export class Bell {
  static async hang() {
    const bell = new Bell();
    bell.rung = [];
    bell.waiting = [];
    bell.server = net.createServer((socket) => {
      const line = new Line(socket);
      const next = bell.waiting.shift();
      if (next) next(line);
      else bell.rung.push(line);
    });
    await new Promise((resolve) => bell.server.listen(0, '127.0.0.1', resolve));
    bell.port = bell.server.address().port;
    return bell;
  }

  /** The next that rings, with what it said. */
  async ring() {
    const line = this.rung.shift() ?? (await new Promise((resolve) => this.waiting.push(resolve)));
    line.said = JSON.parse(await line.first);
    return line;
  }

  close() {
    this.server.close();
  }
}

class Line {
  constructor(socket) {
    this.socket = socket;
    const lines = createInterface({ input: socket });
    socket.on('error', () => {}); // a reset is an end like another
    this.first = new Promise((resolve) => lines.once('line', resolve));
    this.gone = new Promise((resolve) => socket.once('close', resolve));
  }

  tell(what = 'go') {
    this.socket.write(what);
  }
}
