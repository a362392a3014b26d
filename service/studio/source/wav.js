// Sound as samples: decoded by the browser, written as WAV, seen as a wave.

const HEADER_BYTES = 44;

/** 16-bit mono WAV of samples in -1..1. */
export function encodeWav(samples, rate_hz) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + 2 * samples.length));
  const write = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  write(0, 'RIFF');
  view.setUint32(4, view.byteLength - 8, true);
  write(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate_hz, true);
  view.setUint32(28, 2 * rate_hz, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, 'data');
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => view.setInt16(HEADER_BYTES + 2 * i, 32767 * Math.max(-1, Math.min(1, sample)), true));
  return new Blob([view], { type: 'audio/wav' });
}

/** The first channel of any sound that the browser can decode, at a rate; rejects what it cannot. */
export async function decode(blob, rate_hz) {
  const context = new OfflineAudioContext(1, 1, rate_hz); // needs no click, and resamples
  return (await context.decodeAudioData(await blob.arrayBuffer())).getChannelData(0);
}

/** The loudest sample of each of `count` equal parts, the loudest of all being 1. */
export function peaksOf(samples, count) {
  const peaks = Array.from({ length: count }, (_, part) => {
    const [start, end] = [part, part + 1].map((edge) => Math.floor((edge * samples.length) / count));
    let peak = 0;
    for (let i = start; i < end; i++) peak = Math.max(peak, Math.abs(samples[i]));
    return peak;
  });
  const loudest = Math.max(...peaks) || 1;
  return peaks.map((peak) => peak / loudest);
}
