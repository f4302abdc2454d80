"""What the denoisers are told of a text and of a picture: CLIP's tokens and embedding.

    texts    -> token ids -> CLIPTextModel, one layer short of the whole -> [b 77 d]
    pictures -> resized and normalised as the system did -> CLIPVisionModelWithProjection -> [b 1 d]

Both run through forward, so that hooks on the module (offloading) see every call. Gradients pass where they are on.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.initialization import no_init_weights
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModelWithProjection
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.errors import CheckpointError
from engine.files import write_bytes
from engine.multiview.networks.clip_pictures import hi3d_pixels, videomv_pixels
from engine.multiview.networks.tokenizer import CONTEXT, PADDING, read_tokenizer, token_ids

Preprocessing = Literal["videomv", "hi3d"]
"""Whose way of making pictures small: see clip_pictures."""
PREPROCESSING_FILE = "preprocessor.json"


class TextEncoder(nn.Module):
    """CLIP's text tokens. The releases take those behind the penultimate block of OpenCLIP's ViT-H-14, normalised."""

    def __init__(self, model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        """Join a model that ends where the tokens are taken, and its tokenizer. CheckpointError if they do not fit."""
        super().__init__()
        if len(tokenizer) != model.config.vocab_size or model.config.max_position_embeddings < CONTEXT:
            raise CheckpointError(
                f"text encoder: knows {model.config.vocab_size} tokens and {model.config.max_position_embeddings} "
                f"positions, its tokenizer has {len(tokenizer)} and {CONTEXT}; take the tokenizer that belongs to it"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """Length of a token's vector."""
        return int(self.model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "b 77 d"]:
        """Return a vector for each of 77 tokens, padding included, on the model's device."""
        return self(self.tokens(texts))

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "b 77"]:
        """Return what the model reads of the texts."""
        return token_ids(self.tokenizer, texts)

    def forward(self, tokens: Int[Tensor, "b 77"]) -> Float[Tensor, "b 77 d"]:
        """Encode token ids."""
        return self.model(input_ids=tokens.to(self.model.device)).last_hidden_state

    @classmethod
    def fresh(
        cls, tokenizer: CLIPTokenizer, *, width: int = 32, layers: int = 2, head_width: int = 16, seed: int = 0
    ) -> "TextEncoder":
        """Return one with random weights for a tokenizer; the defaults suit tests."""
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=width // head_width,
            max_position_embeddings=CONTEXT,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=PADDING,
        )
        with seeded(seed):
            return cls(CLIPTextModel(config), tokenizer)

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: CLIPTokenizer
    ) -> "TextEncoder":
        """Build it from what a key map gives. Raises CheckpointError if the tensors do not fit."""
        return cls(filled("text encoder", lambda: CLIPTextModel(CLIPTextConfig(**config)), tensors), tokenizer)

    @classmethod
    def from_pretrained(cls, folder: Path | str, torch_dtype: torch.dtype = torch.float32) -> "TextEncoder":
        """Read what save_pretrained wrote. Raises CheckpointError if it is not whole."""
        return cls(loaded(CLIPTextModel.from_pretrained, Path(folder), dtype=torch_dtype), read_tokenizer(Path(folder)))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights, config and tokenizer, as transformers does."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class ImageEncoder(nn.Module):
    """CLIP's projected embedding of a picture, OpenCLIP's ViT-H-14 in the releases."""

    def __init__(self, model: CLIPVisionModelWithProjection, preprocessing: Preprocessing, chunk: int = 8) -> None:
        """Join a model and the preprocessing that the denoiser was trained with; chunk pictures run at once."""
        super().__init__()
        self.model = model.eval()
        self.preprocessing = preprocessing
        self.chunk = chunk

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self.model.config.projection_dim)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 d"]:
        """Return one token for each picture in [-1, 1], on the model's device; videomv wants square ones."""
        return self(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 d"]:
        """Encode pictures."""
        parts = images.to(self.model.device).split(self.chunk)
        return torch.cat([self.model(pixel_values=self.prepared(part)).image_embeds for part in parts]).unsqueeze(1)

    def prepared(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Return what the model sees of pictures in [-1, 1]: resized, normalised, of the model's type."""
        height, width = images.shape[2:]
        if self.preprocessing == "videomv" and height != width:
            raise ValueError(f"VideoMV's CLIP takes square pictures, got {width}x{height}; crop or pad them first")
        rule: Callable[[Tensor, int], Tensor] = videomv_pixels if self.preprocessing == "videomv" else hi3d_pixels
        return rule(images.float(), int(self.model.config.image_size)).to(self.model.dtype)

    @classmethod
    def fresh(
        cls,
        preprocessing: Preprocessing,
        *,
        embedding: int = 32,
        width: int = 32,
        layers: int = 2,
        head_width: int = 16,
        size_px: int = 56,
        patch_px: int = 14,
        seed: int = 0,
    ) -> "ImageEncoder":
        """Return one with random weights that gives embeddings of this length; the defaults suit tests."""
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=embedding,
            num_hidden_layers=layers,
            num_attention_heads=width // head_width,
            image_size=size_px,
            patch_size=patch_px,
            hidden_act="gelu",
        )
        with seeded(seed):
            return cls(CLIPVisionModelWithProjection(config), preprocessing)

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], preprocessing: Preprocessing
    ) -> "ImageEncoder":
        """Build it from what a key map gives. Raises CheckpointError if the tensors do not fit."""
        model = filled("image encoder", lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), tensors)
        return cls(model, preprocessing)

    @classmethod
    def from_pretrained(cls, folder: Path | str, torch_dtype: torch.dtype = torch.float32) -> "ImageEncoder":
        """Read what save_pretrained wrote. Raises CheckpointError if it is not whole."""
        path = Path(folder) / PREPROCESSING_FILE
        try:
            preprocessing = json.loads(path.read_text())["preprocessing"]
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{path}: expected the name of a preprocessing there; save the encoder again with save_pretrained"
            ) from None
        if preprocessing not in get_args(Preprocessing):
            raise CheckpointError(
                f"{path}: preprocessing must be one of {', '.join(get_args(Preprocessing))}, got {preprocessing!r}"
            )
        return cls(
            loaded(CLIPVisionModelWithProjection.from_pretrained, Path(folder), dtype=torch_dtype), preprocessing
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights and config as transformers does, and which preprocessing belongs to them."""
        self.model.save_pretrained(folder)
        content = json.dumps({"preprocessing": self.preprocessing}) + "\n"
        write_bytes(Path(folder) / PREPROCESSING_FILE, content.encode())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make random weights depend on a seed alone, and leave torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def filled(what: str, build: Callable[[], Any], tensors: Mapping[str, Tensor]) -> Any:
    """Build a model without random weights and give it its tensors, all of them, as they are, uncopied.

    Raises CheckpointError naming the first that does not fit.
    """
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) > 1:  # OpenAI's files mix half and single precision
        tensors = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    with no_init_weights():
        model = build()
    try:
        model.load_state_dict(dict(tensors), assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(
            f"{what}: {' '.join(lines[1:2] or lines)[:300]}; is it a checkpoint of another network?"
        ) from error
    return model


def loaded(read: Callable[..., Any], folder: Path, **dtype: torch.dtype) -> Any:
    """Read a model from a folder alone by its from_pretrained; CheckpointError if tensors are missing or left over.

    transformers itself fills what is missing with random numbers, diffusers leaves it without any; both only warn.
    """
    try:
        model, found = read(folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **dtype)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: does not load ({str(error).splitlines()[0][:300]}); save it again") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            names = ", ".join(sorted(str(key) for key in found[problem])[:4])
            raise CheckpointError(
                f"{folder}: the weights have {problem.replace('_', ' ')} ({len(found[problem])}), such as {names}; "
                "convert or download them again"
            )
    return model
