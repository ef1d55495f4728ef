setTimeout(() => { throw new Error('in a callback'); }, 1); exports.handler = async () => 1; exports.initializer = () => new Promise(() => {});
