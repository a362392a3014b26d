"""Noise over speech, in time: to judge by, and to train on where features need samples."""

import numpy as np

from models.core import Waveform


def add_noise(waveform: Waveform, snr_db: float, seed: int = 0) -> Waveform:
    """The clip under stationary noise with a speech-like spectrum, falling by 6 dB an octave above 500 Hz."""
    samples = waveform.samples.astype(np.float64)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(samples)))
    spectrum /= np.maximum(np.fft.rfftfreq(len(samples), 1 / waveform.rate_hz) / 500, 1)
    noise = np.fft.irfft(spectrum, len(samples))
    noise *= np.sqrt(np.mean(samples**2) / np.mean(noise**2) * 10 ** (-snr_db / 10))
    mixed = samples + noise
    return Waveform((mixed / max(1.0, np.abs(mixed).max())).astype(np.float32))
