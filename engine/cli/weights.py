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
    """Convert released weights into a folder that `turntable generate --weights` takes. Hub ids are downloaded first.

    Takes the files of VideoMV, Hi3D, LGM, ModelScopeT2V, I2VGen-XL, SVD, Stable Diffusion's autoencoder, OpenCLIP and
    MiDaS: several at once, or one after the other into the same folder. Says what the folder still lacks and where to
    get it, and writes a README.md with licences and hashes. A call that was stopped is taken up again by the same call.
    For example: turntable convert hbyang/Hi3D:first_stage.pt --out weights/hi3d
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """One or more: files, folders, hub ids (owner/name, owner/name:file or folder) or https addresses."""
    out: Path
    """The folder of weights to make, or one of an earlier call to add to."""
    system: Unset[Literal["videomv", "hi3d", "reconstructor"]] = None
    """What the files are for, where they do not tell: several systems use OpenCLIP and the autoencoder."""
    precision: Literal["keep", "fp16", "bf16", "fp32"] = "keep"
    """How numbers are stored: as in the files (keep), in 16 bits (fp16, bf16: half the size), or in 32."""
    quaternions: Unset[Literal["per_gaussian", "over_gaussians"]] = None
    """For LGM's file if you renamed it: over_gaussians before its fix, per_gaussian after; else told by the name."""
    replace: bool = False
    """Write components anew that the folder has from other files or in another precision."""
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
    given = "" if report.system == "reconstructor" else f": give it to `turntable generate --weights {report.folder}`"
    again = f"not complete yet: get what it lacks and call `turntable convert ... --out {report.folder}` again"
    lines.append(f"complete{given}" if report.runs else again)
    return "\n".join(lines)
