'use strict';

// Tells the test that a handler is at some point, and waits until it was heard.

const net = require('node:net');
const { once } = require('node:events');

exports.report = async (message = {}) => {
  const line = net.connect(process.env.REPORTS);
  line.write(`${JSON.stringify({ pid: process.pid, ...message })}\n`);
  line.resume();
  await once(line, 'close');
};
