'use strict';

// Invoking another function: the request to the node's API, and what its answer means.

const { exchange } = require('./node_client.js');
const { SubInvocationError } = require('./errors.js');
const ownership = require('./ownership.js');

/**
 * Sends one sub-invocation and gives the response. Ends with the reason of `signal`, before or meanwhile:
 * its connection is closed then.
 */
async function perform({ endpoint, projectId, token, functionName, event, operation, detached, signal }) {
  signal.throwIfAborted();
  const url = endpointOf(endpoint);
  const body = Buffer.from(JSON.stringify(event ?? {}));
  const headers = { 'X-Auth-Token': token, 'Content-Type': 'application/json', 'Content-Length': body.length };
  if (detached) headers['X-Quell-Detached'] = 'true';
  const path = `/v2/${encodeURIComponent(projectId)}/fgs/functions/${encodeURIComponent(functionName)}/${operation}`;
  const options = {
    host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port || 80, method: 'POST', path, headers,
    // Of its own: an invocation must not be sent twice because a kept connection had been closed.
    agent: false, signal,
  };
  try {
    return await ownership.outside(() => exchange(options, body));
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

function endpointOf(endpoint) {
  let url;
  try {
    url = new URL(endpoint);
  } catch {
    url = null;
  }
  if (url?.protocol !== 'http:') throw new Error(`QUELL_API_ENDPOINT is not an http address: "${endpoint}"`);
  return url;
}

/** The decoded JSON of a 2xx answer, or its text. Throws SubInvocationError for others. */
function resultOf({ status, body }) {
  const text = body.toString('utf8');
  let value = text;
  try {
    value = JSON.parse(text);
  } catch {
    // A function may return text.
  }
  if (status >= 200 && status < 300) return value;
  const told = value !== null && typeof value === 'object' ? value : {};
  throw new SubInvocationError(status, String(told.error_code ?? ''), String(told.error_msg ?? text));
}

/** The request id that an accepted asynchronous invocation got. Throws SubInvocationError. */
function requestIdOf(response) {
  const id = resultOf(response)?.request_id;
  if (typeof id !== 'string') throw new SubInvocationError(response.status, '', 'the answer has no request_id');
  return id;
}

module.exports = { perform, requestIdOf, resultOf };
