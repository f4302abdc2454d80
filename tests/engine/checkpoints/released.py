"""Small files as the authors release them, made of our own small networks: the same names, wrappers and prefixes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from engine.checkpoints.assemble import Choices
from engine.checkpoints.keys_aesthetic import aesthetic_to_release
from engine.checkpoints.keys_clip import text_to_release, vision_to_release
from engine.checkpoints.keys_dpt import dpt_to_release
from engine.checkpoints.keys_hi3d import orbit_video_to_release
from engine.checkpoints.keys_vae import vae_to_release
from engine.checkpoints.keys_videomv import videomv_to_release
from engine.checkpoints.prefixes import AUTOENCODER, HI3D_AESTHETIC, HI3D_CLIP, HI3D_DEPTH, HI3D_UNET, RECONSTRUCTOR
from engine.multiview.networks.encoders import TextEncoder, seeded
from engine.multiview.networks.tokenizer import read_tokenizer
from engine.multiview.random_weights import random_hi3d, random_videomv
from engine.multiview.settings import VIDEOMV_PICTURE, VIDEOMV_TEXT, Hi3DSettings

SMALL = Choices(head_dim=16, clip_head_dim=16, depth_groups=8)
"""What the shapes of these networks do not tell."""
State = dict[str, Tensor]


def small_vae() -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    with seeded(0):
        return AutoencoderKL(**blocks, block_out_channels=(32, 64), layers_per_block=1, latent_channels=4)


def load_text_encoder(tensors: State, tokenizer: Path) -> TextEncoder:
    """Return VideoMV's small text encoder."""
    read = read_tokenizer(tokenizer)
    encoder = TextEncoder.fresh(read, width=32)
    encoder.load_state_dict(tensors)
    return encoder


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def videomv_files(folder: Path, kind: str = "text") -> tuple[dict[str, State], dict[str, Path]]:
    """Write VideoMV's files; return every component's own tensors, and the files by name."""
    pipeline = random_videomv(VIDEOMV_TEXT if kind == "text" else VIDEOMV_PICTURE)
    unet, vae, parts = pipeline.unet, small_vae(), pipeline.components
    released = videomv_to_release(unet.state_dict()) | _under(RECONSTRUCTOR, parts["reconstructor"].state_dict())
    clip = _open_clip(parts["text_encoder"], parts.get("image_encoder"))
    files = {
        "unet": folder / ("t2v_00333000.pth" if kind == "text" else "i2v_00882000.pth"),
        "vae": folder / "VQGAN_autoencoder.pth",
        "clip": folder / "open_clip_pytorch_model.bin",
        "tokenizer": folder / "tokenizer",
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": released, "step": 333000}, files["unet"])
    torch.save({"state_dict": vae_to_release(vae.state_dict(), AUTOENCODER)}, files["vae"])
    torch.save(clip, files["clip"])
    parts["text_encoder"].tokenizer.save_pretrained(files["tokenizer"])
    own = {name: part.state_dict() for name, part in parts.items()} | {"vae": vae.state_dict()}
    return own, files


def _open_clip(text: Any, vision: Any) -> State:
    """Both towers and what belongs to neither; the text tower with one block more than ours keeps."""
    released = text_to_release(text.model.state_dict())
    layers = text.model.config.num_hidden_layers
    last = f"transformer.resblocks.{layers - 1}."
    more = {name.replace(last, f"transformer.resblocks.{layers}."): t for name, t in released.items() if last in name}
    pictures = vision_to_release(vision.model.state_dict()) if vision is not None else {}
    width = text.model.config.hidden_size
    return released | more | pictures | {"logit_scale": torch.ones(()), "text_projection": torch.eye(width)}


def hi3d_files(folder: Path) -> tuple[dict[str, State], dict[str, Path]]:
    """Write Hi3D's two stages as DeepSpeed saves them; return every component's own tensors, and the files by name."""
    pipeline, vae = random_hi3d(Hi3DSettings()), small_vae()
    parts = pipeline.components
    first_stage = vae_to_release(vae.state_dict(), AUTOENCODER)
    both = first_stage | vision_to_release(parts["image_encoder"].model.state_dict(), HI3D_CLIP)
    both |= _under("conditioner.embedders.3.encoder.", vae_to_release(vae.state_dict()))
    one = both | orbit_video_to_release(parts["unet"].state_dict(), HI3D_UNET)
    one |= aesthetic_to_release(parts["aesthetic"].state_dict(), HI3D_AESTHETIC)
    two = both | orbit_video_to_release(parts["refiner"].state_dict(), HI3D_UNET)
    two |= dpt_to_release(parts["depth"].model.state_dict(), HI3D_DEPTH)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"first": folder / "first_stage.pt", "second": folder / "second_stage.pt"}
    for file, tensors in zip(files.values(), (one, two), strict=True):
        torch.save({"module": _under("module.", tensors), "global_steps": 7, "ds_version": "0.9"}, file)
    return {name: part.state_dict() for name, part in parts.items()} | {"vae": vae.state_dict()}, files
