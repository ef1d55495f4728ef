'use strict';

// The smallest function: an event in, a value out.

exports.handler = async (event, context) => {
  const name = event?.name ?? 'world';
  context.getLogger().info(`greeting ${name}`);
  return { greeting: `Hello, ${name}!`, request_id: context.getRequestID() };
};
