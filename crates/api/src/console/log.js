// The log of a request, followed until the request is over.

import { ask, lines, said } from './api.js';
import { make } from './element.js';
import { clock, counted } from './words.js';

/** Lines that are asked for at first, and that are kept on the page; the log itself has them all. */
const AT_FIRST = 200;
const KEPT = 1_000;

export class Log {
  constructor(id) {
    this.id = id;
    this.text = make('div', { class: 'log', tabindex: '0', role: 'log', 'aria-label': 'Log of the request', 'aria-live': 'off' });
    this.note = make('p', { class: 'hint' }, 'Reading…');
    this.element = make('div', {}, this.text, this.note);
    this.text.hidden = true;
    this.cut = new AbortController();
    this.count = 0;
    this.node = null;
    this.follow();
  }

  close() {
    this.cut.abort();
  }

  /** The request is on this other node, or on none yet: what it prints is not in a log of the node that is asked. */
  elsewhere(node = null) {
    this.node = node;
    if (this.isRead) this.end();
  }

  /** All that is here has been read. A log is of the node that ran the request: another's may not be empty. */
  end() {
    this.isRead = true;
    if (this.node) this.note.replaceChildren('It is on another node: what it prints there is in the log of node ', make('code', {}, this.node), '.');
    else this.note.textContent = this.count > 0 ? 'This is its end.' : 'Nothing that it printed is in a log of this node.';
  }

  async follow() {
    const path = `/quell/v1/requests/${encodeURIComponent(this.id)}/log?follow=true&tail=${AT_FIRST}`;
    try {
      const answer = await ask(path, { signal: this.cut.signal });
      this.note.textContent = 'It has printed nothing so far.';
      for await (const line of lines(answer)) if (line) this.add(JSON.parse(line));
      this.end();
    } catch (error) {
      if (!this.cut.signal.aborted) this.note.textContent = `No log: ${said(error)}`;
    }
  }

  add(line) {
    const atEnd = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 8;
    const kind = line.stream === 'stdout' ? null : line.stream === 'node' ? 'mark' : 'stderr';
    const words = line.lost ? `${line.lost} lines are missing here` : line.text;
    this.text.append(make('div', { class: kind, title: `${clock(line.ms)} ${line.stream}, attempt ${line.attempt ?? '?'}` }, words));
    if (this.text.childElementCount > KEPT) this.text.firstElementChild.remove();
    this.text.hidden = false;
    this.count += 1;
    this.note.textContent = `${counted(this.count, 'line')}, and what comes.`;
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
