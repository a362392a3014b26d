"""Recipe: the upsampler of wrinkle maps.

    python -m training upsampler --corpus build/corpus --out build/upsampler
    python -m training upsampler --loss adversarial --start build/upsampler/averaged.safetensors --out build/sharp

Crops of procedural maps, exact at both sizes. Every subject has a neutral texture of its own: the canonical skin with
that subject's grain, and with traces of its lines, which is what a network is guided by. Some samples have less of a
guide, or none; some have been through the wrinkle auto-encoder, as maps have that TexTalker makes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from models.checkpoint import Header, config_from, load_into, read_header, read_tensors
from models.skin.neutral import GRAIN_AT_REST, NeutralSkin
from models.skin.relief import draw_grain
from models.template import Head
from models.texels import skin_texels
from models.textalker.autoencoder import Autoencoder
from models.textalker.maps import CONTRAST, to_network, wrinkle_map
from models.textalker.upsampler import (
    GUIDE_REACH,
    GUIDE_SHARE,
    LUMA,
    Upsampler,
    UpsamplerConfig,
    enlarge,
    log_luminance,
    sharpen,
)
from training.autoencoder import Faces, wear_expressions
from training.corpus.canvas import Canvas
from training.corpus.face import FaceRig
from training.corpus.wrinkles import WrinkleField, WrinkleStyle
from training.datasets.corpus import Corpus
from training.loop import LoopConfig, fit
from training.perceptual import PatchCritic, Perceptual, open_perceptual

FRAMES, CROPS = 4, 4
"""Maps of a batch, and crops of each."""
CROP, MARGIN = 40, 4
"""Texels of a small crop along its side, and at its edges, where it lacks its surroundings, that do not count."""
TRACES = 0.2
"""How much of a line, fully folded, a face shows at rest."""
WITHOUT_TRACES, WITHOUT_GUIDE, DECODED = 0.25, 0.15, 0.5
"""Shares of the maps."""
WHOLE = 1024
"""Largest size of which every subject's basis is held whole, 20 to 60 MB each; of larger ones crops are drawn anew."""
SQUARE_WEIGHT, PERCEPTUAL_WEIGHT, ADVERSARIAL_WEIGHT = 10.0, 1.0, 0.02
LOSSES = ("pixel", "adversarial")

Log = Float32[np.ndarray, "rows columns 3"]
Blur = Callable[[Float[Tensor, "batch 3 size size"]], Float[Tensor, "batch 3 size size"]]


@dataclass(frozen=True)
class Window:
    """Rows and columns of an image."""

    rows: slice
    columns: slice

    def grown(self, margin: int, size: int) -> "Window":
        """With `margin` texels around it that the image has."""
        return Window(*(slice(max(s.start - margin, 0), min(s.stop + margin, size)) for s in (self.rows, self.columns)))

    def within(self, other: "Window") -> tuple[slice, slice]:
        """Where it lies in a larger one."""
        top, left = other.rows.start, other.columns.start
        return (
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
        )


class Face:
    """A subject's wrinkles and neutral texture, at the size that a network makes."""

    def __init__(self, head: Head, style: WrinkleStyle, size: int) -> None:
        self.field, self._style, self._head, self._size = WrinkleField(head, style), style, head, size

    def exact(self, activations: Float32[np.ndarray, " activations"], window: Window) -> Log:
        """The log-ratio map."""
        image = self._basis(window) @ (activations[:, None] * self.field.tint)
        return np.asarray(image).reshape(window.rows.stop - window.rows.start, -1, 3)

    def relief(self, traces: float, window: Window) -> Float32[np.ndarray, "rows columns"]:
        """What the subject has of its own in its neutral texture's log-luminance: grain, and traces of its lines."""
        lines = self.exact(self.field.traces(traces), window) @ LUMA
        return lines + np.float32(GRAIN_AT_REST * self._style.grain) * self._grain(window)

    def _basis(self, window: Window) -> csr_matrix:
        if self._size > WHOLE:
            return self.field.draw(self._size, window.rows, window.columns)
        row, column = np.mgrid[window.rows, window.columns]
        return self.field.basis(self._size)[0][(row * self._size + column).ravel()]

    def _grain(self, window: Window) -> Float32[np.ndarray, "rows columns"]:
        if self._size > WHOLE:
            return _grain(self._head, self._style.seed, self._size, window)
        return self._whole_grain[window.rows, window.columns]

    @cached_property
    def _whole_grain(self) -> Float32[np.ndarray, "size size"]:
        return _grain(self._head, self._style.seed, self._size, Window(slice(0, self._size), slice(0, self._size)))


def _grain(head: Head, seed: int, size: int, window: Window) -> Float32[np.ndarray, "rows columns"]:
    texels = skin_texels(head, size, window.rows, window.columns)
    shape = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
    image = np.zeros(shape[0] * shape[1], np.float32)
    image[texels.index] = draw_grain(texels, seed)
    return image.reshape(shape)


@dataclass(frozen=True)
class Batch:
    """Small maps, guides and exact large maps, as networks see them."""

    small: Float[Tensor, "batch 3 crop crop"]
    guide: Float[Tensor, "batch 1 large large"]
    exact: Float[Tensor, "batch 3 large large"]


class CropMaker:
    """Draws crops of subjects' faces. bare: the canonical skin's log-luminance without grain, as large as maps become;
    blur: there and back through the wrinkle auto-encoder, for some of the maps.
    """

    def __init__(
        self,
        rig: FaceRig,
        faces: Sequence[Face],
        config: UpsamplerConfig,
        bare: Float32[np.ndarray, "large large"],
        blur: Blur | None = None,
    ) -> None:
        self.faces, self._rig, self._config, self._bare, self._blur = faces, rig, config, bare, blur
        self._scale = config.large // config.size
        texels = skin_texels(rig.head, config.size)
        inside = texels.index[texels.read(Canvas(rig.head).face()) > 0.1]
        self._centres = np.stack(np.divmod(inside, config.size), 1)

    def guide(self, face: Face, traces: float, window: Window) -> Float32[np.ndarray, "rows columns"]:
        """A subject's neutral texture as `guide_of` gives it, in a window."""
        large = self._config.large
        around = window.grown(int(np.ceil(GUIDE_REACH * GUIDE_SHARE * large)), large)
        tone = self._bare[around.rows, around.columns] + face.relief(traces, around)
        return sharpen(tone, large)[window.within(around)]

    def draw(self, moments: Faces, seed: int, frames: int = FRAMES, *, plain: bool = False) -> Batch:
        """CROPS crops of each of some random moments. `plain`: not decoded, each with its whole guide."""
        random = np.random.default_rng([seed, 0x5A])
        weights, contact = moments.draw(frames, random)
        offsets = self._rig.offsets(wear_expressions(weights, random), contact)
        parts = [self._crops(offsets[k : k + 1], contact[k : k + 1], random, plain) for k in range(frames)]
        return Batch(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)))

    def _crops(
        self, offsets: np.ndarray, contact: np.ndarray, random: np.random.Generator, plain: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        face = self.faces[int(random.integers(len(self.faces)))]
        activations = face.field.activations(offsets, contact)
        small = to_network(wrinkle_map(face.field.maps(activations, self._config.size))).transpose(0, 3, 1, 2)
        kind, decoded = random.random(2)
        traces = TRACES * random.uniform(0.3, 1.2)
        if plain:
            kind, decoded, traces = 1.0, 1.0, TRACES
        if self._blur is not None and decoded < DECODED:
            small = self._blur(torch.from_numpy(small)).numpy()
        crops = []
        for _ in range(CROPS):
            middle = self._centres[random.integers(len(self._centres))]
            top, left = np.clip(middle - CROP // 2, 0, self._config.size - CROP).tolist()
            window = Window(*(slice(start * self._scale, (start + CROP) * self._scale) for start in (top, left)))
            guide = self.guide(face, traces if kind >= WITHOUT_TRACES + WITHOUT_GUIDE else 0.0, window)
            exact = to_network(wrinkle_map(face.exact(activations[0], window))).transpose(2, 0, 1)
            parts = small[0, :, top : top + CROP, left : left + CROP], guide[None] * (kind >= WITHOUT_GUIDE), exact
            turn = int(random.integers(8))
            crops.append([_turned(part, turn) for part in parts])
        first, second, third = (np.stack(column).astype(np.float32) for column in zip(*crops, strict=True))
        return first, second, third


def _turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight ways to lay a square."""
    image = image[:, ::-1] if turn & 1 else image
    image = image[:, :, ::-1] if turn & 2 else image
    return image.transpose(0, 2, 1) if turn & 4 else image


class Trainee(nn.Module):
    """An upsampler and its critic."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.upsampler = Upsampler(config)
        self.critic = PatchCritic(3, 2, 32)


class Objective:
    """The loss of a batch: of pixels alone, or with a perceptual distance and a critic."""

    def __init__(self, loss: str, perceptual: Perceptual) -> None:
        self.adversarial, self.perceptual = loss == "adversarial", perceptual

    def __call__(self, module: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms."""
        assert isinstance(module, Trainee)
        guess, exact = inner(module.upsampler(batch.small, batch.guide)), inner(batch.exact)
        absolute, square = (guess - exact).abs().mean(), (guess - exact).square().mean()
        total = absolute + SQUARE_WEIGHT * square
        terms = {"abs": absolute, "square": square}
        if self.adversarial:
            alike = self.perceptual(guess, exact)
            frozen = {name: value.detach() for name, value in module.critic.named_parameters()}
            fooled = -functional_call(module.critic, frozen, (guess,)).mean()
            critical = (
                functional.relu(1 - module.critic(exact)).mean()
                + functional.relu(1 + module.critic(guess.detach())).mean()
            )
            total = total + PERCEPTUAL_WEIGHT * alike + ADVERSARIAL_WEIGHT * fooled + critical
            terms |= {"alike": alike, "fooled": fooled, "critic": critical}
        return {"total": total, **{name: term.detach() for name, term in terms.items()}}


def inner(image: Float[Tensor, "batch channels size size"]) -> Float[Tensor, "batch channels inner inner"]:
    """What of a crop counts."""
    cut = image.shape[-1] // CROP * MARGIN
    return image[:, :, cut:-cut, cut:-cut]


def decibels(guess: Tensor, exact: Tensor) -> float:
    """PSNR of wrinkle maps, 0..1, from maps as networks see them."""
    square = float((inner(guess) - inner(exact)).square().mean())
    return float(-10 * np.log10(max(square / CONTRAST**2, 1e-12)))


def bare_skin(head: Head, large: int) -> Float32[np.ndarray, "large large"]:
    """Log-luminance of the canonical skin, without grain."""
    return np.concatenate([log_luminance(strip) for strip in NeutralSkin(head, grain=0.0).rows(large)])


def train(
    corpus: Corpus,
    head: Head,
    folder: Path,
    steps: int,
    config: UpsamplerConfig,
    loss: str = "pixel",
    start: Path | None = None,
    blur: Autoencoder | None = None,
    skins: Sequence[WrinkleStyle] = (),
    vgg: Path | None = None,
) -> Upsampler:
    """Train for `steps`, from the averaged weights of another run if `start` is given. Wrinkles are the subjects' that
    are not held out, and those of `skins`.
    """
    config = replace(config, atlas=head.atlas.fingerprint)
    rig, bare = corpus.rig(head), bare_skin(head, config.large)
    styles = {held_out: [s.wrinkles for s in corpus.subjects if s.held_out == held_out] for held_out in (False, True)}
    known, unseen = (
        CropMaker(rig, [Face(head, style, config.large) for style in own], config, bare, _through(blur))
        for own in ([*styles[False], *skins], styles[True])
    )
    test = unseen.draw(Faces.of(corpus, held_out=True), 1, 16, plain=True)
    faces, (perceptual, name) = Faces.of(corpus, held_out=False), open_perceptual(vgg)
    torch.manual_seed(0)
    trainee = Trainee(config)
    if start is not None:
        own = {key: part for key, part in read_tensors(start).items() if key.startswith("upsampler.")}
        trainee.load_state_dict({**trainee.state_dict(), **own})

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        assert isinstance(module, Trainee)
        times = test.exact.shape[-1] // test.small.shape[-1]
        return {
            "guided_db": decibels(module.upsampler(test.small, test.guide), test.exact),
            "unguided_db": decibels(module.upsampler(test.small, torch.zeros_like(test.guide)), test.exact),
            "bicubic_db": decibels(enlarge(test.small, times), test.exact),
        }

    data = f"procedural wrinkles of {len(known.faces)} subjects; {loss} loss"
    data += f"; perceptual loss: {name}" if loss == "adversarial" else ""
    fit(
        trainee,
        lambda step: known.draw(faces, step),
        Objective(loss, perceptual),
        LoopConfig(steps, 1e-3 if loss == "pixel" else 1e-4, weight_decay=0.0, ema=0.998, evaluate_every=500),
        folder,
        Header("upsampler", asdict(config), data=data),
        evaluate,
    )
    return trainee.upsampler


def trained(path: Path) -> Upsampler:
    """A run's averaged weights, without its critic."""
    config = config_from(UpsamplerConfig, read_header(path))
    trainee = Trainee(config)
    load_into(trainee, read_tensors(path), str(path))
    return trainee.upsampler.eval()


def _through(network: Autoencoder | None) -> Blur | None:
    if network is None:
        return None

    def blurred(image: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 3 size size"]:
        with torch.no_grad():
            return network(image)

    return blurred
