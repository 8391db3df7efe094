"""Images in folders: what the network gets of them, and what is said of those that do not fit."""

import json
import os
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image", reason="needs the extra images")

from torch import nn  # noqa: E402

from simulator.errors import InputError, MissingLibraryError  # noqa: E402
from simulator.network import bundled, image_folders, limits  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = [0, 0, 0, 1, 2, 2]


class Channels(nn.Module):
    """Of a number of channels, first or last, to 3 classes."""

    def __init__(self, channels, last=False, dtype=torch.float32):
        super().__init__()
        self.last, self.conv = last, nn.Conv2d(channels, 3, 1, dtype=dtype)

    def forward(self, x):
        return self.conv(x.movedim(-1, 1) if self.last else x).mean((2, 3))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def flat(images, directory="images", suffix="png"):
    os.makedirs(directory, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(f"{directory}/{i:02}.{suffix}")
    return directory


def by_class(images, directory="images"):
    for i, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        os.makedirs(f"{directory}/{'acb'[label]}", exist_ok=True)
        Image.fromarray(image).save(f"{directory}/{'acb'[label]}/{i}.png")
    return directory


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
def test_values_are_levels_between_0_and_1(images, last):
    wanted = torch.from_numpy(images).float() / 255
    wanted = wanted.unsqueeze(-1) if wanted.dim() == 3 else wanted
    samples = load_samples(flat(images), None, Channels(wanted.shape[-1], last))
    assert torch.equal(samples.x, wanted if last else wanted.movedim(-1, 1))
    assert samples.y is None and samples.source == "images"


def test_colours_become_grey_where_the_network_has_one_channel():
    x = load_samples(flat(COLOUR), None, Channels(1)).x[:, 0]
    luma = torch.from_numpy(COLOUR).double() @ torch.tensor([0.299, 0.587, 0.114]).double() / 255  # ITU-R BT.601
    assert (x - luma).abs().max() <= 1 / 255


def test_grey_becomes_three_equal_channels_where_the_network_has_three():
    x = load_samples(flat(GREY), None, Channels(3)).x
    assert torch.equal(x, (torch.from_numpy(GREY).float() / 255).unsqueeze(1).expand(-1, 3, -1, -1))


def test_classes_are_the_sub_folders_in_turn_by_name():
    samples = load_samples(by_class(GREY), None, Channels(1))
    assert samples.y.tolist() == [0, 1, 2, 0, 1, 0]  # a, b, c, which are the labels 0, 2 and 1 above
    order = [0, 4, 3, 1, 5, 2]
    assert torch.equal(samples.x[:, 0], torch.from_numpy(GREY[order]).float() / 255)


def test_the_first_samples_are_of_all_classes_and_no_more_are_read(monkeypatch):
    read = []
    monkeypatch.setattr(image_folders, "_open", lambda path, own=image_folders._open: read.append(path) or own(path))
    samples = load_samples(by_class(GREY), 3, Channels(1))
    assert samples.y.tolist() == [0, 1, 2] and len(set(read)) == 3
    with pytest.raises(InputError, match="--samples: got 7; expected 1 to 6, the samples of images"):
        load_samples("images", 7, Channels(1))


def test_a_network_of_another_type_gets_its_type():
    assert load_samples(flat(GREY), None, Channels(1, dtype=torch.float64)).x.dtype == torch.float64


def test_jpeg_files_are_read_too():
    plain = np.full((2, 8, 8), 100, np.uint8)
    assert torch.equal(
        load_samples(flat(plain, suffix="jpg"), None, Channels(1)).x, torch.full((2, 1, 8, 8), 100) / 255
    )


def test_bundled_networks_get_grey_levels_as_they_were_trained_on():
    images = RNG.integers(0, 256, (3, 28, 28), np.uint8)
    x = load_samples(flat(images), None, bundled.load("mlp")).x
    assert torch.equal(x, bundled.normalise(images))


def test_they_run_by_the_command_line(command):
    by_class(RNG.integers(0, 256, (6, 28, 28), np.uint8))
    code, out, err = command("--hw", "npu", "--model", "cnn", "--data", "images", "--json")
    assert (code, err) == (0, "") and json.loads(out)["samples"] == 6


# --- what does not fit ----------------------------------------------------------------------------------------------


def refused(pattern, model=None):
    with pytest.raises(InputError, match=pattern) as caught:
        load_samples("images", None, model or Channels(1))
    assert "\n" not in str(caught.value)


def test_sizes_that_the_network_does_not_take():
    flat(GREY)
    refused(
        r"images: x of shape \(N, 1, 5, 4\) and float32 does not fit the network .*; expected images that it takes, "
        "which these of 4 x 5 are not; resize them, or write an .npz",
        nn.Sequential(nn.Flatten(), nn.Linear(784, 3)),
    )


def test_images_of_several_sizes():
    flat([*GREY, GREY[0, :4]])
    refused("images/06.png: 4 x 4 pixels, and 00.png has 4 x 5; expected images of one size; resize them")


def test_more_labels_than_classes():
    by_class(GREY)
    refused("images: y holds class 2, and Sequential has 2 outputs", nn.Sequential(nn.Flatten(), nn.Linear(20, 2)))


@pytest.mark.parametrize("where", ["images", "images/a"])
def test_files_of_other_kinds(where):
    by_class(GREY)
    with open(f"{where}/notes.txt", "w") as file:
        file.write("x")
    refused(f"{where}/notes.txt: no image; expected PNG or JPEG images, all in one folder or in one sub-folder for")


def test_images_in_both_places_and_empty_folders():
    by_class(GREY)
    os.mkdir("images/d")
    refused("images: no image in the sub-folder d; ")
    os.rmdir("images/d")
    flat(GREY[:1])
    refused("images: has images and, in a, a sub-folder; ")


@pytest.mark.parametrize("length", [0, 8, 60, -200])
def test_truncated_images(length):
    flat(RNG.integers(0, 256, (2, 40, 40), np.uint8))
    with open("images/01.png", "rb") as file:
        content = file.read()
    with open("images/01.png", "wb") as file:
        file.write(content[:length])
    refused("images/01.png: cannot be read .*; expected a whole PNG or JPEG image; get it anew")


def test_images_of_other_kinds_under_that_name():
    flat(GREY)
    Image.fromarray(GREY[0]).save("images/01.png", format="BMP")
    refused("images/01.png: cannot be read")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "CMYK"])
def test_modes_that_would_lose_something(mode):
    image = Image.new(mode, (4, 5))
    os.mkdir("images")
    image.save("images/0.jpg" if mode == "CMYK" else "images/0.png")
    refused(rf"images/0\..*: of the mode {mode}; expected grey levels or red, green and blue of 8 bits")


def test_images_beyond_memory_are_refused_by_their_headers(monkeypatch):
    os.mkdir("images")
    Image.new("L", (4000, 4000)).save("images/0.png")
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 20)
    refused(r"images: 1 images of 4000 x 4000: 61\.04 MiB .*; expected at most 512 KiB")


def test_more_pixels_than_pillow_opens(monkeypatch):
    flat(GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    refused("images/00.png: cannot be read .*decompression bomb")


def test_without_pillow_it_says_what_to_install(monkeypatch):
    flat(GREY)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingLibraryError, match=r"needs Pillow, .*pip install 'ulpsim\[images\]'"):
        load_samples("images", None, Channels(1))
