"""What a configuration says of a model."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class ModelConfig:
    """A model, and how its authors evaluate it: decoders take their defaults from here."""

    name: str = MISSING
    # a folder (relative ones are looked up in the project too), a Hub repository, or package:NAME, the folder
    # of an installed Python package
    path: str = MISSING
    gguf: str | None = None  # the GGUF file in it, dequantised when loaded; null = a Hugging Face folder
    revision: str | None = None  # of the Hub repository
    kind: str = MISSING  # diffusion | uniform_diffusion | causal | drafter
    # of unmask/models/layouts, where config.json does not tell; null = by its model_type and architectures
    layout: str | None = None
    adapter: str | None = None  # PEFT folder or Hub repository, merged when the model is loaded
    end_tokens: list[str] = field(default_factory=list)  # tokens that end an answer
    # for the chat template, as in {enable_thinking: false} for Qwen3
    chat_options: dict[str, Any] = field(default_factory=dict)
    temperature: float = 0.0  # what decoders take where they do not say
    top_p: float = 1.0
    schedule: str = "even"  # of steps, for decoders that unmask in any order: even (LLaDA) | dream
    # what each token sees: full | block_causal, the prompt and the blocks up to its own (D2F's students)
    attention: str = "full"
    block_length: int = 32  # of decoders that keep several blocks at work; block_causal: what it learned
    blocks: dict[str, Any] = field(default_factory=dict)  # its authors' settings of decoder=blocks
    edits: dict[str, Any] = field(default_factory=dict)  # and of decoder=joint_threshold
    # its own decoders rank masks by their tempered probability (Dream's T = 0.1 goes nearly left to right)
    rank_tempered: bool = False
    # task -> what its authors' evaluation does about end tokens (Unmasking.end_rule), for decoder=llada
    end_rules: dict[str, str] = field(default_factory=dict)


@dataclass
class RandomModel(ModelConfig):
    """Random weights in a real layout, with the real vocabulary: for measuring costs (bench.py)."""

    path: str = "random weights"
    # qwen2, qwen3 (causal), dflash (a drafter of qwen3), or one of unmask/models/layouts
    layout: str | None = "Dream"
    # of the hidden states; heads, their groups and the inner width follow the published model's proportions
    width: int = 512
    depth: int = 8
    vocabulary: int | None = None  # None = the published model's
