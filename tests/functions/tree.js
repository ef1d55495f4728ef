'use strict';

// A part of a tree whose parts are of all kinds of runtimes: see tree.py.

const net = require('node:net');
const { once } = require('node:events');

exports.handler = async (event, context) => {
  for (const child of event.children) {
    if (!child.sync) await context.invokeAsync(child.function, child.event);
  }
  const line = net.connect({ path: event.bell });
  line.on('error', () => {});
  try {
    await once(line, 'connect', { signal: context.signal });
    line.write(`${JSON.stringify({ tag: event.tag, request: context.getRequestID() })}\n`);
    const waited = event.children.find((child) => child.sync);
    if (waited) await context.invoke(waited.function, waited.event);
    else await once(line, 'data', { signal: context.signal });
  } finally {
    line.destroy();
  }
  return { tag: event.tag };
};
