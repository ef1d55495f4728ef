'use strict';

// The processes of this instance: who they are, whose, and how they end.
//
// Those below this process are found by their parents. Those that left (their parent ended) become children
// of the node's helper, which is our parent and serves this instance alone; where there is no such helper
// they are not found, and then nothing is claimed (`reaper`). A process is (number, start time): a number
// that was used again is another process.

const fs = require('node:fs');
const { MARKER } = require('./ownership.js');

/** How the node's helper is called in its second word. */
const HELPER_WORD = '__instance-init';
/** Of `strikeAll`, which must not hang: what outruns these is ended by the node. */
const LAST_STRIKE_ROUNDS = 16;

const kill = process.kill.bind(process);
const self = process.pid;

/** The number of the helper that inherits what this instance leaves behind; null if there is none. */
const reaper = (() => {
  try {
    const words = fs.readFileSync(`/proc/${process.ppid}/cmdline`, 'utf8').split('\0');
    return words[1] === HELPER_WORD ? process.ppid : null;
  } catch {
    return null;
  }
})();

/** A living process as `{pid, start, dead}`; null if there is none of that number. */
function look(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name may hold spaces and brackets, the last bracket ends it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { pid, start: fields[19], dead: fields[0] === 'Z' || fields[0] === 'X' };
  } catch {
    return null;
  }
}

const nameOf = ({ pid, start }) => `${pid}/${start}`;

function childrenOf(pid) {
  let tasks;
  try {
    tasks = fs.readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  const found = [];
  for (const task of tasks) {
    let text;
    try {
      text = fs.readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1');
    } catch {
      continue; // a thread that ended
    }
    for (const word of text.split(' ')) {
      const child = word && Number(word) !== self ? look(Number(word)) : null;
      if (child !== null) found.push(child);
    }
  }
  return found;
}

/** The topmost processes of this instance besides this one. */
function roots() {
  return reaper === null ? childrenOf(self) : [...childrenOf(self), ...childrenOf(reaper)];
}

/** These and everything below them, parents first. */
function treeOf(tops) {
  const found = [...tops];
  const seen = new Set(found.map(nameOf));
  for (const process of found) { // grows while it runs
    for (const child of childrenOf(process.pid)) {
      if (seen.has(nameOf(child))) continue;
      seen.add(nameOf(child));
      found.push(child);
    }
  }
  return found;
}

/** The names of all processes of this instance now. */
function baseline() {
  return new Set(treeOf(roots()).map(nameOf));
}

/** The invocation whose mark a process carries; null if none. */
function markOf(pid) {
  try {
    const variables = fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    const found = variables.find((variable) => variable.startsWith(`${MARKER}=`));
    return found === undefined ? null : found.slice(MARKER.length + 1);
  } catch {
    return null;
  }
}

/** SIGKILL, if the number still names this process. Node has no pidfd; the two calls follow each other. */
function strike(process) {
  const now = look(process.pid);
  if (now === null || now.dead || now.start !== process.start) return;
  try {
    kill(process.pid, 'SIGKILL');
  } catch {
    // Gone meanwhile; or another user's, and then it stays in the list and nothing is claimed.
  }
}

/**
 * Kills what a request started, and names what is left that is its or may be: to be called again until
 * nothing is. `others` are the requests that run besides it. Without others, what nobody's mark is on and
 * was not there before (`spared`) is its as well; with others it may be anybody's.
 */
function endOwned(owner, spared, others) {
  const left = [];
  for (const top of roots()) {
    if (top.dead) continue;
    const mark = markOf(top.pid);
    const unknown = mark === null && !spared.has(nameOf(top)) && !owner.processes.has(top.pid);
    const mine = mark === owner.invocationId || (mark === null && owner.processes.has(top.pid));
    if (mine || (unknown && others.length === 0)) {
      treeOf([top]).forEach(strike);
      left.push(`process ${top.pid}`);
    } else if (unknown && !others.some((other) => other.processes.has(top.pid))) {
      left.push(`process ${top.pid}, which may be anybody's`);
    }
  }
  if (reaper === null && owner.startedProcesses) left.push('what its processes may have left behind');
  return left;
}

/** SIGKILLs everything without waiting: for the last moment of this process. */
function strikeAll() {
  for (let round = 0; round < LAST_STRIKE_ROUNDS; round += 1) {
    const living = treeOf(roots()).filter((process) => !process.dead);
    if (living.length === 0) return;
    living.forEach(strike);
  }
}

module.exports = { baseline, endOwned, strikeAll };
