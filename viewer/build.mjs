// The page at `/`, as the package ships it, built from its source:
//
//     node viewer/build.mjs [folder]
//
// Writes service/studio/built, or the folder that is named. The script begins with the SHA-256 of what it was built
// from, by which tests/test_studio.py tells a stale build without node: names and contents of the source files, in
// order, and the versions of esbuild and three.js.

import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const STUDIO = path.join(HERE, '..', 'service', 'studio');
const SOURCE = path.join(STUDIO, 'source');
const COPIED = ['index.html', 'icon.svg'];
const USED = ['esbuild', 'three'];

/** The digest of the sources and of what turns them into the build. */
async function digest() {
  const hash = createHash('sha256');
  for (const name of (await readdir(SOURCE)).sort())
    hash.update(`${name}\0`).update(await readFile(path.join(SOURCE, name)));
  const { dependencies } = JSON.parse(await readFile(path.join(HERE, 'package.json'), 'utf8'));
  for (const name of USED) hash.update(`${name}\0${dependencies[name]}`);
  return hash.digest('hex');
}

const folder = process.argv[2] ?? path.join(STUDIO, 'built');
await mkdir(folder, { recursive: true });
for (const name of COPIED) await cp(path.join(SOURCE, name), path.join(folder, name));
await build({
  entryPoints: ['studio.js', 'studio.css'].map((name) => path.join(SOURCE, name)),
  outdir: folder,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  banner: { js: `// source ${await digest()}` },
  legalComments: 'inline',
  nodePaths: [path.join(HERE, 'node_modules')],
  logLevel: 'warning',
});
