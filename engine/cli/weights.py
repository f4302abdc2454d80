"""`turntable convert`: released checkpoints become a folder of Turntable's weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.running import needing, progress_bars, set_threads, silence_libraries
from engine.command_line import Answer, Talk, Unset

if TYPE_CHECKING:
    from engine.checkpoints.convert import ConvertReport


@dataclass(frozen=True)
class Convert:
    """Convert released weights into a folder that --weights takes: safetensors, configs, a card with licence and hashes.

    Takes the released files of VideoMV, Hi3D, LGM, ModelScopeT2V, I2VGen-XL, SVD, their autoencoder, OpenCLIP, MiDaS;
    several at once, or one after the other into the same folder. Says what the folder still lacks and where to get it.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, folders, hub ids (owner/name or owner/name:file) or https addresses."""
    out: Path
    """The folder: new, or one of an earlier call."""
    system: Unset[Literal["videomv", "hi3d", "reconstructor"]] = None
    """Which system parts are for that several use, such as OpenCLIP; else told by the weights."""
    precision: Literal["keep", "fp16", "bf16", "fp32"] = "keep"
    """Of the stored numbers; keep: as in the files."""
    quaternions: Unset[Literal["per_gaussian", "over_gaussians"]] = None
    """How a reconstructor normalises its quaternions: LGM's before and after its fix; else told by the file's name."""
    replace: bool = False
    """Write components anew that the folder has already."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Convert, and print what is there and what is missing."""
        set_threads(1)
        with needing("convert", "models"):
            from engine.checkpoints.assemble import Choices
            from engine.checkpoints.convert import convert
            from engine.checkpoints.hub import fetch
        silence_libraries()
        with progress_bars(self.talk.quiet) as progress:
            report = convert(
                [fetch(source) for source in self.sources],
                self.out,
                system=self.system,
                precision=self.precision,
                replace=self.replace,
                choices=Choices(quaternion_norm=self.quaternions),
                on_progress=lambda words, done, count: progress("convert", done, count, words),
            )
        return Answer(_told(report))


def _told(report: "ConvertReport") -> str:
    lines = [f"{report.folder}: weights of {report.system}"]
    lines += [f"  read      {words}" for words in report.recognised]
    lines += [
        f"  {'written' if name in report.written else 'there':<9} {name} ({kind})"
        for name, kind in report.components.items()
    ]
    lines += [f"  left out  {words}" for words in report.left_out]
    lines += [f"  {'lacks' if one.required else 'can take':<9} {one.component}: {one.get}" for one in report.missing]
    lines.append("complete" if report.runs else "not complete yet: convert what it lacks into the same folder")
    return "\n".join(lines)
