"""A Hugging Face cache as the Hub would fill it, in a few MB, so that published commands run offline.

Published repositories, file names, fields of config.json, tensor names and special tokens; a small vocabulary
and small random weights, so that answers are noise.

    python tests/hub/make_hub.py FOLDER [DATA]
    HF_HUB_OFFLINE=1 HF_HOME=FOLDER python eval.py figure=dparallel_table1 limit=2 task.data=FOLDER/rows ...

DATA: a folder with the files of REAL, which rows/ then links to (MATH-500 stands for MATH too). All other
rows are made here.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.core_model_loading import revert_weight_conversion

from dream import DreamConfig
from llada import BLOCK_NAMES, LLaDAConfig
from unmask.models.drafter import DFlashDraftModel
from unmask.models.layouts import layout_of
from unmask.paths import ROOT
from unmask.tasks.documents import SUBJECTS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
DREAM = [*SPECIAL, "<|beginoftext|>", "<|mask|>"]
LLADA = ["<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|mdm_mask|>"]
LLADA += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
HEADERS = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "<|start_header_id|>{{ message.role }}"
    "<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SHAPE = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
SHAPE |= {"intermediate_size": 64, "max_position_embeddings": 32768}
REMOTE = "raise SystemExit('remote code ran')"
ROWS = 4  # of every data set of `write_rows`


def repository(home: Path, name: str, files: dict) -> Path:
    """A repository's snapshot with these files (text, or what becomes JSON)."""
    sha = hashlib.sha1(name.encode()).hexdigest()
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / sha
    for made in (folder / "refs", folder / "blobs", snapshot):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(sha)
    for file, content in files.items():
        (snapshot / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return snapshot


def words() -> tuple[dict[str, int], list[list[str]]]:
    """(the tiny family's vocabulary without its special tokens, its merges)."""
    stored = Tokenizer.from_file(str(ROOT / "checkpoints" / "tiny_qwen_large" / "tokenizer.json"))
    model = json.loads(stored.to_str())["model"]
    names = sorted((word for word in model["vocab"] if word not in DREAM), key=model["vocab"].get)
    return {word: i for i, word in enumerate(names)}, model["merges"]


def tokenizer_json(special: dict[str, int]) -> dict:
    vocabulary, merges = words()
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": s, "special": True} | plain for s, i in special.items()],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }


def tokenizer(kind: str, names: list[str], template: str | None, **fields) -> tuple[dict, dict[str, int]]:
    """(files of a tokenizer with these special tokens behind the words, special token -> id)."""
    vocabulary, merges = words()
    special = {name: len(vocabulary) + i for i, name in enumerate(names)}
    added = {str(i): {"content": name, "special": True} for name, i in special.items()}
    settings = {"tokenizer_class": kind, "added_tokens_decoder": added}
    settings |= {"pad_token": "<|endoftext|>"} if "<|endoftext|>" in names else {}
    settings |= {"chat_template": template} if template else {}
    files = {"tokenizer_config.json": settings | fields, "tokenizer.json": tokenizer_json(special)}
    if kind == "DreamTokenizer":  # its repository has no tokenizer.json
        del files["tokenizer.json"]
    if kind != "PreTrainedTokenizerFast":
        pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
        files |= {"vocab.json": vocabulary, "merges.txt": "\n".join(["#version: 0.2", *pairs, ""])}
    return files, special


def save(state: dict, snapshot: Path, rename=lambda name: name) -> None:
    """Weights in two files and an index, as the Hub has them, in bfloat16."""
    state = {rename(n): t.to(torch.bfloat16).clone().contiguous() for n, t in state.items()}
    names = sorted(state)
    index = {}
    for part, mine in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({name: state[name] for name in mine}, snapshot / file, {"format": "pt"})
        index |= dict.fromkeys(mine, file)
    total = {"total_size": sum(t.numel() * 2 for t in state.values())}
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": total, "weight_map": index})
    )


def causal(home: Path, name: str, config_class: type, template: str, eos: str, **more) -> None:
    names = SPECIAL + ["<think>"] * (config_class is Qwen3Config)  # Dream has another token there than Qwen3
    files, special = tokenizer("Qwen2Tokenizer", names, template, eos_token=eos)
    config = config_class(
        **(SHAPE | more),
        vocab_size=max(special.values()) + 1,
        eos_token_id=special[eos],
        tie_word_embeddings=False,
        architectures=["Qwen3ForCausalLM" if config_class is Qwen3Config else "Qwen2ForCausalLM"],
    )
    snapshot = repository(home, name, files | {"config.json": config.to_dict()})
    save(AutoModelForCausalLM.from_config(config).state_dict(), snapshot)


def llama(home: Path, name: str) -> None:
    files, special = tokenizer(
        "PreTrainedTokenizerFast", LLAMA, HEADERS, bos_token=LLAMA[0], eos_token="<|eot_id|>"
    )
    config = LlamaConfig(
        **SHAPE,
        vocab_size=max(special.values()) + 1,
        bos_token_id=special[LLAMA[0]],
        eos_token_id=special["<|end_of_text|>"],
        architectures=["LlamaForCausalLM"],
    )
    snapshot = repository(home, name, files | {"config.json": config.to_dict()})
    save(AutoModelForCausalLM.from_config(config).state_dict(), snapshot)


def dream(home: Path, name: str) -> None:
    files, special = tokenizer(
        "DreamTokenizer",
        DREAM,
        CHATML,
        auto_map={"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        bos_token="<|beginoftext|>",
        eos_token="<|endoftext|>",
        mask_token="<|mask|>",
    )
    config = DreamConfig(
        **SHAPE,
        vocab_size=max(special.values()) + 1,
        mask_token_id=special["<|mask|>"],
        eos_token_id=special["<|endoftext|>"],
        pad_token_id=special["<|endoftext|>"],
        bos_token_id=special["<|beginoftext|>"],
    )
    fields = config.to_dict() | {
        "architectures": ["DreamModel"],
        "auto_map": {
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
    }
    code = dict.fromkeys(("configuration_dream.py", "modeling_dream.py", "tokenization_dream.py"), REMOTE)
    save(
        AutoModelForCausalLM.from_config(config).state_dict(),
        repository(home, name, files | code | {"config.json": fields}),
    )


def llada(home: Path, name: str) -> None:
    files, special = tokenizer(
        "PreTrainedTokenizerFast", LLADA, HEADERS, bos_token="<|startoftext|>", eos_token="<|endoftext|>"
    )
    size = max(special.values()) + 1
    fields = {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig",
            "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        },
        "d_model": 32,
        "n_heads": 2,
        "n_kv_heads": 2,
        "n_layers": 2,
        "mlp_hidden_size": 64,
        "max_sequence_length": 16384,
        "vocab_size": size,
        "embedding_size": size,
        "mask_token_id": special["<|mdm_mask|>"],
        "eos_token_id": special["<|endoftext|>"],
        "pad_token_id": special["<|endoftext|>"],
        "rope_theta": 500000.0,
        "weight_tying": False,
    }
    code = dict.fromkeys(("configuration_llada.py", "modeling_llada.py"), REMOTE)
    snapshot = repository(home, name, files | code | {"config.json": fields})
    back = {ours: theirs for theirs, ours in BLOCK_NAMES.items()}
    ends = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}

    def rename(name: str) -> str:
        module = name.removesuffix(".weight")
        if module in ends:
            return f"model.transformer.{ends[module]}.weight"
        _, _, layer, rest = module.split(".", 3)
        return f"model.transformer.blocks.{layer}.{back[rest]}.weight"

    model = AutoModelForCausalLM.from_config(LLaDAConfig.from_pretrained(snapshot))
    save(model.state_dict(), snapshot, rename)


def adapter(home: Path, name: str, base: str, path: str, shapes: dict[str, int]) -> None:
    """A LoRA adapter of rank 4. shapes: module -> the width that it makes of 32."""
    config = {"base_model_name_or_path": base, "peft_type": "LORA", "r": 4, "lora_alpha": 4, "bias": "none"}
    snapshot = repository(home, name, {"adapter_config.json": config | {"target_modules": list(shapes)}})
    state = {}
    for layer in range(2):
        for module, width in shapes.items():
            key = f"base_model.model.{path.format(layer=layer)}.{module}"
            state[f"{key}.lora_A.weight"] = torch.randn(4, 32) / 32
            state[f"{key}.lora_B.weight"] = torch.randn(width, 4) / 32
    save_file(state, snapshot / "adapter_model.safetensors", {"format": "pt"})


def drafter(home: Path, name: str) -> None:
    size = len(words()[0]) + len(SPECIAL) + 1
    more = {"architectures": ["DFlashDraftModel"], "auto_map": {"AutoModel": "dflash.DFlashDraftModel"}}
    more |= {"block_size": 16, "num_target_layers": 4, "layer_types": ["full_attention"] * 2}
    more["dflash_config"] = {"mask_token_id": size - 1, "target_layer_ids": [0, 2]}
    config = Qwen3Config(**SHAPE, head_dim=16, vocab_size=size, tie_word_embeddings=False, **more)
    fields = config.to_dict() | more
    snapshot = repository(home, name, {"config.json": fields, "dflash.py": REMOTE})
    state = DFlashDraftModel(config).state_dict()
    state = {key: value.to(torch.bfloat16).contiguous() for key, value in state.items()}
    save_file(state, snapshot / "model.safetensors", {"format": "pt"})


# Repositories of docs/models.md in the layouts of tests/golden/block_models: (name, golden folder, special
# tokens, chat template, fields of the tokenizer, whether a tied model stores its head). Fast-dLLM v2's mask
# is named nowhere: its id is the layout's.
QWEN3 = [*SPECIAL, "<think>", "</think>"]
INCLUSION = ["<|endoftext|>", "<role>", "</role>", "<|role_end|>", "<|mask|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>"]
ROLES = (  # ours: no note describes theirs
    "{% for message in messages %}<role>{{ message.role }}</role>"
    "{{ message.content }}<|role_end|>{% endfor %}"
    "{% if add_generation_prompt %}<role>assistant</role>{% endif %}"
)
TURNS = ROLES.replace("<role>", "<|turn>").replace("</role>", "\n").replace("<|role_end|>", "<turn|>\n")
A2D = {"eos_token": "<|im_end|>", "mask_token": "<|mask|>"}
BLOCK_MODELS = [
    *(
        (f"dllm-hub/Qwen3-0.6B-diffusion-{kind}-v0.1", "a2d_qwen3", [*QWEN3, "<|mask|>"], THINKING, A2D, True)
        for kind in ("mdlm", "bd3lm")
    ),
    *(
        (f"dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-{kind}-v0.1", "a2d_qwen2", *rest)
        for kind in ("mdlm", "bd3lm")
        for rest in [([*SPECIAL, "<|mask|>"], CHATML, A2D, False)]
    ),
    *(
        (f"JetLM/SDAR-{size}-Chat", "sdar", QWEN3, THINKING, {"eos_token": SPECIAL[0]}, False)
        for size in ("1.7B", "4B")
    ),
    (
        "Efficient-Large-Model/Fast_dLLM_v2_1.5B",
        "fast_dllm_v2",
        [*SPECIAL, "|<MASK>|"],
        CHATML,
        {"eos_token": "<|im_end|>"},
        False,
    ),
    (
        "fredzzp/open-dcoder-0.5B",
        "open_dcoder",
        [*SPECIAL, "<M>"],
        None,
        {"eos_token": SPECIAL[0], "mask_token": "<M>"},
        False,
    ),
    *(
        (f"inclusionAI/{name}", golden, INCLUSION, ROLES, {"eos_token": "<|endoftext|>"}, False)
        for name, golden in (
            ("LLaDA-MoE-7B-A1B-Instruct", "llada_moe"),
            ("LLaDA2.0-mini", "llada2"),
            ("LLaDA2.1-mini", "llada2"),
        )
    ),
    (
        "google/diffusiongemma-26B-A4B-it",
        "diffusion_gemma",
        GEMMA,
        TURNS,
        {"eos_token": "<eos>", "pad_token": "<pad>", "bos_token": "<bos>"},
        False,
    ),
]
GOLDEN = ROOT / "tests" / "golden" / "block_models"


def block_model(home: Path, name: str, golden: str, names: list, template, fields: dict, head: bool) -> None:
    """A repository in the layout of a golden folder: its config.json with ids of this tokenizer."""
    kind = "PreTrainedTokenizerFast" if names in (INCLUSION, GEMMA) else "Qwen2Tokenizer"
    files, special = tokenizer(kind, names, template, **fields)
    config = json.loads((GOLDEN / golden / "config.json").read_text())
    text = config.get("text_config", config)
    # The published width where the mask id is only the layout's.
    text["vocab_size"] = 151_936 if golden == "fast_dllm_v2" else max(special.values()) + 1
    text["max_position_embeddings"] = 32_768
    end, pad = special[fields["eos_token"]], special[fields.get("pad_token", "<|endoftext|>")]
    text |= {"eos_token_id": end, "pad_token_id": end if golden == "fast_dllm_v2" else pad}
    text |= {"bos_token_id": special.get("<bos>", pad)}
    if golden in ("sdar", "llada_moe", "llada2"):
        config["mask_token_id"] = text["vocab_size"] - 1
    code = {f"{path.partition('.')[0]}.py": REMOTE for path in config.get("auto_map", {}).values()}
    snapshot = repository(home, name, files | code | {"config.json": config})
    layout = layout_of(config, "open_dcoder" if golden == "open_dcoder" else None)
    model = layout.model(layout.config.from_pretrained(snapshot))
    state = revert_weight_conversion(model, model.state_dict())
    if text["tie_word_embeddings"] and not head:
        del state["lm_head.weight"]
    save(state, snapshot)


def make_models(home: Path) -> None:
    """Every repository that docs/models.md names a command for."""
    torch.manual_seed(0)
    llada(home, "GSAI-ML/LLaDA-1.5")
    dream(home, "Dream-org/Dream-Coder-v0-Instruct-7B")
    for model in BLOCK_MODELS:
        block_model(home, *model)


def make(home: Path) -> None:
    """Every repository that a published figure names."""
    torch.manual_seed(0)
    for name in ("GSAI-ML/LLaDA-8B-Instruct", "Zigeng/dParallel-LLaDA-8B-instruct"):
        llada(home, name)
    for name in ("Dream-v0-Instruct-7B", "Dream-v0-Base-7B"):
        dream(home, f"Dream-org/{name}")
    dream(home, "Zigeng/dParallel_Dream_7B_Instruct")
    for name, eos in (("0.5B", SPECIAL[0]), ("7B", SPECIAL[0]), ("7B-Instruct", SPECIAL[2])):
        causal(home, f"Qwen/Qwen2.5-{name}", Qwen2Config, CHATML, eos)
    llama(home, "meta-llama/Meta-Llama-3-8B-Instruct")
    for name in ("4B", "8B"):
        deep = {"num_hidden_layers": 4, "head_dim": 16}
        causal(home, f"Qwen/Qwen3-{name}", Qwen3Config, THINKING, SPECIAL[2], **deep)
        drafter(home, f"z-lab/Qwen3-{name}-DFlash-b16")
    layers, blocks = "model.layers.{layer}.self_attn", "model.transformer.blocks.{layer}"
    adapter(
        home,
        "SJTU-Deng-Lab/D2F_Dream_Base_7B_Lora",
        "Dream-org/Dream-v0-Base-7B",
        layers,
        {"q_proj": 32, "k_proj": 16, "v_proj": 16, "o_proj": 32},
    )
    adapter(
        home,
        "SJTU-Deng-Lab/D2F_LLaDA_Instruct_8B_Lora",
        "GSAI-ML/LLaDA-8B-Instruct",
        blocks,
        dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), 32),
    )


REAL = {  # a file of rows/ -> of the folder of published rows
    "gsm8k/test.jsonl": "gsm8k_test.jsonl",
    "gsm8k/train.jsonl.gz": "gsm8k/train.jsonl.gz",
    "math/test.jsonl": "math500/test.jsonl",
    "math500/test.jsonl": "math500/test.jsonl",
    "humaneval.jsonl.gz": "HumanEval.jsonl.gz",
    "mbpp/test.jsonl": "mbpp/test.jsonl",
    "mbpp_sanitized/test.jsonl": "mbpp_sanitized/test.jsonl",
    "mt_bench/test.jsonl": "mt_bench/test.jsonl",
}


def write_rows(folder: Path, data: Path | None = None) -> Path:
    """A folder for `task.data`, of every data set that a published figure reads: rows made here, in the data
    sets' columns, or links to those of `data`."""
    files = made_rows()
    for name, source in REAL.items() if data else ():
        files.pop(name.removesuffix(".gz").removesuffix(".jsonl"), None)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to((data / source).resolve())
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made_rows() -> dict[str, list[dict]]:
    """name of a file -> its rows."""
    sums = [
        (f"Ann has {i} pens and buys {i + 2}. How many?", f"{i} + {i + 2}\n#### {2 * i + 2}")
        for i in range(9)
    ]
    numbers = [{"question": q, "answer": a} for q, a in sums]
    formulas = [
        {"problem": f"What is ${i}+{i}$?", "solution": f"\\boxed{{{2 * i}}}", "subject": subject}
        for i in range(ROWS)
        for subject in SUBJECTS
    ]
    signature = "def double(x):\n"
    programs = [
        {
            "task_id": f"HumanEval/{i}",
            "prompt": f'{signature}    """Twice x, {i}."""\n',
            "entry_point": "double",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        }
        for i in range(ROWS)
    ]
    asked = "Write a function to double."
    asserts = [f"assert double({i}) == {2 * i}" for i in range(3)]
    short = [
        {"text": asked, "code": f"{signature}    return 2 * x", "test_list": asserts} for _ in range(ROWS)
    ]
    clean = [row | {"prompt": asked, "test_imports": []} for row in short]
    boxes = [{"problem": "What is 3?", "answer": "3"}] * ROWS
    return {
        "gsm8k/test": numbers[:ROWS],
        "gsm8k/train": numbers,
        "math500/test": formulas,
        "math/test": formulas,
        "humaneval": programs,
        "mbpp/test": short,
        "mbpp_sanitized/test": clean,
        "aime24/test": boxes,
        "aime25/test": boxes,
        "livecodebench/test": [{"question_content": "Double.", "starter_code": ""}] * ROWS,
        "mt_bench/test": [{"turns": ["Say one.", "Say two."]}] * ROWS,
        "gpqa/test": [
            {"Question": f"{i}?", "Correct Answer": "a"}
            | {f"Incorrect Answer {k}": f"b{k}" for k in (1, 2, 3)}
            for i in range(ROWS)
        ],
    }


if __name__ == "__main__":
    home = Path(sys.argv[1])
    make(home)
    make_models(home)
    write_rows(home / "rows", Path(sys.argv[2]) if len(sys.argv) > 2 else None)
