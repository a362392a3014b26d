// Playback: the sound is the clock, and the head is shown as it is at the sound's time.

import { encodeWav } from './wav.js';

const SILENCE_HZ = 8000;

export class Player {
  /** elements: sound, play, time, clock, loop; onTime(time_s) shows the head; onSilent() says that nothing is heard. */
  constructor(elements, { onTime, onSilent }) {
    Object.assign(this, elements, { onTime, onSilent });
    this.play.addEventListener('click', () => this.toggle());
    this.time.addEventListener('input', () => this.seek(Number(this.time.value)));
    this.loop.addEventListener('change', () => (this.sound.loop = this.loop.checked));
    for (const name of ['play', 'pause', 'ended']) this.sound.addEventListener(name, () => this.update());
    this.sound.addEventListener('error', () => this.muffle());
    this.sound.loop = this.loop.checked;
  }

  /** Take a sound, as a URL, for a clip of so many seconds; without a URL it is silence. */
  open(url, duration_s, fps) {
    this.sound.pause();
    this.duration_s = duration_s;
    this.audible = url !== null;
    this.sound.src = url ?? silence(duration_s);
    this.time.max = duration_s;
    this.time.step = 1 / fps; // what an arrow key moves
    this.time.disabled = this.play.disabled = false;
    this.show(0);
  }

  /** Have nothing to play. */
  close() {
    this.sound.pause();
    this.time.disabled = this.play.disabled = true;
  }

  /** Start. A browser that wants a click first leaves the clip paused. */
  async start() {
    await this.sound.play().catch((error) => {
      if (!['NotAllowedError', 'AbortError', 'NotSupportedError'].includes(error.name)) throw error;
    });
  }

  toggle() {
    if (this.play.disabled) return;
    if (this.sound.paused) this.start();
    else this.sound.pause();
  }

  seek(time_s) {
    this.sound.currentTime = Math.min(time_s, this.duration_s);
    this.show(time_s);
  }

  /** A sound that the browser cannot decode, though the service could: silence keeps the time in its place. */
  muffle() {
    if (!this.audible) return;
    this.audible = false;
    this.sound.src = silence(this.duration_s);
    this.onSilent();
  }

  update() {
    const playing = !this.sound.paused;
    this.play.setAttribute('aria-label', playing ? 'Pause' : 'Play');
    this.play.classList.toggle('playing', playing);
    if (playing) this.follow();
    else this.show(this.sound.currentTime);
  }

  follow() {
    if (this.sound.paused) return;
    this.show(this.sound.currentTime);
    requestAnimationFrame(() => this.follow());
  }

  show(time_s) {
    const [now, whole] = [Math.min(time_s, this.duration_s), this.duration_s].map((each) => each.toFixed(2));
    this.time.value = time_s;
    this.time.setAttribute('aria-valuetext', `${now} of ${whole} seconds`);
    this.clock.textContent = `${now} / ${whole}`;
    this.onTime(time_s);
  }
}

/** So many seconds of silence, as a URL. */
function silence(duration_s) {
  return URL.createObjectURL(encodeWav(new Float32Array(Math.ceil(duration_s * SILENCE_HZ)), SILENCE_HZ));
}
