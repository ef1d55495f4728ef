// How long cancels took, from their receipts: a histogram for each phase and level.

import { read, said } from './api.js';
import { byId, draw, make } from './element.js';
import { counted, micros } from './words.js';

/** Receipts that are looked at: the newest. The API gives no more at once. */
const RECEIPTS = 500;
/** Upper ends of the buckets, in microseconds: 1, 2, 5, and so on. */
const ENDS = [50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, Infinity];

const MEASURES = [
  { name: 'Asked, from the fence to the answer', of: ({ level, took_us: took }) => (level === 'ask' ? [took] : []) },
  { name: 'Forced, from the fence to the answer', of: ({ level, took_us: took }) => (level === 'kill' ? [took] : []) },
  { name: 'From the fence until it was on the disk', coarse: true,
    of: (receipt) => (receipt.recorded_ms === null ? [] : [1000 * Math.max(0, receipt.recorded_ms - receipt.fenced_ms)]) },
  { name: 'From the first strike until the main process had ended', of: (receipt) => receipt.instances.map((row) => row.exited_us) },
  { name: 'From the first strike until nothing was alive', of: (receipt) => receipt.instances.map((row) => row.emptied_us) },
  { name: 'From the first strike until that was proven', of: (receipt) => receipt.instances.map((row) => row.proven_us) },
];

export async function showLatency() {
  const words = byId('latency-of');
  try {
    const { receipts } = await read(`/quell/v1/cancels?limit=${RECEIPTS}`);
    words.textContent = receipts.length === 0 ? 'Nothing has been cancelled yet.'
      : `Of the newest ${counted(receipts.length, 'receipt')}. A bar counts those that took no longer than what stands below it, and longer than what stands before.`;
    byId('latency-charts').replaceChildren(...MEASURES.map((measure) => chart(measure, receipts)));
  } catch (error) {
    words.textContent = said(error);
    byId('latency-charts').replaceChildren();
  }
}

function chart({ name, of, coarse }, receipts) {
  const values = receipts.flatMap(of).filter((us) => us !== null && us !== undefined).sort((one, other) => one - other);
  const figure = make('figure', { class: 'chart' }, make('figcaption', {}, name));
  if (values.length === 0) {
    figure.append(make('p', {}, 'No figure.'));
    return figure;
  }
  const at = (share) => micros(values[Math.min(values.length - 1, Math.ceil(share * values.length) - 1)]);
  const told = `${values.length} of them; half within ${at(0.5)}, 95 % within ${at(0.95)}, 99 % within ${at(0.99)}, the longest ${at(1)}`;
  figure.append(bars(values, `${name}: ${told}`), make('p', {}, `${told}.${coarse ? ' In whole milliseconds.' : ''}`));
  return figure;
}

function bars(values, label) {
  const counts = ENDS.map(() => 0);
  for (const value of values) counts[ENDS.findIndex((end) => value <= end)] += 1;
  const first = Math.max(0, counts.findIndex((count) => count > 0) - 1);
  const last = Math.min(ENDS.length - 1, counts.findLastIndex((count) => count > 0) + 1);
  const shown = counts.slice(first, last + 1);
  const [width, height, foot] = [360, 96, 18];
  const step = width / shown.length;
  const highest = Math.max(...shown);
  const parts = shown.flatMap((count, index) => {
    const tall = (count / highest) * (height - 16);
    const [x, end] = [index * step, ENDS[first + index]];
    return [
      draw('rect', { class: 'bar', x: x + 2, y: height - tall, width: Math.max(2, step - 4), height: tall },
        draw('title', {}, `${count} within ${end === Infinity ? 'more' : micros(end)}`)),
      count > 0 ? draw('text', { x: x + step / 2, y: height - tall - 4, 'text-anchor': 'middle' }, String(count)) : null,
      draw('text', { x: x + step / 2, y: height + 13, 'text-anchor': 'middle' }, end === Infinity ? 'more' : edge(end)),
    ].filter((part) => part !== null);
  });
  return draw('svg', { viewBox: `0 0 ${width} ${height + foot}`, role: 'img', 'aria-label': label },
    draw('line', { class: 'axis', x1: 0, x2: width, y1: height, y2: height }), parts);
}

const edge = (us) => (us < 1e3 ? `${us}µs` : us < 1e6 ? `${us / 1e3}ms` : `${us / 1e6}s`);
