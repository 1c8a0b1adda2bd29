"""Adds to pyproject.toml the CUDA kernels, where they are asked for: ``SPOT_BUILD_CUDA=1``, see docs/operators.md."""

from __future__ import annotations

import os
import sys

from setuptools import setup

SOURCES = "ltr/ops/csrc"


def kernels() -> dict[str, object]:
    """The arguments of ``setup`` that build the kernels; none unless they are asked for."""
    if os.environ.get("SPOT_BUILD_CUDA") != "1":
        return {}
    try:
        import torch
        from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CUDAExtension
    except ImportError:
        sys.exit(
            "SPOT_BUILD_CUDA=1: torch is not installed in the environment that builds; in the one that holds it run "
            "`python setup.py build_ext --inplace`"
        )
    if CUDA_HOME is None:
        sys.exit(
            "SPOT_BUILD_CUDA=1: no CUDA toolkit is found; install the one that torch.version.cuda names, or say with "
            "CUDA_HOME where it lies"
        )
    if not torch.cuda.is_available():  # torch builds for the GPUs it sees, and fails where there is none
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "7.5;8.0;8.6;9.0+PTX")
    extension = CUDAExtension(
        "ltr.ops._kernels",
        [f"{SOURCES}/binding.cpp", f"{SOURCES}/kernels.cu"],
        depends=[f"{SOURCES}/{name}.h" for name in ("common", "deform_columns", "kernels", "prroi_pool")],
        extra_compile_args={"cxx": ["-O2"], "nvcc": ["-O3"]},
        py_limited_api=True,  # one file for every version of Python
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": BuildExtension}}


setup(**kernels())
