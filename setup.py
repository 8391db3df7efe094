"""The one thing pyproject.toml cannot say: the C engine is a cffi API-mode module."""

from setuptools import setup

setup(cffi_modules=["native/build_ffi.py:ffibuilder"])
