"""Networks of several inputs in training: by the names of their forward, with the bits of one that has them joined."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.training import ablation, accuracy, fit  # noqa: E402

TWO = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.left, self.right, self.out = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.2)

    def forward(self, a, b, scale=1.0):
        hidden = torch.relu(self.left(a) * scale + self.right(b))
        return {"half": self.left(a) / 2, "logits": self.out(self.drop(hidden))}


class One(Two):
    def forward(self, x):
        return super().forward(x[:, :4].contiguous(), x[:, 4:].contiguous(), 2.0)["logits"]
"""
namespace = {}
exec(TWO, namespace)
Two, One = namespace["Two"], namespace["One"]
SETTINGS = {"storage": "e8m5", "rounding": "sr", "epochs": 3, "batch_size": 16, "momentum": 0.9, "causes": True}


def samples(count=72):
    random = np.random.default_rng(3)
    y = random.integers(0, 3, count)
    x = (random.standard_normal((3, 7))[y] + 0.5 * random.standard_normal((count, 7))).astype(np.float32)
    return x, y


def named(x):
    return {"b": x[:, 4:], "a": x[:, :4], "scale": np.float32(2)}


def bits(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_several_inputs_train_with_the_bits_of_one_that_has_them_joined():
    x, y = samples()
    two, one = Two(), One()
    found = fit(two, (named(x), y), test=(named(x[:24]), y[:24]), **SETTINGS)
    joined = fit(one, (x, y), test=(x[:24], y[:24]), **SETTINGS)
    assert bits(two) == bits(one) != bits(Two())
    assert [e.loss for e in found.epochs] == [e.loss for e in joined.epochs]
    assert found.accuracy == joined.accuracy > 0.5
    assert found.epochs[-1].observation.gradients == joined.epochs[-1].observation.gradients
    assert accuracy(two, {name: torch.as_tensor(part) for name, part in named(x).items()}, torch.as_tensor(y)) > 0.5


def test_a_checkpoint_knows_several_inputs_by_their_names_in_any_order(tmp_path):
    (x, y), file = samples(), tmp_path / "c.pt"
    whole, parts = Two(), Two()
    fit(whole, (named(x), y), **SETTINGS)
    fit(parts, (named(x), y), checkpoint=file, **{**SETTINGS, "epochs": 1})
    other = {**named(x), "a": x[:, :4] + 1}
    with pytest.raises(InputError, match=r"data is .* there and .* here"):
        fit(Two(), (other, y), test=(named(x), y), checkpoint=file, resume=True, **SETTINGS)
    again = Two()
    in_order = dict(sorted(named(x).items()))
    fit(again, (in_order, y), checkpoint=file, resume=True, **SETTINGS)
    assert bits(again) == bits(whole)


def test_a_loss_of_ones_own_sees_all_outputs_and_the_default_one_the_logits():
    x, y = samples()

    def both(outputs, targets):
        return nn.functional.cross_entropy(outputs["logits"], targets) + outputs["half"].square().mean()

    by_default, by_both = Two(), Two()
    fit(by_default, (named(x), y), epochs=1)
    fit(by_both, (named(x), y), epochs=1, loss=both)
    assert bits(by_default) != bits(by_both)


def test_an_ablation_counts_the_samples_of_several_inputs():
    x, y = samples()
    found = ablation(Two, (named(x), y), "truncated", (named(x[:20]), y[:20]), epochs=1)
    assert found.samples == 20 and found.parts == ("weight_store",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"a": x["a"]}, r"data: missing a required argument: 'b'; expected the inputs of Two; name them"),
        (lambda x: {**x, "c": x["a"]}, r"data: got an unexpected keyword argument 'c'; expected the inputs of Two"),
        (lambda x: {**x, "b": x["b"][:5]}, r"data: got 5 and 72 samples and 72 targets; expected as many"),
        (lambda x: {"scale": x["scale"]}, r"data: got a single number; expected two arrays"),
        (lambda x: {**x, "b": "b"}, r"data: .*; expected two arrays of numbers"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(change, message):
    x, y = samples()
    model = Two()
    with pytest.raises(InputError, match=f"fit: {message}"):
        fit(model, (change(named(x)), y), epochs=1)
    assert bits(model) == bits(Two())


def test_the_command_takes_files_of_named_inputs(command, tmp_path, monkeypatch):
    (tmp_path / "two_inputs.py").write_text(TWO)
    x, y = samples()
    np.savez(tmp_path / "two.npz", y=y, **named(x))
    np.savez(tmp_path / "one.npz", x=x, y=y)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "two_inputs", raising=False)
    for network, data in (("Two", "two.npz"), ("One", "one.npz")):
        code, out, err = command(
            "train", "--model", f"two_inputs:{network}", "--data", data, "--epochs", 2, "--test", 0.25, "--storage",
            "e8m6", "--out", network, "--json",
        )  # fmt: skip
        assert code == 0, err
        record = json.loads(out)
        assert (record["samples"], record["tested"]) == (54, 18)
    found, joined = (torch.load(tmp_path / network / "weights.pt") for network in ("Two", "One"))
    assert all(torch.equal(found[name], joined[name]) for name in joined)
    code, _, err = command(
        "--hw", "npu", "--model", "two_inputs:Two", "--data", "two.npz", "--weights", "Two/weights.pt"
    )
    assert code == 0, err
