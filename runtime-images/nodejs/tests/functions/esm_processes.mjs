import { execSync, spawn } from 'node:child_process';
import { report } from './report.js';

const aborted = (signal) => new Promise((_, reject) => {
  if (signal.aborted) reject(signal.reason);
  signal.addEventListener('abort', () => reject(signal.reason));
});

export const handler = async ({ how }, { signal }) => {
  const child = how === 'spawn'
    ? spawn('sleep', ['300'], { detached: true, stdio: 'ignore', env: {} }).pid
    : Number(execSync('setsid sleep 300 >/dev/null 2>&1 & echo $!').toString());
  await report({ child });
  await aborted(signal);
};
