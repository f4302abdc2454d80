"""CLIP's tokenizer: OpenCLIP's ids and padding, training from captions, files."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.errors import CheckpointError
from engine.multiview.networks.tokenizer import END, START, clip_tokenizer, read_tokenizer, token_ids, train_tokenizer

CAPTIONS = ["a red chair with four legs", "a small wooden table", "a blue car, it's shiny", "the red car is small"]


@pytest.fixture(scope="module")
def trained() -> CLIPTokenizer:
    return train_tokenizer(CAPTIONS * 3, merges=40)


def test_ids_are_clips() -> None:
    """Bytes and byte endings have the ids of CLIP's own vocabulary: "a" is 320 there, "!" 256, "x" 343."""
    plain = clip_tokenizer([])
    assert len(plain) == 256 + 256 + 2
    ids = token_ids(plain, ["a x!", ""])
    assert ids.shape == (2, 77)
    start, end = 512, 513
    assert ids[0].tolist() == [start, 320, 343, 256, end] + [0] * 72
    assert ids[1].tolist() == [start, end] + [0] * 75


def test_long_texts_keep_their_end(trained: CLIPTokenizer) -> None:
    ids = token_ids(trained, ["car " * 200])[0]
    vocabulary = trained.get_vocab()
    assert (ids[0], ids[-1]) == (vocabulary[START], vocabulary[END])
    assert (ids[1:-1] == ids[1]).all()


def test_text_is_cleaned_as_clip_does(trained: CLIPTokenizer) -> None:
    plain, odd = token_ids(trained, ["red & blue car", "  RED &amp;amp;\n blue\tCar "])
    assert plain.tolist() == odd.tolist()


def test_training_learns_words_and_loses_nothing(trained: CLIPTokenizer) -> None:
    assert len(trained) == 512 + 40 + 2
    assert {"red</w>", "car</w>"} <= set(trained.get_vocab())
    text = "ünseen wörds, 日本 42"
    ids = token_ids(trained, [text])[0]
    tokens = ids[1 : ids.tolist().index(trained.get_vocab()[END])]
    assert trained.decode(tokens) == "ünseen wörds , 日本 4 2"


@pytest.mark.slow  # another process imports everything again
def test_training_is_the_same_in_another_process(trained: CLIPTokenizer) -> None:
    """The library's own training of word endings is not: its ties follow the order of a hash table."""
    code = (
        "import json, sys\nfrom engine.multiview.networks.tokenizer import train_tokenizer\n"
        f"json.dump(train_tokenizer({CAPTIONS * 3!r}, merges=40).get_vocab(), sys.stdout)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == trained.get_vocab()


def test_files(trained: CLIPTokenizer, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "own")
    texts = ["a red car!", "wooden"]
    merges = json.loads((tmp_path / "own" / "tokenizer.json").read_text())["model"]["merges"]
    lines = "\n".join(" ".join(merge) for merge in merges) + "\n"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "merges.txt").write_text("#version: 0.2\n" + lines)
    with gzip.open(tmp_path / "bpe_simple_vocab_16e6.txt.gz", "wt", encoding="utf-8") as file:
        file.write('"bpe_simple_vocab_16e6.txt#version: 0.2\n' + lines)
    for path in ("own", "hub", "bpe_simple_vocab_16e6.txt.gz"):
        read = read_tokenizer(tmp_path / path)
        assert read.get_vocab() == trained.get_vocab()
        assert token_ids(read, texts).tolist() == token_ids(trained, texts).tolist()
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "own")  # what others load of it
    assert theirs("a red car!")["input_ids"] == trained("a red car!")["input_ids"]


def test_exclamation_marks_are_read_though_the_saved_tokenizer_pads_with_them(
    trained: CLIPTokenizer, tmp_path: Path
) -> None:
    """Stable Diffusion 2's files name "!" as padding; transformers then reads every "!" of a text as that."""
    trained.save_pretrained(tmp_path)
    padding = CLIPTokenizer.from_pretrained(tmp_path, pad_token="!")
    assert padding("car!")["input_ids"][2] == 0
    padding.save_pretrained(tmp_path)
    assert token_ids(read_tokenizer(tmp_path), ["car!"])[0, 2] == 256


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither tokenizer\.json nor merges\.txt; copy CLIP's tokenizer"):
        read_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(CheckpointError, match="expected two tokens in each merge, found 'a b c'"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"merges": ["a b"], "vocab": {"a": 0, "b": 1}}}))
    with pytest.raises(CheckpointError, match="its tokens stand in another order"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"does not read as CLIP's tokenizer \(.*; download it again"):
        read_tokenizer(tmp_path)
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"#version\na b\n")[:-6])
    with pytest.raises(CheckpointError, match=r"cut\.txt\.gz: does not read as CLIP's tokenizer"):
        read_tokenizer(tmp_path / "cut.txt.gz")
