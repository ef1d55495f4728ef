'use strict';

// From the environment to serving: import, initialize, serve.

const wire = require('./wire.js');
const ownership = require('./ownership.js');
const processes = require('./processes.js');
const faults = require('./faults.js');
const preStop = require('./pre_stop.js');
const { readSettings } = require('./settings.js');
const { NodeClient } = require('./node_client.js');
const { Server } = require('./server.js');
const { Context } = require('./context.js');
const { callHook } = require('./hooks.js');
const { load } = require('./loader.js');
const { markConsole, say } = require('./log.js');

// Not `process.exit`, which user code may have replaced, and which runs its listeners.
const { reallyExit } = process;

/** Kills all descendants and ends this process at once. */
function endInstance() {
  try {
    processes.strikeAll();
  } finally {
    reallyExit.call(process, 1);
  }
}

/** The life of an instance. */
async function main() {
  let settings;
  try {
    settings = readSettings();
  } catch (error) {
    say(`unusable environment: ${error.message}`);
    reallyExit.call(process, 1);
  }
  // Made now, lest they belong to the first request that prints.
  process.stdout; // eslint-disable-line no-unused-expressions
  process.stderr; // eslint-disable-line no-unused-expressions
  ownership.install();
  const node = new NodeClient(settings);
  let prepared;
  try {
    prepared = await prepare(settings);
  } catch (error) {
    await reportFailedStart(node, settings, error);
    endInstance();
  }
  if (settings.concurrency > 1) markConsole();
  const server = new Server(settings, node, prepared.handler);
  faults.install(() => server.spoil());
  preStop.install(settings, prepared.preStop, () => server.size > 0, endInstance);
  try {
    await server.run();
    say('ending the instance: an exception that nobody caught, or an exit, may have left it in disorder');
  } catch (error) {
    say(`ending the instance: ${error.name === 'NodeGone' ? error.message : error.stack}`);
  }
  endInstance();
}

/** Loads and initializes. Rejects with what user code throws; an exception that nobody catches counts too. */
async function prepare(settings) {
  let fail;
  const failed = new Promise((_, reject) => { fail = reject; });
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);
  const loading = async () => {
    process.chdir(settings.codeRoot);
    const handler = await load(settings.codeRoot, settings.handler);
    const stopping = settings.preStop ? await load(settings.codeRoot, settings.preStop) : null;
    if (settings.initializer) {
      await callHook(await load(settings.codeRoot, settings.initializer), new Context(settings));
    }
    return { handler, preStop: stopping };
  };
  const prepared = await Promise.race([loading(), failed]);
  failed.catch(() => {});
  process.off('uncaughtException', fail);
  process.off('unhandledRejection', fail);
  return prepared;
}

/** Tells the node, and the output, why this instance cannot start. */
async function reportFailedStart(node, settings, error) {
  const { kind, message, stack } = wire.describeError(error);
  // With all of it: a syntax error tells its line nowhere else.
  process.stderr.write(`${typeof error?.stack === 'string' ? error.stack : `${kind}: ${message}`}\n`);
  const where = settings.initializer ? `, initializer ${settings.initializer}` : '';
  try {
    await node.postInitError(wire.errorBody({ kind, message: `handler ${settings.handler}${where}: ${message}`, stack }));
  } catch (gone) {
    say(`the failed start was not reported: ${gone.message}`);
  }
}

module.exports = { main };
