"""The public command line: settings and choices that people type. A change here is a change for them."""

import subprocess
from dataclasses import dataclass

import pytest
import torch
from transformers import AutoModelForCausalLM

import llada  # noqa: F401
from unmask.configuration.composition import composed
from unmask.decoding import Decoder, Fed, Models, Stop
from unmask.paths import ROOT


def words(text):
    return sorted(text.split())


SAMPLING = "temperature top_k top_p"
BLOCKS = f"after_end block_length cache end_rule quota rank rank_tempered steps {SAMPLING}"
ANY_ORDER = f"{BLOCKS} refresh_interval"
TOP = words(
    """arm arms allow_code_execution check_lossless batch_size check_greedy compile decoder device draw dtype
    force gpus grid interleave limit mc_batch mc_samples model models results run_folder seed setting shard
    show task threads trace warm_up"""
)
TASK = words(
    "bos data documents gen_prefix limit max_new_tokens metric name num_fewshot prompt shot_processes shots "
    "split stop subset_seed suffix system_prompt yaml"
)
MORE = {
    "report": words("published pictures changed document page"),
    "bench": words("acceptance prompts prompt_length rounds tokens profile sweep points report"),
    "demo": words("prompt document compare slow save"),
}
CHOICES = {
    "model": words(
        """a2d_coder_bd3lm a2d_coder_mdlm a2d_qwen3_bd3lm a2d_qwen3_mdlm d2f_dream d2f_llada dflash_qwen3_4b
        dflash_qwen3_8b dflash_smollm2 diffusion_gemma dparallel_dream dparallel_llada dream
        dream_coder fast_dllm_v2_1.5b ideal llada llada2.1_mini llada2_mini llada_1.5 llada_moe none
        open_dcoder qwen3_4b qwen3_8b qwen_0.5b qwen_7b dream_base
        llama3_8b qwen_7b_base random random_causal random_drafter sdar_1.7b sdar_4b
        smollm2 tiny_d2f_dream tiny_d2f_llada tiny_dflash tiny_dparallel_dream
        tiny_dparallel_llada tiny_dream tiny_llada tiny_parallel_dream tiny_parallel_llada tiny_qwen
        tiny_qwen_large"""
    ),
    "decoder": words(
        """apd autoregressive blocks confidence credit d2f dflash dkv dparallel entropy entropy_bound factor
        hierarchy klass leftright llada margin multiblock pc_sampler prophet random slowfast speculative
        threshold transformers transformers_dflash transformers_diffusion transformers_speculative
        wino saber p2 joint_threshold lopa freedave"""
    ),
    "task": words(
        """lm_eval mmlu
        aime24 aime25 chain_sum gpqa gsm8k gsm8k_boxed gsm8k_cot gsm8k_cot_zeroshot gsm8k_shots
        gsm_symbolic parallelbench
        humaneval humaneval_begun humaneval_plain humaneval_plus humaneval_wrapped math math500 mbpp
        mbpp_begun mbpp_plus mbpp_sanitized minerva_math several_kinds speed_aime24 speed_aime25 speed_alpaca
        speed_gsm8k speed_humaneval speed_livecodebench speed_math500 speed_mbpp speed_mt_bench"""
    ),
    "figure": words(
        """block_caches board d2f_blocks d2f_dream d2f_llada d2f_parts d2f_training dflash dflash_acceptance
        dflash_smollm2 dflash_training dparallel_ablation dparallel_dream dparallel_llada dparallel_padding
        fig2 fig3 fig4 fig5 fig6 tab1 hero apd_fig2 apd_fig3 apd_fig4 apd_fig5 apd_fig6 apd_tab1 d2f_fig2
        d2f_fig5 d2f_table1 d2f_table2 d2f_table3 dflash_table1 dparallel_fig4 dparallel_table1
        dparallel_table2 fast_dllm_table1 fast_dllm_table2 decoders_2026 parallelbench
        parallelbench_ideal"""
    ),
}
SETTINGS = {
    "apd": words(f"chunk coupling kv_window max_lookahead mixture_weight {SAMPLING}"),
    "leftright": words(f"kv_window max_lookahead tokens_per_step {SAMPLING}"),
    "autoregressive": words(SAMPLING),
    "transformers": [],
    "transformers_dflash": ["block_length"],
    "transformers_diffusion": words(
        "confidence_threshold entropy_bound max_denoising_steps stability_threshold t_max t_min"
    ),
    "transformers_speculative": ["block_length"],
    "dflash": words(f"block_length verify {SAMPLING}"),
    "speculative": words(f"block_length verify {SAMPLING}"),
    **{name: words(f"{ANY_ORDER} threshold factor") for name in ("confidence", "entropy", "llada", "margin")},
    "random": words(ANY_ORDER),
    "threshold": words(f"{ANY_ORDER} threshold"),
    "factor": words(f"{ANY_ORDER} factor"),
    "dparallel": words(f"{ANY_ORDER} threshold"),
    "entropy_bound": words(f"{ANY_ORDER} bound"),
    "hierarchy": words(f"{ANY_ORDER} threshold low_threshold"),
    "credit": words(f"{ANY_ORDER} threshold alpha beta gamma"),
    "dkv": words(ANY_ORDER),
    "prophet": words(f"{ANY_ORDER} answer_start early mid late constraints empty_steps"),
    "pc_sampler": words(f"{ANY_ORDER} lambd alpha frequencies"),
    "slowfast": words(
        f"""after_end block_length exploration_steps cycle_confidence window std_dev high_confidence
        whole_exploration {SAMPLING}"""
    ),
    "klass": words(f"{ANY_ORDER} threshold kl_threshold history_length unmask_strategy"),
    "blocks": words(
        f"""{BLOCKS} threshold factor bound steps_per_block sub_block_length hand_over store
        prefix"""
    ),
    "d2f": words(
        f"""after_end block_length cache fallback
        block_add_threshold decoded_token_threshold skip_threshold {SAMPLING}"""
    ),
    "wino": words("threshold threshold_back block_length after_end"),
    "saber": words("n block_length"),
    "p2": words(f"steps {SAMPLING}"),
    "joint_threshold": words(
        """threshold edit_threshold max_post_edit_steps penalty_lambda least block_length cache store
        after_end"""
    ),
    "lopa": words(
        """branches fallback branch_topp alpha visible block_length block_add_threshold
        decoded_token_threshold skip_threshold after_end"""
    ),
    "freedave": words("draft_steps threshold cache block_length after_end"),
    "multiblock": words(
        f"""after_end block_length cache cache_delay_iter entropy_max published_shift refresh_interval rule
        decoded_token_threshold block_add_threshold {SAMPLING}"""
    ),
}


def test_settings_of_every_command():
    assert sorted(composed("eval", [])) == TOP
    for command, more in MORE.items():
        assert sorted(composed(command, [])) == sorted([*TOP, *more]), command
    assert sorted(composed("eval", [])["task"]) == TASK


@pytest.mark.parametrize("group", CHOICES)
def test_choices_of_every_group(group):
    assert sorted(path.stem for path in (ROOT / "eval_config" / group).glob("*.yaml")) == sorted(
        CHOICES[group]
    )


@pytest.mark.parametrize("decoder", SETTINGS)
def test_settings_of_every_decoder(decoder):
    settings = composed("eval", [f"decoder={decoder}"])["decoder"]
    assert sorted(settings) == sorted(["_target_", "name", *SETTINGS[decoder]])
    assert settings["name"] == decoder


def test_no_python_among_the_configurations_and_few_entries_at_the_root():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git here")
    files = done.stdout.splitlines()
    assert not [f for f in files if f.startswith("eval_config/") and not f.endswith(".yaml")]
    assert len({f.split("/")[0] for f in files}) <= 26
    skipped = "fmt: " + "skip"
    assert not [f for f in files if f.endswith(".py") and skipped in (ROOT / f).read_text()]


def test_a_new_decoder_is_a_state_a_step_and_a_yaml():
    """The smallest decoder: the most confident mask, whatever the configuration knows of it."""

    @dataclass(frozen=True)
    class Surest(Decoder):
        def step(self, board):
            masks = [[p for p, token in enumerate(row.canvas) if token is None] for row in board.rows]
            marginals = board.denoise(Fed([range(row.columns) for row in board.rows]))
            columns = [[len(r.prompt) + p for p in m] for r, m in zip(board.rows, masks, strict=True)]
            surest, ids = marginals.logits(columns).softmax(-1).max(-1)
            best = [surest[i, : len(m)].argmax().item() for i, m in enumerate(masks)]
            return [([m[k]], [int(ids[i, k])]) for i, (m, k) in enumerate(zip(masks, best, strict=True))]

    model = AutoModelForCausalLM.from_pretrained(ROOT / "tests" / "golden" / "llada").eval()
    prompts = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    generations = Surest().decode(Models({"denoiser": model}), prompts, 6, Stop(), [0, 0])
    assert [len(g.ids) for g in generations] == [6, 6] and generations[0].steps == [1] * 6
