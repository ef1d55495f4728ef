// Makes elements. Whatever comes from functions, users or the API goes through here, and here it is text: there is
// no way in from text to markup, and the page's policy refuses every other one.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes and children; a child that is no element is its text. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of a picture. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Puts these in the place of all it has. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

const nodes = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(asNode);

const asNode = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

/** Sets a text only if it is another one: what does not change costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or removes an attribute, only if that changes it. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, String(value));
  }
}

export const byId = (id) => document.getElementById(id);

/** A list of names and what they are; what is null is left out. */
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return make('dl', {}, rows.map(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}

/** A table from its heads and rows of cells. */
export function table(heads, rows) {
  return make('table', { class: 'small' },
    make('thead', {}, make('tr', {}, heads.map((head) => make('th', { scope: 'col' }, head)))),
    make('tbody', {}, rows.map((cells) => make('tr', {}, cells.map((cell) => make('td', {}, cell))))));
}
