'use strict';

const { inspect } = require('node:util');

const calls = [];

exports.echo = async (event) => event;
exports.returned = (event) => event;
exports.calledBack = (event, context, callback) => setTimeout(() => callback(null, event), 1);
exports.calledBackWithError = (event, context, callback) => callback(new RangeError('too far'));
exports.represent = async (event) => inspect(event);
exports.pid = async () => process.pid;
exports.fail = async () => { throw new TypeError('nothing there'); };
exports.failAtOnce = () => { throw new TypeError('nothing there'); };
exports.throwText = async () => { throw 'just text'; }; // eslint-disable-line no-throw-literal
exports.pretend = async () => { throw Object.assign(new Error('x'), { name: 'InvocationCanceled' }); };
exports.pick = async (name) => ({
  object: { ü: [1, null, true] }, text: 'grüße', bytes: Buffer.from([0, 255]), nothing: undefined, number: 7,
  bigint: 7n, function: () => {}, large: 'x'.repeat(7 * 1024 * 1024),
}[name]);
exports.circular = async () => { const value = {}; value.value = value; return value; };
exports.describe = async (event, context) => {
  context.getLogger().info('one of %d', 2);
  console.log('printed by the function');
  return {
    id: context.getRequestID(), remaining: context.getRemainingTimeInMilliSeconds(),
    timeout: context.getRunningTimeInSeconds(), colour: context.getUserData('colour'),
    missing: context.getUserData('shape', 'round'), name: context.getFunctionName(), version: context.getVersion(),
    alias: context.getAlias(), memory: context.getMemorySize(), cpu: context.getCPUNumber(),
    project: context.getProjectID(), package: context.getPackage(), token: context.getToken(),
    ak: context.getSecurityAccessKey(), sk: context.getSecuritySecretKey(), st: context.getSecurityToken(),
    old: [context.getAccessKey(), context.getSecretKey()], cancelled: context.cancelled, cwd: process.cwd(),
  };
};
exports.initializer = (context, callback) => {
  calls.push(context.getFunctionName());
  setTimeout(callback, 1);
};
exports.asyncInitializer = async (context) => { calls.push(`async ${context.getFunctionName()}`); };
exports.brokenInitializer = (context, callback) => callback(new Error('no such database'));
exports.initialized = async () => calls;
exports.number = 7;
exports.preStop = (context, callback) => {
  console.log(`goodbye from ${context.getFunctionName()}`);
  setTimeout(callback, 1);
};
exports.brokenPreStop = async () => { throw new Error('cannot let go'); };
exports.endlessPreStop = () => new Promise(() => {});
