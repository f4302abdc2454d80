"""A result's report as a small table for a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN = ("orbit.json", "splats.ply", "mesh.glb", "turntable.mp4", "preview.png", "report.json")


def summary(folder: Path, report: Mapping[str, Any]) -> str:
    """Return paths, quality and cost of a result, one line each; what was not made or measured is left out."""
    lines = [f"{report.get('uid', folder.name)}: {folder}"]
    lines += [f"  {name:<14} {_size(folder / name)}" for name in SHOWN if (folder / name).is_file()]
    lines += ["", *_quality(report.get("quality", {})), "", *_stages(report["stages"])]
    return "\n".join(lines)


def _quality(quality: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, name in (("held_out", "held-out views"), ("given", "given views")):
        if key in quality:
            q = quality[key]
            lines.append(
                f"{name:<16} splats {q['splats_psnr_db']:.2f} dB (worst {q['splats_psnr_db_worst']:.2f}), "
                f"SSIM {q['splats_ssim']:.3f}; mesh {q['mesh_psnr_db']:.2f} dB, outline IoU {q['mesh_silhouette_iou']:.3f}; "
                f"{len(q['views'])} views"
            )
    mesh = quality.get("mesh", {})
    if "chamfer" in mesh:
        iou = "open" if mesh["iou"] is None else f"{mesh['iou']:.3f}"
        lines.append(
            f"{'mesh error':<16} Chamfer {mesh['chamfer']:.4f}, F-score {mesh['fscore']:.3f}, volume IoU {iou}"
        )
    if mesh:
        lines.append(f"{'size':<16} {quality['splats']['count']} splats, {mesh['faces']} triangles")
    return lines


def _stages(stages: Mapping[str, Any]) -> list[str]:
    lines = [f"{'stage':<16} {'seconds':>8} {'peak MiB':>9}"]
    lines += [f"{name:<16} {s['seconds']:>8.1f} {s['peak_memory_mib']:>9}" for name, s in stages.items()]
    return [*lines, f"{'all':<16} {sum(s['seconds'] for s in stages.values()):>8.1f}"]


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
