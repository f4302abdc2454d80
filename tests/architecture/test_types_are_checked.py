"""jaxtyping and beartype are live in tests: `--jaxtyping-packages` without a checker silently checks nothing."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import engine.geometry
from engine.files import OrbitImages
from engine.geometry import RING24, Camera, project


def test_a_wrong_shape_in_a_call_raises():
    camera = RING24.orbit(10.0, 8, 8).camera(0)
    project(camera, np.zeros((5, 3)))
    with pytest.raises(TypeCheckError, match="points"):
        project(camera, np.zeros((5, 2)))


def test_a_wrong_shape_in_a_dataclass_raises():
    with pytest.raises(TypeCheckError, match="T_world_camera"):
        Camera(np.eye(3), 8, 8, 10.0, (4.0, 4.0))


def test_sizes_that_must_agree_are_compared():
    rgba = np.zeros((24, 8, 8, 4), np.uint8)
    OrbitImages("uid", RING24.orbit(10.0, 8, 8), rgba, depth_m=np.zeros((24, 8, 8), np.float32))
    with pytest.raises(TypeCheckError):
        OrbitImages("uid", RING24.orbit(10.0, 8, 8), rgba, depth_m=np.zeros((24, 8, 9), np.float32))


def test_a_wrong_dtype_raises():
    with pytest.raises(TypeCheckError, match="rgba"):
        OrbitImages("uid", RING24.orbit(10.0, 8, 8), np.zeros((24, 8, 8, 4), np.float32))


@pytest.mark.parametrize("module", [info.name for info in pkgutil.iter_modules(engine.geometry.__path__)])
def test_every_geometry_function_is_wrapped(module):
    """Where a function was decorated by the import hook, inspect finds the original behind it."""
    namespace = importlib.import_module(f"engine.geometry.{module}")
    own = [value for value in vars(namespace).values() if inspect.isfunction(value)]
    own = [function for function in own if function.__module__ == namespace.__name__]
    assert all(hasattr(function, "__wrapped__") for function in own)
