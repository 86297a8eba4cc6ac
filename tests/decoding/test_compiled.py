"""torch.compile: padded shapes and caches that stay give the ids of the plain models, with few graphs that
CUDA can record."""

from dataclasses import replace

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext
from torch._inductor.utils import get_first_incompatible_cudagraph_node

from unmask.configuration.composition import CONFIGURATIONS, composed
from unmask.configuration.settings import build_decoder
from unmask.decoding import Models, Stop
from unmask.decoding.apd import APD
from unmask.decoding.leftright import LeftRight
from unmask.decoding.unmasking import Unmasking
from unmask.models.random_weights import random_model
from unmask.models.settings import RandomModel
from unmask.testing.small_models import small_drafter, small_llada, small_qwen

DECODERS = {
    "apd": APD(temperature=0.5),
    "apd, W, M": APD(kv_window=8, max_lookahead=16, temperature=0.5),
    "leftright, W, M": LeftRight(kv_window=4, tokens_per_step=3, max_lookahead=8),
    "confidence": Unmasking(steps=8),
    "origin": Unmasking(rank="random", quota="origin", steps=8),
}


def models(layout, device="cpu", width=64, depth=2):
    shape = {"width": width, "depth": depth, "vocabulary": 512}
    layouts = {"denoiser": layout, "auxiliary": "qwen2"}
    return Models(
        {
            role: random_model(RandomModel(name="random", layout=of_role, **shape)).to(device).eval()
            for role, of_role in layouts.items()
        }
    )


def decode(decoder, models):
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(500, (n,), generator=generator) for n in (20, 37)]
    return [decoder.decode(models, [p], 40, Stop(), [i])[0] for i, p in enumerate(prompts)]


def addresses(compiled):
    """Of all caches that compiled models keep."""
    caches = [cache for model in compiled.by_role.values() for cache in model.graphs.caches.values()]
    return {id(x) for cache in caches for layer in cache.kept for x in layer}


def recording(graphs):
    """A backend that keeps the graphs that Inductor would get, and runs them as they are."""

    def keep(graph, inputs):
        graphs.append((graph, set(TracingContext.get().fw_metadata.static_input_indices)))
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=keep, inference_compiler=keep, keep_inference_input_mutations=True)


def check_recordable(graph, static):
    """What Inductor asks of a CUDA graph: no operation that waits or whose shape depends on data, and
    writing into nothing but what stays where it is."""
    assert get_first_incompatible_cudagraph_node(graph) is None
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    written = [node.args[0] for node in graph.graph.nodes if node.target is torch.ops.aten.copy_.default]
    assert {inputs.index(node) for node in written} <= static


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("layout", "names"),
    [("Dream", list(DECODERS)), pytest.param("llada", ["apd, W, M"], marks=pytest.mark.slow)],
)
def test_padded_shapes_change_no_id_and_no_count(layout, names):
    plain, decoders = models(layout), {name: DECODERS[name] for name in names}
    want = {name: decode(decoder, plain) for name, decoder in decoders.items()}
    compiled = models(layout).compiled(backend="eager")
    torch._dynamo.utils.counters.clear()
    for name, decoder in decoders.items():
        for ours, theirs in zip(decode(decoder, compiled), want[name], strict=True):
            for field in ("ids", "commits", "forwards", "positions"):
                assert getattr(ours, field) == getattr(theirs, field), (name, field)
    counted = torch._dynamo.utils.counters
    assert not counted["graph_break"]
    assert counted["stats"]["unique_graphs"] <= 12  # lengths here go from 1 to 77
    held = addresses(compiled)
    decode(DECODERS["apd, W, M"], compiled)
    assert held and held == addresses(compiled)
    graphs = counted["stats"]["unique_graphs"]
    again = Models(compiled.by_role).compiled(backend="eager")  # as another setting of a sweep does
    decode(DECODERS["apd, W, M"], again)
    assert addresses(again) == held and counted["stats"]["unique_graphs"] == graphs


NAMES = sorted(path.stem for path in (CONFIGURATIONS / "decoder").glob("*.yaml"))
COMPILED = [name for name in NAMES if not name.startswith("transformers")]


def preset(name):
    """A decoder, small: settings that small models and a canvas of 16 allow."""
    decoder = build_decoder(composed("eval", [f"decoder={name}"]).decoder)
    return replace(decoder, **({"block_length": 4} if hasattr(decoder, "block_length") else {}))


def small(decoder):
    """Its models, random ones, by role."""
    make = {"diffusion": small_llada, "causal": small_qwen, "drafter": small_drafter}
    return Models({role: make[kind]() for role, kind in decoder.roles.items()})


QUICK = [("autoregressive", 3)]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        pytest.param(name, rows, marks=() if (name, rows) in QUICK else pytest.mark.slow)
        for name in COMPILED
        for rows in (1, 3)
    ],
)
def test_every_decoder_compiles(name, rows):
    """The ids that it gives without, though rows end one after the other; at most a graph a shape, and each
    a CUDA graph as far as Inductor is concerned. (A break in a graph is an error: fullgraph.)"""
    decoder, prompts = preset(name), [torch.arange(n) % 13 for n in (3, 40, 9)[:rows]]

    def decode(models):
        return decoder.decode(models, prompts, 16, Stop(frozenset({2})), range(rows))

    want = decode(small(decoder))
    graphs = []
    compiled = small(decoder).compiled(backend=recording(graphs))
    for ours, theirs in zip(decode(compiled), want, strict=True):
        for field in ("ids", "commits", "forwards", "positions"):
            assert getattr(ours, field) == getattr(theirs, field), field
    assert 0 < len(graphs) <= len(compiled.shapes), compiled.shapes
    for graph, static in graphs:
        check_recordable(graph, static)


def test_all_but_transformers_own_loops_compile():
    assert [name for name in NAMES if preset(name).compiles] == COMPILED


def test_lengths_are_padded_to_few_by_at_most_a_fourth():
    compiled = Models({}, bucket=32)
    padded = [compiled.length(n) for n in range(1, 4097)]
    assert len(set(padded)) == 24 and padded[:32] == [32] * 32
    assert all(n <= p <= max(32 + n, 1.25 * n) for n, p in enumerate(padded, 1))
    assert [compiled.rows(n) for n in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 8, 16]
    plain = Models({})
    assert [plain.length(n) for n in (1, 33, 700)] == [1, 33, 700] and plain.rows(5) == 5


def test_more_shapes_than_allowed_are_an_error(monkeypatch):
    monkeypatch.setattr("unmask.decoding.models.SHAPES", 1)
    compiled = Models({"denoiser": models("Dream")["denoiser"]}).compiled(backend="eager")
    with pytest.raises(Exception, match="limit") as error:
        for length in (20, 60, 100):
            LeftRight().decode(compiled, [torch.arange(length) % 500], 4, Stop(), [0])
    assert type(error.value).__name__ == "FailOnRecompileLimitHit"


def test_what_is_made_ready_in_a_measurement_is_measured_again():
    """A shape is ready at its third forward: compiled at the first, recorded at the second."""
    compiled, tries = models("Dream", depth=1).compiled(backend="eager"), []

    def measure(length):
        tries.append(length)
        prompt = torch.arange(length) % 500
        return LeftRight(tokens_per_step=4).decode(compiled, [prompt], 4, Stop(), [0])  # one forward

    for length, needed in ((20, 3), (21, 1), (60, 3), (60, 1)):  # padded lengths 32 and 64
        tries.clear()
        compiled.settled(lambda length=length: measure(length))
        assert len(tries) == needed
    plain, tries = models("Dream"), []
    plain.settled(lambda: tries.append(1))
    assert len(tries) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", ["Dream", "llada"])
def test_cuda_graphs_change_no_id(layout):
    plain = models(layout, "cuda", width=256)
    want = {name: decode(decoder, plain) for name, decoder in DECODERS.items()}
    graphs = models(layout, "cuda", width=256).compiled(mode="reduce-overhead")
    for _ in range(3):  # warm-up, recording, replay
        for name, decoder in DECODERS.items():
            assert [g.ids for g in decode(decoder, graphs)] == [g.ids for g in want[name]], name
