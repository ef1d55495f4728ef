'use strict';

// The function of the end-to-end tests in JavaScript: it says where it is by a line to the test, which stays
// open; a word from the test lets what waits go on. (By TCP: not every version of Node.js knows abstract sockets.)

const childProcess = require('node:child_process');
const net = require('node:net');
const { once } = require('node:events');

/** This process by a name that no other of the node has: numbers begin anew in each namespace. */
const me = () => `${process.env.QUELL_INSTANCE_ID}/${process.pid}`;

const ring = async (event, facts) => {
  const line = net.connect(event.port, '127.0.0.1');
  line.on('error', () => {});
  await once(line, 'connect');
  line.write(`${JSON.stringify({ me: me(), tag: event.tag ?? null, ...facts })}\n`);
  return line;
};

const ways = {
  echo: async (event) => ({ me: me(), event }),
  fail: async () => { throw new RangeError('as the test asked'); },
  late: async () => { setTimeout(() => { throw new RangeError('in a callback'); }, 1); await once(process, 'never'); },
  leave: async () => { process.kill(process.pid, 'SIGKILL'); await once(process, 'never'); },
  big: async (event) => 'x'.repeat(event.bytes),
  // Obeys the signal, and cleans up.
  wait: async (event, line, context) => {
    try {
      const [told] = await once(line, 'data', { signal: context.signal });
      return { me: me(), told: told.toString(), tag: event.tag };
    } finally {
      line.end(context.cancelled ? `cleaned ${context.cancelReason} ${context.signal.reason.name}\n` : '');
    }
  },
  // Ignores the signal until it is told to go on, and answers as if nothing had happened.
  deaf: async (event, line) => {
    const [told] = await once(line, 'data');
    return { me: me(), told: told.toString(), tag: event.tag };
  },
  stubborn: async () => { await once(process, 'never'); },
  block: async () => { for (;;); },
  process: async (event, line, context) => {
    // One that lost its parent and left the session, and one that is waited for.
    const child = childProcess.spawn('sh', ['-c', '(setsid sleep 300 &); exec sleep 300'], { stdio: 'ignore' });
    await once(child, 'exit', { signal: context.signal });
  },
  child: async (event, line, context) => context.invoke(context.getFunctionName(), event.child),
};

const work = async (event, context) => {
  if (event.do === 'echo') return ways.echo(event);
  const children = [];
  for (const child of event.children ?? []) children.push(await context.invokeAsync(context.getFunctionName(), child));
  const line = event.port ? await ring(event, { request: context.getRequestID(), children }) : null;
  try {
    return await ways[event.do](event, line, context);
  } finally {
    line?.destroySoon();
  }
};

exports.handler = work;
exports.calledBack = (event, context, callback) => { work(event, context).then((result) => callback(null, result), callback); };
exports.initializer = (context, callback) => callback(new Error('no such database'));
