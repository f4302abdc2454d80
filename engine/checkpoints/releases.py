"""What others have released: names, what each is for, licences, and where it is to be had.

Every address and every licence stands here because a page says so; the page is named beside it. VideoMV's and Hi3D's
weights carry no licence of their own: their code is MIT, but they are fine-tuned from weights with terms, which hold on.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Terms under which weights may be used."""

    expression: str
    """SPDX expression; LicenseRef-... where SPDX knows none."""
    page: str
    """Where it is stated."""
    note: str = ""
    """What a user should know besides."""


@dataclass(frozen=True)
class Release:
    """One published set of weights."""

    name: str
    """Short name, as in RELEASES."""
    title: str
    """For people."""
    purpose: str
    """What it is for."""
    system: str
    """videomv, hi3d or reconstructor; empty where several systems use it."""
    presets: tuple[str, ...]
    """Presets that can use it, the usual one first."""
    licence: Licence
    """Terms of the weights."""
    credit: str
    """Whom to name."""
    sources: tuple[str, ...] = ()
    """Where to get it: what `engine.checkpoints.hub.fetch` takes."""


MIT_LGM = Licence("MIT", "https://github.com/3DTopia/LGM/blob/main/LICENSE")
# The hub's card says cc-by-nc-4.0 for both of these repositories.
MODELSCOPE = Licence("CC-BY-NC-4.0", "https://huggingface.co/ali-vilab/text-to-video-ms-1.7b", "not for commercial use")
# The hub's card of ali-vilab/i2vgen-xl says mit, the one of ali-vilab/MS-Image2Video (from ModelScope) cc-by-nc-nd-4.0.
I2VGEN = Licence(
    "MIT",
    "https://huggingface.co/ali-vilab/i2vgen-xl",
    "the ModelScope card of I2VGen-XL (huggingface.co/ali-vilab/MS-Image2Video) says CC-BY-NC-ND-4.0: "
    "ask its authors before commercial use",
)
VIDEOMV_PAGE = "https://github.com/alibaba/VideoMV"
VIDEOMV_TEXT = Licence(
    "MIT AND CC-BY-NC-4.0",
    VIDEOMV_PAGE,
    "MIT is the repository's; the weights derive from ModelScopeT2V (CC-BY-NC-4.0): not for commercial use",
)
VIDEOMV_IMAGE = Licence(
    "MIT",
    VIDEOMV_PAGE,
    "MIT is the repository's and that of the card of ali-vilab/i2vgen-xl, from which the weights derive; another card of "
    "I2VGen-XL (huggingface.co/ali-vilab/MS-Image2Video) says CC-BY-NC-ND-4.0: ask its authors before commercial use",
)
# The hub's card: license stable-video-diffusion-community; the text is LICENSE.md of that repository.
SVD = Licence(
    "LicenseRef-stable-video-diffusion-community",
    "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt/blob/main/LICENSE.md",
    "Stability AI's community licence: read its limits on commercial use",
)
HI3D = Licence(
    "MIT AND LicenseRef-stable-video-diffusion-community",
    "https://github.com/yanghb22-fdu/Hi3D-Official",
    "MIT is the repository's; the weights derive from Stable Video Diffusion, whose licence is at " + SVD.page,
)
OPENRAIL = Licence(
    "LicenseRef-CreativeML-OpenRAIL-M",
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    "the copy of it that is called VQGAN_autoencoder.pth comes from a repository under CC-BY-NC-4.0 "
    "(huggingface.co/ali-vilab/modelscope-damo-text-to-video-synthesis)",
)

VIDEOMV_ZIP = "https://virutalbuy-public.oss-cn-hangzhou.aliyuncs.com/share/aigc3d/pretrained_models.zip"
"""alibaba/VideoMV, README.md, "Inference" (the bucket's name is spelled so). A zip: unpack it, give the folder."""
VIDEOMV_CREDIT = "VideoMV (Zuo et al. 2024, arXiv 2403.12010)"
HI3D_CREDIT = "Hi3D (Yang et al. 2024, arXiv 2409.07452); Stable Video Diffusion (Stability AI)"

_ALL = (
    Release(
        "videomv-text", "VideoMV, text to 24 views", "an orbit from a sentence", "videomv", ("videomv-text",),
        VIDEOMV_TEXT, VIDEOMV_CREDIT + "; ModelScopeT2V (Wang et al. 2023)", (VIDEOMV_ZIP,),
    ),
    Release(  # README of a later version: oss://virutalbuy-public/share/aigc3d/videomv_laion/non_ema_00365000.pth
        "videomv-text-laion", "VideoMV, text to 24 views, trained with LAION's pictures too", "an orbit from a sentence",
        "videomv", ("videomv-text",), VIDEOMV_TEXT, VIDEOMV_CREDIT + "; ModelScopeT2V (Wang et al. 2023)",
    ),
    Release(
        "videomv-image", "VideoMV, picture to 24 views", "an orbit from a picture", "videomv", ("videomv-image",),
        VIDEOMV_IMAGE, VIDEOMV_CREDIT + "; I2VGen-XL (Zhang et al. 2023)", (VIDEOMV_ZIP,),
    ),
    Release(  # files of either: huggingface.co/ali-vilab/.../tree/main
        "modelscope-t2v", "ModelScopeT2V, text to video (1.7B)", "what VideoMV's text model is fine-tuned from", "videomv",
        ("videomv-text",), MODELSCOPE, "ModelScopeT2V (Wang et al. 2023, arXiv 2308.06571)",
        ("ali-vilab/text-to-video-ms-1.7b", "ali-vilab/modelscope-damo-text-to-video-synthesis"),
    ),
    Release(  # huggingface.co/ali-vilab/i2vgen-xl/tree/main: folders of diffusers, and models/ with the files of VGen
        "i2vgen-xl", "I2VGen-XL, picture to video", "what VideoMV's picture model is fine-tuned from", "videomv",
        ("videomv-image",), I2VGEN, "I2VGen-XL (Zhang et al. 2023, arXiv 2311.04145)",
        ("ali-vilab/i2vgen-xl", "ali-vilab/i2vgen-xl:models/i2vgen_xl_00854500.pth"),
    ),
    Release(  # yanghb22-fdu/Hi3D-Official, README.md, "Inference": wget of both
        "hi3d-stage1", "Hi3D, first stage: picture to 16 views at 512", "an orbit from a picture", "hi3d", ("hi3d",), HI3D,
        HI3D_CREDIT, ("hbyang/Hi3D:first_stage.pt",),
    ),
    Release(
        "hi3d-stage2", "Hi3D, second stage: 16 views refined to 1024", "refines the first stage's orbit", "hi3d",
        ("hi3d",), HI3D, HI3D_CREDIT, ("hbyang/Hi3D:second_stage.pt",),
    ),
    Release(
        "svd", "Stable Video Diffusion, picture to 25 frames", "what Hi3D is fine-tuned from", "hi3d", ("hi3d",), SVD,
        "Stable Video Diffusion (Stability AI 2023)",
        (
            "stabilityai/stable-video-diffusion-img2vid-xt:svd_xt_image_decoder.safetensors",
            "stabilityai/stable-video-diffusion-img2vid-xt",
        ),
    ),
    Release(  # 3DTopia/LGM, readme.md, "Pretrained Weights"
        "lgm", "LGM big, before the fix of its rotations", "4 views to 65,536 Gaussians", "reconstructor",
        ("videomv-text", "videomv-image"), MIT_LGM, "LGM (Tang et al. 2024, arXiv 2402.05054)",
        ("ashawkey/LGM:model_fp16.safetensors",),
    ),
    Release(  # the same page in its later versions, and many repositories that use it
        "lgm-fixrot", "LGM big", "4 views to 65,536 Gaussians", "reconstructor",
        ("videomv-text", "videomv-image"), MIT_LGM, "LGM (Tang et al. 2024, arXiv 2402.05054)",
        ("ashawkey/LGM:model_fp16_fixrot.safetensors",),
    ),
    Release(  # the file list of either repository
        "sd-vae", "Stable Diffusion's autoencoder", "pictures to latents and back", "",
        ("videomv-text", "videomv-image", "hi3d"), OPENRAIL, "Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752)",
        (
            "ali-vilab/modelscope-damo-text-to-video-synthesis:VQGAN_autoencoder.pth",
            "ali-vilab/text-to-video-ms-1.7b:vae",
        ),
    ),
    Release(  # card of the hub: mit
        "open-clip-h", "OpenCLIP ViT-H-14, LAION-2B", "text and pictures to embeddings", "",
        ("videomv-text", "videomv-image", "hi3d"),
        Licence("MIT", "https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        "OpenCLIP (Ilharco et al. 2021), trained on LAION-2B",
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K:open_clip_pytorch_model.bin",),
    ),
    Release(
        "clip-l", "OpenAI's CLIP ViT-L/14", "pictures to embeddings, for the aesthetic score", "hi3d", ("hi3d",),
        Licence("MIT", "https://github.com/openai/CLIP/blob/main/LICENSE"), "CLIP (Radford et al. 2021)",
        ("openai/clip-vit-large-patch14",),
    ),
    Release(  # its README.md downloads it from there
        "aesthetic", "Aesthetic predictor on CLIP ViT-L/14", "the score that Hi3D's first stage is conditioned on", "hi3d",
        ("hi3d",), Licence("NOASSERTION", "https://github.com/christophschuhmann/improved-aesthetic-predictor", "see that page"),
        "improved-aesthetic-predictor (Schuhmann 2022)",
        (
            "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
            "sac%2Blogos%2Bava1-l14-linearMSE.pth",
        ),
    ),
    Release(  # isl-org/MiDaS, README.md and Dockerfile; the hub's card of Intel/dpt-hybrid-midas says apache-2.0
        "midas-dpt-hybrid", "MiDaS DPT hybrid 384", "depth of the first stage's views, for the second", "hi3d", ("hi3d",),
        Licence("MIT", "https://github.com/isl-org/MiDaS/blob/master/LICENSE", "Intel/dpt-hybrid-midas: Apache-2.0"),
        "MiDaS (Ranftl et al. 2021, arXiv 2103.13413)",
        ("https://github.com/isl-org/MiDaS/releases/download/v3/dpt_hybrid_384.pt", "Intel/dpt-hybrid-midas"),
    ),
)  # fmt: skip

RELEASES: Mapping[str, Release] = {release.name: release for release in _ALL}
"""Known releases by name."""
