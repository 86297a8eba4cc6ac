"""The text of each token of an answer, from the tokenizer in the model's own folder."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf
from tokenizers import Tokenizer

from unmask.paths import CONFIGURATIONS, lookups

CONTEXT = 4  # tokens before a token that its text may depend on
PARTIAL = "\ufffd"  # how a part of a character decodes

Decode = Callable[[Sequence[int]], str]


@cache
def tokenizer_in(folder: Path) -> Tokenizer | None:
    file = folder / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.exists() else None


def decode_of(config: Mapping, sample: Mapping) -> Decode | None:
    """ids -> text for the answers of a run, special tokens included.

    None where no model's folder has a tokenizer that gives the text that was recorded with the sample's ids.
    """
    for model in config["models"].values():
        settings = CONFIGURATIONS / "model" / f"{model['name']}.yaml"
        path = OmegaConf.load(settings).get("path") if settings.exists() else None
        folders = [folder for folder in lookups(path) if folder.is_dir()] if path else []
        tokenizer = tokenizer_in(folders[0]) if folders else None
        if tokenizer and tokenizer.decode(sample["ids"][: sample["useful"]]) == sample["text"]:
            return cache(lambda ids, decode=tokenizer.decode: decode(list(ids), skip_special_tokens=False))
    return None


def pieces(ids: Sequence[int], decode: Decode | None) -> list[str]:
    """What each token adds to the text; its number in angle brackets without `decode`.

    A character that several tokens make appears with the last of them.
    """
    if decode is None:
        return [f"⟨{token}⟩" for token in ids]
    found, begin = [], 0
    for k in range(len(ids)):
        known = tuple(ids[max(0, begin - CONTEXT) : begin])
        text = decode((*known, *ids[begin : k + 1])).removeprefix(decode(known))
        if text.endswith(PARTIAL) and k + 1 < len(ids):
            found.append("")
        else:
            found.append(text)
            begin = k + 1
    return found
