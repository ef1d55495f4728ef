'use strict';

// Handlers that hang in every way there is; `run` picks one by the event.

const childProcess = require('node:child_process');
const crypto = require('node:crypto');
const dgram = require('node:dgram');
const dns = require('node:dns');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const zlib = require('node:zlib');
const { EventEmitter, once } = require('node:events');
const { promisify } = require('node:util');
const { Worker } = require('node:worker_threads');
const { setTimeout: sleep } = require('node:timers/promises');
const { report } = require('./report.js');

exports.run = (event, context, callback) => {
  const how = module.exports.ways[event.how];
  if (how.length < 3) how(event, context).then((result) => callback(null, result), callback);
  else how(event, context, callback);
};
exports.runAsync = async (event, context) => module.exports.ways[event.how](event, context);

/** Until the request is cancelled; rejects with the reason. */
const aborted = (signal) => new Promise((_, reject) => {
  if (signal.aborted) reject(signal.reason); // it may come as soon as the test has been told
  signal.addEventListener('abort', () => reject(signal.reason));
});

/** Leaves something behind in the background, reports, and obeys. */
const leaving = (leave) => async (event, context) => {
  const told = await leave(event, context);
  await report(told);
  context.signal.throwIfAborted();
  await aborted(context.signal);
};

const gate = new EventEmitter().setMaxListeners(0);
let shared;

exports.ways = {
  pid: async () => process.pid,
  obedient: async (event, context) => {
    try {
      await report();
      await sleep(300_000, undefined, { signal: context.signal });
    } finally {
      const { name, word, message } = context.signal.reason;
      await report({ at: 'finally', name, word, message, cancelled: context.cancelled, reason: context.cancelReason });
    }
  },
  waiting: async (event, context) => {
    await report({ tag: event.tag });
    const [told] = await Promise.race([once(gate, 'open'), aborted(context.signal)]);
    return { told, tag: event.tag, pid: process.pid };
  },
  open: async (event) => gate.emit('open', event.word),
  calledBack: (event, context, callback) => {
    context.signal.addEventListener('abort', () => callback(context.signal.reason));
    report();
  },
  swallowing: async (event, context) => {
    await report();
    await aborted(context.signal).catch(() => {});
    return 'as if nothing had happened';
  },
  deaf: async () => {
    await report();
    await once(gate, 'open');
    return 'much later';
  },
  blocking: async () => {
    await report();
    for (;;);
  },
  // What is left when the handler has obeyed.
  timer: leaving(async () => { setTimeout(() => report({ at: 'timer' }), 150); }),
  forgotten: leaving(async () => { setTimeout(() => report({ at: 'forgotten' }), 60_000); }),
  interval: leaving(async () => {
    const interval = setInterval(() => {}, 5).unref();
    gate.once('open', () => clearInterval(interval));
  }),
  chain: leaving(async () => {
    let again = true;
    gate.once('open', () => { again = false; });
    const step = () => { if (again) setImmediate(step); };
    step();
  }),
  reading: leaving(async (event) => {
    let again = true;
    gate.once('open', () => { again = false; });
    (async () => { while (again) await fs.promises.stat(event.path); })();
  }),
  hashing: leaving(async () => {
    let again = true;
    gate.once('open', () => { again = false; });
    const step = () => { if (again) crypto.pbkdf2('a', 'b', 1000, 64, 'sha1', step); };
    step();
  }),
  zipping: leaving(async () => {
    let again = true;
    gate.once('open', () => { again = false; });
    const step = () => { if (again) zlib.gzip(Buffer.alloc(1_000_000), step); };
    step();
  }),
  inflating: leaving(async () => {
    const packed = zlib.brotliCompressSync(Buffer.alloc(3_000_000));
    let again = true;
    gate.once('open', () => { again = false; });
    (async () => { while (again) await promisify(zlib.brotliDecompress)(packed); })();
  }),
  resolving: leaving(async () => {
    // A server that never answers.
    const server = dgram.createSocket('udp4').bind(0, '127.0.0.1').unref();
    await once(server, 'listening');
    const resolver = new dns.Resolver({ timeout: 60_000 });
    resolver.setServers([`127.0.0.1:${server.address().port}`]);
    resolver.resolve4('quell.test', () => {});
    gate.once('open', () => resolver.cancel());
  }),
  looking: leaving(async () => {
    let again = true;
    gate.once('open', () => { again = false; });
    const step = () => { if (again) dns.lookup('localhost', step); };
    step();
  }),
  connected: leaving(async () => {
    const line = net.connect(process.env.REPORTS).resume();
    await once(line, 'connect');
    gate.once('open', () => line.destroy());
  }),
  serving: leaving(async () => {
    const server = http.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    gate.once('open', () => server.close());
  }),
  fetching: leaving(async (event, context) => {
    const abort = new AbortController();
    gate.once('open', () => abort.abort());
    const url = `${process.env.QUELL_API_ENDPOINT}/v2/held`;
    fetch(url, { method: 'POST', body: '{}', signal: abort.signal }).catch(() => {});
  }),
  // Connections that are kept for the next request are nobody's code.
  fetched: leaving(async () => {
    for (let at = 0; at < 2; at += 1) {
      await (await fetch(`${process.env.QUELL_API_ENDPOINT}/v2/x`, { method: 'POST', body: '{}' })).text();
    }
  }),
  agent: leaving(async () => {
    shared ??= new http.Agent({ keepAlive: true });
    await new Promise((resolve) => {
      const url = `${process.env.QUELL_API_ENDPOINT}/v2/x`;
      http.request(url, { method: 'POST', agent: shared }, (response) => response.resume().on('end', resolve)).end('{}');
    });
    await sleep(1);
  }),
  worker: leaving(async () => {
    const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
    await once(worker, 'online');
  }),
  // Processes, in every way they come to be.
  process: leaving(async () => ({ child: childProcess.spawn('sleep', ['300']).pid })),
  detached: leaving(async () => ({ child: childProcess.spawn('sleep', ['300'], { detached: true, stdio: 'ignore' }).pid })),
  orphan: leaving(async () => {
    const shell = 'setsid sleep 300 >/dev/null 2>&1 & echo $!';
    return { child: Number(await new Promise((resolve) => { childProcess.exec(shell, (_, out) => resolve(out)); })) };
  }),
  scrubbed: leaving(async () => {
    const shell = 'env -i setsid sleep 300 >/dev/null 2>&1 & echo $!';
    return { child: Number(childProcess.execSync(shell).toString()) };
  }),
  leftBehind: async () => {
    const { pid } = childProcess.spawn('sleep', ['300'], { detached: true, stdio: 'ignore' });
    await report({ child: pid });
  },
  invoking: async (event, context) => context.invoke('child', { n: 1 }),
  invokingAsync: async (event, context) => context.invokeAsync('child', { n: 1 }, { detached: event.detached }),
  failing: async (event, context) => {
    try {
      return await context.invoke('child');
    } catch ({ name, status, errorCode, errorMsg, canceled, refused }) {
      return { name, status, errorCode, errorMsg, canceled, refused };
    }
  },
  invokingLate: async (event, context) => {
    await report();
    await aborted(context.signal).catch(() => {});
    const refused = await context.invoke('child').catch((error) => error);
    const refusedToo = await context.invokeAsync('child').catch((error) => error);
    await report({ same: refused === context.signal.reason && refusedToo === context.signal.reason });
  },
  // Faults of the process.
  throwing: async () => {
    setTimeout(() => { throw new RangeError('in a timer'); }, 1);
    await once(gate, 'never');
  },
  rejecting: async (event) => {
    Promise.reject(new RangeError('nobody awaits'));
    if (event.hang) await once(gate, 'never');
    else await sleep(5);
  },
  leaving: async () => process.exit(3),
  throwingListener: async (event, context) => {
    context.signal.addEventListener('abort', () => { throw new RangeError('in a listener'); });
    await report();
    await aborted(context.signal);
  },
};
