// The nodes that share this node's store: for whoever may see them, and nothing on a node that has a store of its own.

import { may, read, Refused, said } from './api.js';
import { make, table } from './element.js';
import { badge } from './words.js';

const HEADS = ['Name', 'State', 'Lease left', 'Requests', 'Version', 'Endpoint', 'Labels'];
/** A state in the colour of another word. */
const LIKE = { live: 'ready', draining: 'draining', fenced: 'quarantined', left: 'settled' };

/** A part of the page, or null where there is nothing to show. */
export async function nodesPanel(node) {
  if (!node.node || !may('operator')) return null;
  try {
    // Without the scope there is no panel, and nothing is wrong with the credential.
    return panel(await read('/quell/v1/nodes', { right: null }));
  } catch (error) {
    if (error instanceof Refused && (error.status === 403 || error.status === 404)) return null;
    return framed(make('p', { class: 'error' }, said(error)));
  }
}

function panel({ this: asked, nodes }) {
  const rows = nodes.map((row) => [
    [make('code', {}, row.node), row.node === asked ? ' (this one)' : ''],
    badge(LIKE[row.state] ?? '', row.state),
    lease(row),
    String(row.owns),
    row.version,
    row.endpoint,
    row.labels.join(', '),
  ]);
  return framed(make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-labelledby': 'nodes-title' },
    table(HEADS, rows)));
}

const framed = (shown) => make('div', { id: 'nodes' }, make('h3', { id: 'nodes-title' }, 'Nodes of this store'), shown);

/** Whoever left or was fenced has none. */
function lease({ state, lease_left_ms: left }) {
  if (state !== 'live' && state !== 'draining') return '';
  return left > 0 ? `${(left / 1000).toFixed(1)} s` : 'over';
}
