"""How long a wrinkle map of 8192² takes, and its neutral skin, and how much memory. README.md beside this file explains
it.

Each row runs in a process of its own, whose peak memory is that row's.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import torch
from pipeline import machine, peak_mib, table

from models.checkpoint import pinned_file
from models.runtime import Runtime, open_runtime
from models.skin.cabinet import skin_file
from models.template import load_head
from models.textalker.maps import from_network, log_ratio
from models.textalker.upsampler import (
    SCALE,
    SIZES,
    STRIP,
    MapUpsampler,
    Upsampler,
    as_image,
    load_upsampler,
    resized,
)
from service.settings import Settings

HEADS = ["what", "by", "size", "wall s", "CPU s", "loaded MiB", "more MiB"]
LIBRARIES = ("onnxruntime", "torch", *(["CUDA"] if torch.cuda.is_available() else []))


@dataclass(frozen=True)
class Case:
    """What one process measures: one of WORK, by which library, at which size; `warm` runs it once before."""

    what: str
    by: str
    size: int
    warm: bool = False


@dataclass(frozen=True)
class Result:
    """Seconds of the clock and of all cores; in MiB the peak once all is loaded, and how far the work exceeds it."""

    case: Case
    wall_s: float
    cpu_s: float
    loaded_mib: float
    more_mib: float

    def row(self) -> list[str]:
        """The table's row."""
        figures = [f"{self.wall_s:.2f}", f"{self.cpu_s:.2f}", f"{self.loaded_mib:.0f}", f"{self.more_mib:.0f}"]
        return [self.case.what, self.case.by, str(self.case.size), *figures]


def measure(case: Case) -> Result:
    """Load, warm up if the case says so, then run once."""
    work = WORK[case.what](case)
    loaded_mib = peak_mib()
    if case.warm:
        work()
    wall, cpu = perf_counter(), process_time()
    work()
    return Result(case, perf_counter() - wall, process_time() - cpu, loaded_mib, peak_mib() - loaded_mib)


def upsampling(case: Case) -> Callable[[], None]:
    """A map in strips, which are made and dropped. Noise: no tile of it is left out as neutral."""
    random, network = np.random.default_rng(0), shipped_upsampler()
    small, large = network.config.size, network.config.large
    wrinkles = random.normal(0, 0.1, (small, small, 3)).astype(np.float32)
    guide = random.standard_normal((large, large), np.float32)
    upsampler = MapUpsampler(network, runtime_by(case.by))

    def work() -> None:
        for _ in upsampler.rows(wrinkles, case.size, guide):
            pass

    return work


def bicubic(case: Case) -> Callable[[], None]:
    """The same map without a network."""
    small = shipped_upsampler().config.size
    wrinkles = np.random.default_rng(0).normal(0, 0.1, (small, small, 3)).astype(np.float32)

    def work() -> None:
        image = as_image(wrinkles)
        for start in range(0, case.size, STRIP):
            strip = resized(image, case.size, slice(start, start + STRIP))[0]
            log_ratio(from_network(strip.permute(1, 2, 0).numpy()))

    return work


def paper_tile(case: Case) -> Callable[[], None]:
    """A tile of the `paper` network's second stage with its overlap, untrained."""
    config = SIZES["paper"]
    window = config.window(config.size * SCALE)
    inputs = torch.rand(1, 3, window, window), torch.rand(1, 1, window * SCALE, window * SCALE)
    run = runtime_by(case.by).compile("benchmark-paper-upsampler", Upsampler(config).stages[1], inputs)
    return lambda: [part.cpu() for part in run(*inputs)].clear()


def painting(case: Case) -> Callable[[], None]:
    """The neutral skin as a PNG file that is not there yet, its marks scattered anew."""
    settings = Settings()
    head = load_head(pinned_file(settings.weights, "head")[0])

    def work() -> None:
        with TemporaryDirectory() as folder:
            skin_file(head, case.size, Path(folder), settings.threads)

    return work


WORK = {"upsampled map": upsampling, "enlarged map": bicubic, "paper tile": paper_tile, "neutral skin": painting}


def shipped_upsampler() -> Upsampler:
    """The network of the weights that the settings name."""
    weights = Settings().weights
    atlas = load_head(pinned_file(weights, "head")[0]).atlas
    return load_upsampler(pinned_file(weights, "textalker-upsampler")[0], atlas.fingerprint)


def runtime_by(library: str) -> Runtime:
    """What executes networks with a library, with as many threads as the settings say."""
    settings = Settings()
    runtime = open_runtime("cuda" if library == "CUDA" else "cpu", settings.cache, settings.threads)
    return replace(runtime, exports=library != "torch")


def cases(sizes: Sequence[int], paper: bool) -> Iterator[Case]:
    """A row each."""
    for size in sizes:
        yield Case("enlarged map", "bicubic", size, warm=True)
        yield from (Case("upsampled map", library, size, warm=True) for library in LIBRARIES)
        yield Case("neutral skin", "numpy", size)
    if paper:
        yield from (Case("paper tile", library, SIZES["paper"].tile) for library in LIBRARIES)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096, 8192], help="texels along a map's side")
    parser.add_argument("--paper", action="store_true", help="a tile of the paper-sized network, too: minutes")
    return parser.parse_args()


def main() -> None:
    """Print the machine and the table."""
    wanted = parse()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes below: as in `talker`
    print(f"{machine()}\n")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        first = Case("upsampled map", "onnxruntime", min(wanted.sizes))
        pool.submit(measure, first).result()  # exports the graph, which takes memory
        results = [pool.submit(measure, case).result() for case in cases(wanted.sizes, wanted.paper)]
    print(table(HEADS, [result.row() for result in results]))


if __name__ == "__main__":
    main()
