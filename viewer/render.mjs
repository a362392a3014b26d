// Pictures of a GLB at exact times, drawn by three.js in headless Chromium:
//
//     node viewer/render.mjs head.glb out_dir --times 0.5,1.2,2.0 --view front,mouth --contact-sheet sheet.png
//
// Writes out_dir/{view}_{time}.png and prints a report as JSON. Exits with 1 when the page logged an error or a warning,
// with 2 when it was called wrongly. Nothing is loaded from outside: the page sees these files, three.js and the GLB.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { complaintsOf, launch } from './browser.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ORIGIN = 'http://localhost'; // answered here, without a server
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.glb': 'model/gltf-binary', '.png': 'image/png' };
const VIEWS = ['front', 'mouth', 'quarter', 'profile'];
const USAGE =
  'usage: node viewer/render.mjs head.glb out_dir --times 0.5,1.2 ' +
  `[--view ${VIEWS.join('|')}, or several with commas] [--size 640] [--contact-sheet sheet.png]`;

/** The command line as {glb, folder, times, views, size, sheet}; throws what is wrong with it. */
function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      times: { type: 'string', default: '0' },
      view: { type: 'string', default: 'front' },
      size: { type: 'string', default: '640' },
      'contact-sheet': { type: 'string' },
    },
  });
  const [glb, folder] = positionals;
  const times = values.times.split(',').map(Number);
  const views = values.view.split(',');
  const size = Number(values.size);
  if (positionals.length !== 2) throw new Error(`${positionals.length} paths; wanted a GLB and a folder`);
  if (!times.every((time) => time >= 0)) throw new Error(`times ${values.times}; wanted seconds, like 0.5,1.2`);
  if (!views.every((view) => VIEWS.includes(view))) throw new Error(`view ${values.view}; wanted of ${VIEWS}`);
  if (!(Number.isInteger(size) && size >= 16 && size <= 4096)) throw new Error(`size ${values.size}; wanted 16 to 4096`);
  return { glb, folder, times, views, size, sheet: values['contact-sheet'] };
}

/** Answer the page's requests from `files`, by path, or from this folder; refuse all others. */
async function answer(route, files) {
  const { origin, pathname } = new URL(route.request().url());
  if (origin !== ORIGIN) return route.abort();
  const body = files.get(pathname) ?? (await readFile(path.join(HERE, pathname)).catch(() => null));
  return body ? route.fulfill({ body, contentType: TYPES[path.extname(pathname)] }) : route.fulfill({ status: 404 });
}

/** Draw every view at every time: [{file, view, time_s, influences_norm}]. Row by row as on the contact sheet. */
async function draw(page, { folder, times, views, size }) {
  const pictures = [];
  for (const view of views) {
    await page.evaluate(([view, size]) => window.viewer.look(view, size), [view, size]);
    for (const time of times) {
      const shown = await page.evaluate((time) => window.viewer.show(time), time);
      const file = path.join(folder, `${view}_${time.toFixed(3)}.png`);
      await page.locator('canvas').screenshot({ path: file });
      pictures.push({ file, view, ...shown });
    }
  }
  return pictures;
}

/** Tile the pictures, a row a view, each with its label. */
async function tile(page, files, pictures, { times, sheet }) {
  const labelled = [];
  for (const { file, view, time_s } of pictures) {
    const url = `/pictures/${path.basename(file)}`;
    files.set(url, await readFile(file));
    labelled.push({ label: `${view}, ${time_s.toFixed(3)} s`, url });
  }
  await page.evaluate((table) => window.viewer.lay(table), { columns: times.length, pictures: labelled });
  await writeFile(sheet, await page.locator('#sheet').screenshot());
}

/** Open the page, draw, and report. */
async function render(page, wanted) {
  const files = new Map([['/model.glb', await readFile(wanted.glb)]]);
  const complaints = complaintsOf(page);
  await page.route('**/*', (route) => answer(route, files));
  await page.goto(`${ORIGIN}/viewer.html`, { waitUntil: 'load' });
  const model = await page.evaluate(() => window.viewer.load('/model.glb'));
  const late = wanted.times.filter((time) => time > model.duration_s);
  if (late.length) throw new Error(`times ${late} s; the clip ends at ${model.duration_s} s; ask for earlier ones`);
  await mkdir(wanted.folder, { recursive: true });
  const pictures = await draw(page, wanted);
  if (wanted.sheet) await tile(page, files, pictures, wanted);
  return { ...model, pictures, complaints };
}

let wanted;
try {
  wanted = readArguments();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: wanted.size, height: wanted.size } });
  const report = await render(page, wanted);
  console.log(JSON.stringify(report, null, 2));
  process.exitCode = report.complaints.length ? 1 : 0;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
}
