"""Wrinkle maps at up to 8192²: super-resolution, guided by the neutral texture (TexTalker 5.1; Real-ESRGAN, Wang et
al. 2021).

A stage enlarges a map four times: it adds to the bicubic map what a trunk of convolutions, all at the small size, puts
into every texel's sixteen. Beside the map the trunk may see the neutral texture, at the large size: skin shows at rest
where it will crease, and the grain that takes more of the shade. Where nothing folds, nothing is added: a neutral map
stays neutral, exactly. `compact` goes from 256² to 1024², `paper` from 512² to 8192² in two stages of RRDBs; what is
missing to the size asked for is bicubic, since the corpus' wrinkles hold nothing finer than a 1024² map shows (the
exact one, enlarged, is 73 to 100 dB from the exact 8192²).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from models.batching import Function
from models.checkpoint import config_from, load_into, read_header, read_tensors
from models.errors import CheckpointError, OutOfRange
from models.runtime import Runtime
from models.textalker.maps import from_network, log_ratio, to_network, wrinkle_map

LARGEST = 8192
STRIP = 64
"""Rows that are given at a time."""
SCALE = 4
"""Of a stage."""
GUIDE_GAIN, GUIDE_MOST = 15.0, 3.0
"""From a guide's log-luminance to what networks see of it, and how far that goes."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
GUIDE_SHARE, GUIDE_REACH = 1 / 128, 3.0
"""Deviation of what is taken for the texture's own colour, of its side: about 2 mm of the face; and how many of them
are looked at.
"""
STILL = 0.05
"""A map's distance from neutral, as networks see it, from which on all is added that the trunk asks for: a two
hundredth of the colour.
"""
STILL_REACH = 2
"""Texels about one that is not neutral that are not either."""

Maps = Float[Tensor, "batch 3 rows columns"]
Guides = Float[Tensor, "batch 1 large_rows large_columns"]
LogRatio = Float32[np.ndarray, "size size 3"]
Strip = Float32[np.ndarray, "rows size 3"]
Guide = Float32[np.ndarray, "large large"]


@dataclass(frozen=True)
class UpsamplerConfig:
    """What the network is. size: of the maps that enter; stages: how often they are enlarged SCALE times."""

    size: int = 256
    stages: int = 1
    trunk: str = "plain"
    """`plain`: convolutions one after the other (SRVGG), each past itself; `dense`: residual in residual dense blocks
    (RRDB).
    """
    width: int = 48
    depth: int = 12
    """Convolutions, or blocks."""
    growth: int = 32
    """Channels that a convolution of a dense block adds."""
    tile: int = 256
    """Texels along the side of what a stage does at a time, beside its overlap."""
    atlas: str = ""
    """Fingerprint of the atlas that its maps lie on."""

    @property
    def large(self) -> int:
        """Texels along the side of what the network makes, and of its guide."""
        return int(self.size * SCALE**self.stages)

    @property
    def overlap(self) -> int:
        """Texels about a tile that reach into it: one for each 3×3 convolution on the way."""
        convolutions = self.depth if self.trunk == "plain" else self.depth * DENSE_BLOCKS * DENSE_DEPTH + 1
        return convolutions + 2

    def window(self, size: int) -> int:
        """Texels along the side of a tile with its overlap, of a map of `size`."""
        return min(self.tile + 2 * self.overlap, size)


DENSE_BLOCKS, DENSE_DEPTH, DENSE_SHARE = 3, 5, 0.2
"""Dense blocks in an RRDB, convolutions in each, and how much of them is added."""
SIZES: Mapping[str, UpsamplerConfig] = {
    "compact": UpsamplerConfig(),
    "paper": UpsamplerConfig(512, 2, "dense", width=64, depth=23, growth=32, tile=1024),
}


class DenseBlock(nn.Module):
    """Each convolution sees what all before it made."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        leaving = [growth] * (DENSE_DEPTH - 1) + [width]
        self.convolutions = nn.ModuleList(_convolution(width + k * growth, n) for k, n in enumerate(leaving))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, rows, columns), in and out."""
        seen = x
        for convolution in self.convolutions[:-1]:
            seen = torch.cat([seen, functional.leaky_relu(convolution(seen), 0.2)], 1)
        return x + DENSE_SHARE * self.convolutions[-1](seen)


class ResidualDense(nn.Module):
    """RRDB: dense blocks, and past them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(DENSE_BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, rows, columns), in and out."""
        return x + DENSE_SHARE * self.blocks(x)


class Past(nn.Module):
    """Some layers, and past them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        return x + self.layers(x)


class Stage(nn.Module):
    """A map SCALE times as large."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        width, texels = config.width, SCALE**2
        self.enter, self.beside = _convolution(3, width), _convolution(texels, width)
        self.trunk = _trunk(config)
        self.leave = _convolution(width, 3 * texels)
        nn.init.zeros_(self.leave.weight)  # begins as bicubic
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, image: Maps, guide: Guides) -> Maps:
        """(batch, 3, rows, columns) and a guide SCALE times as large → a map as large as the guide."""
        own, beside = self.enter(image), self.beside(functional.pixel_unshuffle(guide, SCALE))
        added = self.leave(self.trunk(own + beside + own * beside))  # skin takes shade as its grain lets it
        moved = image.abs().amax(1, keepdim=True)
        moved = functional.max_pool2d(moved, 2 * STILL_REACH + 1, 1, STILL_REACH)
        added = added * (moved / STILL).clamp(max=1)
        return functional.pixel_shuffle(added, SCALE) + enlarge(image, SCALE)


class Upsampler(nn.Module):
    """Stages one after the other."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config) for _ in range(config.stages))

    def forward(self, image: Maps, guide: Guides) -> Maps:
        """Maps as networks see them (batch, 3, rows, columns), and guides as large as the result."""
        for stage, own in zip(self.stages, guides_of(guide, len(self.stages)), strict=True):
            image = stage(image, own)
        return image


def guides_of(guide: Guides, stages: int) -> list[Guides]:
    """A guide as each stage sees it: as large as what the stage makes."""
    return [functional.avg_pool2d(guide, SCALE ** (stages - 1 - k)) for k in range(stages)]


def enlarge(image: Maps, times: int) -> Maps:
    """Bicubic."""
    return functional.interpolate(image, scale_factor=times, mode="bicubic") if times > 1 else image


def guide_of(texture: UInt8[np.ndarray, "size size 3"], large: int) -> Guide:
    """What a neutral texture (sRGB) of any size tells a network whose maps become `large`."""
    way = Image.Resampling.BOX if len(texture) > large else Image.Resampling.BICUBIC
    image = Image.fromarray(texture).resize((large, large), way)
    return sharpen(log_luminance(np.asarray(image)), large)


def log_luminance(texture: UInt8[np.ndarray, "size size 3"]) -> Float32[np.ndarray, "size size"]:
    """Natural log of the luma (Rec. 601), which is 1 at least."""
    return np.log(np.maximum(texture @ LUMA, 1))


def sharpen(tone: Float32[np.ndarray, "rows columns"], large: int) -> Float32[np.ndarray, "rows columns"]:
    """Log-luminance, or a window of one of `large` texels → a guide: what differs from its surroundings, whatever the
    skin's own colour is.
    """
    own = gaussian_filter(tone, GUIDE_SHARE * large, mode="nearest", truncate=GUIDE_REACH)
    return np.asarray(np.clip(GUIDE_GAIN * (tone - own), -GUIDE_MOST, GUIDE_MOST), np.float32)


class MapUpsampler:
    """A network where it runs: log-ratio maps of its size in, strips of any size out.

    Memory beside the network: `compact` 0.2 GB; `paper`, by reckoning, 5 GB, most of it for one tile; and a strip.
    """

    def __init__(self, network: Upsampler, runtime: Runtime) -> None:
        self.config, self._stages = network.config, list[Function]()
        for number, stage in enumerate(network.stages):
            window = self.config.window(self.config.size * SCALE**number)
            example = torch.zeros(1, 3, window, window), torch.zeros(1, 1, window * SCALE, window * SCALE)
            self._stages.append(runtime.compile(f"textalker-upsampler-{number}", stage, example))

    def rows(self, wrinkles: LogRatio, size: int, guide: Guide | None = None) -> Iterator[Strip]:
        """The map (size, size, 3) of log-ratios, in strips of rows from the top.

        wrinkles: (config.size, config.size, 3) log-ratios; size: LARGEST, or a half, a quarter and so on of it, down to
        a quarter of config.size; guide: `guide_of` the neutral texture, config.large texels; None leaves the map to
        itself. Checked at once: OutOfRange for other sizes.
        """
        self.check_size(size)
        self._check(wrinkles, guide)
        return self._rows(wrinkles, size, guide)

    def check_size(self, size: int) -> None:
        """Refuse what `rows` does not give: OutOfRange."""
        allowed = [n for k in range(-2, 8) if (n := int(self.config.size * 2.0**k)) <= LARGEST]
        if size not in allowed:
            raise OutOfRange(f"a map of {size} texels; wanted one of {allowed}", field="size")

    def _rows(self, wrinkles: LogRatio, size: int, guide: Guide | None) -> Iterator[Strip]:
        image = self.enlarge(wrinkles, guide)
        for start in range(0, size, STRIP):
            strip = resized(image, size, slice(start, min(start + STRIP, size)))[0]
            yield log_ratio(from_network(strip.permute(1, 2, 0).numpy()))

    def enlarge(self, wrinkles: LogRatio, guide: Guide | None = None) -> Maps:
        """The map at the network's own size, as networks see it (1, 3, config.large, config.large); arguments as for
        `rows`.
        """
        self._check(wrinkles, guide)
        image, large = as_image(wrinkles), self.config.large
        seen = torch.zeros(1, 1, large, large) if guide is None else torch.from_numpy(guide)[None, None]
        for run, own in zip(self._stages, guides_of(seen, len(self._stages)), strict=True):
            image = tiled(run, image, own, self.config)
        return image

    def _check(self, wrinkles: LogRatio, guide: Guide | None) -> None:
        size, large = self.config.size, self.config.large
        if wrinkles.shape != (size, size, 3):
            raise OutOfRange(f"wrinkles of shape {wrinkles.shape}; wanted ({size}, {size}, 3): resize", field="map")
        if guide is not None and guide.shape != (large, large):
            raise OutOfRange(f"a guide of shape {guide.shape}; wanted {large}², as guide_of makes it", field="guide")


class GuidedUpsampler:
    """An upsampler and the skin that guides it, if any: a `models.core.Enlarger`. Safe to share."""

    def __init__(self, upsampler: MapUpsampler, guide: Guide | None) -> None:
        self.large, self._upsampler, self._guide = upsampler.config.large, upsampler, guide

    def image(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Float32[np.ndarray, "large large 3"]:
        """See `models.core.Enlarger.image`; wrinkles have the network's own size."""
        image = self._upsampler.enlarge(wrinkles.astype(np.float32), self._guide)
        return log_ratio(from_network(image[0].permute(1, 2, 0).numpy()))

    def rows(self, image: Float32[np.ndarray, "large large 3"], size: int) -> Iterator[Strip]:
        """See `models.core.Enlarger.rows`."""
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        for start in range(0, size, STRIP):
            yield resized(planes, size, slice(start, min(start + STRIP, size)))[0].permute(1, 2, 0).numpy()

    def on_atlas(self, texture: UInt8[np.ndarray, "n n 3"]) -> UInt8[np.ndarray, "n n 3"]:
        """See `models.core.Enlarger.on_atlas`: it is there."""
        return texture


def as_image(wrinkles: LogRatio) -> Maps:
    """Log-ratios as networks see them."""
    return torch.from_numpy(np.ascontiguousarray(to_network(wrinkle_map(wrinkles)).transpose(2, 0, 1)))[None]


def resized(image: Maps, size: int, rows: slice) -> Maps:
    """Some rows of a map at another size, a power of two times its own: bicubic, or averages where it becomes smaller.

    They are what they are whichever rows are asked for.
    """
    large = image.shape[-1]
    if size <= large:
        times = large // size
        return functional.avg_pool2d(image[:, :, rows.start * times : rows.stop * times], times)
    times = size // large
    before, after = max(rows.start // times - 2, 0), min(-(-rows.stop // times) + 2, large)
    strip = enlarge(image[:, :, before:after], times)
    return strip[:, :, rows.start - before * times : rows.stop - before * times]


def tiled(run: Function, image: Maps, guide: Guides, config: UpsamplerConfig) -> Maps:
    """A stage on a whole map, tile by tile, each with the overlap around it, or the map's own edge.

    All windows are of one size, and lie inside the map, so that only its own edges are padded: tiles = whole. A window
    in which nothing folds is left as it is: zero.
    """
    size, tile = image.shape[-1], config.tile
    window = config.window(size)
    large = torch.zeros(1, 3, size * SCALE, size * SCALE)
    for top in range(0, size, tile):
        for left in range(0, size, tile):
            y, x = (min(max(place - config.overlap, 0), size - window) for place in (top, left))
            part = image[:, :, y : y + window, x : x + window]
            if not part.any():
                continue
            seen = guide[:, :, y * SCALE : (y + window) * SCALE, x * SCALE : (x + window) * SCALE]
            (made,) = run(part.contiguous(), seen.contiguous())
            rows, columns = (
                slice((place - start) * SCALE, (min(place + tile, size) - start) * SCALE)
                for place, start in ((top, y), (left, x))
            )
            target = large[:, :, top * SCALE : (top + tile) * SCALE, left * SCALE : (left + tile) * SCALE]
            target.copy_(made[:, :, rows, columns])
    return large


def load_upsampler(path: Path, atlas: str) -> Upsampler:
    """A trained upsampler. CheckpointError if the file holds something else, or maps of another atlas."""
    header = read_header(path)
    if header.kind != "upsampler":
        raise CheckpointError(f"{path} holds a {header.kind}; wanted an upsampler: python -m training upsampler")
    config = config_from(UpsamplerConfig, header)
    if config.atlas != atlas:
        raise CheckpointError(
            f"{path} upsamples maps of atlas {config.atlas or 'unknown'}; wanted {atlas}: train it again"
        )
    network = Upsampler(config)
    load_into(network, read_tensors(path), str(path))
    return network.eval()


def _trunk(config: UpsamplerConfig) -> nn.Module:
    if config.trunk == "dense":
        blocks = (ResidualDense(config.width, config.growth) for _ in range(config.depth))
        return Past(*blocks, _convolution(config.width, config.width))
    layers = (Past(nn.PReLU(config.width), _convolution(config.width, config.width)) for _ in range(config.depth))
    return nn.Sequential(*layers, nn.PReLU(config.width))


def _convolution(entering: int, leaving: int) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, 3, padding=1)
