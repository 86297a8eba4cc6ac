"""From words to a configuration: roles by their names, and one message for whatever is wrong."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from unmask.configuration.composition import composed, spelled
from unmask.configuration.settings import models_by_role, typed
from unmask.decoding import Decoder


@dataclass(frozen=True)
class Verified(Decoder):
    """A decoder with a role that nothing outside of this file names."""

    roles: ClassVar = {"denoiser": "diffusion", "verifier": "causal"}


def of(*words):
    cfg = typed(composed("eval", words))
    return {role: model.name for role, model in models_by_role(cfg, Verified()).items()}


def test_a_new_role_works_from_the_command_line():
    assert of("verifier=tiny_qwen") == {"denoiser": "tiny_dream", "verifier": "tiny_qwen"}
    cfg = typed(composed("eval", ["verifier=tiny_qwen", "verifier.path=somewhere"]))
    assert cfg.models["verifier"].path == "somewhere"


def test_a_role_without_a_model_is_told_what_fits():
    with pytest.raises(
        ValueError, match="needs a causal model as verifier: verifier=tiny_qwen or tiny_qwen_large"
    ):
        of()
    with pytest.raises(ValueError, match="verifier=tiny_llada is diffusion: try verifier=tiny_qwen"):
        of("verifier=tiny_llada")


def test_a_model_of_a_role_that_the_decoder_lacks_is_refused():
    with pytest.raises(ValueError, match="judge=tiny_qwen: is no setting, and .* has no role judge"):
        of("verifier=tiny_qwen", "judge=tiny_qwen")


def test_auxiliary_and_drafter_are_spellings_of_models_by_role():
    assert spelled(["auxiliary=tiny_qwen", "drafter=none", "drafter.path=x", "seed=1", "task.limit=3"]) == [
        "model@models.auxiliary=tiny_qwen",
        "model@models.drafter=none",
        "models.drafter.path=x",
        "seed=1",
        "task.limit=3",
    ]
    cfg = typed(composed("eval", ["auxiliary=none", "drafter=tiny_dflash"]))
    assert list(cfg.models) == ["drafter"] and cfg.models["drafter"].kind == "drafter"


def test_equal_choices_are_composed_once_and_stay_apart():
    one, two = composed("eval", ["seed=1"]), composed("eval", ["seed=2", "task.limit=3"])
    assert (one.seed, two.seed, one.limit, two.limit) == (1, 2, 200, 3)  # limit follows task.limit
    assert composed("eval", []).seed == 0


@pytest.mark.parametrize(
    "words, told",
    [
        (["decoder=nothing"], "nothing"),
        (["limmit=1"], "limmit"),
        (["decoder.mixture=1"], "mixture"),
        (["batch_size=[1]"], "batch_size"),
        (["model=[null]"], r"model=\[null\]"),
        (["seed"], "seed"),
        (["seed=1,2"], "seed=1,2"),
        ([f"model={'y' * 5000}"], "yyy"),
    ],
)
def test_what_cannot_be_composed_is_one_message(words, told):
    with pytest.raises(ValueError, match=told) as caught:
        typed(composed("eval", words))
    assert "\n" not in str(caught.value)
