"""Networks from .pt2 files: the answers of the module, every analysis on them, and what is said of hostile files."""

import contextlib
import copy
import json
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.export import Dim  # noqa: E402

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network import limits  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.exported_files import ExportedNetwork  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402


class CNN(nn.Module):
    """(N, 1, 12, 12) to (N, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 10))

    def forward(self, images):
        return self.head(self.body(images))


class Two(nn.Module):
    """Token ids (N, 5) and numbers (N, 3) to logits (N, 3) and states, with an option that is no tensor."""

    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(10, 4), nn.LSTM(4, 6, batch_first=True)
        self.numbers, self.out = nn.Linear(3, 6), nn.Linear(6, 3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, ids, numbers, half=False):
        states = self.lstm(self.embedding(ids))[0]
        x = states[:, -1] + self.numbers(numbers) * self.scale
        return {"logits": self.out(x / 2 if half else x), "states": states}


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


X = {
    mlp: {"input": torch.randn(5, 6, generator=torch.Generator().manual_seed(0))},
    CNN: {"images": torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))},
    Two: {"ids": torch.arange(25).reshape(5, 5) % 10, "numbers": torch.linspace(-1, 1, 15).reshape(5, 3)},
}


def export(model, inputs, path="net.pt2", free=True, **more):
    shapes = {name: {0: Dim("samples")} if free else None for name in inputs}
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(model, (), {**inputs, **more}, dynamic_shapes={**shapes, **dict.fromkeys(more)})
        torch.export.save(program, path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=X, ids=lambda build: build.__name__)
def saved(request):
    """A module in eval mode, exported to net.pt2, and its inputs by name."""
    torch.manual_seed(1)
    model = request.param().eval()
    export(model, X[request.param])
    return model, X[request.param]


def first(found):
    return found["logits"] if isinstance(found, dict) else found


# --- what the module says -------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_module(saved):
    model, inputs = saved
    network = load_model("net.pt2")
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    for rows in (slice(0, 5), slice(0, 1), slice(1, 4)):
        given = {name: x[rows] for name, x in inputs.items()}
        wanted, found = model(**given), network(**given)
        assert torch.equal(first(found), first(wanted))
        assert torch.equal(first(network(*given.values())), first(wanted))
    if isinstance(wanted, dict):
        assert list(found) == list(wanted) and torch.equal(found["states"], wanted["states"])


def test_modules_have_the_paths_that_they_had(saved):
    model, _ = saved
    network = load_model("net.pt2")
    with_operations = {name for name, _ in network.named_modules()}
    assert {name for name, part in model.named_modules() if list(part.parameters(False))} <= with_operations
    assert set(network.state_dict()) == set(model.state_dict())


def test_positional_arguments_and_arguments_that_are_no_tensors():
    model = Two().eval()
    inputs = tuple(X[Two].values())
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(model, (*inputs, True)), "net.pt2")
    network = load_model("net.pt2")
    assert torch.equal(network(**X[Two])["logits"], model(*inputs, True)["logits"])


def test_a_copy_has_weights_of_its_own(saved):
    _, inputs = saved
    network = load_model("net.pt2")
    with warnings.catch_warnings(action="error"):
        twin = copy.deepcopy(network)
    before = first(network(**inputs))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(first(network(**inputs)), before) and not torch.equal(first(twin(**inputs)), before)


def test_weights_of_a_state_dict_are_run_on(saved):
    model, inputs = saved
    torch.manual_seed(2)
    other = type(model)().eval() if isinstance(model, CNN | Two) else mlp()
    torch.save(other.state_dict(), "w.pt")
    assert torch.equal(first(load_model("net.pt2", "w.pt")(**inputs)), first(other(**inputs)))


def test_a_fixed_batch_is_known_and_kept_to():
    export(CNN().eval(), X[CNN], free=False)
    network = load_model("net.pt2")
    assert network.fixed_batch == 5
    with pytest.raises(InputError, match=r"images: got shape \(3, 1, 12, 12\); expected \(5, 1, 12, 12\), as the netw"):
        network(X[CNN]["images"][:3])
    export(CNN().eval(), X[CNN])
    assert load_model("net.pt2").fixed_batch is None


class Pixels(nn.Module):
    """Grey levels (N, 6), as the file declares them, to logits (N, 3)."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 3)

    def forward(self, levels):
        return self.out(levels.float() / 255)


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
@pytest.mark.parametrize("given", [np.uint8, np.int32, np.int64])
def test_integers_become_the_type_that_the_file_declares(tmp_path, monkeypatch, kind, given):
    monkeypatch.chdir(tmp_path)
    levels = np.arange(240, 252).reshape(2, 6)
    model = Pixels().eval()
    example = torch.from_numpy(levels.astype(kind))
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: Dim("samples")},)), "pixels.pt2")
    np.savez("levels.npz", levels=levels.astype(given))
    network = load_model("pixels.pt2")
    assert torch.equal(network(load_samples("levels.npz", None, network).x), model(example))


def test_integers_beyond_the_declared_type_are_said():
    levels = torch.full((2, 6), 200, dtype=torch.uint8)
    network = ExportedNetwork(torch.export.export(Pixels().eval(), (levels,)))
    with pytest.raises(InputError, match="levels: is given 256; expected 0 to 255, as uint8 holds them"):
        network(torch.full((2, 6), 256))


def test_a_range_of_sizes_is_kept_to():
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.export(mlp(), (X[mlp]["input"],), dynamic_shapes=({0: Dim("n", min=3, max=8)},))
        torch.export.save(program, "net.pt2")
    network = load_model("net.pt2")
    assert network(torch.ones(8, 6)).shape == (8, 3)
    for samples in (2, 9):
        with pytest.raises(InputError, match=rf"got shape \({samples}, 6\); expected \(3 to 8, 6\), as"):
            network(torch.ones(samples, 6))


def test_a_network_in_training_mode_is_refused():
    export(CNN(), X[CNN])
    with pytest.raises(
        InputError, match=r"exported in training mode \(batch_norm, dropout\), .*; call model\.eval\(\)"
    ):
        load_model("net.pt2")


# --- every analysis -------------------------------------------------------------------------------------------------


def test_the_main_job_runs_them_by_the_command_line(saved, command):
    model, inputs = saved
    export(model, inputs)
    np.savez("data.npz", **{name: x.numpy() for name, x in inputs.items()}, y=np.arange(5) % 3)
    code, out, err = command("--hw", "npu", "--model", "net.pt2", "--data", "data.npz", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    right = first(model(**inputs)).argmax(1) == torch.arange(5) % 3
    assert record["metrics"]["top1"]["float32"] == pytest.approx(float(right.double().mean()))
    names = {layer["name"].split("#")[0].split(" ")[0] for layer in record["layers"]}
    kinds = nn.Linear | nn.Conv2d | nn.LSTM
    assert names == {name for name, part in model.named_modules() if isinstance(part, kinds)}
    assert not any("not emulated" in warning for warning in record["warnings"])


def test_modes_are_those_of_the_module_itself(saved):
    model, inputs = saved
    own, exported = (evaluate(one, "npu", inputs) for one in (model, load_model("net.pt2")))
    assert own.forward_error == exported.forward_error
    assert [layer.activation for layer in own.layers] == [layer.activation for layer in exported.layers]


@pytest.mark.parametrize("build", [mlp, CNN])
def test_answers_are_certified(build):
    export(build().eval(), X[build])
    found = simulator.bounds.certify(load_model("net.pt2"), next(iter(X[build].values())), precision=24)
    assert found.certified.any()


def test_digits_are_tracked_forward_and_backward(saved):
    _, inputs = saved
    network = load_model("net.pt2").requires_grad_(True)
    with simulator.track(network):
        first(network(**inputs)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("build", [mlp, CNN])
def test_they_train_in_narrow_formats(build):
    export(build().eval(), X[build])
    network = load_model("net.pt2").requires_grad_(True)
    before = {name: value.clone() for name, value in network.named_parameters()}
    x = next(iter(X[build].values()))
    simulator.training.fit(network, (x, torch.arange(5) % 3), storage="e8m6", rounding="rz", epochs=2, batch_size=5)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters() if "weight" in name)


def test_what_an_analysis_refuses_is_said_in_its_own_words():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    export(nn.Sequential(nn.Linear(6, 3), Sine()), X[mlp])
    with pytest.raises(InputError) as caught:
        simulator.bounds.certify(load_model("net.pt2"), X[mlp]["input"], precision=24)
    assert str(caught.value).startswith("bounds: ") and "\n" not in str(caught.value)


# --- hostile files --------------------------------------------------------------------------------------------------


class Opens:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return open, ("left.txt", "w")


@pytest.fixture
def members():
    """The contents of a whole file, to be written anew with something else in them."""
    export(mlp(), X[mlp], "whole.pt2")
    with zipfile.ZipFile("whole.pt2") as archive:
        return {name.removeprefix("whole/"): archive.read(name) for name in archive.namelist()}


def write(members, **how):
    with zipfile.ZipFile("net.pt2", "w", **how) as archive:
        for name, content in members.items():
            archive.writestr(f"net/{name}", content)


def refusal(pattern, allow_code=False):
    before = sorted(os.listdir())
    with pytest.raises(InputError, match=pattern) as caught:
        load_model("net.pt2", allow_code=allow_code)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir()) == before


GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def edited(members, name, change):
    found = json.loads(members[name])
    change(found)
    return {**members, name: json.dumps(found)}


def test_an_archive_that_is_written_anew_is_read(members):
    write(members)
    assert load_model("net.pt2")(X[mlp]["input"]).shape == (5, 3)


@pytest.mark.parametrize("length", [0, 1, 100, 3000, -1])
def test_truncated_files(members, length):
    with open("whole.pt2", "rb") as file:
        content = file.read()
    with open("net.pt2", "wb") as file:
        file.write(content[:length] if length >= 0 else content[:-30])
    refusal(r"net\.pt2: (empty, so|no whole archive|lacks models/model)")


@pytest.mark.parametrize("name", ["../../out.txt", "..\\..\\out.txt"])
def test_paths_that_leave_the_archive(members, name):
    write({**members, name: b"x"})
    refusal("has a member .*, which leaves the archive or is there twice")


def test_a_bomb_of_an_archive(members, monkeypatch):
    write({**members, "extra/text": bytes(1 << 26)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 26)
    refusal("what its members say that they hold: 64.* MiB; expected at most 32 MiB")


def test_compressed_members(members):
    write(members, compression=zipfile.ZIP_DEFLATED)
    refusal("damaged .*is compressed")


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
def test_members_that_lack(members, name):
    write({key: value for key, value in members.items() if key != name})
    refusal(f"lacks {name}; ")


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b"[1]", b"{}"])
@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
def test_graphs_and_lists_that_are_none(members, name, text):
    write({**members, name: text})
    refusal("net.pt2: (damaged|cannot be read)")


def payload(**changes):
    return lambda config: next(iter(config["config"].values())).update(changes)


def meta(**changes):
    return lambda config: next(iter(config["config"].values()))["tensor_meta"].update(changes)


TENSORS = {
    "missing bytes": payload(path_name="weight_99"),
    "a larger shape": meta(sizes=[{"as_int": 80}, {"as_int": 60}]),
    "a smaller shape": meta(sizes=[{"as_int": 2}, {"as_int": 6}]),
    "a negative shape": meta(sizes=[{"as_int": -8}, {"as_int": 6}]),
    "an offset beyond": meta(storage_offset={"as_int": 1 << 40}),
    "another type": meta(dtype=8),
    "no type": meta(dtype=99),
    "another device": meta(device={"type": "cuda", "index": 0}),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_not_what_the_file_says(members, change):
    write(edited(members, WEIGHTS, change))
    refusal(r"net\.pt2: (damaged|cannot be read) \(.*\); expected a \.pt2 file as torch\.export\.save")


def test_shapes_of_tensors_that_are_not_there_take_no_memory(members):
    huge = [{"as_int": 1 << 40}]
    write(edited(members, WEIGHTS, meta(sizes=huge, strides=[{"as_int": 0}])))
    refusal("0.weight: 8 TiB .*; expected at most")
    write({**edited(members, WEIGHTS, meta(sizes=huge)), "data/weights/weight_0": b""})
    refusal("damaged .*no bytes for 0.weight")


def graph(key, value):
    """Put a value in the place of all that the graph has under a key."""

    def change(found):
        if isinstance(found, list):
            for one in found:
                change(one)
        elif isinstance(found, dict):
            for name in found:
                if name == key:
                    found[name] = value
                else:
                    change(found[name])

    return change


RUN = "__import__('os').system('touch left.txt')"
CODE = {
    "a function of torch": ("the operation torch.hub.load", GRAPH, graph("target", "torch.hub.load")),
    "a file": ("the operation torch.ops.aten.from_file", GRAPH, graph("target", "torch.ops.aten.from_file.default")),
    "an extension": ("the operation #own:op", GRAPH, graph("target", "#own:op")),
    "a size": ("an expression that is no arithmetic", GRAPH, graph("expr_str", RUN)),
    "a method": ("an expression that is no arithmetic", GRAPH, graph("expr_str", "Symbol('s0').subs(1, 2)")),
    "a tower": ("an expression that is no arithmetic", GRAPH, graph("expr_str", "9**9**9")),
    "a function of sizes": ("an expression that is no arithmetic", GRAPH, graph("expr_str", "Pow(Integer(9), 99999)")),
    "a range": ("a name that is none", GRAPH, lambda g: g["range_constraints"].update({RUN: {}})),
    "a structure": (
        "a structure of the type collections.defaultdict", GRAPH,
        graph("in_spec", json.dumps([1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}])),
    ),
    "a path": ("a path that is none", GRAPH, graph("nn_module_stack", 'L__self__,a"),\nimport os\n#,b')),
    "a name": ("a name that is none", GRAPH, graph("parameter_name", 'a"\nimport os\n#')),
    "a pickle": ("a pickle for 0.weight", WEIGHTS, payload(use_pickle=True)),
}  # fmt: skip


@pytest.mark.parametrize("said, name, change", CODE.values(), ids=CODE)
def test_what_runs_code_is_named_and_not_run(members, said, name, change):
    before = members[name]
    members = edited(members, name, change)
    assert json.loads(members[name]) != json.loads(before)
    write(members)
    refusal(rf"net\.pt2: holds {said}.*, and reading it runs code \(nothing was run\); .*; .* add --allow-code")


@pytest.mark.parametrize(
    "name", ["data/constants/opaque_obj_0", "data/weights/model.pt", "data/aotinductor/model/a.so"]
)
def test_members_of_other_kinds(members, name):
    write({**members, name: pickle.dumps(Opens())})
    refusal(f"holds the member net/{name}, and reading it runs code")


def test_an_example_that_runs_code_is_refused_and_allowed(members):
    torch.save((Opens(),), "example.pt")
    with open("example.pt", "rb") as file:
        write({**members, "data/sample_inputs/model.pt": file.read()})
    refusal("holds an example whose inputs are more than tensors, and reading it runs code")
    with contextlib.suppress(InputError):  # what torch makes of such an example is its own matter
        load_model("net.pt2", allow_code=True)
    assert os.path.exists("left.txt")
