"""Recipe: the quantised auto-encoders of motion and wrinkle maps.

    python -m training autoencoder motion --corpus build/corpus --out build/autoencoder_motion

L = L_rec + 1.0 · L_per + 0.2 · L_adv + 1.0 · L_code (TexTalker A.1). Frames are drawn from the corpus, the lower face
of one and the upper face of another, in the wrinkle style of a third subject, so that no style is tied to a motion. The
codebook begins with latents of a network that has learned without it, and entries that nobody uses begin anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from models.checkpoint import Header
from models.template import Head
from models.textalker.autoencoder import Autoencoder, AutoencoderConfig
from models.textalker.maps import MotionMaps, to_network, wrinkle_map
from training.corpus.expressions import EXPRESSIONS
from training.corpus.face import ACTIONS, FaceRig, expression_weights, firmness
from training.corpus.wrinkles import WrinkleField, WrinkleStyle
from training.datasets.corpus import Corpus
from training.loop import LoopConfig, fit
from training.openings import eye_openings
from training.perceptual import PatchCritic, Perceptual, open_perceptual

UPPER = [k for k, name in enumerate(ACTIONS) if name.startswith(("brow", "eye", "nose"))]
"""Actions that are drawn apart from the others."""
_EXPRESSIONS = np.stack([expression_weights(name) for name in sorted(EXPRESSIONS)])
BATCHES = {"motion": 12, "wrinkle": 8, "joint": 8}
MOTION_SHARE = 2
"""Texels of a joint map along the side of one of the motion's."""
WORN = 0.4
"""Share of the moments whose wrinkles are learned that get an expression of their own."""
CODE_WEIGHT, COMMITMENT, ADVERSARIAL = 1.0, 0.25, 0.2
UNQUANTISED, CRITICAL, SETTLED = 0.25, 0.9, 0.85
"""Shares of a run: until the codebook begins, until the critic does, and until entries no longer begin anew."""
RESTART_EVERY = 50
LIP_WEIGHT = 2.0
"""Of the squared error at the rims of lips and lids, in units of the map."""
FOLD_WEIGHT, HEAVIEST = 4.0, 8.0
"""How much more a texel counts for each unit that it is darker or lighter, and how much at most: lines are few."""
REGION_WEIGHTS = {"upper_face": 2.0, "eyes": 4.0, "lips": 8.0}
"""How much more a motion map's texels count there."""


@dataclass(frozen=True, eq=False)
class Faces:
    """What the corpus' faces do, sample after sample: action weights and contact at 100 Hz, and who does it."""

    weights: Float32[np.ndarray, "samples actions"]
    contact: Float32[np.ndarray, " samples"]

    @staticmethod
    def of(corpus: Corpus, *, held_out: bool) -> "Faces":
        """All clips of the subjects that are, or are not, held out, end to end."""
        clips = list(corpus.clips(held_out=held_out))
        return Faces(np.concatenate([clip.weights for clip in clips]), np.concatenate([clip.contact for clip in clips]))

    def draw(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Weights (count, actions) and contact (count,): lower faces of one moment, upper faces of another."""
        lower, upper = random.integers(len(self.contact), size=(2, count))
        weights = self.weights[lower]
        weights[:, UPPER] = self.weights[upper][:, UPPER]
        gain = np.where(random.random((count, 1)) < 0.3, random.uniform(0.6, 1.3, (count, 1)), 1.0)
        return (weights * gain).astype(np.float32), self.contact[lower]


def wear_expressions(
    weights: Float32[np.ndarray, "frames actions"], random: np.random.Generator
) -> Float32[np.ndarray, "frames actions"]:
    """Some of the moments with one more expression: speech alone folds the skin too seldom to learn lines from."""
    worn = random.random(len(weights)) < WORN
    strength = np.where(worn, random.uniform(0.3, 1.0, len(weights)), 0.0)
    chosen = random.integers(len(EXPRESSIONS), size=len(weights))
    return np.clip(weights + strength[:, None] * _EXPRESSIONS[chosen], weights, np.maximum(weights, 1)).astype(
        np.float32
    )


class MapMaker:
    """Action weights → motion and wrinkle maps, exactly. Motion maps are linear in the actions and in the seal."""

    def __init__(self, rig: FaceRig, motion_size: int, wrinkle_size: int, fields: Sequence[WrinkleField]) -> None:
        self.rig, self.fields, self.wrinkle_size = rig, fields, wrinkle_size
        self.maps = MotionMaps(rig.head, motion_size)

    @cached_property
    def _actions(self) -> Float32[np.ndarray, "actions texels"]:
        return self.maps.rasterise(self.rig.basis).reshape(len(ACTIONS), -1)

    @cached_property
    def _columns(self) -> Float32[np.ndarray, "columns texels"]:
        field = self.rig.head.seal.field.toarray().T
        images = self.maps.rasterise(np.repeat(field[..., None], 3, axis=2))
        return images[..., 0].reshape(len(field), -1)

    def motion(
        self, weights: Float32[np.ndarray, "frames actions"], contact: Float32[np.ndarray, " frames"]
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Motion maps of moments, in units of MOTION_UNIT_M."""
        rim = np.einsum("ta,arc->trc", weights, self.rig.basis[:, self.rig.head.rim])
        closing = self.rig.head.seal.closing(rim, firmness(contact))
        images = (weights @ self._actions).reshape(len(weights), -1, 3)
        images += np.einsum("tjc,jp->tpc", closing, self._columns)
        return images.transpose(0, 2, 1).reshape(len(weights), 3, self.maps.size, self.maps.size)

    def wrinkles(
        self,
        weights: Float32[np.ndarray, "frames actions"],
        contact: Float32[np.ndarray, " frames"],
        subject: Sequence[int],
    ) -> Float32[np.ndarray, "frames 3 size size"]:
        """Wrinkle maps of moments as networks see them, each in the wrinkle style of one subject."""
        offsets = self.rig.offsets(weights, contact)
        images = []
        for n, field in enumerate(self.fields[k] for k in subject):
            activations = field.activations(offsets[n : n + 1], contact[n : n + 1])
            images.append(field.maps(activations, self.wrinkle_size))
        return to_network(wrinkle_map(np.concatenate(images))).transpose(0, 3, 1, 2)

    def draw(self, modality: str, faces: Faces, seed: int, count: int = 0) -> Float[Tensor, "count channels s s"]:
        """Maps of `count` random moments, as an auto-encoder of a modality sees them."""
        random = np.random.default_rng([seed, 0xAE])
        count = count or BATCHES[modality]
        weights, contact = faces.draw(count, random)
        if modality != "motion":
            weights = wear_expressions(weights, random)
        images = []
        if modality != "wrinkle":
            images.append(torch.from_numpy(np.ascontiguousarray(self.motion(weights, contact))))
        if modality != "motion":
            subject = random.integers(len(self.fields), size=count).tolist()
            images.append(torch.from_numpy(np.ascontiguousarray(self.wrinkles(weights, contact, subject))))
        return join_maps(images)


def join_maps(images: Sequence[Float[Tensor, "batch 3 size size"]]) -> Float[Tensor, "batch channels size size"]:
    """Maps of both modalities as one image of the larger size; one modality as it is."""
    size = max(image.shape[-1] for image in images)
    return torch.cat(
        [image if image.shape[-1] == size else functional.interpolate(image, size=size) for image in images], 1
    )


@dataclass(frozen=True)
class Batch:
    """Maps, and how much of the run has passed."""

    images: Float[Tensor, "batch channels size size"]
    step: int
    progress: float


class Trainee(nn.Module):
    """An auto-encoder and its critic."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.autoencoder = Autoencoder(config)
        self.critic = PatchCritic(config.channels, config.patch)
        self.register_buffer("used", torch.zeros(config.codes))
        self.used: Tensor


class Objective:
    """The loss of a batch. weight (size, size): how much a texel counts; rims: reads the rims from a motion map."""

    def __init__(
        self,
        weight: Float[Tensor, "size size"],
        perceptual: Perceptual,
        rims: Float[Tensor, "points texels"] | None,
        folds: float = 0.0,
    ) -> None:
        self.weight, self.perceptual, self.rims, self.folds = weight / weight.mean(), perceptual, rims, folds

    def __call__(self, module: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Named terms."""
        assert isinstance(module, Trainee)
        images, network = batch.images, module.autoencoder
        latent = network.encode(images)
        zero = images.new_zeros(())
        code = 0.01 * latent.square().mean()
        entered = latent + 0.05 * torch.randn_like(latent)
        if batch.progress >= UNQUANTISED:
            self._renew(module, latent.detach(), batch)
            nearest, codes = network.codebook(latent)
            module.used.mul_(0.98).index_add_(0, codes.flatten(), torch.ones(codes.numel()))
            code = (latent.detach() - nearest).square().mean() + COMMITMENT * (
                latent - nearest.detach()
            ).square().mean()
            entered = latent + (nearest - latent).detach()
        guess = network.decoder(entered)
        weight = self.weight * (1 + self.folds * images.abs().mean(1, keepdim=True)).clamp(max=HEAVIEST)
        absolute = ((guess - images).abs() * weight).mean()
        square = ((guess - images).square() * weight).mean()
        rims = zero if self.rims is None else LIP_WEIGHT * self._rim_error(guess[:, :3], images[:, :3])
        alike = self.perceptual(guess * weight.sqrt(), images * weight.sqrt())
        fooled = critical = zero
        if batch.progress >= CRITICAL:
            frozen = {name: value.detach() for name, value in module.critic.named_parameters()}
            fooled = -functional_call(module.critic, frozen, (guess,)).mean()
            critical = (
                functional.relu(1 - module.critic(images)).mean()
                + functional.relu(1 + module.critic(guess.detach())).mean()
            )
        total = absolute + square + rims + alike + CODE_WEIGHT * code + ADVERSARIAL * 0.05 * fooled + critical
        terms = {"abs": absolute, "rec": square, "rims": rims, "alike": alike, "code": code, "critic": critical}
        terms["alive"] = (module.used > 0.05).float().mean()
        return {"total": total, **{name: term.detach() for name, term in terms.items()}}

    def _rim_error(self, guess: Tensor, images: Tensor) -> Tensor:
        assert self.rims is not None
        return ((guess - images).flatten(2) @ self.rims.T).square().mean()

    def _renew(self, module: Trainee, latent: Tensor, batch: Batch) -> None:
        """The codebook's first entries are latents; later, now and then, those that nobody uses become latents."""
        entries = module.autoencoder.codebook.entries
        flat = latent.permute(0, 2, 3, 1).flatten(0, 2)
        if not module.used.any():
            chosen = torch.randint(len(flat), (len(entries),))
            entries.data.copy_(flat[chosen] + 0.01 * torch.randn_like(entries))
            module.used.fill_(1.0)
        elif batch.step % RESTART_EVERY == 0 and batch.progress < SETTLED:
            dead = torch.nonzero(module.used < 0.1)[:, 0]
            if not len(dead):
                return
            distance = torch.cdist(flat, entries).min(1).values
            chosen = torch.multinomial(distance.square() + 1e-9, len(dead), replacement=len(dead) > len(flat))
            entries.data[dead] = flat[chosen]
            module.used[dead] = 1.0


def texel_weights(head: Head, config: AutoencoderConfig) -> Float[Tensor, "size size"]:
    """How much a texel counts: next to nothing outside the charts; for motion, most at eyes and lips; for wrinkles, as
    much all over the skin.
    """
    raster = head.atlas.rasterise(config.size)
    if config.modality == "wrinkle":
        return torch.from_numpy(np.where(head.texels_of("skin", raster), 1.0, 0.05)).float()
    vertices = np.ones((len(head.atlas.vertices), 1))
    for region, weight in REGION_WEIGHTS.items():
        vertices[head.regions[region]] = weight
    image = head.atlas.paint(vertices, raster)[..., 0]
    return torch.from_numpy(np.where(raster.covered, image, 0.05)).float()


def rim_vertices(head: Head) -> Int64[np.ndarray, " rims"]:
    """The rims of the lips and of the lids."""
    eyes = eye_openings(head.atlas.vertices, head.faces_of("skin"))
    return np.concatenate([head.rim, *(eye.rim for eye in eyes)]).astype(np.int64)


def codebook_usage(network: Autoencoder, images: Float[Tensor, "batch channels size size"]) -> dict[str, float]:
    """Entries that these maps use, and the perplexity of their use; a collapsed codebook has few and little."""
    with torch.no_grad():
        codes = network.codebook(network.encode(images)).codes
    share = torch.bincount(codes.flatten(), minlength=network.config.codes).double() / codes.numel()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return {"used": float((share > 0).double().sum()), "perplexity": float(entropy.exp())}


def train(
    corpus: Corpus,
    head: Head,
    folder: Path,
    steps: int,
    config: AutoencoderConfig,
    vgg: Path | None = None,
    skins: Sequence[WrinkleStyle] = (),
) -> Autoencoder:
    """Train for `steps`; see the model card for what that took. Wrinkles are the subjects' and those of `skins`."""
    rig = corpus.rig(head)
    moving = rig.moving if config.modality != "wrinkle" else rig.moving[:0]
    config = replace(config, atlas=head.atlas.fingerprint, moving=len(moving))
    fields = (
        [WrinkleField(head, skin) for skin in (*(s.wrinkles for s in corpus.subjects if not s.held_out), *skins)]
        if config.modality != "motion"
        else []
    )
    motion_size = config.size if config.modality == "motion" else config.size // MOTION_SHARE
    maker = MapMaker(rig, motion_size, config.size, fields)
    faces, unseen = (Faces.of(corpus, held_out=held_out) for held_out in (False, True))
    perceptual, name = open_perceptual(vgg)
    rims = None
    if config.modality != "wrinkle":
        reader = MotionMaps(head, config.size)
        rims = torch.from_numpy(reader.at_vertices[rim_vertices(head)].toarray()).float()
    torch.manual_seed(0)
    spoken = sum(not subject.held_out for subject in corpus.subjects)
    header = Header(
        "autoencoder", asdict(config), data=f"synthetic faces of {spoken} subjects; perceptual loss: {name}"
    )
    test = maker.draw(config.modality, unseen, 1, 64)

    def evaluate(module: nn.Module) -> Mapping[str, float]:
        assert isinstance(module, Trainee)
        guess = module.autoencoder(test)
        return {"mse": float((guess - test).square().mean()), **codebook_usage(module.autoencoder, test)}

    trainee = Trainee(config)
    trainee.autoencoder.moving.copy_(torch.from_numpy(moving))
    fit(
        trainee,
        lambda step: Batch(maker.draw(config.modality, faces, step), step, step / steps),
        Objective(texel_weights(head, config), perceptual, rims, 0.0 if config.modality == "motion" else FOLD_WEIGHT),
        LoopConfig(steps, learning_rate=6e-4, weight_decay=0.0, ema=0.995, evaluate_every=500),
        folder,
        header,
        evaluate,
    )
    return trainee.autoencoder
