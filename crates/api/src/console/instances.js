// The instances of the project: state, processes, requests. Rows are keyed like those of the tree.

import { byId, make, setText } from './element.js';
import { badge, functionName, short } from './words.js';

/** Processes that are named in a row; the rest is counted. */
const NAMED = 6;

export class Instances {
  constructor() {
    this.body = byId('instance-rows');
    this.none = byId('instances-none');
    this.rows = new Map();
  }

  change({ instances, goneInstances }) {
    for (const id of goneInstances) {
      this.rows.get(id)?.element.remove();
      this.rows.delete(id);
    }
    for (const row of instances) {
      const known = this.rows.get(row.instance) ?? this.add(row);
      this.show(known, row);
    }
    this.none.hidden = this.rows.size > 0;
  }

  add(row) {
    const cells = Array.from({ length: 6 }, () => make('td'));
    cells[0].append(make('span', { class: 'id' }, row.instance));
    const element = make('tr', { 'data-id': row.instance }, cells);
    this.body.append(element);
    const known = { element, cells, shown: [] };
    this.rows.set(row.instance, known);
    return known;
  }

  show({ cells, shown }, row) {
    setText(cells[1], functionName(row));
    const parts = [row.state, row.requests.join(), JSON.stringify(row.processes)];
    if (shown[0] !== parts[0]) cells[2].replaceChildren(badge(row.state));
    if (shown[1] !== parts[1]) cells[3].replaceChildren(...requestsOf(row));
    if (shown[2] !== parts[2]) setText(cells[4], processesOf(row));
    shown.splice(0, 3, ...parts);
    const how = row.cooperates ? 'hears of cancels' : 'does not hear of cancels';
    setText(cells[5], [row.containment, row.fork_server, how].filter(Boolean).join('; '));
  }
}

function requestsOf(row) {
  const links = row.requests.map((id) => make('a', { class: 'id', href: `#requests/${id}`, title: id }, short(id)));
  const spaced = links.flatMap((link) => [link, ' ']);
  return [`${row.requests.length} of ${row.capacity} `, ...spaced];
}

/** The processes of an instance in words. */
export function processesOf(row) {
  if (row.processes.length === 0) return row.pid ? `main process ${row.pid}` : 'none yet';
  const named = row.processes.slice(0, NAMED).map(({ pid, comm, state }) => `${comm} ${pid} (${state})`);
  const more = row.processes.length - named.length;
  return named.join(', ') + (more > 0 ? `, and ${more} more` : '');
}
