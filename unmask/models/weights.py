"""The weights of a folder, all of them and nothing else: transformers draws what is missing at random."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

from unmask.paths import hub_reason

DERIVED = ("rotary_emb.inv_freq", "attn.masked_bias")  # tables that old files store and models compute
SHOWN = 3  # tensors that a message names
# what transformers reports of a loading, in words
WRONG = {
    "missing_keys": "lacks",
    "unexpected_keys": "has, and its config.json has no place for,",
    "mismatched_keys": "has in another shape than its config.json says",
}


def load_weights(loader: type, folder: str, **options) -> torch.nn.Module:
    """`loader.from_pretrained(folder, **options)`, from safetensors (or GGUF) and without remote code.

    Tied heads, buffers that are not saved and stored rotary tables are no error. ValueError that names a few
    tensors where the file and config.json do not agree, or where the file cannot be read.
    """
    try:
        with _quietly():
            model, info = loader.from_pretrained(
                folder,
                **options,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
            )
    except Exception as error:  # no such file, a damaged one: each its own type
        raise ValueError(f"{folder}: its weights cannot be loaded ({hub_reason(error, folder)})") from error
    # A tied model may store its head, and a stored rotary table is computed anew.
    known = DERIVED + (("lm_head.weight",) if model.config.tie_word_embeddings else ())
    unexpected = {name for name in info["unexpected_keys"] if not name.endswith(known)}
    info = info | {"unexpected_keys": unexpected}
    _check_complete(folder, {words: info[key] for key, words in WRONG.items()})
    return model


def check_weights(loader: type, folder: str, **options) -> None:
    """ValueError as load_weights'. Reads names and shapes alone and takes no memory."""
    load_weights(loader, folder, **options, device_map="meta")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the table of missing tensors that transformers logs, since the error says it, and without its
    progress bar, which is no download's."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_complete(folder: object, wrong: dict[str, object]) -> None:
    """ValueError that names the folder and a few tensors. wrong: {what is wrong, in words: names}."""
    found = {
        words: sorted(name if isinstance(name, str) else name[0] for name in names)
        for words, names in wrong.items()
    }
    said = [
        f"{words} {len(names)} tensor{'s' * (len(names) > 1)} "
        f"({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
        for words, names in found.items()
        if names
    ]
    if said:
        raise ValueError(
            f"{folder}: the file of weights {'; it '.join(said)}. It is damaged, or belongs to another "
            "config.json: fetch or save the folder again"
        )
