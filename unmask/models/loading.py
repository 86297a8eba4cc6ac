"""Models and tokenizers from a config, with every check that needs no weights made before any is loaded."""

import hashlib
import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file, extract_commit_hash

import dream  # noqa: F401  (registers the published layouts with transformers)
import llada  # noqa: F401
from unmask.config import ROOT, ModelConfig, RandomModel

DIFFUSION = {"Dream", "llada"}


class Source:
    """A model that is not loaded yet: its place, its configuration, its tokenizer. ValueError where they
    cannot be read."""

    def __init__(self, settings: ModelConfig):
        self.settings = settings
        local = [p for p in (Path(settings.path), ROOT / settings.path) if p.is_dir()]
        self.place = str(local[0]) if local else settings.path
        self.revision = settings.revision
        if not local and settings.path.startswith(
            "checkpoints/"
        ):  # this project's own: the Hub has none of them
            name = Path(settings.path).name
            raise ValueError(
                f"model {settings.name}: {settings.path} does not exist; python train.py recipe={name} makes it"
            )
        try:
            # A branch moves: from here on, and in the record, it is the commit that it points to now.
            self.revision = extract_commit_hash(
                cached_file(self.place, "config.json", revision=self.revision), self.revision
            )
            self.config = AutoConfig.from_pretrained(self.place, revision=self.revision)
            self.tokenizer = self._tokenizer()
        except Exception as error:  # missing folder, no network, damaged file: each its own type
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"model {settings.name}: {settings.path} is no local folder and cannot be read from the Hub, or is damaged "
                f"({reason}). Give model.path=FOLDER, or connect and try again"
            ) from error
        kind = "diffusion" if self.config.model_type in DIFFUSION else "causal"
        if kind != settings.kind:
            raise ValueError(
                f"model {settings.name}: kind={settings.kind}, but {settings.path} is a {kind} model"
            )

    def _tokenizer(self):
        """Dream's published folder names a tokenizer class that lives in remote code; its files are
        Qwen2's."""
        named = get_tokenizer_config(self.place, revision=self.revision).get("tokenizer_class")
        loader = Qwen2Tokenizer if named == "DreamTokenizer" else AutoTokenizer
        return loader.from_pretrained(self.place, revision=self.revision)

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
        """Commit of a Hub model, or a hash of a local folder's weights and config: other weights are another
        run."""
        if not Path(self.place).is_dir():
            return self.revision
        digest = hashlib.sha256()
        for file in sorted(
            f for kind in ("*.safetensors", "*.bin", "config.json") for f in Path(self.place).glob(kind)
        ):
            digest.update(f"{file.name} {file.stat().st_size}".encode())
            with open(file, "rb") as stream:  # ends of a large file stand for it
                digest.update(stream.read(2**24))
                stream.seek(max(0, file.stat().st_size - 2**24))
                digest.update(stream.read())
        return digest.hexdigest()[:12]

    @property
    def parameters(self) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in AutoModelForCausalLM.from_config(self.config).parameters())

    def load(self, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(self.place, revision=self.revision, dtype=dtype)
        return model.to(device).eval()


# Of the published Dream 7B, LLaDA 8B and Qwen2.5 0.5B: query heads per key head, inner width over width,
# vocabulary.
PROPORTIONS = {
    "Dream": (7, 18944 / 3584, 152_064),
    "llada": (1, 3, 126_464),
    "qwen2": (7, 4864 / 896, 151_936),
}


def random_model(settings: RandomModel) -> torch.nn.Module:
    """A model of random weights (always the same ones), with heads of 64; ValueError where the settings make
    none."""
    if settings.layout not in PROPORTIONS:
        raise ValueError(f"layout={settings.layout} must be one of {', '.join(PROPORTIONS)}")
    if settings.width < 64 or settings.width % 64 or settings.depth < 1:
        raise ValueError(
            f"width={settings.width} must be a multiple of 64 and depth={settings.depth} at least 1"
        )
    group, inner, vocabulary = PROPORTIONS[settings.layout]
    heads = settings.width // 64
    config = AutoConfig.for_model(
        settings.layout,
        vocab_size=settings.vocabulary or vocabulary,
        hidden_size=settings.width,
        num_hidden_layers=settings.depth,
        num_attention_heads=heads,
        num_key_value_heads=max(
            k for k in range(1, heads + 1) if heads % k == 0 and k <= max(1, heads // group)
        ),
        intermediate_size=round(inner * settings.width),
        max_position_embeddings=32_768,
        **{"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} if settings.vocabulary else {},
    )
    if settings.vocabulary and settings.layout in DIFFUSION:
        config.mask_token_id = settings.vocabulary - 1
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def check_vocabularies(denoiser: Source, auxiliary: Source) -> None:
    """ValueError unless both tokenizers give the same tokens the same ids. Special tokens that only one has
    are fine."""
    ours, theirs = ({i: t for t, i in s.tokenizer.get_vocab().items()} for s in (denoiser, auxiliary))
    different = [i for i in ours.keys() & theirs.keys() if ours[i] != theirs[i]]
    special = set(denoiser.tokenizer.get_added_vocab().values()) | set(
        auxiliary.tokenizer.get_added_vocab().values()
    )
    different += sorted((ours.keys() ^ theirs.keys()) - special)
    if different:
        i = min(different)
        raise ValueError(
            f"the tokenizers of {denoiser.settings.name} and {auxiliary.settings.name} disagree on {len(different):,} of "
            f"{len(ours.keys() | theirs.keys()):,} ids (id {i}: {ours.get(i)!r} and {theirs.get(i)!r}): choose an auxiliary "
            "of the same vocabulary (auxiliary=tiny_qwen for the tiny family, auxiliary=qwen_0.5b for model=dream)"
        )


def rows_that_fit(
    main: Source,
    auxiliary: Source | None,
    width: int,
    budget: int,
    device: torch.device,
    dtype: torch.dtype,
    memory: int | None = None,
) -> int:
    """The largest power of two, up to 32, of rows of `width` tokens that fit in four fifths of the device's
    memory (bytes).

    Reckoned from shapes alone, so that the same machine gets the same answer: keys and values of all layers,
    the widest activations, and logits with their noise at `budget` positions, which is more than lazy
    decoders hold.
    """
    if memory is None:
        cuda = device.type == "cuda"
        memory = (
            torch.cuda.get_device_properties(device).total_memory
            if cuda
            else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        )
    free, row = (
        0.8 * memory,
        16 * budget * main.config.vocab_size,
    )  # logits, scores, noise, probabilities in float32
    for source in (main, auxiliary):
        if source is not None:
            c = source.config
            free -= source.parameters * dtype.itemsize
            kept = 2 * c.num_hidden_layers * c.hidden_size * c.num_key_value_heads / c.num_attention_heads
            row += width * (kept + 3 * c.intermediate_size + 8 * c.hidden_size) * dtype.itemsize
    if free < row:
        raise ValueError(
            f"batch_size=auto: {main.settings.name} and one row of {width} tokens do not fit in {memory / 1e9:.0f} GB; "
            "batch_size=1 tries it all the same"
        )
    return 2 ** min(5, int(free / row).bit_length() - 1)


def choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device}: must be auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device}: this machine has no CUDA device; use device=cpu")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """auto is bfloat16 on CUDA and float32 on a CPU, where bfloat16 products can be hundreds of times
    slower."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype}: must be auto, float32, bfloat16 or float16")
    return getattr(torch, dtype)
