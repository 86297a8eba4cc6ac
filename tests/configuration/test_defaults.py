"""Defaults are a paper's: what a decoder samples with on the real models that its authors used."""

import pytest
import torch

from unmask.configuration.composition import composed
from unmask.configuration.settings import build_decoder, identity_of, typed
from unmask.decoding import Models, Stop
from unmask.testing.small_models import small_dream, small_llada

GREEDY = (0.0, 1.0)
PUBLISHED = [  # model, decoder -> temperature and top-p, and where they are from
    ("dream", "apd", (0.2, 0.95), "APD, its scripts on Dream"),
    ("dream", "leftright", (0.2, 0.95), "APD, its scripts on Dream"),
    ("dream", "entropy", (0.2, 0.95), "Dream's model card"),
    ("llada", "confidence", GREEDY, "LLaDA"),
    *(
        (model, decoder, GREEDY, "Fast-dLLM")
        for model in ("dream", "llada")
        for decoder in ("threshold", "factor")
    ),
    *((model, "dparallel", GREEDY, "dParallel") for model in ("dparallel_dream", "dparallel_llada", "dream")),
    *((model, "entropy_bound", GREEDY, "EB-Sampler") for model in ("dream", "llada")),
    *((model, "klass", GREEDY, "KLASS, its README") for model in ("dream", "llada")),
    *((model, "prophet", GREEDY, "Prophet") for model in ("dream", "llada")),
    *((model, "slowfast", GREEDY, "SlowFast") for model in ("dream", "llada")),
    *((model, "pc_sampler", GREEDY, "PC-Sampler") for model in ("dream", "llada")),
    *((model, "dkv", GREEDY, "dKV-Cache") for model in ("dream", "llada")),
    *((model, "credit", GREEDY, "CreditDecoding in dInfer") for model in ("dream", "llada")),
    *((model, "hierarchy", GREEDY, "dInfer") for model in ("dream", "llada")),
    *((model, "multiblock", GREEDY, "d3LLM") for model in ("dream", "llada")),
    *((model, "d2f", GREEDY, "D2F") for model in ("d2f_dream", "d2f_llada")),
    *((model, "dflash", GREEDY, "DFlash") for model in ("qwen3_4b", "qwen3_8b")),
]


@pytest.mark.parametrize("model, decoder, sampling, source", PUBLISHED)
def test_a_decoder_samples_as_its_paper(model, decoder, sampling, source):
    cfg = composed("eval", [f"model={model}", f"decoder={decoder}"])
    assert (cfg.decoder.temperature, cfg.decoder.top_p) == sampling, source


def test_d2fs_dream_is_the_base_model_with_its_adapter():
    model = composed("eval", ["model=d2f_dream"]).model
    assert (model.path, model.adapter) == (
        "Dream-org/Dream-v0-Base-7B",
        "SJTU-Deng-Lab/D2F_Dream_Base_7B_Lora",
    )


END_RULES = {  # LLaDA-Instruct's evaluation: confidence_eos_eot_inf, logits_eos_inf
    **dict.fromkeys(("gsm8k", "math", "minerva_math", "gpqa", "mbpp"), "last"),
    "humaneval": "no_eos",
    "gsm8k_cot": "none",  # not among its tasks
}


@pytest.mark.parametrize("task", END_RULES)
def test_lladas_own_decoder_treats_end_tokens_as_published(task):
    cfg = composed("eval", ["model=llada", "decoder=llada", f"task={task}"])
    assert cfg.decoder.end_rule == END_RULES[task]
    assert composed("eval", ["model=llada", "decoder=confidence", f"task={task}"]).decoder.end_rule == "none"
    build_decoder(typed(cfg).decoder)


def test_a_rule_that_is_off_is_no_part_of_an_identity():
    words = ["model=tiny_llada", "decoder=llada"]
    plain = identity_of(composed("eval", words))["decoder"]
    assert not {"end_rule", "cache", "refresh_interval", "low_threshold"} & plain.keys()
    assert identity_of(composed("eval", [*words, "decoder.end_rule=last"]))["decoder"]["end_rule"] == "last"


LIMITS = ("threshold", "factor", "dparallel", "entropy_bound", "klass", "credit", "hierarchy")


@pytest.mark.parametrize("decoder", LIMITS)
@pytest.mark.parametrize("model", ["dream", "tiny_dream", "llada"])
def test_limits_are_of_the_models_own_probabilities(model, decoder):
    assert not composed("eval", [f"model={model}", f"decoder={decoder}"]).decoder.rank_tempered
    own = composed("eval", [f"model={model}", "decoder=entropy"])
    assert own.decoder.rank_tempered == (model != "llada")


def test_equal_ranks_are_one_run():
    """Where nothing is tempered, an identity names the model's rank, as it did before presets had one."""

    def named(*words):
        return identity_of(composed("eval", ["model=tiny_dream", *words]))["decoder"]["rank_tempered"]

    assert named("decoder=dparallel") and named("decoder=entropy", "decoder.rank_tempered=false")
    for word in ("decoder.temperature=0.1", "decoder.top_p=0.9", "decoder.top_k=3"):
        assert not named("decoder=dparallel", word)
        assert named("decoder=dparallel", word, "decoder.rank_tempered=true")


GREEDY_LIMITS = (
    "temperature=0.000001",
    "temperature=1 top_k=1",
    "temperature=1 top_p=0.000000001",
    "top_k=1",
)
SHORT = {"task.max_new_tokens=12", "model.block_length=4"}


@pytest.mark.parametrize("model", ["tiny_dream", "tiny_llada"])
@pytest.mark.parametrize(
    "decoder", [*LIMITS, "multiblock", "d2f", *(f"{own} own" for own in ("confidence", "margin", "entropy"))]
)
def test_the_limit_of_sampling_is_greedy(model, decoder):
    """Id for id and step for step. Dream's own decoders: with their ranks untempered."""
    name, _, own = decoder.partition(" ")
    words = [f"model={model}", f"decoder={name}", *SHORT, "force=true"]
    words += ["decoder.rank_tempered=false"] * bool(own)
    words += ["decoder.block_length=4"] * (name not in ("multiblock", "d2f"))
    torch.manual_seed(0)
    models = Models({"denoiser": small_dream() if model == "tiny_dream" else small_llada()})
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]

    def decoded(settings):
        given = [f"decoder.{word}" for word in settings.split()]
        built = build_decoder(typed(composed("eval", [*words, *given])).decoder)
        found = built.decode(models, prompts, 12, Stop(), [0, 1])
        return [(generation.ids, generation.commits) for generation in found]

    greedy = decoded("temperature=0")
    assert all(decoded(settings) == greedy for settings in GREEDY_LIMITS)
