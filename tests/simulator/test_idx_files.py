"""IDX files: images and classes as MNIST's files have them; cnn_fashion runs on a directory of these."""

import gzip
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulator.errors import InputError  # noqa: E402  (needs torch)
from simulator.network import bundled  # noqa: E402
from simulator.network.idx_files import FASHION, read_images  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402


def idx(array):
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.fixture
def directory(tmp_path):
    images = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(3, 28, 28).astype(np.uint8)
    classes = np.array([1, 2, 9], np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(classes))
    return tmp_path, images, classes


def test_files_are_read_as_they_were_written(directory):
    path, images, classes = directory
    found = read_images(path, "test")
    assert np.array_equal(found[0], images) and np.array_equal(found[1], classes)
    samples = load_samples(str(path), 2, bundled.load("cnn"))
    assert torch.equal(samples.x, bundled.normalise(images[:2])) and samples.y.tolist() == [1, 2]
    with pytest.raises(InputError, match=r"is a directory, whose images are normalised for the bundled networks only"):
        load_samples(str(path), 2, torch.nn.Linear(784, 10))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            None,
            r"no such file; expected the four files .*; install Debian's dataset-fashion-mnist, or give a directory",
        ),
        (b"none", "cannot be read"),
        (gzip.compress(b"\0\0\x08"), "is no IDX file of 3 axes of bytes"),
        (idx(np.zeros((3, 28), np.uint8)), "is no IDX file of 3 axes of bytes"),
        (idx(np.zeros((3, 28, 28), np.uint8))[:-20], "cannot be read"),
        (
            gzip.compress(gzip.decompress(idx(np.zeros((3, 28, 28), np.uint8)))[:-1]),
            r"holds 2,351 values of \(3, 28, 28\)",
        ),
        (idx(np.zeros((2, 28, 28), np.uint8)), "2 images, 3 classes; expected as many of both"),
    ],
    ids=["missing", "no gzip", "short", "axes", "cut", "values", "fewer"],
)
def test_what_is_no_such_file_is_refused(directory, data, message):
    path, _, _ = directory
    file = path / "t10k-images-idx3-ubyte.gz"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_images(path, "test")


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"{FASHION} is not there: Debian's dataset-fashion-mnist")
def test_cnn_fashion_runs_on_its_own_images():
    model = bundled.load("cnn_fashion")
    samples = load_samples(None, None, model)
    assert samples.size == 10_000
    right = (model(samples.x[:2000]).argmax(1) == samples.y[:2000]).double().mean().item()
    assert right > 0.88


@pytest.mark.skipif(FASHION.is_dir(), reason=f"{FASHION} is there")
def test_cnn_fashion_without_its_images_says_what_to_install():
    with pytest.raises(InputError, match="install Debian's dataset-fashion-mnist"):
        load_samples(None, None, bundled.load("cnn_fashion"))
