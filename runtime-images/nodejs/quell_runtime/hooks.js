'use strict';

/** Calls a hook of user code: `(context, callback)`, or an async function of the context. Rejects as it does. */
function callHook(hook, context) {
  return new Promise((resolve, reject) => {
    const callback = (error) => (error === null || error === undefined ? resolve() : reject(error));
    const returned = hook(context, callback);
    if (typeof returned?.then === 'function') returned.then(resolve, reject);
    else if (hook.length < 2) resolve();
  });
}

module.exports = { callHook };
