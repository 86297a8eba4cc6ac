"""Models and tokenizers from settings, with every check that needs no weights made before any is loaded."""

import copy
import json
import re
import sys
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakValueDictionary

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, Qwen2Tokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from unmask.models import adapters
from unmask.models.drafter import DFlashDraftModel, is_drafter
from unmask.models.fingerprint import fingerprint
from unmask.models.heads import use_row_products
from unmask.models.layouts import LAYOUTS, built_by, layout_of
from unmask.models.settings import ModelConfig
from unmask.models.weights import check_weights, load_weights
from unmask.paths import hub_reason, lookups

LARGE = 10**9  # parameters, from which on loading takes minutes
PACKAGE = "package:"
REPOSITORY = r"[\w.-]{1,96}(/[\w.-]{1,96})?"  # names that the Hub allows
PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
GGUF = ("gguf", "accelerate")  # what transformers needs to read such a file
_loaded: WeakValueDictionary = WeakValueDictionary()  # models in use, so that no two copies are held


class Source:
    """A model that is not loaded yet: its folder, its configuration, its tokenizer.

    ValueError where they cannot be read or are not what the settings say.
    """

    def __init__(self, settings: ModelConfig):
        self.settings = settings
        self.folder = folder_of(settings)
        # Of from_pretrained. Without trust_remote_code transformers asks at the terminal whether to run code.
        self.options = {"trust_remote_code": False}
        if settings.gguf:
            self.options["gguf_file"] = settings.gguf
        self.revision = settings.revision
        local = Path(self.folder).is_dir()
        if not local and settings.path.startswith("checkpoints/"):  # ours: the Hub has none of them
            name = Path(settings.path).name
            raise ValueError(
                f"model {settings.name}: {settings.path} does not exist; python train.py "
                f"recipe={name} makes it"
            )
        try:
            # A branch moves: from here on, and in the record, it is the commit that it points to now.
            file = cached_file(self.folder, settings.gguf or "config.json", revision=self.revision)
            self.revision = extract_commit_hash(file, self.revision)
            self.options["revision"] = self.revision
            raw, _ = PretrainedConfig.get_config_dict(self.folder, **self.options)
        except Exception as error:  # missing folder, no network, damaged file: each its own type
            raise ValueError(
                f"model {settings.name}: {settings.path} is no local folder and cannot be read from "
                f"the Hub, or is damaged ({hub_reason(error, settings.path)}). Give model.path=FOLDER, or "
                "connect and try again"
            ) from error
        try:
            self._stored = raw.keys()
            self.layout = layout_of(raw, settings.layout)
            self.config = self._config(raw)
            self.kind = kind_of(self.config)
            self.tokenizer = None if "drafter" in (self.kind, settings.kind) else self._tokenizer()
            self._check_layout()
        except Exception as error:  # a field of another type, a damaged tokenizer: each its own type
            raise ValueError(f"{self._where}: {str(error).strip().splitlines()[0]}") from error
        if self.kind != settings.kind:
            raise ValueError(
                f"model {settings.name}: kind={settings.kind}, but {settings.path} is a {self.kind} model"
            )
        if local and not settings.gguf:  # before anything is written; a Hub folder's file may not be here yet
            check_weights(type(self._shell()), self.folder, **self._of_weights)
        self.adapter = settings.adapter and adapters.adapter_folder(settings.adapter)
        if self.adapter:
            adapters.check(self._shell(), self.adapter)

    def _config(self, raw: Mapping) -> PretrainedConfig:
        """config.json as the class of its layout; ValueError for a model type that nobody knows."""
        if self.layout:
            return self.layout.config.from_pretrained(self.folder, **self.options)
        kind = raw.get("model_type")
        if not self.settings.gguf and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            known = ", ".join(sorted({layout.config.model_type for layout in LAYOUTS.values()}))
            raise ValueError(
                f"config.json is of model_type={kind}, which is no causal language model of transformers "
                f"{transformers.__version__} and none of the diffusion models {known}. For another one add a "
                "file to unmask/models/layouts/ and a line to its __init__.py (docs/models.md)"
            )
        return AutoConfig.from_pretrained(self.folder, **self.options)

    def _check_layout(self) -> None:
        """ValueError where the layout cannot do what the settings say; finds the mask id."""
        if self.layout is None:
            return
        if self.layout.attention == "block_causal" and self.settings.attention != "block_causal":
            raise ValueError(
                f"{self.layout.name} never sees a later block: attention={self.settings.attention} must be "
                "block_causal"
            )
        if self.layout.mask_id is None:
            return
        own = getattr(self.tokenizer, "mask_token_id", None)
        if own is not None and "mask_token_id" not in self._stored:
            self.config.mask_token_id = own  # appended to the base model's vocabulary
        if self.config.mask_token_id >= self.config.vocab_size:
            raise ValueError(
                f"neither config.json nor the tokenizer names a mask id, and {self.layout.name}'s "
                f"({self.config.mask_token_id:,}) lies beyond its vocabulary of {self.config.vocab_size:,}: "
                "add mask_token_id to config.json"
            )

    def _tokenizer(self):
        """Dream's published folder names a tokenizer class that lives in remote code; its files are
        Qwen2's."""
        named = get_tokenizer_config(self.folder, revision=self.revision).get("tokenizer_class")
        if named == "DreamTokenizer":
            return Qwen2Tokenizer.from_pretrained(self.folder, **self.options)
        return AutoTokenizer.from_pretrained(self.folder, config=self.config, **self.options)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's EOS and the configured end tokens."""
        vocabulary = self.tokenizer.get_vocab()
        if unknown := [name for name in self.settings.end_tokens if name not in vocabulary]:
            raise ValueError(f"model {self.settings.name}: end_tokens {unknown} are not in its vocabulary")
        return frozenset(vocabulary[name] for name in self.settings.end_tokens) | {
            self.tokenizer.eos_token_id
        }

    @property
    def fingerprint(self) -> str:
        """Of the weights: commit of a Hub model, or a hash of a local folder; with the adapter's, if any."""
        own = fingerprint(Path(self.folder)) if Path(self.folder).is_dir() else self.revision
        return f"{own}+{fingerprint(self.adapter)}" if self.adapter else own

    @property
    def identity(self) -> dict:
        """The model in a run's identity: what is asked for, and which weights that is."""
        return identity_of_model(self.settings) | {"weights": self.fingerprint}

    @property
    def text_config(self) -> PretrainedConfig:
        """Of the language model alone, where there is more (DiffusionGemma sees pictures, too)."""
        return self.config.get_text_config(decoder=True)

    @property
    def shape(self) -> dict[str, int]:
        """What the cost of a forward is estimated from: parameters of body and head, layers, width.

        Of a mixture of experts, the parameters that work on a token: its share of the experts alone.
        """
        model = self._shell()
        if self.kind == "drafter":  # its head is the target's
            c, named = self.config, list(model.named_parameters())
            fused = model.fc.weight.numel()  # of a token of the context, not of the block
            return {
                "body_parameters": sum(p.numel() for _, p in named) - fused,
                "head_parameters": c.hidden_size * (getattr(c, "draft_vocab_size", None) or c.vocab_size),
                "layers": c.num_hidden_layers,
                "width": attention_width(c),
                "context_parameters": sum(p.numel() for n, p in named if "k_proj" in n or "v_proj" in n)
                + fused,
            }
        return shape_of(model, self.text_config)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._shell().parameters())

    def _shell(self) -> torch.nn.Module:
        """The model without weights: names and shapes."""
        with torch.device("meta"):
            if self.kind == "drafter":
                return DFlashDraftModel(self.config)
            return (
                self.layout.model(self.config)
                if self.layout
                else AutoModelForCausalLM.from_config(self.config)
            )

    @property
    def _class(self) -> type:
        if self.kind == "drafter":
            return DFlashDraftModel
        return self.layout.model if self.layout else AutoModelForCausalLM

    def load(
        self, device: torch.device, dtype: torch.dtype, private: bool = False, module: Hashable = None
    ) -> torch.nn.Module:
        """The model, ready to run. One copy is shared by all that use it, unless it is to be `private`.

        module: another module of this name on the same weights, shared by all that ask for it by this name:
            compiling changes a module in place, and one that has two roles counts its forwards in each.
        """
        key = (self.folder, self.fingerprint, str(device), dtype)
        if module is not None:
            found = _loaded.get((key, module))
            if found is None:
                found = _loaded[key, module] = on_same_weights(self.load(device, dtype))
            return found
        model = None if private else _loaded.get(key)
        if model is None:
            for line in self.announced(device, dtype):
                print(line, file=sys.stderr)
            self._fetch()
            # Straight to the device: the host's memory need not hold a copy.
            where = {} if device.type == "cpu" else {"device_map": {"": device}}
            model = load_weights(self._class, self.folder, **self._of_weights, dtype=dtype, **where)
            model = (adapters.merge(model, self.adapter) if self.adapter else model).to(device).eval()
            if device.type == "cpu":
                use_row_products(model)
            if not private:
                _loaded[key] = model
        return model

    def announced(self, device: torch.device, dtype: torch.dtype) -> list[str]:
        """What is told before a large model is loaded: what it fetches, and that a CPU is slow."""
        size, name, lines = self.parameters, self.settings.name, []
        if size >= LARGE and not self._fetched:
            lines.append(f"{name}: fetching the weights of {size / 1e9:.1f}B parameters from the Hub")
        if size >= LARGE and device.type == "cpu":
            here = torch.accelerator.current_accelerator(check_available=True)
            none = "" if here else f"; torch {torch.__version__} finds no GPU here"
            kind = str(dtype).removeprefix("torch.")
            held = size * dtype.itemsize / 1e9
            lines.append(
                f"{name}: {size / 1e9:.1f}B parameters run on the CPU in {kind}, {held:.0f} GB{none}"
            )
        return lines

    @property
    def _fetched(self) -> bool:
        """Whether all weights are here."""
        at = partial(try_to_load_from_cache, self.folder, revision=self.revision)
        return Path(self.folder).is_dir() or all(isinstance(at(f), str) for f in self._files(at))

    def _files(self, at: Callable[[str], str | None]) -> list[str]:
        """The files that hold the weights. at: where a file of the repository is."""
        index = None if self.settings.gguf else at(SAFE_WEIGHTS_INDEX_NAME)
        if isinstance(index, str):
            return sorted(set(json.loads(Path(index).read_text())["weight_map"].values()))
        return [self.settings.gguf or SAFE_WEIGHTS_NAME]

    def _fetch(self) -> None:
        """Fetch the weights of a Hub repository; at a terminal each file shows how far it is."""
        if self._fetched:
            return
        at = partial(cached_file, self.folder, revision=self.revision)
        try:
            for file in self._files(partial(at, _raise_exceptions_for_missing_entries=False)):
                at(file)
        except Exception as error:  # no network, a full disk: each its own type
            raise ValueError(f"{self.folder}: its weights cannot be fetched ({error})") from error

    @property
    def _of_weights(self) -> dict:
        """Options of from_pretrained; AutoConfig may take a config.json for another layout's."""
        return self.options | ({"config": self.config} if self.layout else {})

    @property
    def _where(self) -> str:
        return f"model {self.settings.name}: {Path(self.folder, self.settings.gguf or '')}"


def on_same_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Another module with the same parameters and buffers, which takes no memory of its own."""
    memo = {id(tensor): tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors}
    made = copy.deepcopy(model, memo)
    made.origin = (model,)  # it stays as long as its weights do: whoever asks for it gets it
    return made


def kind_of(config: PretrainedConfig) -> str:
    """diffusion | uniform_diffusion | causal | drafter; ValueError for a drafter that cannot be used."""
    if is_drafter(config):
        return "drafter"
    layout = built_by(config)
    return layout.kind if layout else "causal"


def shape_of(model: torch.nn.Module, config: PretrainedConfig) -> dict[str, int]:
    """Of a model that has a head: see Source.shape. config: of its text."""
    head = sum(p.numel() for p in model.lm_head.parameters())
    table = model.get_input_embeddings().weight.numel()  # looked up, not multiplied
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    heads = {id(p) for p in model.lm_head.parameters()}
    # DiffusionGemma's encoder shares its decoder's weights, and what sees pictures is not fed.
    body = getattr(getattr(model, "model", None), "decoder", model)
    total = sum(_active(name, p, config) for name, p in body.named_parameters() if id(p) not in heads)
    return {
        "body_parameters": total - (0 if tied else table),
        "head_parameters": head,
        "layers": config.num_hidden_layers,
        "width": attention_width(config),
    }


def _active(name: str, parameter: torch.nn.Parameter, config: PretrainedConfig) -> int:
    """How much of a parameter works on one token: all, or of a stack of experts the chosen ones."""
    if ".experts." not in name:
        return parameter.numel()
    chosen = getattr(config, "num_experts_per_tok", None) or config.top_k_experts
    return parameter.numel() // len(parameter) * chosen


def attention_width(config: PretrainedConfig, of: str = "num_attention_heads") -> int:
    """Of all query heads together: the hidden size, but where heads have a size of their own (Qwen3); of all
    key heads with of=num_key_value_heads. Where layers differ (DiffusionGemma), the widest one's."""
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config]
    return max(
        getattr(layer, of)
        * (getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
        for layer in layers
    )


def folder_of(settings: ModelConfig) -> str:
    """The local folder that a path means, looked up in the project too, or the name of a Hub repository.

    ValueError for a path that can be neither, and for a folder whose weights are pickled.
    """
    if not settings.path:
        raise ValueError(f"model {settings.name}: path= is empty")
    path = package_folder(settings) if settings.path.startswith(PACKAGE) else settings.path
    candidates = lookups(path)
    try:
        local = next((p for p in candidates if p.is_dir()), None)
        file = next((p for p in candidates if p.is_file()), None)
        pickled = [] if local is None else [f.name for f in local.iterdir() if f.suffix in PICKLED]
        safe = local is not None and any(local.glob("*.safetensors"))
    except (OSError, ValueError) as error:  # too long, not readable, a NUL in it
        raise ValueError(f"model {settings.name}: path={path[:80]} cannot be read ({error})") from error
    if local is None and file is not None:
        raise ValueError(
            f"model {settings.name}: path={path} is a file: give its folder (a GGUF file is model.gguf=NAME)"
        )
    if local is None and not re.fullmatch(REPOSITORY, path) and not path.startswith("checkpoints/"):
        raise ValueError(
            f"model {settings.name}: path={path[:80]} is no local folder and no name of a Hub repository"
        )
    if pickled and not safe and not settings.gguf:
        raise ValueError(
            f"model {settings.name}: {local} has only pickled weights ({pickled[0]}), which may run code "
            "when they are loaded: convert them to model.safetensors"
        )
    return path if local is None else str(local)


def package_folder(settings: ModelConfig) -> str:
    """The folder of the installed package that a path names; ValueError where it, or what reads it, is
    missing."""
    name = settings.path.removeprefix(PACKAGE)
    if not name.isidentifier():
        raise ValueError(
            f"model {settings.name}: path={settings.path}: must be package:NAME of a Python package"
        )
    wanted = [name, *(GGUF if settings.gguf else ())]
    if missing := [package for package in wanted if find_spec(package) is None]:
        raise ValueError(
            f"model {settings.name}: needs the Python packages {', '.join(missing)}: "
            "`make real` installs them"
        )
    folders = find_spec(name).submodule_search_locations
    if not folders:
        raise ValueError(f"model {settings.name}: path={settings.path}: {name} is a module and has no folder")
    return next(iter(folders))


def identity_of_model(settings: ModelConfig) -> dict:
    """What a configuration says of a model's identity; where its files lie is not part of it."""
    return {
        "name": settings.name,
        "kind": settings.kind,
        "end_tokens": list(settings.end_tokens),
        "adapter": settings.adapter,
        **({"layout": settings.layout} if settings.layout else {}),
        **({"chat_options": dict(settings.chat_options)} if settings.chat_options else {}),
    }


def check_same_vocabulary(sources: Mapping[str, Source]) -> None:
    """ValueError unless the tokenizers of all roles agree with the first one's, and a drafter fits it."""
    first, *others = sources.values()
    for other in others:
        if other.kind == "drafter":
            check_drafter(first, other)
        else:
            check_vocabularies(first, other)


def check_drafter(target: Source, drafter: Source) -> None:
    """ValueError unless the drafter reads what the target has: width, layers, vocabulary."""
    ours, theirs = target.config, drafter.config
    layers = theirs.dflash_config["target_layer_ids"]
    for what, wanted, found in (
        ("hidden size", theirs.hidden_size, ours.hidden_size),
        ("vocabulary", theirs.vocab_size, ours.vocab_size),
        ("layers", theirs.num_target_layers, ours.num_hidden_layers),
    ):
        if wanted != found:
            raise ValueError(
                f"drafter={drafter.settings.name} is for another target: {what} {wanted}, and "
                f"{target.settings.name} has {found}"
            )
    if max(layers) >= ours.num_hidden_layers:
        raise ValueError(f"drafter={drafter.settings.name} reads layers {layers} of {ours.num_hidden_layers}")


def check_block_length(drafter: Source, block_length: int | None) -> None:
    """ValueError for blocks that are longer than those that a block drafter learned."""
    learned = getattr(drafter.config, "block_size", None)
    if drafter.kind == "drafter" and block_length is not None and block_length > learned:
        raise ValueError(
            f"decoder.block_length={block_length}: {drafter.settings.name} learned blocks of {learned}, so "
            f"it must be at most that"
        )


def check_block_origin(source: Source, origins: Collection[str]) -> None:
    """ValueError for a model whose blocks start where none of `origins` (Layout.blocks_from) says."""
    if source.layout and source.layout.blocks_from not in origins:
        raise ValueError(
            f"model={source.settings.name} counts blocks from {source.layout.blocks_from}, and this decoder "
            f"from {' or '.join(origins)}: the model would see other columns than it learned"
        )


def check_vocabularies(first: Source, other: Source) -> None:
    """ValueError unless both tokenizers give the same tokens the same ids. Special tokens that only one has
    are fine."""
    ours, theirs = ({i: t for t, i in s.tokenizer.get_vocab().items()} for s in (first, other))
    different = [i for i in ours.keys() & theirs.keys() if ours[i] != theirs[i]]
    special = set(first.tokenizer.get_added_vocab().values()) | set(
        other.tokenizer.get_added_vocab().values()
    )
    different += sorted((ours.keys() ^ theirs.keys()) - special)
    if different:
        i = min(different)
        raise ValueError(
            f"the tokenizers of {first.settings.name} and {other.settings.name} disagree on "
            f"{len(different):,} of "
            f"{len(ours.keys() | theirs.keys()):,} ids (id {i}: {ours.get(i)!r} and "
            f"{theirs.get(i)!r}): choose an auxiliary "
            "of the same vocabulary (auxiliary=tiny_qwen for the tiny family, auxiliary=qwen_0.5b "
            "for model=dream)"
        )
