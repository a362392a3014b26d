// The wave behind the time's slider; what was played is drawn in the accent's colour.

import { decode, peaksOf } from './wav.js';

const RATE_HZ = 8000;
const PITCH_PX = 3;
const BAR_PX = 2;

export class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.share = 0;
    this.samples = new Float32Array(0);
    new ResizeObserver(() => this.measure()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  /** Show the wave of a sound; one that the browser cannot decode has none. */
  async show(blob) {
    this.samples = await decode(blob, RATE_HZ).catch(() => new Float32Array(0));
    this.measure();
  }

  /** Mark how much was played, 0 to 1. */
  mark(share) {
    this.share = share;
    this.draw();
  }

  measure() {
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = clientWidth * devicePixelRatio;
    this.canvas.height = clientHeight * devicePixelRatio;
    this.peaks = peaksOf(this.samples, Math.max(1, Math.floor(clientWidth / PITCH_PX)));
    this.draw();
  }

  draw() {
    const { clientWidth, clientHeight } = this.canvas;
    const style = getComputedStyle(this.canvas);
    const [played, ahead] = [style.accentColor, style.color];
    const context = this.canvas.getContext('2d');
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, clientWidth, clientHeight);
    this.peaks?.forEach((peak, bar) => {
      const height = Math.max(BAR_PX, peak * clientHeight);
      context.fillStyle = (bar + 0.5) / this.peaks.length < this.share ? played : ahead;
      context.beginPath();
      context.roundRect(bar * PITCH_PX, (clientHeight - height) / 2, BAR_PX, height, BAR_PX / 2);
      context.fill();
    });
  }
}
