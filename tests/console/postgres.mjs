// A PostgreSQL server of a test's own, in a folder that goes with it.

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** Where Debian puts the server's programs, which are on nobody's PATH. */
const DEBIAN = '/usr/lib/postgresql';

function programs() {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort() : [];
  const found = versions.map((version) => path.join(DEBIAN, version, 'bin')).filter((bin) => existsSync(path.join(bin, 'initdb')));
  if (found.length === 0) throw new Error(`no PostgreSQL below ${DEBIAN}: install postgresql (see .ci/run)`);
  return found.at(-1);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer().once('error', reject);
    probe.listen(0, '127.0.0.1', () => { const { port } = probe.address(); probe.close(() => resolve(port)); });
  });
}

export class Postgres {
  static async start() {
    const server = new Postgres();
    server.folder = mkdtempSync(path.join(tmpdir(), 'quell-pg-'));
    chmodSync(server.folder, 0o755);
    const isRoot = process.getuid() === 0;
    if (isRoot) execFileSync('chown', ['postgres:postgres', server.folder]);
    // The server refuses to be root. It dies with this process at the latest.
    const other = isRoot ? ['--reuid', 'postgres', '--regid', 'postgres', '--init-groups'] : [];
    const asServer = (name) => ['--pdeathsig', 'KILL', ...other, path.join(programs(), name)];
    const options = { cwd: server.folder, env: { ...process.env, LC_ALL: 'C' } };
    const data = path.join(server.folder, 'data');
    execFileSync('setpriv', [...asServer('initdb'), '-D', data, '-A', 'trust', '-U', 'quell', '-N', '-E', 'UTF8', '--locale=C'],
      { ...options, stdio: 'pipe' });
    const port = await freePort();
    server.process = spawn('setpriv', [...asServer('postgres'), '-D', data, '-c', 'listen_addresses=127.0.0.1', '-c', `port=${port}`,
      '-c', `unix_socket_directories=${server.folder}`], { ...options, stdio: ['ignore', 'ignore', 'pipe'] });
    server.ended = new Promise((resolve) => { server.process.once('exit', resolve); server.process.once('error', resolve); });
    await new Promise((resolve, reject) => {
      const said = [];
      const lines = createInterface({ input: server.process.stderr });
      lines.on('line', (line) => { said.push(line); if (line.includes('ready to accept connections')) resolve(); });
      server.ended.then(() => reject(new Error(`the database server did not start; it said:\n${said.join('\n')}`)));
    });
    server.url = `postgres://quell@127.0.0.1:${port}/postgres`;
    return server;
  }

  async stop() {
    this.process.kill('SIGQUIT');
    await this.ended;
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
