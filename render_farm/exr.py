"""OpenEXR files: path in, the pixels of every channel out. One place knows what the library does with broken ones."""

from pathlib import Path

import numpy as np
import OpenEXR
from jaxtyping import Shaped


class ExrError(ValueError):
    """The file is no EXR, or cut off."""


def read_exr(path: Path) -> dict[str, Shaped[np.ndarray, "h w"]]:
    """Return the channels of all parts by their full names, in the file's own types.

    Raises:
        ExrError: what is wrong, without the file's name.
    """
    try:
        parts = OpenEXR.File(str(path), separate_channels=True).parts
        named = {name: channel.pixels for part in parts for name, channel in part.channels.items()}
    except (OSError, RuntimeError, ValueError) as error:
        raise ExrError(str(error)) from error
    if not named:  # OpenEXR drops a part whose pixels are cut off, and only prints that it does
        raise ExrError("it is cut off")
    return named
