"""What of a sound stays the same over time, after McDermott & Simoncelli 2011, for Owens et al. 2016."""

import numpy as np

BANDS = 32  # of the ear
LOWEST = 50  # Hz: the middle of the lowest
RATE = 400  # of a band's loudness, samples a second
POWER = 0.3  # the ear's compression
MODULATIONS = (4, 8, 16, 32, 64, 128)  # Hz: octaves; half a second has no two periods of slower ones
CHUNK = 16


def statistics(waves, rate):
    """Groups of numbers, each (N, d), of sounds (N, T) in -1 … 1, `rate` samples a second:

    mean and deviation of each band's loudness over time; how much of its variance lies in each octave of modulation;
    and the correlation of each two bands. A band that never changes, as in silence, has no modulation and correlates
    with none. McDermott & Simoncelli 2011 (Neuron 71, 926–940), figure 1, and Owens et al. 2016, section 3.1."""
    parts = [_statistics(cochleagram(waves[i:i + CHUNK], rate)) for i in range(0, len(waves), CHUNK)]
    return [np.concatenate(group).astype(np.float32) for group in zip(*parts)]


def together(groups, scales):
    """One vector (N, d) of the groups, each divided by its scale: see `scales_of`."""
    return np.concatenate([group / scale for group, scale in zip(groups, scales)], 1)


def scales_of(groups):
    """The median norm of each group. Divided by it no group decides alone what is near: deviations are far smaller
    than means, and loudness moves both."""
    return [max(float(np.median(np.linalg.norm(group, axis=1))), 1e-6) for group in groups]


def _statistics(loudness):
    mean, deviation = loudness.mean(2), loudness.std(2)
    heard = deviation > 1e-6
    centred = (loudness - mean[..., None]) / np.where(heard, deviation, 1)[..., None] * heard[..., None]
    power = abs(np.fft.rfft(centred, axis=2)) ** 2 * 2 / loudness.shape[2] ** 2
    frequency = np.fft.rfftfreq(loudness.shape[2], 1 / RATE)
    octaves = [power[..., (frequency >= f / 2**.5) & (frequency < f * 2**.5)].sum(2) for f in MODULATIONS]
    low, high = np.triu_indices(loudness.shape[1], 1)
    correlation = (centred @ centred.transpose(0, 2, 1) / loudness.shape[2])[:, low, high]
    return mean, deviation, np.concatenate(octaves, 1), correlation


def cochleagram(waves, rate):
    """Loudness (N, BANDS, time), RATE samples a second, of sounds (N, T): the envelope of each band of the ear,
    compressed and averaged over each 1 / RATE seconds."""
    length = waves.shape[1]
    spectrum = np.fft.rfft(waves, axis=1)
    analytic = np.zeros((len(waves), BANDS, length), np.complex128)  # no negative frequencies: its size is the envelope
    analytic[..., : spectrum.shape[1]] = 2 * spectrum[:, None] * bands(length, rate)
    loudness = abs(np.fft.ifft(analytic, axis=2)) ** POWER
    step = max(1, round(rate / RATE))
    return loudness[..., : length // step * step].reshape(*loudness.shape[:2], -1, step).mean(3)


def bands(length, rate):
    """(BANDS, length // 2 + 1): weights of the frequencies of a Fourier transform. Half cosines, as far apart as half
    their width on the scale on which the ear resolves equally (Glasberg & Moore 1990), so that squares sum to 1 between
    the middles of the lowest and the highest band."""
    place = ear(np.arange(length // 2 + 1) * rate / length)
    middle = np.linspace(ear(LOWEST), ear(0.9 * rate / 2), BANDS)
    away = (place - middle[:, None]) / (middle[1] - middle[0])
    return np.cos(np.pi / 2 * away.clip(-1, 1))


def ear(frequency):
    """Hz to ERB numbers: how many bands of the ear lie below."""
    return 9.265 * np.log1p(np.asarray(frequency) / (24.7 * 9.265))
