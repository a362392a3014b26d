// The microphone. What it heard comes as WAV: a browser's own recordings know neither their length nor how to seek.

import { decode, encodeWav } from './wav.js';

const RATE_HZ = 48000;

export class Recorder {
  /** Whether this page may ask for a microphone: over https, or on the machine itself. */
  static get possible() {
    return Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
  }

  get running() {
    return this.recorder?.state === 'recording';
  }

  /** Begin; rejects, with what to do, where the microphone is not given. */
  async start() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true }).catch((error) => {
      throw new Error(
        error.name === 'NotFoundError'
          ? 'There is no microphone; connect one, or choose a file.'
          : 'The browser gave no microphone; allow it for this page, or choose a file.',
      );
    });
    this.recorder = new MediaRecorder(stream);
    this.parts = [];
    this.recorder.addEventListener('dataavailable', ({ data }) => this.parts.push(data));
    this.recorder.start();
  }

  /** End, and give the microphone back: the recording as a File. */
  async stop() {
    const stopped = new Promise((resolve) => this.recorder.addEventListener('stop', resolve));
    this.recorder.stop();
    await stopped;
    this.recorder.stream.getTracks().forEach((track) => track.stop());
    const samples = await decode(new Blob(this.parts), RATE_HZ);
    return new File([encodeWav(samples, RATE_HZ)], 'recording.wav', { type: 'audio/wav' });
  }
}
