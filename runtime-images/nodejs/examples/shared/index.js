'use strict';

// Requests that share a process: cancelled softly, one of them ends and the others do not notice.
//
// Event: {"sleep_s": 300}.

const { setTimeout: sleep } = require('node:timers/promises');

exports.handler = async (event, context) => {
  try {
    await sleep(Number(event?.sleep_s ?? 300) * 1000, undefined, { signal: context.signal });
    return { pid: process.pid };
  } finally {
    console.log(context.cancelled ? `cleaning up: ${context.cancelReason}` : 'done');
  }
};
