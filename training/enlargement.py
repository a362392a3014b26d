"""How near upsampled wrinkle maps come to the exact ones, at any size up to 8192.

    python -m training evaluate upsampler --corpus build/corpus

Maps of held-out subjects, in moments like those of training, are made at the network's size, upsampled, and compared
with the corpus' own at the size asked for: PSNR of wrinkle maps (0..1) and SSIM, on the texels of the face. Strips of
the exact map are drawn one at a time, so that memory is a strip's: 0.3 GB at 8192. Beside the network guided by the
subject's own neutral texture stand the one guided by the default skin, the one that is not guided, and bicubic; and all
of them on maps that have been through the wrinkle auto-encoder, as at run time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from models.skin.neutral import NeutralSkin
from models.template import Head
from models.texels import skin_texels
from models.textalker.autoencoder import Autoencoder
from models.textalker.maps import from_network, log_ratio, wrinkle_map
from models.textalker.upsampler import MapUpsampler, as_image, resized, sharpen
from training.autoencoder import Faces, wear_expressions
from training.corpus.canvas import AXIS_Z_M, Canvas
from training.corpus.face import FaceRig
from training.corpus.wrinkles import WrinkleStyle
from training.datasets.corpus import Corpus
from training.upsampler import TRACES, Face, Window, bare_skin

STRIP = 64
"""Rows that are compared at a time."""
SSIM_SIGMA, SSIM_MARGIN = 1.5, 5
"""Deviation of SSIM's neighbourhood in texels, and the rows at a strip's edges that lack theirs."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
PLACES_MM = {"crow's feet": (46.0, -2.0), "mouth": (34.0, -62.0), "forehead": (8.0, 44.0)}
"""What the figure shows: millimetres across and up from the eyes, on the subject's left."""

Log = Float32[np.ndarray, "rows columns 3"]


@dataclass
class Tally:
    """Squared error and SSIM of texels, summed up strip by strip."""

    square: float = 0.0
    alike: float = 0.0
    texels: int = 0
    judged: int = 0

    def add(self, guess: Log, truth: Log, face: Bool[np.ndarray, "rows columns"]) -> None:
        """Wrinkle maps, 0..1, of a strip."""
        self.square += float(np.square(guess - truth)[face].mean(1, dtype=np.float64).sum())
        self.texels += int(face.sum())
        within = face[SSIM_MARGIN:-SSIM_MARGIN]
        self.alike += float(similarity(guess, truth)[SSIM_MARGIN:-SSIM_MARGIN][within].sum(dtype=np.float64))
        self.judged += int(within.sum())

    def report(self) -> dict[str, float]:
        """psnr_db and ssim."""
        return {
            "psnr_db": float(-10 * np.log10(max(self.square / self.texels, 1e-12))),
            "ssim": self.alike / self.judged,
        }


def similarity(one: Log, other: Log) -> Float32[np.ndarray, "rows columns"]:
    """SSIM (Wang et al. 2004) about every texel of images 0..1, the mean of their channels."""

    def mean(image: Log) -> Log:
        return gaussian_filter(image, (SSIM_SIGMA, SSIM_SIGMA, 0), truncate=SSIM_MARGIN / SSIM_SIGMA)

    first, second = mean(one), mean(other)
    both, squares = first * second, (first**2, second**2)
    variance = mean(one**2) - squares[0] + mean(other**2) - squares[1]
    shared = mean(one * other) - both
    value = (2 * both + SSIM_C1) * (2 * shared + SSIM_C2)
    return np.asarray((value / ((sum(squares) + SSIM_C1) * (variance + SSIM_C2))).mean(2))


def upsampler_report(judge: "Judge", size: int, moments: int, every: int = 1) -> dict[str, Any]:
    """PSNR and SSIM of each network and of bicubic, over all held-out subjects and moments; of every so many strips."""
    tallies: dict[str, Tally] = {}
    for style in tqdm(judge.styles, desc="held-out subjects", dynamic_ncols=True):
        for name, guess, truth, face in judge.strips(style, size, moments, every):
            tallies.setdefault(name, Tally()).add(guess, truth, face)
    rows = {name: tally.report() for name, tally in tallies.items()}
    return {"rows": rows, "size": size, "moments": moments, "subjects": len(judge.styles), "every": every}


class Judge:
    """Upsamples held-out subjects' maps, and draws the exact ones."""

    def __init__(
        self, upsamplers: Mapping[str, MapUpsampler], corpus: Corpus, head: Head, decoder: Autoencoder | None = None
    ) -> None:
        self._upsamplers, self._head, self._decoder = upsamplers, head, decoder
        self.config = next(iter(upsamplers.values())).config
        self._rig: FaceRig = corpus.rig(head)
        self._unseen, self._bare = Faces.of(corpus, held_out=True), bare_skin(head, self.config.large)
        self._face = Canvas(head).face()
        self.styles = [subject.wrinkles for subject in corpus.subjects if subject.held_out]

    def strips(
        self, style: WrinkleStyle, size: int, moments: int, every: int
    ) -> Iterator[tuple[str, Log, Log, Bool[np.ndarray, "rows size"]]]:
        """Name, guess and truth as wrinkle maps, and which texels are the face's, strip by strip."""
        face = Face(self._head, style, self.config.large)
        activations = self._moments(face, moments)
        images = [self._images(face, own) for own in activations]
        for start in range(0, size, STRIP * every):
            rows = slice(start, min(start + STRIP, size))
            texels = skin_texels(self._head, size, rows)
            inside = np.zeros((rows.stop - rows.start) * size, bool)
            inside[texels.index] = texels.read(self._face) > 0.5
            if not inside.any():
                continue
            basis = face.field.draw(size, rows)
            for own, guesses in zip(activations, images, strict=True):
                truth = wrinkle_map(np.asarray(basis @ (own[:, None] * face.field.tint))).reshape(-1, size, 3)
                for name, image in guesses.items():
                    yield name, as_map(resized(image, size, rows)), truth, inside.reshape(-1, size)

    def _moments(self, face: Face, count: int) -> Float32[np.ndarray, "moments activations"]:
        random = np.random.default_rng(0xE7)
        weights, contact = self._unseen.draw(count, random)
        return face.field.activations(self._rig.offsets(wear_expressions(weights, random), contact), contact)

    def _images(self, face: Face, activations: Float32[np.ndarray, " activations"]) -> dict[str, Tensor]:
        """The map as everyone enlarges it, as networks see it, at any size."""
        whole = Window(slice(0, self.config.large), slice(0, self.config.large))
        guides = {
            "own skin": sharpen(self._bare + face.relief(TRACES, whole), self.config.large),
            "default skin": sharpen(self._bare + self._default.relief(0.0, whole), self.config.large),
            "no guide": None,
        }
        exact = face.field.maps(activations[None], self.config.size)[0]
        images = {}
        for kind, small in (("exact map", exact), ("decoded map", self._decoded(exact))):
            if small is not None:
                images[f"bicubic, {kind}"] = as_image(small)
                for name, upsampler in self._upsamplers.items():
                    images |= {f"{name}, {seen}, {kind}": upsampler.enlarge(small, guides[seen]) for seen in guides}
        return images

    def _decoded(self, exact: Log) -> Log | None:
        if self._decoder is None:
            return None
        with torch.no_grad():
            return log_ratio(as_map(self._decoder(as_image(exact))))

    @cached_property
    def _default(self) -> Face:
        return Face(self._head, WrinkleStyle(), self.config.large)

    def figure(self, size: int, crop: int = 384, moments: int = 12) -> UInt8[np.ndarray, "rows columns 3"]:
        """Crops of the first subject's face, a row each: the neutral texture, and it under the small map, bicubic,
        upsampled by the first network, and exact.
        """
        style, name = self.styles[0], next(iter(self._upsamplers))
        face = Face(self._head, style, self.config.large)
        own = f"{name}, own skin, exact map"
        skin, activations = NeutralSkin(self._head, style.seed, style.grain), self._moments(face, moments)
        picture = []
        for across_mm, up_mm in PLACES_MM.values():
            window = self._window(across_mm, up_mm, size, crop)
            basis = face.field.draw(size, window.rows, window.columns)
            folded = [
                np.asarray(basis @ (own[:, None] * face.field.tint)).reshape(crop, crop, 3) for own in activations
            ]
            most = int(np.argmax([-image.mean() for image in folded]))
            traces = np.asarray(basis @ (face.field.traces(TRACES)[:, None] * face.field.tint)).reshape(crop, crop, 3)
            neutral = skin.window(size, window.rows, window.columns) * np.exp(traces)
            images = self._images(face, activations[most])
            small = images["bicubic, exact map"]
            nearest = functional.interpolate(small, scale_factor=size // self.config.size)[:, :, window.rows]
            maps = [nearest, *(resized(images[key], size, window.rows) for key in ("bicubic, exact map", own))]
            logs = [log_ratio(as_map(image[..., window.columns])) for image in maps]
            tiles = [neutral, *(neutral * np.exp(log) for log in (*logs, folded[most]))]
            picture.append(np.concatenate(tiles, 1))
        return np.round(np.clip(np.concatenate(picture), 0, 255)).astype(np.uint8)

    def _window(self, across_mm: float, up_mm: float, size: int, crop: int) -> Window:
        """About a place on the unrolled face."""
        canvas, atlas = Canvas(self._head), self._head.atlas
        skin = self._head.part("skin")
        place = canvas.unroll(atlas.vertices[skin].astype(np.float64)) - [0, canvas.landmarks.inner_eye.up]
        away = np.linalg.norm(place - [across_mm, up_mm], axis=1) + 1e3 * (atlas.vertices[skin, 2] < AXIS_Z_M)
        u, v = atlas.vertex_uvs[skin[np.argmin(away)]]
        top, left = (int(np.clip(middle * size - crop / 2, 0, size - crop)) for middle in (1 - v, u))
        return Window(slice(top, top + crop), slice(left, left + crop))


def as_map(image: Tensor) -> Log:
    """A single map as networks see it → a wrinkle map, 0..1."""
    return from_network(image[0].permute(1, 2, 0).numpy())
