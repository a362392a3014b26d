// The page at `/` in headless Chromium, used as a person would: choose a recording, animate, play, pause, scrub.
//
//     node viewer/play.mjs http://127.0.0.1:8000/ speech.wav out_dir --times 0.5,1.2 --wrinkle-style lined
//
// Writes out_dir/page.png, and out_dir/head_{time}_{depth}.png for each time and depth of the wrinkles, in per cent.
// Prints a report as JSON: {status, facts, head, alert, played_s, addresses, complaints}. alert is what the page says went
// wrong, in which case nothing is played. Exits with 1 when something fails that the page does not tell.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { complaintsOf, launch } from './browser.mjs';

const OPTIONS = {
  times: { type: 'string', default: '0' },
  depths: { type: 'string', default: '0,100' },
  engine: { type: 'string', default: 'textalker' },
  'motion-style': { type: 'string', default: 'neutral' },
  'wrinkle-style': { type: 'string', default: 'neutral' },
  texture: { type: 'string', default: '512' },
  size: { type: 'string', default: '1200x800' },
  head: { type: 'string' }, // a mesh file, to be registered and animated
  scheme: { type: 'string', default: 'light' },
};
const PATIENCE_MS = 280_000; // two cores that others use as well animate slowly
const USAGE = `usage: node viewer/play.mjs URL speech out_dir ${Object.keys(OPTIONS)
  .map((name) => `[--${name} …]`)
  .join(' ')}`;

/** Choose everything, and press Animate. */
async function ask(page, speech, wanted) {
  await page.waitForSelector('#motion option', { state: 'attached' });
  if (wanted.head) await addHead(page, wanted.head);
  await page.setInputFiles('#audio', speech);
  await page.check(`[name=engine][value=${wanted.engine}]`, { force: true });
  await page.selectOption('[name=motion_style]', wanted['motion-style']);
  if (wanted.engine === 'textalker') {
    await page.selectOption('[name=texture]', wanted.texture);
    if (wanted.texture !== 'none') await page.selectOption('[name=wrinkle_style]', wanted['wrinkle-style']);
  }
  await page.click('#animate');
}

/** Add a head, and wait until the page has told what became of it. */
async function addHead(page, file) {
  await page.waitForSelector('#template option', { state: 'attached' });
  await page.setInputFiles('#own-head', file);
  await page.waitForFunction(() => ['Ready.', 'The head was not taken.'].includes(document.getElementById('status').textContent));
}

/** Wait until the sound has moved on, or the page says what went wrong; returns the sound's time then, or null. */
async function waitForPlay(page) {
  const happened = await page.waitForFunction(() => {
    if (!document.getElementById('alert').hidden) return { played_s: null };
    const { currentTime } = document.getElementById('sound');
    return currentTime > 0 && { played_s: currentTime };
  });
  return (await happened.jsonValue()).played_s;
}

/** Set a slider as a hand does. */
async function slide(page, id, value) {
  await page.locator(id).evaluate((slider, value) => {
    slider.value = value;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
  }, String(value));
}

/** Pause by the keyboard, then take a picture of the head at each time and depth. */
async function scrub(page, { times, depths, folder }) {
  await page.locator('#head').press('Space');
  await page.waitForSelector('#play[aria-label=Play]');
  for (const time of times.split(',').map(Number)) {
    await slide(page, '#time', time);
    for (const depth of depths.split(',').map(Number)) {
      if (await page.locator('#depth').isVisible()) await slide(page, '#depth', depth / 100);
      await page.locator('#view').screenshot({ path: path.join(folder, `head_${time.toFixed(3)}_${depth}.png`) });
    }
  }
}

async function report(page, played_s, addresses, complaints) {
  const texts = await page.evaluate(() => {
    const text = (id) => document.getElementById(id).textContent;
    const alert = document.getElementById('alert').hidden ? null : `${text('alert-title')} ${text('alert-text')}`;
    return { status: text('status'), facts: text('facts'), head: text('head-hint'), alert };
  });
  return { ...texts, played_s, addresses, complaints };
}

let wanted, positionals;
try {
  ({ values: wanted, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS }));
  if (positionals.length !== 3)
    throw new Error(`${positionals.length} arguments; wanted a URL, a recording and a folder`);
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
const [url, speech, folder] = positionals;
const [width, height] = wanted.size.split('x').map(Number);
const browser = await launch();
try {
  await mkdir(folder, { recursive: true });
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: wanted.scheme });
  page.setDefaultTimeout(PATIENCE_MS);
  const [addresses, complaints] = [[], complaintsOf(page)];
  page.on('request', (request) => addresses.push(request.url()));
  await page.goto(url);
  await ask(page, speech, wanted);
  const played_s = await waitForPlay(page);
  if (played_s !== null) await scrub(page, { ...wanted, folder });
  await page.screenshot({ path: path.join(folder, 'page.png') });
  console.log(JSON.stringify(await report(page, played_s, addresses, complaints), null, 2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
}
