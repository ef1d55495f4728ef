// The tree of requests: a treegrid whose rows are made once, changed where they change, and never made anew.

import { make, setAttribute, setText } from './element.js';
import { age, badge, functionName, nodeNow, short, stateWords } from './words.js';

const AGES_EVERY = 1_000;

/** One request with its row. */
class Branch {
  constructor(row, number) {
    Object.assign(this, { row, number, parent: null, children: [], open: true, matches: false, below: 0 });
    this.cells = {
      twig: make('span', { class: 'twig', 'aria-hidden': 'true' }),
      name: make('span', { class: 'id', title: row.request_id }, short(row.request_id)),
      function: make('span', { role: 'gridcell' }),
      state: make('span', { role: 'gridcell' }),
      age: make('span', { role: 'gridcell', class: 'age' }),
      instance: make('span', { role: 'gridcell', class: 'id' }),
    };
    const { twig, name, ...rest } = this.cells;
    const first = make('span', { role: 'gridcell' }, twig, name);
    first.style.paddingLeft = `${Math.min(row.depth, 24) * 1.1}rem`;
    this.element = make('div', { role: 'row', class: 'row', tabindex: '-1', 'data-id': row.request_id,
      'aria-level': row.depth + 1, 'aria-selected': 'false' }, first, Object.values(rest));
    this.element.branch = this;
    this.show(row);
  }

  show(row) {
    // In the end the node forgets when one that has settled arrived; here it is known.
    this.row = { ...row, created_ms: row.created_ms || this.row.created_ms };
    const { cells } = this;
    setText(cells.function, functionName(row));
    setAttribute(cells.function, 'title', functionName(row));
    const state = `${stateWords(row)}/${row.stopping ?? ''}`;
    if (this.state !== state) {
      this.state = state;
      const stopping = row.stopping && row.state !== 'settled';
      cells.state.replaceChildren(badge(row.state, stateWords(row)), ...(stopping ? [badge('stopping')] : []));
    }
    setText(cells.instance, row.instance ?? '');
    this.showAge();
  }

  showAge(now) {
    setText(this.cells.age, age(this.row.created_ms, now));
  }

  showTwig() {
    const parent = this.children.length > 0;
    setText(this.cells.twig, parent ? (this.open ? '▾' : '▸') : '');
    setAttribute(this.element, 'aria-expanded', parent ? String(this.open) : null);
  }

  isShown() {
    if (!this.matches && this.below === 0) return false;
    for (let above = this.parent; above; above = above.parent) if (!above.open) return false;
    return true;
  }

  last() {
    let at = this;
    while (at.children.length > 0) at = at.children.at(-1);
    return at;
  }

  * all() {
    yield this;
    for (const child of this.children) yield* child.all();
  }
}

export class Tree {
  constructor(rows, { onOpen, onFocus = () => {} }) {
    Object.assign(this, { rows, onOpen, onFocus });
    this.branches = new Map();
    this.roots = [];
    this.orphans = new Map(); // id of a parent that is not here -> those it is the parent of
    this.number = 0;
    this.filter = () => true;
    this.current = null;
    this.chosen = null;
    this.matching = 0;
    this.inView = new Set();
    this.looker = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) { this.inView.add(target.branch); target.branch.showAge(); } else this.inView.delete(target.branch);
      }
    }, { root: rows.parentElement });
    setInterval(() => this.showAges(), AGES_EVERY);
    rows.addEventListener('keydown', (event) => this.key(event));
    rows.addEventListener('click', (event) => this.clicked(event));
    rows.addEventListener('focusin', (event) => {
      const branch = event.target.closest('.row')?.branch;
      if (branch) this.makeCurrent(branch);
    });
  }

  /** Takes in what has changed. */
  change({ requests, goneRequests }) {
    for (const id of goneRequests) this.remove(id);
    for (const row of requests) {
      const branch = this.branches.get(row.request_id);
      if (branch) {
        branch.show(row);
        this.match(branch);
      } else {
        this.add(row);
      }
    }
    if (!this.current && this.branches.size > 0) this.makeCurrent(this.shown()[0] ?? null);
  }

  /** Only of what is in view, and only where the words have changed. */
  showAges() {
    const now = nodeNow();
    for (const branch of this.inView) branch.showAge(now);
  }

  add(row) {
    const branch = new Branch(row, this.number);
    this.number += 1;
    this.branches.set(row.request_id, branch);
    this.hang(branch);
    for (const child of this.orphans.get(row.request_id) ?? []) {
      this.unhang(child);
      this.hang(child);
    }
    this.orphans.delete(row.request_id);
    this.match(branch);
    this.looker.observe(branch.element);
  }

  remove(id) {
    const branch = this.branches.get(id);
    if (!branch) return;
    if (branch.matches) this.count(branch, -1);
    branch.matches = false;
    const next = this.current === branch ? this.neighbour(branch) : null;
    const hadFocus = branch.element.contains(document.activeElement);
    this.branches.delete(id);
    this.unhang(branch);
    for (const child of [...branch.children]) {
      this.unhang(child);
      this.hang(child);
    }
    this.looker.unobserve(branch.element);
    this.inView.delete(branch);
    branch.element.remove();
    if (this.current === branch) {
      this.current = null;
      if (next) this.makeCurrent(next);
      if (next && hadFocus) next.element.focus();
    }
    if (this.chosen === branch) this.chosen = null;
  }

  /** Gives a branch its place below its parent, or among the roots if that is not here. */
  hang(branch) {
    const above = this.branches.get(branch.row.parent) ?? null;
    if (!above && branch.row.parent) {
      const waiting = this.orphans.get(branch.row.parent) ?? new Set();
      this.orphans.set(branch.row.parent, waiting.add(branch));
    }
    const siblings = above ? above.children : this.roots;
    let at = siblings.length;
    while (at > 0 && isBefore(branch, siblings[at - 1])) at -= 1;
    const after = at > 0 ? siblings[at - 1].last() : above;
    siblings.splice(at, 0, branch);
    branch.parent = above;
    this.counted(above, branch.below + (branch.matches ? 1 : 0));
    let place = after ? after.element.nextSibling : this.rows.firstChild;
    for (const moved of branch.all()) {
      if (moved.element === place) place = place.nextSibling;
      else this.rows.insertBefore(moved.element, place);
    }
    above?.showTwig();
  }

  unhang(branch) {
    const above = branch.parent;
    const siblings = above ? above.children : this.roots;
    siblings.splice(siblings.indexOf(branch), 1);
    this.counted(above, -branch.below - (branch.matches ? 1 : 0));
    above?.showTwig();
    const waiting = this.orphans.get(branch.row.parent);
    waiting?.delete(branch);
    if (waiting?.size === 0) this.orphans.delete(branch.row.parent);
    branch.parent = null;
  }

  /** Filters anew. */
  setFilter(filter) {
    this.filter = filter;
    for (const branch of this.branches.values()) this.match(branch);
    if (!this.current?.isShown()) this.makeCurrent(this.shown()[0] ?? null);
  }

  match(branch) {
    const matches = this.filter(branch.row);
    if (matches !== branch.matches) {
      branch.matches = matches;
      this.count(branch, matches ? 1 : -1);
    }
    this.showOrHide(branch);
  }

  count(branch, by) {
    this.matching += by;
    this.counted(branch.parent, by);
  }

  /** What is above something that matches is shown as well, dimmed. */
  counted(above, by) {
    if (by === 0) return;
    for (let at = above; at; at = at.parent) {
      at.below += by;
      this.showOrHide(at);
    }
  }

  showOrHide(branch) {
    const { element } = branch;
    const hidden = !branch.isShown();
    if (element.hidden !== hidden) element.hidden = hidden;
    element.classList.toggle('above', !branch.matches);
  }

  toggle(branch, open) {
    if (branch.children.length === 0 || branch.open === open) return;
    branch.open = open;
    branch.showTwig();
    for (const child of branch.children) for (const one of child.all()) this.showOrHide(one);
  }

  shown() {
    return [...this.rows.children].filter((element) => !element.hidden).map((element) => element.branch);
  }

  neighbour(branch, back = true) {
    const step = (element, forth) => {
      let at = element;
      do at = forth ? at.nextElementSibling : at.previousElementSibling; while (at?.hidden);
      return at?.branch ?? null;
    };
    return back ? step(branch.element, false) ?? step(branch.element, true) : step(branch.element, true);
  }

  /** One row can be reached by Tab: the one that had the focus last. */
  makeCurrent(branch) {
    if (this.current === branch) return;
    if (this.current) this.current.element.tabIndex = -1;
    this.current = branch;
    if (branch) branch.element.tabIndex = 0;
  }

  focus() {
    this.current?.element.focus();
  }

  /** Marks the request that is shown beside the tree. */
  choose(id) {
    const branch = this.branches.get(id) ?? null;
    if (this.chosen) this.chosen.element.setAttribute('aria-selected', 'false');
    this.chosen = branch;
    branch?.element.setAttribute('aria-selected', 'true');
    if (branch) this.makeCurrent(branch);
  }

  clicked(event) {
    const branch = event.target.closest('.row')?.branch;
    if (!branch) return;
    if (event.target.closest('.twig')) this.toggle(branch, !branch.open);
    else this.onOpen(branch.row.request_id);
  }

  key(event) {
    const branch = event.target.closest('.row')?.branch;
    if (!branch || event.ctrlKey || event.altKey || event.metaKey) return;
    const go = (to) => { if (to) { to.element.focus(); to.element.scrollIntoView({ block: 'nearest' }); } };
    const step = {
      ArrowDown: () => go(this.neighbour(branch, false)),
      ArrowUp: () => { const to = this.neighbour(branch); if (to && isAbove(to, branch)) go(to); },
      ArrowRight: () => (branch.open ? go(branch.children.find((child) => !child.element.hidden)) : this.toggle(branch, true)),
      ArrowLeft: () => (branch.open && branch.children.length > 0 ? this.toggle(branch, false) : go(branch.parent)),
      Home: () => go(this.shown()[0]),
      End: () => go(this.shown().at(-1)),
      Enter: () => this.onOpen(branch.row.request_id),
      ' ': () => this.onOpen(branch.row.request_id),
    }[event.key];
    if (!step) return;
    event.preventDefault();
    step();
  }
}

/** Oldest first; of one moment, as they were told. */
function isBefore(one, other) {
  return one.row.created_ms - other.row.created_ms < 0
    || (one.row.created_ms === other.row.created_ms && one.number < other.number);
}

const isAbove = (one, other) =>
  (one.element.compareDocumentPosition(other.element) & Node.DOCUMENT_POSITION_FOLLOWING) !== 0;
