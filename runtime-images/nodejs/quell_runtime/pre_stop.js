'use strict';

// The function's last word: when the node retires this instance, which has nothing to do, it sends SIGTERM.

const { Context } = require('./context.js');
const { callHook } = require('./hooks.js');
const { say } = require('./log.js');

// Taken before user code is loaded, which may put its own in their place.
const { reallyExit } = process;
const { setTimeout, clearTimeout } = globalThis;

/**
 * Runs `hook` once at SIGTERM, then ends the process. Without one the signal does what it does by default;
 * so it does while a request is in work (`isBusy`): then it is no retirement.
 */
function install(settings, hook, isBusy, endInstance) {
  if (hook === null) return;
  let called = false;
  process.on('SIGTERM', async () => {
    if (called) return;
    if (isBusy()) return endInstance();
    called = true;
    const limit = setTimeout(() => {
      say(`the pre-stop handler ${settings.preStop} took longer than ${settings.preStopTimeoutS} s`);
      reallyExit.call(process, 0);
    }, settings.preStopTimeoutS * 1000);
    try {
      await callHook(hook, new Context(settings));
    } catch (error) {
      say(`the pre-stop handler ${settings.preStop} failed: ${error?.stack ?? error}`);
    }
    clearTimeout(limit);
    reallyExit.call(process, 0);
  });
}

module.exports = { install };
