"""Images in a directory, PNG or JPEG: one sub-folder a class, or all in one without classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError, first_line, missing

from .limits import check_fits

_SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY, _COLOUR = ("1", "L"), ("RGB", "P")
_EXPECTED = "expected PNG or JPEG images, all in one folder or in one sub-folder for each class"


class ImageFile(NamedTuple):
    """An image and, if there are classes, the number of its own."""

    path: Path
    label: int | None


def has_pictures(directory: Path) -> bool:
    """Whether a directory is one of images."""
    return directory.is_dir() and any(_is_picture(path) for path in (*directory.glob("*"), *directory.glob("*/*")))


def image_files(directory: Path) -> list[ImageFile]:
    """Return the images of a directory: flat ones by name, or the first of each class, the second of each, and so on.

    Classes are the sub-folders, numbered from 0 in the order of their names; that of the characters, not of numbers.

    Raises:
        InputError: images in both places, a sub-folder without any, or files of other kinds.
    """
    flat = _pictures(directory)
    folders = sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    if flat and folders:
        raise InputError(f"{directory}: has images and, in {folders[0].name}, a sub-folder; {_EXPECTED}; move them")
    if flat:
        return [ImageFile(path, None) for path in flat]
    classes = [_pictures(folder) for folder in folders]
    if empty := [folder.name for folder, paths in zip(folders, classes, strict=True) if not paths]:
        raise InputError(f"{directory}: no image in the sub-folder {empty[0]}; {_EXPECTED}; remove it")
    most = max(map(len, classes))
    return [ImageFile(paths[i], label) for i in range(most) for label, paths in enumerate(classes) if i < len(paths)]


def read_pictures(files: Sequence[ImageFile], colour: bool | None = None) -> NDArray[np.uint8]:
    """Return the levels of images, (N, height, width, 3) of red, green and blue, or (N, height, width) of grey.

    Args:
        files: at least one. colour: None for what the first one has; grey is the luma of ITU-R BT.601 of the colours.
    Raises:
        InputError: an image that is damaged, of another size than the first one, or has more than 8 bits a channel or
            transparency; or all of them are beyond memory.
    """
    image = _open(files[0].path)
    size = image.size
    colour = image.mode in _COLOUR if colour is None else colour
    shape = (len(files), size[1], size[0], *((3,) if colour else ()))
    check_fits(  # as floats, which they become
        f"{files[0].path.parent}: {len(files)} images of {size[0]} x {size[1]}", int(np.prod(shape, dtype=object)), 4,
        "take fewer samples or smaller images",
    )  # fmt: skip
    levels = np.empty(shape, np.uint8)
    for i, file in enumerate(files):
        image = _open(file.path)
        if image.size != size:
            raise InputError(
                f"{file.path}: {image.size[0]} x {image.size[1]} pixels, and {files[0].path.name} has {size[0]} x "
                f"{size[1]}; expected images of one size; resize them to what the network takes"
            )
        try:
            levels[i] = np.asarray(image.convert("RGB" if colour else "L"))
        except Exception as error:  # broken bytes make Pillow raise several types
            raise InputError(
                f"{file.path}: cannot be read ({first_line(error)}); expected a whole PNG or JPEG image; get it anew"
            ) from None
    return levels


def _pictures(directory: Path) -> list[Path]:
    files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    if other := [path for path in files if not _is_picture(path)]:
        raise InputError(f"{other[0]}: no image; {_EXPECTED}; move it elsewhere")
    return files


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _open(path: Path) -> Any:
    """Open an image, of which no more than the header is read yet."""
    try:
        from PIL import Image
    except ImportError:
        raise missing(str(path), "Pillow", "images") from None
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected a whole PNG or JPEG image; get it anew"
        ) from None
    if image.mode not in (*_GREY, *_COLOUR) or "transparency" in image.info:
        raise InputError(
            f"{path}: of the mode {image.mode}{' with transparency' if 'transparency' in image.info else ''}; expected "
            "grey levels or red, green and blue of 8 bits; convert the image, or write an .npz file"
        )
    return image
