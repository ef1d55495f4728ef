// Runs the suite and counts it: `node run.mjs [word]`, e.g. `node run.mjs stop`.

import { readdirSync } from 'node:fs';
import path from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const word = process.argv[2] ?? '';
const files = readdirSync(here).filter((name) => name.endsWith('.test.mjs') && name.includes(word));
const paths = files.sort().map((name) => path.join(here, name));

const counts = { passed: 0, failed: 0 };

// Some versions report each file as a test of its own.
const isFile = ({ name }) => paths.includes(path.resolve(here, name)) || paths.includes(name);

function count(data, outcome, detail = '') {
  if (isFile(data) && outcome !== 'failed') return;
  counts[outcome] += 1;
  console.log(`${data.name} ... ${outcome}${detail}`);
}

const suite = run({ files: paths, concurrency: 1 });
suite.on('test:pass', (data) => count(data, 'passed'));
suite.on('test:fail', (data) => {
  const error = data.details?.error;
  count(data, 'failed', `\n${error?.cause?.stack ?? error?.stack ?? error}`);
});
suite.on('test:stderr', (data) => process.stderr.write(data.message));
suite.on('end', () => {
  console.log(`console: ${counts.passed} passed, ${counts.failed} failed`);
  // A run of nothing must not look like a pass.
  process.exitCode = counts.failed || counts.passed === 0 ? 1 : 0;
});
suite.resume();
