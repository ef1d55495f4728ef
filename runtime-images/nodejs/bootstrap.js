'use strict';

// Entry of the Node.js runtime image: the node runs `node bootstrap.js`.
require('./quell_runtime/start.js').main();
