"""Defaults are a paper's: what a decoder samples with on the real models that its authors used."""

import pytest

from unmask.configuration.composition import composed

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
