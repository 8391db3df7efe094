"""A training that was stopped and taken up again ends with the same bits; checkpoints are whole, and read safely."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.training import LossScale, Recipe, fit, load_recipe  # noqa: E402
from simulator.training.history import to_plain  # noqa: E402

ROOT = Path(__file__).parents[2]
EPOCHS, STOP = 4, 2


def net():
    torch.manual_seed(11)
    layers = [nn.Linear(10, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3)]
    return nn.Sequential(*layers)


def samples(count=70):
    random = np.random.default_rng(5)
    y = random.integers(0, 3, count)
    x = random.standard_normal((3, 10))[y] + 0.5 * random.standard_normal((count, 10))
    return x.astype(np.float32), y


def bits(model):
    """All parameters and buffers, as bytes."""
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


class StopHereError(Exception):
    pass


def stop_after(epochs):
    def observe(epoch):
        if epoch.number + 1 == epochs:
            raise StopHereError

    return observe


CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9, "storage": "e8m5"},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "amsgrad": True},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.01, "momentum": 0.5},
    "stochastic storage": {"recipe": load_recipe("sr_storage")},
    "stochastic points": {
        "recipe": Recipe.of({"weight_use": "e8m4/sr", "gradient": "e5m3/sr", "optimizer_state": "e8m4/sr"}),
        "momentum": 0.9,
    },
    "stochastic sums": {"recipe": Recipe.of({}, macs={"forward": "seq(fp16/sr)", "weight_gradient": "fma(bf16/sr)"})},
    "growing scale": {"recipe": Recipe.of({}, LossScale(4, dynamic=True, every=3))},
    "falling scale": {"recipe": Recipe.of({"gradient": "fp16"}, LossScale(2.0**20, dynamic=True, every=7))},
    "hybrid": {"recipe": "fp8_hybrid", "optimizer": "adam", "lr": 0.01},
    "blocks": {"recipe": "mx_blocks"},
    "causes": {"recipe": Recipe.of({"weight_store": "e8m5", "gradient": "e5m2"}), "causes": True},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_training_that_was_stopped_ends_with_the_same_bits(name, tmp_path):
    arguments = {"epochs": EPOCHS, "batch_size": 16, "seed": 3, **CASES[name]}
    whole = net()
    expected = fit(whole, samples(), **arguments)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StopHereError):
        fit(net(), samples(), **arguments, checkpoint=path, observe=stop_after(STOP))
    again, seen = net(), []
    with torch.no_grad():
        again[0].weight.zero_()  # all that a model is comes from the checkpoint
    torch.manual_seed(99)
    found = fit(again, samples(), **arguments, checkpoint=path, resume=True, observe=lambda e: seen.append(e.number))
    assert bits(again) == bits(whole)
    assert to_plain(found.epochs) == to_plain(expected.epochs) and found.steps == expected.steps
    assert seen == list(range(STOP, EPOCHS))
    if name == "falling scale":
        assert sum(epoch.skipped for epoch in found.epochs) > 0
    if name == "growing scale":
        assert found.epochs[-1].loss_scale > found.epochs[0].loss_scale > 4.0


def test_a_training_can_be_prolonged(tmp_path):
    path, whole, longer = tmp_path / "checkpoint.pt", net(), net()
    fit(whole, samples(), epochs=3, momentum=0.9)
    fit(longer, samples(), epochs=1, momentum=0.9, checkpoint=path)
    fit(longer, samples(), epochs=3, momentum=0.9, checkpoint=path, resume=True)
    assert bits(longer) == bits(whole)
    done = net()
    assert len(fit(done, samples(), epochs=3, momentum=0.9, checkpoint=path, resume=True).epochs) == 3
    assert bits(done) == bits(whole)
    with pytest.raises(InputError, match="holds 3 epochs; expected at most the 2 that are asked for"):
        fit(net(), samples(), epochs=2, momentum=0.9, checkpoint=path, resume=True)


KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {here!r}]
import simulator.report.directories as directories
from test_training_resume import net, samples
from simulator.training import fit

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment, steps = {moment!r}, 0
def progress(done, of):
    if (moment, done) in (("in the first epoch", 3), ("in a step", 13)):
        end()
def observe(epoch):
    if epoch.number == 1 and moment == "while it writes":
        directories.os.fsync = end
fit(net(), samples(), epochs=4, batch_size=16, recipe="sr_storage", momentum=0.9, checkpoint="checkpoint.pt",
    progress=progress, observe=observe)
"""


@pytest.mark.parametrize("moment", ["in the first epoch", "in a step", "while it writes"])
def test_a_process_that_was_killed_is_taken_up_again(tmp_path, moment):
    arguments = {"epochs": 4, "batch_size": 16, "recipe": "sr_storage", "momentum": 0.9}
    code = KILLED.format(root=str(ROOT), here=str(Path(__file__).parent), moment=moment)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, again, seen = net(), net(), []
    expected = fit(whole, samples(), **arguments)
    found = fit(
        again, samples(), **arguments, checkpoint=tmp_path / "checkpoint.pt", resume=True,
        observe=lambda epoch: seen.append(epoch.number),
    )  # fmt: skip
    assert bits(again) == bits(whole) and to_plain(found) == to_plain(expected)
    assert seen == ([0, 1, 2, 3] if moment == "in the first epoch" else [2, 3])


def test_dropout_follows_the_seed_and_leaves_torch_as_it_is():
    results = []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        model = net()
        torch.manual_seed(before)
        expected = torch.rand(3)
        torch.manual_seed(before)
        fit(model, samples(), epochs=1, seed=seed)
        assert torch.equal(torch.rand(3), expected)
        results.append(bits(model))
    assert results[0] == results[1] != results[2]


OTHERS = {
    "lr": ({"lr": 0.2}, "lr is 0.1 there and 0.2 here"),
    "momentum": ({"momentum": 0.5}, "momentum is 0 there and 0.5 here"),
    "optimizer": ({"optimizer": "adam"}, "optimizer is SGD there and Adam here"),
    "batch": ({"batch_size": 8}, "batch_size is 16 there and 8 here"),
    "seed": ({"seed": 1}, "seed is 0 there and 1 here"),
    "recipe": ({"storage": "e8m4"}, "recipe: weight_store is e8m6/rz there and e8m4/rz here"),
    "less": ({"storage": None}, "recipe: weight_store is e8m6/rz there and not set here"),
    "loss": ({"loss": nn.functional.multi_margin_loss}, "loss is cross_entropy there and multi_margin_loss here"),
    "test": ({"test": samples(20)}, "test is "),
    "causes": ({"causes": True}, "causes is False there and True here"),
    "mac": (
        {"storage": None, "recipe": Recipe.of({"weight_gradient": "fp16"}, macs={"weight_gradient": "fma(fp16)"})},
        "recipe: weight_gradient is not set there and fp16 here; "
        "recipe: mac weight_gradient is not set there and fma(fp16) here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_other_settings_is_refused_naming_them(tmp_path, name):
    path, (changed, message) = tmp_path / "checkpoint.pt", OTHERS[name]
    arguments = {"epochs": 1, "batch_size": 16, "storage": "e8m6", "checkpoint": path}
    fit(net(), samples(), **arguments)
    held, model = path.read_bytes(), net()
    start = bits(model)
    with pytest.raises(InputError) as caught:
        fit(model, samples(), **{**arguments, "epochs": 2, **changed}, resume=True)
    text = str(caught.value)
    assert text.startswith(f"{path}: is of a training with other settings: ") and message in text and "\n" not in text
    assert bits(model) == start and path.read_bytes() == held


def test_a_checkpoint_of_another_network_or_of_other_samples_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    fit(net(), samples(), epochs=1, checkpoint=path)
    with pytest.raises(InputError, match="shapes of the network is "):
        fit(nn.Sequential(nn.Linear(10, 3)), samples(), epochs=2, checkpoint=path, resume=True)
    other = net()
    other[2], other[3] = nn.Tanh(), nn.Dropout(0.1)
    message = r"layer 2 is ReLU\(\) there and Tanh\(\) here; layer 3 is Dropout\(p=0\.3, .* and Dropout\(p=0\.1, "
    with pytest.raises(InputError, match=message):
        fit(other, samples(), epochs=2, checkpoint=path, resume=True)
    with pytest.raises(InputError, match=r"data is .* there and .* here; test is "):
        fit(net(), samples(71), epochs=2, checkpoint=path, resume=True)


class Code:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def _without(key):
    def damage(path):
        content = torch.load(path, weights_only=True)
        del content["state"][key]
        torch.save(content, path)

    return damage


def _other_shape(path):
    content = torch.load(path, weights_only=True)
    content["state"]["tensors"]["0.weight"] = torch.zeros(2)
    torch.save(content, path)


def _a_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"batch_size")] ^= 1
    path.write_bytes(content)


def _later_version(path):
    torch.save({**torch.load(path, weights_only=True), "version": 2}, path)


DAMAGES = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "truncated or damaged"),
    "a bit": (_a_bit, ""),
    "empty": (lambda path: path.write_bytes(b""), ""),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "cannot be read"),
    "missing": (lambda path: path.unlink(), "no such file"),
    "code": (lambda path: path.write_bytes(pickle.dumps(Code())), ""),
    "weights": (lambda path: torch.save(net().state_dict(), path), "holds something else; expected a checkpoint"),
    "no scale": (_without("scale"), "a checkpoint that is damaged (KeyError: 'scale'); expected a whole one"),
    "no tensors": (_without("tensors"), "a checkpoint that is damaged (KeyError: 'tensors')"),
    "shape": (_other_shape, "a checkpoint that is damaged (ValueError: 0.weight: another shape or type)"),
    "version": (_later_version, "is a checkpoint of version 2; expected 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_one_clear_message_and_changes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, (damage, message) = tmp_path / "checkpoint.pt", DAMAGES[name]
    arguments = {"optimizer": "adam", "lr": 0.01, "checkpoint": path}
    fit(net(), samples(), epochs=1, **arguments)
    damage(path)
    model = net()
    start = bits(model)
    with pytest.raises(InputError) as caught:
        fit(model, samples(), epochs=2, **arguments, resume=True)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert bits(model) == start and not (tmp_path / "it_ran").exists()


def test_an_optimizer_whose_state_no_checkpoint_can_hold_is_refused(tmp_path):
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.state[self.param_groups[0]["params"][0]]["odd"] = Code()

    with pytest.raises(InputError, match="the optimizer keeps a Code, which a checkpoint cannot hold"):
        fit(net(), samples(), epochs=1, optimizer=lambda p: Odd(p, lr=0.1), checkpoint=tmp_path / "checkpoint.pt")


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(InputError, match="resume without a checkpoint"):
        fit(net(), samples(), resume=True)
    model = net()
    start = bits(model)
    with pytest.raises(InputError, match="cannot be written"):
        fit(model, samples(), storage="e8m1", checkpoint=tmp_path / "missing" / "checkpoint.pt")
    assert bits(model) == start
    for name, value in (("epochs", -1), ("batch_size", 0), ("seed", 1 << 32), ("epochs", 1.5)):
        with pytest.raises(InputError, match=f"fit: {name}: got .*; expected a whole number from"):
            fit(net(), samples(), **{name: value})
    with pytest.raises(InputError, match="Sequential has no parameter that requires a gradient"):
        fit(net().requires_grad_(False), samples())


def test_a_history_is_plain_data_that_json_holds():
    history = fit(net(), samples(), epochs=1, storage="e8m4")
    plain = json.loads(json.dumps(to_plain(history.epochs)))
    assert plain[0]["counts"]["weight_store"]["0.weight"]["values"] > 0
    assert sum(plain[0]["updates"]["0.weight"]["critical"]) == history.epochs[0].updates["0.weight"].entries
