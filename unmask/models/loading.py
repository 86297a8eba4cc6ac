"""Models and tokenizers from settings, with every check that needs no weights made before any is loaded."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, Qwen2Tokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file, extract_commit_hash

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.models import adapters
from unmask.models.drafter import ARCHITECTURE, DFlashDraftModel, is_drafter
from unmask.models.fingerprint import fingerprint
from unmask.models.heads import use_row_products
from unmask.models.settings import ModelConfig
from unmask.models.weights import check_weights, load_weights
from unmask.paths import ROOT

DIFFUSION = {"Dream", "llada"}
PACKAGE = "package:"
GGUF = ("gguf", "accelerate")  # what transformers needs to read such a file
_loaded: WeakValueDictionary = WeakValueDictionary()  # models in use, so that no two copies are held


class Source:
    """A model that is not loaded yet: its folder, its configuration, its tokenizer.

    ValueError where they cannot be read or are not what the settings say.
    """

    def __init__(self, settings: ModelConfig):
        self.settings = settings
        path = package_folder(settings) if settings.path.startswith(PACKAGE) else settings.path
        local = local_folder(f"model {settings.name}: path", path)
        self.folder = str(local or path)
        self.options = {"gguf_file": settings.gguf} if settings.gguf else {}  # of from_pretrained
        self.revision = settings.revision
        if not local and settings.path.startswith(
            "checkpoints/"
        ):  # this project's own: the Hub has none of them
            name = Path(settings.path).name
            raise ValueError(
                f"model {settings.name}: {settings.path} does not exist; python train.py "
                f"recipe={name} makes it"
            )
        if local and not settings.gguf:
            check_folder(f"model {settings.name}: path={settings.path}", local)
        try:
            # trust_remote_code=False: left out, transformers would ask at the terminal.
            # A branch moves: from here on, and in the record, it is the commit that it points to now.
            file = cached_file(self.folder, settings.gguf or "config.json", revision=self.revision)
            self.revision = extract_commit_hash(file, self.revision)
            self.options["revision"] = self.revision
            self.config = AutoConfig.from_pretrained(self.folder, **self.options, trust_remote_code=False)
            drafter = ARCHITECTURE in (self.config.architectures or [])
            self.tokenizer = None if drafter or settings.kind == "drafter" else self._tokenizer()
        except Exception as error:  # missing folder, no network, damaged file: each its own type
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            what = (
                "the folder's config.json or tokenizer cannot be read"
                if local
                else "is no local folder and cannot be read from the Hub"
            )
            raise ValueError(
                f"model {settings.name}: path={settings.path}: {what} ({reason}). Give model.path=FOLDER"
                + ("" if local else ", or connect and try again")
            ) from error
        try:
            self.kind = kind_of(self.config)
        except ValueError as error:
            raise ValueError(f"model {settings.name}: {error}") from error
        if self.kind != settings.kind:
            raise ValueError(
                f"model {settings.name}: kind={settings.kind}, but {settings.path} is a {self.kind} model"
            )
        if local and not settings.gguf:
            check_weights(type(self._shell()), self.folder)
        self.adapter = settings.adapter and adapters.adapter_folder(settings.adapter, ROOT)
        if self.adapter:
            adapters.check(self._shell(), self.adapter)

    def _tokenizer(self):
        """Dream's published folder names a tokenizer class that lives in remote code; its files are
        Qwen2's."""
        named = get_tokenizer_config(self.folder, revision=self.revision).get("tokenizer_class")
        loader = Qwen2Tokenizer if named == "DreamTokenizer" else AutoTokenizer
        return loader.from_pretrained(self.folder, **self.options, trust_remote_code=False)

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
        return requested(self.settings) | {"weights": self.fingerprint}

    @property
    def shape(self) -> dict[str, int]:
        """What the cost of a forward is estimated from: parameters of body and head, layers, width."""
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
        head = sum(p.numel() for p in model.lm_head.parameters())
        table = model.get_input_embeddings().weight.numel()  # looked up, not multiplied
        tied = model.lm_head.weight is model.get_input_embeddings().weight
        total = sum(p.numel() for p in model.parameters())
        return {
            "body_parameters": total - table - (0 if tied else head),
            "head_parameters": head,
            "layers": self.config.num_hidden_layers,
            "width": attention_width(self.config),
        }

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self._shell().parameters())

    def _shell(self) -> torch.nn.Module:
        """The model without weights: names and shapes."""
        with torch.device("meta"):
            if self.kind == "drafter":
                return DFlashDraftModel(self.config)
            return AutoModelForCausalLM.from_config(self.config)

    @property
    def _class(self) -> type:
        return DFlashDraftModel if self.kind == "drafter" else AutoModelForCausalLM

    def load(self, device: torch.device, dtype: torch.dtype, private: bool = False) -> torch.nn.Module:
        """The model, ready to run. One copy is shared by all that use it, unless it is to be `private`.

        (Compiling changes a model in place, so a compiled one must not be shared.)
        """
        key = (self.folder, self.fingerprint, str(device), dtype)
        model = None if private else _loaded.get(key)
        if model is None:
            model = load_weights(self._class, self.folder, **self.options, dtype=dtype)
            model = (adapters.merge(model, self.adapter) if self.adapter else model).to(device).eval()
            if device.type == "cpu":
                use_row_products(model)
            if not private:
                _loaded[key] = model
        return model


def kind_of(config: PretrainedConfig) -> str:
    """diffusion | causal | drafter; ValueError for a drafter that cannot be used."""
    if is_drafter(config):
        return "drafter"
    return "diffusion" if config.model_type in DIFFUSION else "causal"


def attention_width(config: PretrainedConfig) -> int:
    """Of all query heads together: the hidden size, but where heads have a size of their own (Qwen3)."""
    heads = config.num_attention_heads
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def local_folder(key: str, path: str) -> Path | None:
    """The folder that a path names (relative ones are looked up in the project too), or None: ask the Hub.

    ValueError for a file, and for what no file system takes as a name.
    """
    for found in (Path(path), ROOT / path):
        try:
            if found.is_dir():
                return found
            if found.exists():
                raise ValueError(f"{key}={path}: is a file; name the folder that it lies in")
        except OSError as error:
            raise ValueError(f"{key}={path[:100]}...: cannot be a folder ({error.strerror})") from error
    return None


def check_folder(what: str, folder: Path) -> None:
    """ValueError for a folder without config.json or safetensors, and for a model_type that is unknown."""
    try:
        model_type = json.loads((folder / "config.json").read_text())["model_type"]
    except FileNotFoundError:
        raise ValueError(f"{what}: the folder has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{what}: config.json is damaged or names no model_type ({error!r})") from error
    if str(model_type) not in {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *DIFFUSION}:
        raise ValueError(
            f"{what}: config.json says model_type={model_type}. Known are {', '.join(sorted(DIFFUSION))} "
            "(diffusion) and transformers' causal models (qwen2, qwen3, llama, ...). For another diffusion "
            "model, register its classes as dream/__init__.py does"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        raise ValueError(
            f"{what}: the folder has no .safetensors file"
            + f", only {pickles[0]}, a pickle, which can run any code when it is read: convert it"
            * bool(pickles)
        )


def package_folder(settings: ModelConfig) -> str:
    """The folder of the installed package that a path names; ValueError where it, or what reads it, is
    missing. Nothing is imported."""
    name = settings.path.removeprefix(PACKAGE)
    if not name.isidentifier() or name == "__main__":
        raise ValueError(
            f"model {settings.name}: path={settings.path[:100]}: must be package:NAME, the top-level name of "
            "an installed Python package"
        )
    wanted = [name, *(GGUF if settings.gguf else ())]
    if missing := [package for package in wanted if find_spec(package) is None]:
        raise ValueError(
            f"model {settings.name}: needs the Python packages {', '.join(missing)}: `make real` "
            "installs them"
        )
    folders = find_spec(name).submodule_search_locations
    if not folders:
        raise ValueError(f"model {settings.name}: path={settings.path}: is a single module, without a folder")
    return next(iter(folders))


def requested(settings: ModelConfig) -> dict:
    """What a configuration says of a model's identity; where its files lie is not part of it."""
    return {
        "name": settings.name,
        "kind": settings.kind,
        "end_tokens": list(settings.end_tokens),
        "adapter": settings.adapter,
    } | ({"chat_options": dict(settings.chat_options)} if settings.chat_options else {})


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
