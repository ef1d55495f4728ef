'use strict';

// From "folder/index.handler" to a function.

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');
const { pathToFileURL } = require('node:url');

const ENDINGS = ['.js', '.cjs', '.mjs'];

/** A handler cannot be found; the message names it. */
class LoadError extends Error {
  constructor(message) {
    super(message);
    this.name = 'LoadError';
  }
}

/** The function that `spec` names, of a CommonJS or an ES module. Throws LoadError, or what the module throws. */
async function load(codeRoot, spec) {
  const at = spec.lastIndexOf('.');
  if (at < 1 || at === spec.length - 1) throw new LoadError(`handler "${spec}" is not of the form file.function`);
  const [file, name] = [fileOf(codeRoot, spec.slice(0, at), spec), spec.slice(at + 1)];
  const found = exportOf(await importFile(file), name);
  if (found === undefined) throw new LoadError(`${path.basename(file)} exports no "${name}" (handler "${spec}")`);
  if (typeof found !== 'function') throw new LoadError(`"${name}" in ${path.basename(file)} is no function (handler "${spec}")`);
  return found;
}

function fileOf(codeRoot, name, spec) {
  const stem = path.join(codeRoot, name);
  const below = path.relative(codeRoot, stem);
  if (below.startsWith('..')) throw new LoadError(`handler "${spec}" is not inside the code`);
  const file = ENDINGS.map((ending) => stem + ending).find((candidate) => fs.existsSync(candidate));
  if (file === undefined) {
    const tried = ENDINGS.map((ending) => below + ending).join(', ');
    throw new LoadError(`the code has none of ${tried} (handler "${spec}")`);
  }
  return file;
}

async function importFile(file) {
  if (!file.endsWith('.mjs')) {
    try {
      // Not as an ES module if it is none: their loader alone takes longer than all the rest of a start.
      return createRequire(file)(file);
    } catch (error) {
      const isModule = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE'].includes(error?.code);
      if (!isModule) throw error;
    }
  }
  return import(pathToFileURL(file).href);
}

function exportOf(module, name) {
  return module?.[name] ?? module?.default?.[name];
}

module.exports = { LoadError, load };
