"""Networks around one operation, and certificates in which something is altered."""

import base64
import copy
import re
import zlib

import numpy as np
from torch import nn

from simulator.bounds.certificate import digest_of
from simulator.bounds.check import check

LITTLE = 2.0**-20


class Between(nn.Module):
    """A function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.first, self.function, self.last = nn.Linear(6, 5), function, nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


class Images(nn.Module):
    """Modules on images, and a layer on what they make of them."""

    def __init__(self, features, *modules):
        super().__init__()
        self.images, self.last = nn.Sequential(*modules), nn.Linear(features, 3)

    def forward(self, x):
        return self.last(self.images(x).flatten(1))


def altered(form, alter):
    """Return a certificate with something altered, and a digest that fits."""
    found = copy.deepcopy(form)
    alter(found)
    found["digest"] = digest_of(found)
    return found


def refused(form, *says):
    found = check(form)
    assert not found.ok
    for pattern in says:
        assert any(re.search(pattern, problem) for problem in found.problems), found.problems
    return found


def unpacked(form):
    raw = zlib.decompress(base64.b64decode(form["data"]))
    return np.frombuffer(raw, "<f8").reshape(form["shape"]).copy()


def repack(form, numbers):
    form["data"] = base64.b64encode(zlib.compress(np.asarray(numbers, "<f8").tobytes())).decode()


def change(form, at, by):
    """Change one element of an array, to what a function makes of it."""
    numbers = unpacked(form)
    numbers[at] = by(numbers[at])
    repack(form, numbers)
