// The page: a recording goes to the service, and what comes back is played.

import { openClip } from './clip.js';
import { Form } from './form.js';
import { Heads } from './heads.js';
import { Player } from './player.js';
import { Recorder } from './recorder.js';
import { animate, read } from './service.js';
import { Stage } from './stage.js';
import { Wave } from './wave.js';

const byId = (id) => document.getElementById(id);
const MEGABYTE = 1e6;

const form = new Form();
const recorder = new Recorder();
const wave = new Wave(byId('wave'));
let stage = null; // null where the browser has no WebGL
let clip = null;
let speech = null; // the File to post
let running = null; // the AbortController of the request under way

const player = new Player(
  { sound: byId('sound'), play: byId('play'), time: byId('time'), clock: byId('clock'), loop: byId('loop') },
  {
    onTime(time_s) {
      clip?.show(time_s);
      stage?.redraw();
      wave.mark(time_s / player.duration_s);
    },
    onSilent: () =>
      complain(
        new Error('This browser cannot play that kind of recording, so the head moves in silence.'),
        'No sound.',
      ),
  },
);

const heads = new Heads({ onChange: (id) => showRest(id).catch(complain), onError: complain, onBusy: say });

function say(text) {
  byId('status').textContent = text;
}

function complain(error, title = error.title ?? 'That did not work.') {
  byId('alert-title').textContent = title;
  byId('alert-text').textContent = error.message;
  byId('alert').hidden = false;
  form.blame(error.field);
}

function forgive() {
  byId('alert').hidden = true;
  form.blame(null);
}

async function takeSpeech(file) {
  forgive();
  speech = file;
  byId('audio-name').textContent = file.name;
  byId('audio-hint').textContent = size(file);
  byId('animate').disabled = running !== null;
  say('Ready.');
}

async function toggleRecording() {
  forgive();
  try {
    if (recorder.running) await takeSpeech(await recorder.stop());
    else await recorder.start();
  } catch (error) {
    complain(error, 'No recording.');
  }
  byId('record').classList.toggle('running', recorder.running);
  byId('record-label').textContent = recorder.running ? 'Stop' : 'Record';
}

async function make(event) {
  event.preventDefault();
  if (!speech || running) return;
  forgive();
  const sound = speech;
  running = new AbortController();
  const clock = startClock();
  try {
    const made = await animate(form.values(sound), {
      signal: running.signal,
      onProgress: (bytes) => say(`Receiving ${(bytes / MEGABYTE).toFixed(0)} MB…`),
    });
    await show(made, sound);
    say(`Made in ${clock.elapsed()}.`);
  } catch (error) {
    if (running.signal.aborted) say('Cancelled.');
    else {
      say('Nothing was made.');
      complain(error);
    }
  } finally {
    clock.stop();
    running = null;
    setBusy(false);
  }
}

/** Tell what is going on, and for how long; seconds that pass are for eyes alone. */
function startClock() {
  const start = performance.now();
  const elapsed = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  const timer = setInterval(() => (byId('elapsed').textContent = elapsed()), 100);
  say('Animating…');
  setBusy(true);
  return {
    elapsed,
    stop() {
      clearInterval(timer);
      byId('elapsed').textContent = '';
    },
  };
}

function setBusy(busy) {
  byId('animate').hidden = busy;
  byId('cancel').hidden = !busy;
  byId('animate').disabled = busy || !speech;
  byId('make').classList.toggle('busy', busy);
  document.body.setAttribute('aria-busy', String(busy));
  if (busy) byId('cancel').focus();
  else if (document.activeElement === document.body) byId('animate').focus();
}

/** Open what came, and play it with the sound that it was made from. */
async function show({ blob, name }, sound) {
  const opened = await openClip(blob);
  clip?.skin?.dispose();
  clip = opened;
  stage?.show(clip.mesh);
  setDepth();
  byId('depth-label').hidden = !clip.skin;
  offer(blob, name);
  byId('facts').textContent = factsOf(clip);
  URL.revokeObjectURL(byId('sound').src);
  player.open(URL.createObjectURL(sound), clip.frames / clip.fps, clip.fps);
  byId('stage').scrollIntoView({ block: 'nearest' }); // on a narrow screen it lies above the form
  await wave.show(sound);
  if (!matchMedia('(prefers-reduced-motion: reduce)').matches) await player.start();
}

function offer(blob, name) {
  const link = byId('download');
  URL.revokeObjectURL(link.href);
  Object.assign(link, { href: URL.createObjectURL(blob), download: name, hidden: false });
  link.textContent = `Download ${name.slice(name.lastIndexOf('.'))}, ${size(blob)}`;
}

function factsOf({ frames, fps, facts }) {
  const parts = [
    `${frames} frames at ${fps} a second`,
    `${facts.targets} morph targets within ${facts.error_mm.toFixed(2)} mm`,
  ];
  if (facts.psnr_db) parts.push(`wrinkles at ${facts.psnr_db.toFixed(1)} dB`);
  return parts.join(' · ');
}

function size({ size }) {
  return size < MEGABYTE ? `${Math.ceil(size / 1000)} kB` : `${(size / MEGABYTE).toFixed(1)} MB`;
}

function setDepth() {
  const depth = Number(byId('depth').value);
  byId('depth-value').textContent = `${Math.round(100 * depth)} %`;
  if (!clip?.skin) return;
  clip.skin.depth = depth;
  clip.show(Number(byId('sound').currentTime));
  stage?.redraw();
}

function listen() {
  byId('audio').addEventListener('change', ({ target }) => target.files.length && takeSpeech(target.files[0]));
  byId('record').addEventListener('click', toggleRecording);
  byId('record').hidden = !Recorder.possible;
  byId('form').addEventListener('submit', make);
  byId('cancel').addEventListener('click', () => running?.abort());
  byId('alert-close').addEventListener('click', forgive);
  byId('wireframe').addEventListener('change', ({ target }) => stage?.setWireframe(target.checked));
  byId('depth').addEventListener('input', setDepth);
  document.addEventListener('keydown', pressSpace);
  for (const name of ['dragover', 'dragleave', 'drop']) document.addEventListener(name, drop);
  window.addEventListener('error', ({ error, message }) => complain(error ?? new Error(message), 'The page failed.'));
  window.addEventListener('unhandledrejection', ({ reason }) => complain(reason, 'The page failed.'));
}

/** Space plays and pauses, wherever it means nothing else. */
function pressSpace(event) {
  if (event.code !== 'Space' || event.target.closest('button, a, select, input:not([type=range]), label')) return;
  event.preventDefault();
  player.toggle();
}

/** A file may be dropped anywhere. */
function drop(event) {
  event.preventDefault();
  document.body.classList.toggle('dropping', event.type === 'dragover');
  if (event.type === 'drop' && event.dataTransfer.files.length) takeSpeech(event.dataTransfer.files[0]);
}

function openStage() {
  try {
    stage = new Stage(byId('head'), (message) => complain(new Error(message), 'The head cannot be drawn.'));
  } catch (error) {
    complain(
      new Error(`This browser gives no WebGL 2 (${error.message}); what is made can still be downloaded.`),
      'The head cannot be drawn.',
    );
  }
}

/** Show the head at rest and the choices; while the engine warms up, wait for it. */
async function begin() {
  listen();
  openStage();
  const ready = byId('status').textContent;
  const styles = await read('styles', { onWait: () => say('The engine is warming up…') });
  const contract = await read('openapi.json');
  await heads.fill();
  form.fill(styles, contract.components.schemas.AnimateForm.properties);
  if (!speech) say(ready);
  await showRest('default');
}

/** A head before it speaks, unless a clip comes first. */
async function showRest(id) {
  const before = clip;
  const rest = await fetch(`templates/${id}/mesh.glb`);
  if (!rest.ok) return;
  const opened = await openClip(await rest.blob());
  if (clip !== before) return;
  player.close();
  clip?.skin?.dispose();
  clip = null;
  stage?.show(opened.mesh);
}

begin().catch(complain);
