// The node: what contains instances on this machine, what limits them, what is not as it should be, who shares its store.

import { read, said } from './api.js';
import { byId, facts, fill, make, table } from './element.js';
import { nodesPanel } from './nodes.js';
import { badge, functionName } from './words.js';

export async function showMeans() {
  const to = byId('means');
  try {
    const node = await read('/quell/v1/node');
    fill(to, told(node), await nodesPanel(node));
  } catch (error) {
    to.replaceChildren(make('p', { class: 'error' }, said(error)));
  }
}

function told(node) {
  const used = (row) => badge(row.active ? 'ready' : 'placed', row.active ? 'used' : 'not used');
  const forks = node.fork_servers.map((row) => [
    row.fork_server, functionName(row), String(row.pid ?? ''), row.containment ?? '', row.stuck ?? '']);
  return [
    make('div', {}, facts([
      ['Requests', `${node.live} live in this project`],
      ['Takes requests', node.draining ? 'no: it is ending' : 'yes'],
      ['Refused by the disk', node.unwritten === 0 ? 'nothing' : `${node.unwritten} writes so far; they are tried again`],
      ['Lines in no log', node.log_lines_lost === 0 ? 'none' : String(node.log_lines_lost)],
    ])),
    make('div', {}, make('h3', {}, 'What contains instances'),
      table(['Layer', 'What', 'Here', 'What it gives, or what is in its way'],
        node.containment.map((row) => [row.id ?? '', row.name, used(row), row.detail]))),
    make('div', {}, make('h3', {}, 'What limits each instance'),
      table(['What', 'Here', 'How'], node.limits.map((row) => [row.name, used(row), row.detail]))),
    make('div', {}, make('h3', {}, 'Fork servers'),
      forks.length === 0 ? make('p', { class: 'hint' }, 'None lives now.')
        : table(['Id', 'Function', 'Process', 'Contained by', 'Stuck'], forks)),
  ];
}
