"""The schedule and the samplers, on data whose best denoiser is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from models.errors import OutOfRange
from models.textalker.diffusion import SAMPLERS, Schedule

SCHEDULE = Schedule(500)
EVERY = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
NORMAL = pytest.mark.parametrize("std", [0.2, 0.5, 1.0])
MEAN = 0.7


def gaussian(std: float, schedule: Schedule = SCHEDULE):
    """E[x_0 | x_n] for x_0 ~ N(MEAN, std²)."""

    def denoise(x: Tensor, n: int) -> Tensor:
        signal, noise = schedule.signal(n), schedule.noise(n)
        return (MEAN * noise**2 + std**2 * signal * x) / (std**2 * signal**2 + noise**2)

    return denoise


def draws(count: int):
    random = torch.Generator().manual_seed(0)
    return lambda: torch.randn(count, generator=random, dtype=torch.float64)


def moments(sampler, std: float, steps: int) -> tuple[float, float]:
    """Mean and standard deviation of what comes out: without noise along the way it is affine in x_N."""
    at = [sampler(gaussian(std), lambda k=k: torch.tensor(k, dtype=torch.float64), SCHEDULE, steps) for k in (0.0, 1.0)]
    return at[0].item(), (at[1] - at[0]).item()


# The schedule.


def test_the_signal_fades_along_a_cosine_from_all_to_nothing():
    n = np.arange(500)
    expected = (np.cos((n / 500 + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    assert SCHEDULE.alpha_bar[:-1] == pytest.approx(expected, rel=1e-9)
    assert SCHEDULE.alpha_bar[-1] == pytest.approx(1e-3 * SCHEDULE.alpha_bar[-2])
    assert (SCHEDULE.alpha_bar[0], len(SCHEDULE.alpha_bar)) == (1.0, 501)


@pytest.mark.parametrize("n", [1, 250, 500])
def test_signal_and_noise_share_a_variance_of_one(n):
    assert SCHEDULE.signal(n) ** 2 + SCHEDULE.noise(n) ** 2 == pytest.approx(1)
    assert SCHEDULE.log_ratio(n) == pytest.approx(math.log(SCHEDULE.signal(n)) - math.log(SCHEDULE.noise(n)))


def test_clean_is_infinitely_far_from_noise():
    assert SCHEDULE.log_ratio(0) == math.inf


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 500])
def test_jumps_lead_from_noise_to_clean_without_a_gap(steps):
    schedule = Schedule(steps)
    for count in range(1, steps + 1):
        jumps = list(schedule.jumps(count))
        assert len(jumps) == count
        assert (jumps[0][0], jumps[-1][1]) == (steps, 0)
        assert all(n > s for n, s in jumps)
        assert [n for n, _ in jumps[1:]] == [s for _, s in jumps[:-1]]


def test_as_many_jumps_as_steps_are_every_step():
    assert list(SCHEDULE.jumps(500)) == [(n, n - 1) for n in range(500, 0, -1)]


def test_few_jumps_are_shorter_towards_the_clean_end():
    lengths = [n - s for n, s in SCHEDULE.jumps(10)]
    assert lengths == sorted(lengths, reverse=True)


@EVERY
@pytest.mark.parametrize("steps", [-1, 0, 501])
def test_more_jumps_than_steps_or_none_are_refused(sampler, steps):
    with pytest.raises(OutOfRange, match=f"{steps} sampler steps; wanted 1 to 500"):
        sampler(gaussian(1.0), draws(1), SCHEDULE, steps)


# Laws of every sampler.


@EVERY
def test_one_jump_is_the_prediction_from_noise(sampler):
    noise = draws(100)()
    assert torch.allclose(sampler(gaussian(0.5), draws(100), SCHEDULE, 1), gaussian(0.5)(noise, 500), rtol=1e-12)


@EVERY
@pytest.mark.parametrize("steps", [1, 10, 500])
def test_what_is_known_for_sure_comes_out(sampler, steps):
    certain = torch.linspace(-2, 2, 7, dtype=torch.float64)
    assert torch.allclose(sampler(lambda x, n: certain, draws(7), SCHEDULE, steps), certain, atol=1e-12)


@EVERY
def test_the_last_jump_adds_no_noise(sampler):
    """What comes out is the network's last word."""
    said: list[Tensor] = []

    def denoise(x: Tensor, n: int) -> Tensor:
        said.append(gaussian(0.5)(x, n))
        return said[-1]

    assert torch.allclose(sampler(denoise, draws(9), SCHEDULE, 10), said[-1], rtol=1e-12)
    assert len(said) == 10


# Gaussian data: its mean and spread come back.


@NORMAL
def test_the_reference_gives_the_distribution_back(std):
    x = SAMPLERS["ancestral"](gaussian(std), draws(40_000), SCHEDULE, 500)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * std / math.sqrt(40_000))
    assert x.std().item() == pytest.approx(std, rel=0.02)
    skew, kurtosis = (((x - x.mean()) / x.std()) ** 3).mean().item(), (((x - x.mean()) / x.std()) ** 4).mean().item()
    assert (skew, kurtosis) == (pytest.approx(0, abs=0.05), pytest.approx(3, abs=0.1))


@NORMAL
@pytest.mark.parametrize("name", ["ddim", "dpm_solver_2m"])
def test_with_every_step_the_fast_ones_agree_with_it(name, std):
    assert moments(SAMPLERS[name], std, 500) == pytest.approx((MEAN, std), rel=0.01)


@NORMAL
def test_ten_steps_of_the_second_order_solver_lose_little_of_the_spread(std):
    assert moments(SAMPLERS["dpm_solver_2m"], std, 10) == pytest.approx((MEAN, std), rel=0.035)


@NORMAL
@pytest.mark.parametrize("steps", [10, 20, 40, 80])
def test_the_second_order_is_worth_more_than_twice_the_steps(std, steps):
    second = abs(moments(SAMPLERS["dpm_solver_2m"], std, steps)[1] - std)
    first = abs(moments(SAMPLERS["ddim"], std, 2 * steps)[1] - std)
    assert second < first


def test_two_kinds_come_out_as_often_as_they_went_in():
    """A quarter of the data near −1, the rest near 1: E[x_0 | x_n] weighs both by how likely x_n is of each."""
    weights, means, std = torch.tensor([0.25, 0.75]), torch.tensor([-1.0, 1.0]), 0.2

    def denoise(x: Tensor, n: int) -> Tensor:
        signal, noise = SCHEDULE.signal(n), SCHEDULE.noise(n)
        variance = std**2 * signal**2 + noise**2
        each = (means * noise**2 + std**2 * signal * x[:, None]) / variance
        likely = (weights.log() - (x[:, None] - signal * means) ** 2 / (2 * variance)).softmax(1)
        return (likely * each).sum(1)

    for name, steps, tolerance in (("ancestral", 500, 0.01), ("ddim", 100, 0.01), ("dpm_solver_2m", 20, 0.02)):
        x = SAMPLERS[name](denoise, draws(20_000), SCHEDULE, steps)
        below = (x < 0).double().mean().item()
        assert below == pytest.approx(0.25, abs=tolerance), name
        assert x[x < 0].mean().item() == pytest.approx(-1, abs=0.03), name
        assert x[x > 0].std().item() == pytest.approx(std, rel=0.1), name


# The papers' own steps.


def test_the_reference_takes_ddpms_steps():
    """Ho et al. 2020, Eq. 6 and 7, in β."""
    schedule, noise = Schedule(3), [torch.tensor([value]) for value in (0.5, -1.2, 0.3)]
    alpha_bar = schedule.alpha_bar
    x = noise[0]
    for n in (3, 2, 1):
        alpha = alpha_bar[n] / alpha_bar[n - 1]
        beta, x_0 = 1 - alpha, gaussian(0.5, schedule)(x, n)
        mean = math.sqrt(alpha_bar[n - 1]) * beta / (1 - alpha_bar[n]) * x_0
        mean = mean + math.sqrt(alpha) * (1 - alpha_bar[n - 1]) / (1 - alpha_bar[n]) * x
        variance = (1 - alpha_bar[n - 1]) / (1 - alpha_bar[n]) * beta
        x = mean + math.sqrt(variance) * (noise[4 - n] if n > 1 else 0)
    queue = iter(noise)
    assert torch.allclose(SAMPLERS["ancestral"](gaussian(0.5, schedule), lambda: next(queue), schedule, 3), x)


def test_ddim_keeps_its_noise():
    """Towards a known x_0, x_n is signal and the same noise at every step."""
    certain, noise = torch.tensor([0.3, -2.0], dtype=torch.float64), draws(2)()
    own = (noise - SCHEDULE.signal(500) * certain) / SCHEDULE.noise(500)

    def denoise(x: Tensor, n: int) -> Tensor:
        assert torch.allclose(x, SCHEDULE.signal(n) * certain + SCHEDULE.noise(n) * own, rtol=1e-9)
        return certain

    SAMPLERS["ddim"](denoise, lambda: noise, SCHEDULE, 25)


def test_the_second_order_solver_extrapolates_the_prediction():
    """Lu et al. 2022, Algorithm 2, written with h, r and φ over three jumps."""
    denoise, x = gaussian(0.5), torch.tensor([0.8], dtype=torch.float64)
    (t_0, t_1), (_, t_2), (_, t_3) = SCHEDULE.jumps(3)
    h_1, h_2 = (SCHEDULE.log_ratio(s) - SCHEDULE.log_ratio(n) for n, s in ((t_0, t_1), (t_1, t_2)))
    x_0 = denoise(x, t_0)
    x_1 = SCHEDULE.noise(t_1) / SCHEDULE.noise(t_0) * x - SCHEDULE.signal(t_1) * math.expm1(-h_1) * x_0
    r = h_1 / h_2
    D = (1 + 1 / (2 * r)) * denoise(x_1, t_1) - 1 / (2 * r) * x_0
    x_2 = SCHEDULE.noise(t_2) / SCHEDULE.noise(t_1) * x_1 - SCHEDULE.signal(t_2) * math.expm1(-h_2) * D
    assert t_3 == 0
    assert torch.allclose(SAMPLERS["dpm_solver_2m"](denoise, lambda: x, SCHEDULE, 3), denoise(x_2, t_2), rtol=1e-9)
