"""Cycles as this project wants it: nothing left at a default that a new Blender could change."""

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from render_farm.job import Job, OrbitJob, ViewJob
from render_farm.worker.events import WorkerError
from render_farm.worker.materials import AOVS, WEIGHT_AOV

SENSOR_MM = 32.0
GPU_BACKENDS = ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL")
ALPHA_THRESHOLD = 0.1
"""Surfaces less opaque than this have no depth, normal or albedo: cut-out leaves (alpha 0) must not show their cards,
while a car's windows (alpha 0.2 and more) are surfaces. Blender's 0.5 would lose those; 0 would keep the cards."""
ADAPTIVE_FROM, ADAPTIVE_LEAST, ADAPTIVE_THRESHOLD = 64, 16, 0.01
"""Adaptive sampling of denoised pictures: from so many samples on, which are then the most a pixel gets; the least; the
noise to stop at. Spares what shows nothing or is even; measured by tests/benchmarks/bm_farm.py."""
CLEAN_GUIDES_FROM = 32
"""Samples from which base colour and normals are so clean that OIDN may trust them as they are, and its large network is
worth its fixed price: 0.5 dB at 32 to 128 samples for a tenth of a second a view at 256 px. With fewer, noisy normals cost
PSNR. Measured by tests/benchmarks/bm_farm.py."""
CLAMP_INDIRECT = 10.0
"""Ten times the white of the sky: no honest indirect light in a uniform world is brighter; fireflies are."""


def choose_device(device: str) -> str:
    """Set up the compute device and return its name; asking for a GPU that is not there is an error, not a CPU render.

    Raises:
        WorkerError: no GPU that this Blender can use.
    """
    if device == "cpu":
        return "CPU"
    preferences = bpy.context.preferences.addons["cycles"].preferences
    for backend in GPU_BACKENDS:
        try:
            preferences.compute_device_type = backend
        except TypeError:  # not built for this platform
            continue
        preferences.refresh_devices()
        found = [entry for entry in preferences.devices if entry.type == backend]
        if found:
            for entry in preferences.devices:
                entry.use = entry.type == backend
            return f"{backend} {found[0].name}"
    raise WorkerError("no-gpu", f"device gpu was asked for, but Blender {bpy.app.version_string} finds none (tried "
                      f"{', '.join(GPU_BACKENDS)}); check the driver or use --device cpu")  # fmt: skip


def set_up(scene: bpy.types.Scene, job: Job, *, refracts: bool) -> None:
    """Apply every setting of a job to a fresh scene: all but camera and light, which each orbit has of its own.

    Args:
        scene: it holds the object.
        job: what is asked for.
        refracts: the object has glass.
    """
    _set_sampling(scene, job)
    _set_denoising(scene.cycles, job, refracts)
    _set_light_paths(scene)
    _set_film(scene, job)
    _set_output(scene)
    _set_passes(scene.view_layers[0], job)


def _set_sampling(scene: bpy.types.Scene, job: Job) -> None:
    cycles, render = scene.cycles, scene.render
    render.engine = "CYCLES"
    cycles.device = "CPU" if job.device == "cpu" else "GPU"
    cycles.samples = job.samples
    cycles.seed = job.seed
    cycles.use_animated_seed = False
    cycles.sampling_pattern = "TABULATED_SOBOL"  # AUTOMATIC changes with denoising
    denoise = job.denoise == "fast"
    # unevenly spent samples are uneven noise, which only the denoiser hides; without it everyone gets the same
    cycles.use_adaptive_sampling = denoise and job.samples >= ADAPTIVE_FROM
    cycles.adaptive_threshold, cycles.adaptive_min_samples = ADAPTIVE_THRESHOLD, ADAPTIVE_LEAST
    cycles.time_limit = 0.0
    cycles.use_auto_tile = False
    cycles.shading_system = False  # OSL would run code from the file
    render.use_persistent_data = True
    render.threads_mode = "FIXED"
    render.threads = job.threads


def _set_denoising(cycles: Any, job: Job, refracts: bool) -> None:
    cycles.use_denoising = job.denoise == "fast"
    if not cycles.use_denoising:
        return
    clean = job.samples >= CLEAN_GUIDES_FROM
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL" if clean else "RGB_ALBEDO"
    cycles.denoising_quality = "HIGH" if clean else "FAST"
    cycles.denoising_prefilter = "FAST"
    if clean:  # what shows through glass has noisy guides however many samples: they are denoised first
        cycles.denoising_prefilter = "ACCURATE" if refracts else "NONE"


def _set_light_paths(scene: bpy.types.Scene) -> None:
    cycles = scene.cycles
    cycles.max_bounces = 12
    cycles.diffuse_bounces = 4
    cycles.glossy_bounces = 4
    cycles.transmission_bounces = 12
    cycles.transparent_max_bounces = 64  # foliage and hair are stacks of cut-outs; too few turn black
    cycles.sample_clamp_direct = 0.0
    cycles.sample_clamp_indirect = CLAMP_INDIRECT
    cycles.blur_glossy = 1.0
    cycles.caustics_reflective = True
    cycles.caustics_refractive = True  # a glass in a white world is otherwise dark


def _set_film(scene: bpy.types.Scene, job: Job) -> None:
    render, cycles = scene.render, scene.cycles
    render.resolution_x, render.resolution_y, render.resolution_percentage = job.width, job.height, 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    render.film_transparent = True
    cycles.film_exposure = 1.0
    # symmetric about the pixel's centre, so edges lie where the cameras say; 1.5 px is soft enough not to alias
    cycles.pixel_filter_type = "BLACKMAN_HARRIS"
    cycles.filter_width = 1.5
    render.use_motion_blur = False
    render.use_compositing = render.use_sequencer = False
    render.use_simplify = False
    scene.display_settings.display_device = "sRGB"
    view = scene.view_settings  # an EXR ignores them; stated, because everything downstream relies on Standard
    view.view_transform, view.look, view.exposure, view.gamma = "Standard", "None", 0.0, 1.0


def _set_output(scene: bpy.types.Scene) -> None:
    image = scene.render.image_settings
    if hasattr(image, "media_type"):  # Blender 5
        image.media_type = "MULTI_LAYER_IMAGE"
    image.file_format = "OPEN_EXR_MULTILAYER"
    image.color_depth = "32"
    image.exr_codec = "NONE"  # the parent reads it at once and deletes it
    if hasattr(image, "use_exr_interleave"):  # Blender 5: one part, as before
        image.use_exr_interleave = True
    scene.render.use_file_extension = False
    scene.render.use_overwrite = True


def _set_passes(layer: bpy.types.ViewLayer, job: Job) -> None:
    layer.use_pass_combined = True
    layer.use_pass_z = "depth" in job.passes
    layer.use_pass_normal = "normal" in job.passes or "camera_normal" in job.passes
    layer.pass_alpha_threshold = ALPHA_THRESHOLD
    layer.use_pass_diffuse_color = layer.use_pass_glossy_color = "albedo" in job.passes
    wanted = [aov for name, aovs in AOVS.items() if name in job.passes for aov in aovs]
    for name, kind in wanted and [*wanted, (WEIGHT_AOV, "VALUE")]:
        aov = layer.aovs.add()
        aov.name, aov.type = name, kind


def add_camera(scene: bpy.types.Scene) -> bpy.types.Object:
    """Add the scene's camera; `aim` gives it an orbit's intrinsics."""
    data = bpy.data.cameras.new("Camera")
    data.type = "PERSP"
    data.sensor_fit = "VERTICAL"
    data.sensor_height = SENSOR_MM
    data.lens_unit = "MILLIMETERS"
    data.clip_start, data.clip_end = 0.01, 100.0
    data.dof.use_dof = False
    camera = bpy.data.objects.new("Camera", data)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def aim(camera: bpy.types.Object, job: Job, orbit: OrbitJob) -> None:
    """Give the camera exact intrinsics: focal_px = height * lens / sensor_height, principal point by shift."""
    data = camera.data
    data.lens = orbit.focal_px * SENSOR_MM / job.height
    # shifting the sensor right moves the picture left; the unit is the fitted side, the height
    data.shift_x = (job.width / 2 - orbit.principal_px[0]) / job.height
    data.shift_y = (orbit.principal_px[1] - job.height / 2) / job.height


def render_view(scene: bpy.types.Scene, camera: bpy.types.Object, view: ViewJob) -> None:
    """Render one picture into Blender's memory: what happens in here is Cycles."""
    camera.matrix_world = Matrix(np.asarray(view.matrix_world).tolist())
    try:
        bpy.ops.render.render(write_still=False, scene=scene.name)
    except RuntimeError as error:
        raise WorkerError("internal", f"view {view.index}: Blender: {' '.join(str(error).split())}") from error


def write_view(scene: bpy.types.Scene, view: ViewJob) -> None:
    """Write the picture, all passes in one file.

    Raises:
        WorkerError: it cannot be written.
    """
    result = next(image for image in bpy.data.images if image.type == "RENDER_RESULT")
    message = f"view {view.index}: Blender could not write its picture; is the disk full?"
    try:
        result.save_render(view.path, scene=scene)
    except RuntimeError as error:
        raise WorkerError("write-failed", message) from error
    if not Path(view.path).is_file() or Path(view.path).stat().st_size == 0:
        raise WorkerError("write-failed", message)
