'use strict';

// What the node tells an instance through its environment.

const path = require('node:path');

/** FunctionGraph's limit of a result, where the node does not say it. */
const DEFAULT_MAX_RESPONSE_BYTES = 6291456;

/** The environment of one instance, read once. Throws an Error that names the variable if one is unusable. */
function readSettings(env = process.env) {
  const [host, port] = address(required(env, 'RUNTIME_API_ADDR'));
  return Object.freeze({
    apiHost: host,
    apiPort: port,
    codeRoot: path.resolve(required(env, 'RUNTIME_CODE_ROOT')),
    handler: required(env, 'RUNTIME_HANDLER'),
    initializer: env.RUNTIME_INITIALIZER_HANDLER || '',
    preStop: env.PRE_STOP_HANDLER || '',
    preStopTimeoutS: number(env, 'PRE_STOP_TIMEOUT', 30),
    timeoutS: number(env, 'RUNTIME_TIMEOUT', 60),
    memoryMb: number(env, 'RUNTIME_MEMORY', 128),
    cpu: number(env, 'RUNTIME_CPU', 0),
    userData: userData(env),
    projectId: env.RUNTIME_PROJECT_ID || '',
    functionName: env.RUNTIME_FUNC_NAME || '',
    version: env.RUNTIME_FUNC_VERSION || '',
    package: env.RUNTIME_PACKAGE || '',
    maxResponseBytes: number(env, 'RUNTIME_MAX_RESP_BODY_SIZE', DEFAULT_MAX_RESPONSE_BYTES),
    concurrency: Math.max(1, number(env, 'QUELL_CONCURRENCY', 1)),
    endpoint: env.QUELL_API_ENDPOINT || '',
  });
}

function required(env, name) {
  if (!env[name]) throw new Error(`${name} is not set`);
  return env[name];
}

function address(text) {
  const at = text.lastIndexOf(':');
  const port = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(port)) throw new Error(`RUNTIME_API_ADDR is not host:port: ${text}`);
  return [text.slice(0, at).replace(/^\[|\]$/g, ''), port];
}

function number(env, name, otherwise) {
  if (!env[name]) return otherwise;
  const value = Number(env[name]);
  if (!Number.isFinite(value)) throw new Error(`${name} is not a number: ${env[name]}`);
  return value;
}

function userData(env) {
  try {
    return JSON.parse(env.RUNTIME_USERDATA || '{}');
  } catch (error) {
    throw new Error(`RUNTIME_USERDATA is not JSON: ${error.message}`);
  }
}

module.exports = { readSettings };
