// Puts the page together: signing in and out, which view is shown, the connection, and what is said aloud.

import { isSignedIn, onSignedOut, read, Refused, setScopes, signIn, signOut } from './api.js';
import { Detail } from './detail.js';
import { byId, make, setText } from './element.js';
import { Instances } from './instances.js';
import { showLatency } from './latency.js';
import { Live } from './live.js';
import { showMeans } from './means.js';
import { Receipts } from './receipts.js';
import { Tree } from './tree.js';
import { counted, functionName, labelWords } from './words.js';

const VIEWS = ['requests', 'instances', 'receipts', 'latency', 'node'];
/** Changes are said aloud as one sentence, and not more often than this. */
const SAY_EVERY = 10_000;

const live = new Live();
const say = (words) => setText(byId('said'), words);
const detail = new Detail({ live, say, onClose: () => { go('requests'); tree.focus(); } });
const tree = new Tree(byId('tree-rows'), { onOpen: (id) => go('requests', id) });
const instances = new Instances();
const receipts = new Receipts({ onClose: () => go('receipts') });

live.listen((changes) => {
  tree.change(changes);
  instances.change(changes);
  detail.change(changes);
  receipts.change();
  showFigures();
  keepFunctions(changes.requests);
  tell(changes);
});

function showFigures() {
  const { live: count, truncated, draining, unwritten } = live.head;
  const words = [counted(count, 'live request'), counted(live.instances.size, 'instance')];
  if (truncated) words.push(`the oldest ${live.requests.size} are shown`);
  if (draining) words.push('the node is ending');
  if (unwritten > 0) words.push(`the disk has refused ${counted(unwritten, 'write')}`);
  setText(byId('figures'), words.join(' · '));
  setText(byId('who'), live.project ? `project ${live.project}` : '');
  showFiltered();
}

// What has changed, aloud: counted, as a list of names would never end.
let unsaid = { more: 0, fewer: 0 };
let known = 0;
let saying = null;

function tell({ requests, goneRequests }) {
  const fresh = live.requests.size - known + goneRequests.length;
  known = live.requests.size;
  unsaid.more += Math.max(0, Math.min(fresh, requests.length));
  unsaid.fewer += goneRequests.length;
  if (unsaid.more + unsaid.fewer === 0 || saying !== null) return;
  saying = setTimeout(() => {
    saying = null;
    const { more, fewer } = unsaid;
    unsaid = { more: 0, fewer: 0 };
    if (isSignedIn()) say(`${more} new, ${fewer} over, ${counted(live.head.live, 'request')} live.`);
  }, SAY_EVERY);
}

// Filters

const filters = { function: byId('filter-function'), state: byId('filter-state'), text: byId('filter-text') };

function keepFunctions(rows) {
  for (const row of rows) {
    const name = functionName(row);
    if (!name || [...filters.function.options].some((option) => option.value === name)) continue;
    const next = [...filters.function.options].slice(1).find((option) => option.value > name) ?? null;
    filters.function.insertBefore(make('option', { value: name }, name), next);
  }
}

function filter() {
  const [name, state, text] = [filters.function.value, filters.state.value, filters.text.value.trim().toLowerCase()];
  tree.setFilter((row) => {
    if (name && functionName(row) !== name) return false;
    if (state === 'stopping' ? !row.stopping : state && row.state !== state) return false;
    return !text || [row.request_id, functionName(row), row.alias, row.instance, row.cancel_id, labelWords(row)]
      .some((words) => words?.toLowerCase().includes(text));
  });
  showFiltered();
}

function showFiltered() {
  const { size } = live.requests;
  const filtered = Object.values(filters).some((one) => one.value.trim() !== '');
  setText(byId('filtered'), filtered ? `${tree.matching} of ${size}` : '');
  const none = byId('tree-none');
  none.hidden = tree.matching > 0;
  setText(none, size === 0 ? 'No request lives now.' : 'No request is as the filters say.');
}

for (const one of Object.values(filters)) one.addEventListener('input', filter);
byId('filters').addEventListener('submit', (event) => event.preventDefault());

// Views

const go = (view, id) => { location.hash = id ? `${view}/${id}` : view; };

function route() {
  const signedIn = isSignedIn();
  const [named, id] = decodeURIComponent(location.hash.slice(1)).split('/');
  const view = VIEWS.includes(named) ? named : 'requests';
  byId('sign-in').hidden = signedIn;
  for (const name of VIEWS) byId(`view-${name}`).hidden = !signedIn || name !== view;
  for (const element of [byId('views'), byId('figures'), byId('who'), byId('out')]) element.hidden = !signedIn;
  for (const link of byId('views').children) {
    if (link.hash === `#${view}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = signedIn ? `${view} - Quell console` : 'Quell console';
  if (!signedIn) { detail.close(); receipts.close(); return; }
  receipts.isShown = view === 'receipts';
  if (view === 'requests' && id) detail.open(id); else detail.close();
  tree.choose(view === 'requests' ? id : null);
  if (view === 'receipts') { receipts.read(); if (id) receipts.open(id); else receipts.close(); }
  if (view === 'latency') showLatency();
  if (view === 'node') showMeans();
}

window.addEventListener('hashchange', route);
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); byId('main').focus(); });

// The connection

live.onConnection = ({ lost, why, pause }) => {
  const banner = byId('banner');
  if (!lost) {
    if (!banner.hidden) say('Connected again.');
    banner.hidden = true;
    banner.replaceChildren();
    // What was asked for before may have failed.
    if (document.documentElement.dataset.lost) route();
    delete document.documentElement.dataset.lost;
    return;
  }
  document.documentElement.dataset.lost = 'true';
  const seconds = Math.max(1, Math.round(pause / 1000));
  banner.replaceChildren(
    make('span', {}, `Not connected: ${why}. What is shown may be old. Trying again in ${counted(seconds, 'second')}.`),
    make('button', { type: 'button', click: () => live.hurry() }, 'Try now'));
  banner.hidden = false;
};

// Signing in and out

function begin() {
  route();
  live.run();
}

byId('sign-in-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const [input, error] = [byId('token'), byId('sign-in-error')];
  error.hidden = true;
  setScopes(null);
  signIn(input.value.trim());
  try {
    await read('/quell/v1/node');
    input.value = '';
    begin();
    tree.focus();
  } catch (refused) {
    if (isSignedIn()) signOut(refused instanceof Refused ? refused.words : 'The node cannot be reached.');
  }
});

byId('out').addEventListener('click', () => signOut('Signed out.'));

onSignedOut((why) => {
  live.stop();
  setScopes(null);
  byId('banner').hidden = true;
  for (const one of Object.values(filters)) one.value = '';
  filters.function.replaceChildren(filters.function.firstElementChild);
  filter();
  route();
  setText(byId('sign-in-error'), why);
  byId('sign-in-error').hidden = !why;
  byId('token').focus();
});

if (isSignedIn()) begin();
else { route(); byId('token').focus(); }
