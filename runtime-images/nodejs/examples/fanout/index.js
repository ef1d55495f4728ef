'use strict';

// A tree of requests to cancel: it invokes itself, some of it asynchronously, and its leaves sleep.
//
// Event: {"depth": 3, "width": 2, "sleep_s": 300}. Of the children of a request, the last is invoked
// synchronously, and the request waits for it; the others are invoked asynchronously. Leaves sleep on a
// timer, in a `sleep` process, or in a `sleep` process that left its group and session by setsid.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');

const DEFAULTS = { depth: 3, width: 2, sleep_s: 300, number: 0 };
/** Of one tree: more is taken for a mistake in the event. */
const MAX_LEAVES = 256;

exports.handler = async (event, context) => {
  const { depth, width, sleep_s: seconds, number } = { ...DEFAULTS, ...event };
  if (!(depth >= 0) || !(width >= 1) || width ** depth > MAX_LEAVES) {
    throw new RangeError(`depth at least 0, width at least 1, and at most ${MAX_LEAVES} leaves`);
  }
  if (depth === 0) return leaf(number, seconds, context.signal);
  const children = Array.from({ length: width }, (_, at) => ({
    depth: depth - 1, width, sleep_s: seconds, number: number * width + at,
  }));
  const self = context.getFunctionName();
  const started = [];
  for (const child of children.slice(0, -1)) started.push(await context.invokeAsync(self, child));
  context.getLogger().info(`started ${started}, waiting for one more`);
  return { started, waited_for: await context.invoke(self, children.at(-1)) };
};

async function leaf(number, seconds, signal) {
  const how = ['timer', 'process', 'setsid'][number % 3];
  if (how === 'timer') await sleep(seconds * 1000, undefined, { signal });
  else await once(spawn('sleep', [String(seconds)], { detached: how === 'setsid', signal }), 'exit');
  return { leaf: number, slept_in: how };
}
