"""CLIP's byte-level BPE: text in, rows of 77 token ids out; read from files, or trained from captions.

A vocabulary is 256 bytes, 256 bytes that end a word, one token for each merge, the start and the end token, in that
order, so "!" is 0, which OpenCLIP pads with, and the end token has the largest id.
"""

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.errors import CheckpointError

CONTEXT = 77
"""Tokens of a text, start and end token included."""
PADDING = 0
"""OpenCLIP's padding behind the end token; its encoders read it like any token, so another one changes the result."""
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
BYTES = (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1))
"""Bytes that stand for themselves in the vocabulary, in its order; the other 68 stand behind them as U+0100 and on."""
FIRST_PRIVATE = 0xE000
"""Characters of Unicode's private area stand for bytes that end a word while merges are learnt."""
OPENCLIP_MERGES = 49152 - 256 - 2
"""What CLIP uses of that file, which holds more."""

Merge = tuple[str, str]


def token_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Int[Tensor, "b 77"]:
    """Return ids: start, the text's tokens, end, zeros. Longer texts are cut and keep their end token."""
    ids = torch.full((len(texts), CONTEXT), PADDING, dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        tokens = tokenizer(cleaned(text), truncation=True, max_length=CONTEXT)["input_ids"]
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


def cleaned(text: str) -> str:
    """Undo HTML's escapes, twice as CLIP does, and join white space; the tokenizer itself makes it lower case.

    CLIP also repairs wrongly decoded text (ftfy), which captions and prompts here have no need for.
    """
    return " ".join(html.unescape(html.unescape(text)).split())


def clip_tokenizer(merges: Sequence[Merge]) -> CLIPTokenizer:
    """Build the tokenizer that these merges define.

    Its own padding token stays the end token: transformers would read every "!" of a text as padding, were it that.
    """
    letters = byte_letters()
    tokens = [*letters, *(letter + WORD_END for letter in letters), *("".join(merge) for merge in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=CONTEXT)


def train_tokenizer(captions: Iterable[str], merges: int = 512) -> CLIPTokenizer:
    """Learn a small vocabulary from captions; the same captions give the same one.

    Args:
        captions: what the texts will be like, at least one word in all.
        merges: largest number of tokens besides bytes, start and end; fewer where the captions are exhausted before.
    """
    plain = clip_tokenizer([]).backend_tokenizer
    letters = byte_letters()
    private = [chr(FIRST_PRIVATE + index) for index in range(len(letters))]
    ending = dict(zip(letters, private, strict=True))

    def lines() -> Iterable[str]:
        for caption in captions:
            words = plain.pre_tokenizer.pre_tokenize_str(plain.normalizer.normalize_str(cleaned(caption)))
            yield " ".join(word[:-1] + ending[word[-1]] for word, _ in words)

    # The trainer's own end-of-word suffix would make the result depend on the order of a hash table, so that a word's
    # last byte is a letter of its own here.
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = WhitespaceSplit()
    alphabet = [*letters, *private]
    trainer = BpeTrainer(vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(lines(), trainer)
    spelt = str.maketrans({stand_in: letter + WORD_END for letter, stand_in in ending.items()})
    learnt = json.loads(learner.to_str())["model"]["merges"]
    return clip_tokenizer([(left.translate(spelt), right.translate(spelt)) for left, right in learnt])


def read_tokenizer(path: Path) -> CLIPTokenizer:
    """Read a tokenizer.

    Args:
        path: a folder that save_pretrained wrote, here or at Hugging Face (tokenizer.json, or merges.txt), or OpenCLIP's
            `bpe_simple_vocab_16e6.txt.gz`.

    Raises:
        CheckpointError: nothing of the kind is there, or it does not have CLIP's order of tokens.
    """
    try:
        return _read(path)
    except (OSError, EOFError, ValueError) as error:  # not gzip, cut off, not UTF-8, not JSON
        raise CheckpointError(f"{path}: does not read as CLIP's tokenizer ({error}); download it again") from error


def _read(path: Path) -> CLIPTokenizer:
    if path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : 1 + OPENCLIP_MERGES]
        return clip_tokenizer([_pair(path, line) for line in lines if line])
    whole, pairs = path / "tokenizer.json", path / "merges.txt"
    if whole.is_file():
        model = json.loads(whole.read_text(encoding="utf-8")).get("model", {})
        found = model.get("merges", [])
        built = clip_tokenizer([_pair(whole, merge) if isinstance(merge, str) else tuple(merge) for merge in found])
        if built.get_vocab() != model.get("vocab"):
            raise CheckpointError(f"{whole}: is no tokenizer of CLIP's kind: its tokens stand in another order")
        return built
    if pairs.is_file():
        lines = pairs.read_text(encoding="utf-8").split("\n")
        return clip_tokenizer([_pair(pairs, line) for line in lines if line and not line.startswith("#version")])
    raise CheckpointError(f"{path}: holds neither tokenizer.json nor merges.txt; copy CLIP's tokenizer there")


def byte_letters() -> list[str]:
    """Return the letter of each byte in the order of CLIP's vocabulary."""
    others = len(set(range(256)) - set(BYTES))
    return [chr(byte) for byte in BYTES] + [chr(256 + index) for index in range(others)]


def _pair(path: Path, line: str) -> Merge:
    parts = line.split(" ")
    if len(parts) != 2:
        raise CheckpointError(f"{path}: expected two tokens in each merge, found {line[:40]!r}")
    return parts[0], parts[1]
