"""MMTalker's parts against the paper's equations written out, and the blinks that the paper leaves out."""

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from scipy.sparse import csr_matrix
from tiny import (
    CONFIG,
    TORCH,
    nobody,
    shipped_head,
    tiny_head,
    tiny_motion,
    tiny_moving,
    tiny_network,
    tiny_pivot,
    tiny_style,
)
from torch import Tensor, nn
from torch.nn import functional

from models.atlas import Anchors
from models.checkpoint import Header, save_checkpoint
from models.errors import CheckpointError
from models.mmtalker.attention import DirectFusion, DualCrossAttention
from models.mmtalker.blinks import Blink, BlinkTrack, draw_blink
from models.mmtalker.encoding import VertexEncoding, back_and_forth, chebyshev_tables
from models.mmtalker.graph import Factors, Propagation, ResidualGraph, propagation_matrix
from models.mmtalker.network import (
    KEY_OFFSETS,
    LOCAL_REACH,
    SIZES,
    AudioState,
    Instants,
    MMTalker,
    MMTalkerConfig,
    active_points,
    active_vertices,
    load_mmtalker,
)
from models.mmtalker.sampling import initial_log_density
from models.mmtalker.streaming import MMTalkerMotion
from models.puppet import MotionBatch

FAN = np.array([[0, 1, 2], [0, 2, 3]])
"""A square of two triangles: vertices 0 and 2 have three neighbours, 1 and 3 two."""


def random_instants(config: MMTalkerConfig, frames: int = 4, seed: int = 0) -> Instants:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Instants(
        torch.rand(frames, generator=generator) * 5,
        normal(frames, config.channels, config.width),
        normal(frames, config.width),
        normal(frames, len(KEY_OFFSETS), config.width),
        torch.rand(frames, generator=generator),
    )


@pytest.mark.parametrize("degrees", [1, 5, 16])
def test_encoding_at_time_zero_is_chebyshevs_polynomials(degrees):
    """Of degree 1 to L, of u and of v in -1..1."""
    uvs = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    encoded = VertexEncoding()(torch.zeros(1), *chebyshev_tables(uvs, degrees))[:, 0]
    expected = chebyshev.chebvander(2 * uvs.numpy().astype(float) - 1, degrees)[..., 1:].reshape(200, -1)
    assert np.abs(encoded.detach().numpy() - expected).max() < 1e-6


def test_encoding_is_equation_1_at_any_place_and_time():
    """cos(i · arccos(s) + ω t / T), t running back and forth in T = 1 s."""
    generator = torch.Generator().manual_seed(0)
    uvs, time_s = torch.rand(50, 2, generator=generator), 7 * torch.rand(9, generator=generator)
    encoding = VertexEncoding()
    encoding.frequency.data.fill_(2.3)
    encoded = encoding(time_s, *chebyshev_tables(uvs, 6)).detach().numpy()
    t = 1 - np.abs(time_s.numpy().astype(float) % 2 - 1)
    s = 2 * uvs.numpy().astype(float) - 1
    degree = np.arange(1, 7)
    expected = np.cos(degree * np.arccos(s)[:, None, :, None] + 2.3 * t[:, None, None])
    assert np.abs(encoded - expected.reshape(50, 9, 12)).max() < 1e-5


def test_encoding_of_the_squares_corners_is_finite():
    cosine, sine = chebyshev_tables(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 8)
    assert cosine[0].tolist() == pytest.approx([(-1) ** k for k in range(1, 9)] + [1] * 8, abs=1e-6)
    assert sine.abs().max() < 1e-5


def test_encoding_without_time_is_of_the_place_alone():
    encoding = VertexEncoding(timed=False)
    cosine, sine = chebyshev_tables(torch.rand(5, 2), 3)
    encoded = encoding(torch.tensor([0.0, 0.4, 17.0]), cosine, sine)
    assert torch.equal(encoded, cosine[:, None].expand(-1, 3, -1))
    assert not encoding.frequency.requires_grad


def test_time_runs_back_and_forth():
    times = back_and_forth(torch.tensor([0.0, 0.25, 1.0, 1.75, 2.0, 10.5]))
    assert times.tolist() == pytest.approx([0, 0.25, 1, 0.25, 0, 0.5])


def test_propagation_matrix_is_equation_3():
    """1 on the diagonal, one over the degree on a vertex's edges."""
    third, half = 1 / 3, 1 / 2
    assert propagation_matrix(FAN, 4).toarray() == pytest.approx(
        np.array([[1, third, third, third], [half, 1, half, 0], [third, third, 1, third], [half, 0, half, 1]])
    )


def test_gathering_is_the_sparse_product():
    """What is exported to ONNX equals what torch multiplies, for all vertices and for some."""
    atlas = tiny_head().atlas
    matrix = propagation_matrix(atlas.faces, len(atlas.vertices))
    propagation = Propagation(matrix)
    x = torch.randn(len(atlas.vertices), 3, 5, generator=torch.Generator().manual_seed(0))
    expected = np.einsum("ij,jkl->ikl", matrix.toarray(), x.numpy())
    assert np.abs(propagation(x).numpy() - expected).max() < 1e-5
    whole = propagation.gather(x, propagation.neighbours, propagation.weights)
    assert np.abs(whole.numpy() - expected).max() < 1e-5
    rows = torch.tensor([2, 7, 90])
    ring, places = propagation.around(rows)
    some = propagation.gather(x[ring], places, propagation.weights[:, rows])
    assert np.abs(some.numpy() - expected[rows]).max() < 1e-5


def test_graph_is_equation_2_with_residuals():
    """O¹ = ReLU(A O⁰ W⁰ + b) + O⁰ S and O² = ReLU(A O¹ W¹ + b) + O¹, with O⁰ = f_st ⊕ f_al written out."""
    torch.manual_seed(0)
    count, frames, encoding, width, channels = 6, 3, 4, 5, 2
    matrix = torch.rand(count, count)
    f_st, mixing = torch.randn(count, frames, encoding), torch.randn(count, channels)
    sound = torch.randn(frames, channels, width)
    graph = ResidualGraph(encoding, width)
    near = Factors(torch.einsum("ij,jtk->itk", matrix, f_st), matrix @ mixing)
    first = graph.first(near, Factors(f_st, mixing), sound)
    result = graph.last(torch.einsum("ij,jtk->itk", matrix, first), first)

    def weight(place: nn.Linear, sounding: nn.Linear) -> Tensor:
        return torch.cat([place.weight, sounding.weight], 1).T

    o_0 = torch.cat([f_st, torch.einsum("nk,tkh->nth", mixing, sound)], 2)
    inner = torch.einsum("ij,jtk->itk", matrix, o_0) @ weight(graph.place, graph.sound) + graph.place.bias
    o_1 = functional.relu(inner) + o_0 @ weight(graph.place_skip, graph.sound_skip) + graph.place_skip.bias
    o_2 = functional.relu(graph.second(torch.einsum("ij,jtk->itk", matrix, o_1))) + o_1
    assert (result - o_2).abs().max() < 1e-5


def test_dual_cross_attention_is_equations_4_and_5():
    """Att = softmax(q Kᵀ / √d) V for each vertex and frame; (f_p + Att) ⊕ (f_ag + Att)."""
    torch.manual_seed(0)
    vertices, frames, keys, width = 5, 3, 4, 6
    attention = DualCrossAttention(width, keys)
    attention.offset_bias.data.normal_()
    motion, audio = torch.randn(vertices, frames, width), torch.randn(frames, width)
    around = torch.randn(frames, keys, width)
    result = attention(motion, audio, around)
    for vertex in range(vertices):
        for frame in range(frames):
            query = attention.query(motion[vertex, frame])
            scores = attention.key(around[frame]) @ query / width**0.5 + attention.offset_bias
            attended = scores.softmax(0) @ attention.value(around[frame])
            expected = torch.cat([motion[vertex, frame] + attended, audio[frame] + attended])
            assert (result[vertex, frame] - expected).abs().max() < 1e-5


def test_direct_fusion_does_not_look_around():
    torch.manual_seed(0)
    fusion = DirectFusion(6)
    motion, audio = torch.randn(5, 3, 6), torch.randn(3, 6)
    first, second = (fusion(motion, audio, torch.randn(3, 4, 6)) for _ in range(2))
    assert first.shape == (5, 3, 12)
    assert torch.equal(first, second)


@pytest.mark.parametrize("switch", ["ste", "rgcn", "dcam"])
def test_a_switch_of_the_ablation_takes_out_what_it_names(switch):
    """Without STE nothing depends on time itself, without RGCN on neighbours, without DCAM on sound around."""
    network = tiny_network(replace(CONFIG, **{switch: False}))
    surface, whole = network.surface, tiny_network().surface
    instants = random_instants(CONFIG)
    later = instants._replace(time_s=instants.time_s + 0.3)
    elsewhere = instants._replace(around=torch.flip(instants.around, [1]))
    with torch.inference_mode():
        fused = surface.fused(instants)
        assert torch.equal(surface.fused(later), fused) == (switch == "ste")
        assert not torch.equal(whole.fused(later), whole.fused(instants))
        assert torch.equal(surface.fused(elsewhere), fused) == (switch == "dcam")
        assert not torch.equal(whole.fused(elsewhere), whole.fused(instants))
    dense = surface.propagation.matrix.to_dense()
    assert torch.equal(dense, torch.eye(len(dense))) == (switch == "rgcn")


def test_features_at_some_rows_are_those_of_all():
    """Training asks at a few vertices, with the neighbours that they need, and no more."""
    surface = tiny_network().surface
    rows = torch.tensor([0, 3, 4, 40])
    with torch.inference_mode():
        whole, some = (surface.fused(random_instants(CONFIG), at) for at in (None, rows))
    assert (some - whole[rows]).abs().max() < 1e-5


def test_features_are_the_papers_chain():
    """Fig. 4 written out, with O⁰ = f_st ⊕ f_al formed and A dense."""
    surface, instants = tiny_network().surface, random_instants(CONFIG)
    matrix = surface.propagation.matrix.to_dense()
    with torch.inference_mode():
        f_st = surface.encoding(instants.time_s, surface.cosine, surface.sine)
        channels = torch.cat([instants.local, instants.lids[:, None, None] * surface.lids], 1)
        f_al = torch.einsum("nk,tkh->nth", surface.mixing(surface.place), channels)
        graph = surface.graph

        def a_times(x: Tensor) -> Tensor:
            return torch.einsum("ij,jth->ith", matrix, x)

        inner = functional.linear(a_times(f_st), graph.place.weight, graph.place.bias) + graph.sound(a_times(f_al))
        o_1 = functional.relu(inner) + graph.place_skip(f_st) + graph.sound_skip(f_al)
        o_2 = functional.relu(graph.second(a_times(o_1))) + o_1
        expected = surface.fusion(o_2, instants.overall, instants.around)
        assert (surface.fused(instants) - expected).abs().max() < 1e-4


def test_instants_are_independent():
    """Frames may be decoded in any order and any company."""
    surface = tiny_network().surface
    together = random_instants(CONFIG, frames=5)
    with torch.inference_mode():
        latent = surface.decode(surface.latent(together))
        alone = [surface.decode(surface.latent(Instants(*(part[k : k + 1] for part in together)))) for k in range(5)]
    assert (latent - torch.cat(alone, 1)).abs().max() < 1e-6


def test_interpolation_before_the_decoder_is_equation_6():
    """The first layer is linear: interpolating before it and after it is the same."""
    surface = tiny_network().surface
    generator = np.random.default_rng(0)
    corners = torch.from_numpy(generator.integers(0, len(surface.active), (30, 3)))
    weights = torch.from_numpy(generator.dirichlet([1, 1, 1], 30)).float()
    with torch.inference_mode():
        fused = surface.fused(random_instants(CONFIG))
        before = surface.decoder[0](torch.einsum("pk,pkth->pth", weights, fused[corners]))
        after = surface.interpolate(surface.latent(random_instants(CONFIG)), corners, weights)
    assert (before - after).abs().max() < 1e-5


def test_hearing_in_pieces_is_hearing_at_once():
    """The LSTM's state is carried; the local features reach two to either side."""
    audio = tiny_network().audio
    features = torch.randn(1, 30 + 2 * LOCAL_REACH, CONFIG.features, generator=torch.Generator().manual_seed(0))
    style = tiny_style()
    with torch.inference_mode():
        whole, _ = audio(features, style, audio.start())
        first, state = audio(features[:, : 11 + 2 * LOCAL_REACH], style, audio.start())
        second, _ = audio(features[:, 11:], style, state)
    for one, two, both in zip(first, second, whole, strict=True):
        assert (torch.cat([one, two], 1) - both).abs().max() < 1e-6


def pivots(count: int) -> Tensor:
    return torch.from_numpy(np.stack([tiny_pivot(seed) for seed in range(count)]))


def test_the_mean_pivot_embeds_to_nothing():
    """Nobody in particular: it colours nothing, but for what all styles have in common."""
    audio = tiny_network().audio
    assert not audio.style_of(audio.pivot_mean).any()
    assert audio.style_of(pivots(5)).norm(dim=1).min() > 0.01


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.1, 0.3, 0.6), (1.5, -0.5)], ids=str)
def test_pivots_mix_before_the_embedding_as_after_it(weights):
    """Weights that sum to 1, beyond the pivots too."""
    audio, known, weight = tiny_network().audio, pivots(len(weights)), torch.tensor(weights)
    assert torch.allclose(audio.style_of(weight @ known), weight @ audio.style_of(known), atol=1e-6)


def test_a_styles_embedding_is_of_its_place_along_the_axes():
    """A step along an axis is that axis' column of the embedding; one aside from all of them is nothing."""
    audio = tiny_network().audio
    axes, _ = torch.linalg.qr(audio.pivot_axes)
    audio.pivot_axes.copy_(axes)
    along = audio.style_of(audio.pivot_mean + 2 * axes.T)
    assert torch.allclose(along, 2 * audio.styles.weight.T, atol=1e-5)
    aside = pivots(1)[0] - audio.pivot_mean
    aside -= axes @ (axes.T @ aside)
    assert audio.style_of(audio.pivot_mean + aside).abs().max() < 1e-5 < along.abs().max()


def test_pivots_embed_in_company_as_alone():
    """Of any batch shape; the stream's is the network's."""
    audio, known = tiny_network().audio, pivots(6)
    together = audio.style_of(known.reshape(2, 3, -1)).detach()
    assert together.shape == (2, 3, CONFIG.style_width)
    for seed, style in enumerate(together.reshape(6, -1)):
        assert torch.allclose(tiny_motion().style_of(tiny_pivot(seed)), style[None], atol=1e-6)
    assert not tiny_motion().style_of(tiny_pivot()).requires_grad


def test_the_audio_stream_begins_with_nothing():
    state = tiny_network().audio.start(batch=3)
    assert isinstance(state, AudioState)
    assert {tuple(part.shape) for part in state} == {(1, 3, CONFIG.width)}
    assert not any(part.any() for part in state)


def test_active_vertices_are_the_moving_ones_and_the_corners_of_their_faces():
    atlas, moving = tiny_head().atlas, tiny_moving()
    around = {int(v) for face in atlas.faces for v in face if np.isin(face, moving).any()}
    assert set(active_vertices(atlas, moving).tolist()) == around > set(moving.tolist())


def test_active_points_fade_out_over_the_last_face():
    """The mask is the share of the point's weight that moves, and what has none of it is not asked for."""
    atlas, moving = tiny_head().atlas, tiny_moving()
    random = np.random.default_rng(0)
    face = np.arange(len(atlas.faces), dtype=np.int32)
    anchors = Anchors(face, random.dirichlet([1, 1, 1], len(face)).astype(np.float32))
    points = active_points(atlas, moving, anchors)
    share = (anchors.weights * np.isin(atlas.faces, moving)).sum(1)
    assert np.array_equal(points.index, np.flatnonzero(share))
    assert points.mask == pytest.approx(share[share > 0], rel=1e-6)
    active = active_vertices(atlas, moving)
    assert np.array_equal(active[points.corners], atlas.faces[points.index])
    assert np.array_equal(points.weights, anchors.weights[points.index])


def decode(motion: MMTalkerMotion, anchors: Anchors, style: Tensor) -> MotionBatch:
    """Sixteen frames of random features on the tiny head."""
    features = torch.randn(50, CONFIG.features, generator=torch.Generator().manual_seed(0))
    query = motion.query(anchors, tiny_head().rim_anchors)
    (batch,), _ = motion.step(motion.start(style), features, query, BlinkTrack(0), 30.0, 16)
    return batch


def displacements(motion: MMTalkerMotion, anchors: Anchors) -> np.ndarray:
    """Of sixteen frames, (T, P, 3), in somebody's style."""
    return decode(motion, anchors, motion.style_of(tiny_pivot())).offsets


def test_another_pivot_is_another_motion_and_the_same_contact():
    """No pivot was ever trained on here; lips touch when the sound says so, whoever speaks."""
    anchors = tiny_head().atlas.vertex_anchors
    one, other, mean = (decode(tiny_motion(), anchors, style) for style in (tiny_style(0), tiny_style(1), nobody()))
    for first, second in ((one, other), (one, mean), (other, mean)):
        assert np.abs(first.offsets - second.offsets).max() > 1e-4
        assert np.array_equal(first.contact, second.contact)
    assert np.array_equal(decode(tiny_motion(), anchors, tiny_style(1)).offsets, other.offsets)


def test_what_does_not_move_is_exactly_still():
    """Vertices beyond the moving ones, and points on faces without one."""
    atlas = tiny_head().atlas
    moving = np.isin(np.arange(len(atlas.vertices)), tiny_moving())
    native = displacements(tiny_motion(), atlas.vertex_anchors)
    assert (native[:, ~moving] == 0).all()
    assert (native[:, moving] != 0).any(2).all()
    middles = Anchors(np.arange(len(atlas.faces), dtype=np.int32), np.full((len(atlas.faces), 3), 1 / 3, np.float32))
    still = ~moving[atlas.faces].any(1)
    between = displacements(tiny_motion(), middles)
    assert (between[:, still] == 0).all()
    assert (between[:, ~still] != 0).any(2).all()


def test_displacements_fade_out_with_the_share_that_moves():
    """Along an edge from a moving vertex to a still one, to nothing at its end."""
    atlas, moving = tiny_head().atlas, tiny_moving()
    is_moving = np.isin(atlas.faces, moving)
    face = np.int32(np.flatnonzero(is_moving.any(1) & ~is_moving.all(1))[0])
    weights = np.zeros((4, 3), np.float32)
    corners = int(is_moving[face].argmax()), int(is_moving[face].argmin())
    weights[:, corners[1]] = 0, 0.5, 0.999, 1
    weights[:, corners[0]] = 1 - weights[:, corners[1]]
    size = np.abs(displacements(tiny_motion(), Anchors(np.repeat(face, 4), weights))).mean((0, 2))
    assert size[2] < 0.01 * size[0]
    assert size[3] == 0
    assert size[1] > 0


def test_a_network_that_moves_nothing_is_still():
    head = tiny_head()
    torch.manual_seed(0)
    network = MMTalker(CONFIG, head.atlas, np.array([0]), initial_log_density(head)).eval()
    anchors = Anchors(*(part[[30, 31]] for part in head.atlas.vertex_anchors))
    assert (displacements(MMTalkerMotion(network, head.atlas, TORCH), anchors) == 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_named_size_builds_and_runs_a_batch(size):
    """On the shipped head: compact, and the paper's."""
    config = SIZES[size]
    head = shipped_head()
    torch.manual_seed(0)
    network = MMTalker(config, head.atlas, head.regions["lips"], initial_log_density(head)).eval()
    features = torch.randn(1, 8 + 2 * LOCAL_REACH, config.features)
    with torch.inference_mode():
        heard, _ = network.audio(features, nobody(config), network.audio.start())
        latent = network.surface.latent(random_instants(config, frames=2))
        moved = network.surface.decode(latent)
    assert heard.overall.shape == (1, 8, config.width)
    assert heard.local.shape == (1, 8, config.channels, config.width)
    assert moved.shape == (len(network.surface.active), 2, 3)
    assert moved.isfinite().all()


def test_the_paper_decodes_with_five_layers():
    """III-D: five fully connected ones, from f_fa to a displacement."""
    decoder = tiny_network().surface.decoder
    assert [(layer.in_features, layer.out_features) for layer in decoder] == [(16, 8), (8, 8), (8, 8), (8, 8), (8, 3)]


def checkpoint(folder, **changes):
    network = tiny_network()
    path = folder / "mmtalker.safetensors"
    config = asdict(network.config)
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name not in changes.get("without", ())}
    save_checkpoint(path, tensors, Header("mmtalker", config | changes.get("config", {})))
    return path


def test_a_network_survives_its_checkpoint(tmp_path):
    loaded = load_mmtalker(checkpoint(tmp_path), tiny_head().atlas)
    motion = MMTalkerMotion(loaded, tiny_head().atlas, TORCH)
    anchors = tiny_head().atlas.vertex_anchors
    assert np.array_equal(displacements(motion, anchors), displacements(tiny_motion(), anchors))


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"missing \[\], unexpected \[\], shapes"):
        load_mmtalker(checkpoint(tmp_path, config={"decoder": 9}), tiny_head().atlas)
    with pytest.raises(CheckpointError, match="differs in"):
        load_mmtalker(checkpoint(tmp_path, config={"novelty": 1}), tiny_head().atlas)


def test_a_checkpoint_without_moving_vertices_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no surface\.moving"):
        load_mmtalker(checkpoint(tmp_path, without=("surface.moving",)), tiny_head().atlas)


def test_a_checkpoint_of_another_atlas_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="was trained on atlas"):
        load_mmtalker(checkpoint(tmp_path), shipped_head().atlas)


def test_a_checkpoint_of_another_head_of_the_same_size_is_refused(tmp_path):
    """The same number of faces, in another order: every vertex would move as another does."""
    atlas = tiny_head().atlas
    other = replace(atlas, **{name: getattr(atlas, name)[::-1].copy() for name in ("vertices", "uvs")})
    other = replace(other, faces=len(atlas.vertices) - 1 - atlas.faces, uv_faces=len(atlas.uvs) - 1 - atlas.uv_faces)
    with pytest.raises(CheckpointError):
        load_mmtalker(checkpoint(tmp_path), other)


def test_a_matrix_with_rows_of_any_length_is_propagated():
    """A vertex alone gathers from itself."""
    propagation = Propagation(csr_matrix(np.array([[1.0, 0.5, 0.5], [0, 1, 0], [0.25, 0, 1]])))
    x = torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    gathered = propagation.gather(x, propagation.neighbours, propagation.weights)
    assert propagation(x).flatten().tolist() == gathered.flatten().tolist() == [4.0, 2.0, 4.25]


def test_blinks_do_not_depend_on_how_time_is_asked():
    times = np.arange(3000) / 30
    whole = BlinkTrack(7).closure(times)
    for size in (1, 16, 47):
        track = BlinkTrack(7)
        pieces = [track.closure(times[k : k + size]) for k in range(0, len(times), size)]
        assert np.array_equal(np.concatenate(pieces), whole)


def test_blinks_close_eyes_by_0_to_1():
    closure = np.concatenate([BlinkTrack(seed).closure(np.arange(6000) / 100) for seed in range(20)])
    assert closure.min() == 0
    assert 0.99 < closure.max() <= 1
    assert closure.dtype == np.float32


@cache
def blink_rate_per_minute(minutes: int = 10, seeds: int = 10) -> float:
    closed = np.stack([BlinkTrack(seed).closure(np.arange(minutes * 3000) / 50) for seed in range(seeds)]) > 0.3
    return float(np.diff(closed.astype(int), axis=1).clip(0).sum() / minutes / seeds)


def test_blinks_come_about_twenty_times_a_minute():
    assert 16 < blink_rate_per_minute() < 24


def test_blinks_come_twenty_times_a_minute_on_average():
    assert blink_rate_per_minute() == pytest.approx(20, abs=1)


def test_the_seed_decides_when_eyes_blink():
    times = np.arange(2000) / 50
    assert np.array_equal(BlinkTrack(3).closure(times), BlinkTrack(3).closure(times))
    assert not np.array_equal(BlinkTrack(3).closure(times), BlinkTrack(4).closure(times))


def test_a_blink_begins_open_shuts_to_its_depth_and_ends_open():
    blink = Blink(start_s=1.0, fall_s=0.1, rise_s=0.2, depth=0.8)
    assert blink.closure(np.array([0.0, 1.0, 1.05, 1.1, 1.2, 1.3, 9.0])) == pytest.approx([0, 0, 0.4, 0.8, 0.4, 0, 0])


def test_blinks_are_drawn_within_their_bounds_and_half_of_them_partial():
    random = np.random.default_rng(0)
    drawn = [draw_blink(random, 2.0) for _ in range(2000)]
    assert {blink.start_s for blink in drawn} == {2.0}
    assert all(0.075 <= blink.fall_s <= 0.1 and 0.15 <= blink.rise_s <= 0.2 for blink in drawn)
    assert all(blink.depth == 1 or 0.5 <= blink.depth <= 0.85 for blink in drawn)
    assert np.mean([blink.depth < 1 for blink in drawn]) == pytest.approx(0.5, abs=0.05)
