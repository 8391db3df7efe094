"""Networks of the user's own: by module:attribute, or from files that nobody has to trust; what is said of bad ones."""

import io
import os
import pickle
import re
import sys
import warnings
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulator.errors import InputError  # noqa: E402
from simulator.network import limits, state_dicts  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.fc2 = nn.Linear(8, 3)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))

    def forward(self, inputs):
        return self.fc2(torch.relu(self.norm(self.fc1(inputs))))


class Wide(nn.Module):
    def __init__(self, width, depth=1):
        super().__init__()


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = undefined


class Large(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1 << 19, 1 << 10)
        print("filled")


class Impossible(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1 << 30, 1 << 30)


class Other:
    pass


class Nested:
    net = Net()


torch.manual_seed(5)
net = Net()
dropout = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
number = 3


def build(scale=1):
    return Net()


def seven():
    return 7


def leave():
    raise SystemExit(4)


def on_meta():
    with torch.device("meta"):
        return Net()


def lazy():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))


def diverged():
    net = Net()
    net.fc1.weight.data[0, 0] = torch.nan
    return net


def double():
    return Net().double()


def scripted():
    return torch.jit.script(Net())
"""
MODULES = {
    "nets.py": NETS,
    "failing.py": 'x = 1\nraise ValueError("no licence\\nfor you")\n',
    "wrong.py": "def f(:\n",
    "needy.py": "import nowhere_to_be_found\n",
    "leaving.py": "import sys\nsys.exit(3)\n",
    "tracks.py": 'import pathlib\n\n\ndef left(path):\n    pathlib.Path(path).write_text("")\n',
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A directory with modules and samples, in which the command line runs; its modules are forgotten afterwards."""
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    x = np.random.default_rng(0).standard_normal((4, 6))
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(4) % 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture
def state(here):
    """The state dict of a Net with weights of its own."""
    import nets

    torch.manual_seed(6)
    return nets.Net().state_dict()


def run(command, *arguments):
    return command("--hw", "npu", "--data", "data.npz", "--samples", 2, "--json", *arguments)


def refused(command, *arguments):
    """Return the one line that the command line says to bad input."""
    code, out, err = run(command, *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("ulpsim: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    assert "; " in err
    return err.removeprefix("ulpsim: error: ").rstrip()


# --- module:attribute -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["net", "Net", "build", "Nested.net", "dropout", "double"])
def test_a_network_is_an_instance_or_what_makes_one(command, attribute):
    code, out, err = run(command, "--model", f"nets:{attribute}")
    assert (code, err) == (0, "")
    assert f'"model": "nets:{attribute}"' in out


def test_networks_come_in_eval_mode_without_gradients():
    model = load_model("nets:dropout")
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_drawn_at_random_depend_on_the_seed_and_leave_the_callers_state():
    torch.manual_seed(3)
    first, second, other = (load_model("nets:Net", seed=seed).fc1.weight for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


def test_an_installed_module_needs_no_file(here):
    assert isinstance(load_model("torch.nn:Identity"), torch.nn.Identity)


def test_modules_of_the_current_directory_are_found_by_the_installed_command_too(here, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert load_model("nets:Net")


NAMED = "expected an nn.Module, or a class or function that makes one without arguments; "
ATTRIBUTES = {
    "nets:Wide": f"needs the arguments width; {NAMED}write a function .* `def network\\(\\): return Wide\\(width=",
    "nets:seven": f"returned an object of type int; {NAMED}correct the function",
    "nets:number": f"is of type int; {NAMED}name another one",
    "nets:Other": f"is the class Other; {NAMED}name another one",
    "nets:Nett": r"nets \(.*nets\.py\) has no 'Nett'; expected one of its networks: Net, .*; did you mean 'Net'\?",
    "nets:Nested.nett": r"has no 'Nested\.nett'; expected one of its networks",
    "math:sin": "needs the arguments x; ",
    "nets:Failing": r"making the network failed \(NameError: .*undefined.*\) at .*nets\.py:\d+; .*correct it",
    "nets:leave": r"making the network failed \(SystemExit: 4\) at .*nets\.py",
    "nets:Impossible": r"needs more memory than there is .* at .*nets\.py:\d+; .*take a smaller network",
    "nets:on_meta": r"fc1\.weight has no values yet; .*give them with --weights FILE, or make",
    "nets:lazy": r"0\.weight has no values yet; ",
    "nets:diverged": r"fc1\.weight holds NaN or infinities; expected finite weights; ",
    "failing:Net": r"importing failing failed \(ValueError: no licence\) at .*failing\.py:2; ",
    "wrong:Net": r"importing wrong failed \(SyntaxError: .*\) at .*wrong\.py:1; ",
    "needy:Net": r"needs the module nowhere_to_be_found at .*needy\.py:1, which is not installed; .*; install it",
    "leaving:Net": r"importing leaving failed \(SystemExit: 3\) at .*leaving\.py:2; ",
    "nowhere_at_all:Net": r"no module 'nowhere_at_all'; expected one in the current directory \(.*\) or installed; ",
    "nets.below:Net": r"no module 'nets\.below'; ",
}


@pytest.mark.parametrize("name, message", ATTRIBUTES.items(), ids=ATTRIBUTES)
def test_attributes_that_are_no_network(command, name, message):
    err = refused(command, "--model", name)
    assert err.startswith(f"--model {name}: ")
    assert re.search(message, err), err


NAMES = {
    "nets.py:Net": "expected module:attribute, .* no path; correct it; did you mean 'nets:Net'?",
    "./nets:Net": "expected module:attribute",
    "nets:": "expected module:attribute",
    ":Net": "expected module:attribute",
    "nets": "expected one of mlp, cnn, .* module:attribute, or a .onnx, .keras, .pt2, .pt or .pth file; choose one",
    "mpl": "choose one; did you mean 'mlp'?",
    "net.safetensors": "that file holds weights alone: give --model module:attribute --weights FILE",
    ".": "expected one of mlp, cnn",
}


@pytest.mark.parametrize("name, message", NAMES.items(), ids=NAMES)
def test_names_of_no_kind(command, name, message):
    err = refused(command, "--model", name)
    assert err.startswith(f"--model: got {name!r}; ")
    assert all(part in err for part in message.split(" .* ")), err


def test_scripted_modules_are_refused(command):
    assert "a TorchScript module; expected a plain module" in refused(command, "--model", "nets:scripted")


def test_networks_of_ones_own_need_data(command):
    code, _, err = command("--hw", "npu", "--model", "nets:Net")
    assert code == 2 and err.count("\n") == 1
    assert "--data: not given, and the bundled digits are for the bundled networks only" in err
    assert "give --data FILE.npz, as numpy.savez(path, x=..., y=...) writes it" in err


# --- weights --------------------------------------------------------------------------------------------------------


def legacy(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def safetensors(value, path):
    pytest.importorskip("safetensors", reason="needs safetensors").torch.save_file(value, path)


WRITERS = {"w.pt": torch.save, "w.pth": torch.save, "old.pt": legacy, "w.safetensors": safetensors, "w.bin": torch.save}


@pytest.mark.parametrize("network", ["nets:Net", "nets:on_meta"])
@pytest.mark.parametrize("path, write", WRITERS.items(), ids=WRITERS)
def test_weights_of_a_file_are_put_in(state, network, path, write):
    pytest.importorskip("safetensors.torch") if write is safetensors else None
    write(state, path)
    model = load_model(network, path)
    assert set(model.state_dict()) == set(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_run_from_the_command_line(command, state):
    torch.save(state, "w.pt")
    code, out, err = run(command, "--model", "nets:Net", "--weights", "w.pt")
    assert (code, err) == (0, "") and '"name": "fc1"' in out


def test_names_in_a_file_do_not_command_the_terminal(command, state):
    torch.save({**state, "\x1b[31mred": torch.zeros(1)}, "w.pt")
    assert "has besides \\x1b[31mred; " in refused(command, "--model", "nets:Net", "--weights", "w.pt")


def test_weights_that_share_memory_and_views_are_whole(state):
    shared = torch.arange(12.0).reshape(2, 6)
    own = {
        **state,
        "fc1.weight": shared.repeat(4, 1)[:, :6],
        "fc2.bias": shared[0, :3],
        "norm.bias": shared.view(-1)[:8],
    }
    torch.save(own, "w.pt")
    assert torch.equal(load_model("nets:Net", "w.pt").norm.bias, torch.arange(8.0))


def test_bundled_networks_take_weights_too():
    torch.save({name: value * 2 for name, value in load_model("mlp").state_dict().items()}, "double.pt")
    assert torch.equal(load_model("mlp", "double.pt").fc3.bias, 2 * load_model("mlp").fc3.bias)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_other_types_are_taken_where_that_changes_no_value(state, dtype):
    narrow = state["fc1.weight"].to(getattr(torch, dtype))
    torch.save({**state, "fc1.weight": narrow}, "w.pt")
    assert torch.equal(load_model("nets:Net", "w.pt").fc1.weight, narrow.float())


def test_a_wide_network_takes_narrow_weights(state):
    torch.save(state, "w.pt")
    assert torch.equal(load_model("nets:double", "w.pt").fc1.weight, state["fc1.weight"].double())


def changed(name, change):
    return lambda state: {**state, name: change(state[name])}


def quantised(value):
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def first(value, number):
    value = value.clone()
    value.view(-1)[0] = number
    return value


TYPE = r"fc1\.weight is {} and the network's is float32; expected that type, .*; convert the tensor yourself"
STATES = {
    "missing": (
        lambda state: {k: v for k, v in state.items() if k != "fc2.bias"},
        r"other weights than the network Net: lacks fc2\.bias; expected the 10 of its state dict; ",
    ),
    "besides": (lambda state: {**state, "fc3.bias": torch.ones(1)}, r"other weights .*: has besides fc3\.bias; "),
    "of a wrapper": (
        lambda state: {f"module.{k}": v for k, v in state.items()},
        r"lacks mask, fc1\.weight, .* and has besides module\.mask, .* and \d+ more; .* names begin with 'module\.', "
        "as of a wrapper: save the state dict of the network inside it",
    ),
    "shape": (
        changed("fc1.weight", lambda value: value[:2]),
        r"does not fit the network Net \(size mismatch for fc1\.weight: .*\[2, 6\].*\[8, 6\]\)\); expected",
    ),
    "rounded": (changed("fc1.weight", lambda value: value.double() + 1e-12), TYPE.format("float64")),
    "int8": (changed("fc1.weight", lambda value: value.to(torch.int8)), TYPE.format("int8")),
    "int64": (changed("fc1.weight", lambda value: value.long()), TYPE.format("int64")),
    "complex": (changed("fc1.weight", lambda value: value.cfloat()), TYPE.format("complex64")),
    "sparse": (changed("fc1.weight", lambda value: value.to_sparse()), r"fc1\.weight is sparse; .*to_dense\(\)"),
    "quantised": (changed("fc1.weight", quantised), r"fc1\.weight is quantised; .*dequantize\(\)"),
    "meta": (changed("fc1.weight", lambda value: value.to("meta")), r"fc1\.weight has no values \(device meta\)"),
    "NaN": (changed("fc1.weight", lambda value: first(value, torch.nan)), r"fc1\.weight holds NaN or infinities; "),
    "wide NaN": (changed("fc1.weight", lambda value: first(value, torch.nan).double()), r"fc1\.weight holds NaN"),
    "infinity below": (changed("fc2.bias", lambda value: first(value, -torch.inf)), r"fc2\.bias holds NaN or inf"),
    "infinity": (changed("fc2.bias", lambda value: first(value, torch.inf)), r"fc2\.bias holds NaN or infinities; "),
    "NaN in a buffer": (changed("norm.running_mean", lambda value: first(value, torch.nan)), r"running_mean holds NaN"),
    "checkpoint": (
        lambda state: {"epoch": 3, "model": state},
        r"holds a dict of epoch, model; expected a state dict; write .* torch\.save\(torch\.load\(path\)\['model'\]",
    ),
    "mixed": (lambda state: {**state, "epoch": 3}, r"holds a dict of .* and \d+ more; expected a state dict"),
    "empty": (lambda state: {}, "holds an empty dict; expected a state dict; "),
    "list": (lambda state: [1, 2], "holds a list; expected a state dict; "),
    "tensor": (lambda state: torch.zeros(3), "holds a Tensor; expected a state dict; "),
}  # fmt: skip


@pytest.mark.parametrize("make, message", STATES.values(), ids=STATES)
def test_weights_that_are_not_the_networks(command, state, make, message):
    torch.save(make(state), "w.pt")
    err = refused(command, "--model", "nets:Net", "--weights", "w.pt")
    assert err.startswith("w.pt: ")
    assert re.search(message, err), err


def cut(write, size):
    def write_cut(state, path):
        write(state, path)
        with open(path, "rb+") as file:
            file.truncate(os.path.getsize(path) + size if size < 0 else size)

    return write_cut


def bytes_of(content):
    def write(state, path):
        with open(path, "wb") as file:
            file.write(content)

    return write


def rewritten(change, compression=zipfile.ZIP_STORED):
    """Write an archive as torch.save does, its members changed."""

    def write(state, path):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", compression) as new:
            for name in old.namelist():
                new.writestr(name, change(name.split("/")[-1], old.read(name)))

    return write


def export(state, path):
    program = torch.export.export(load_model("nets:Net"), (torch.zeros(2, 6),))
    with open(path, "wb") as file:
        torch.export.save(program, file)


def arrays(state, path):
    with open(path, "wb") as file:
        np.savez(file, x=1)


FILES = {
    "empty": (bytes_of(b""), "empty, so it cannot be read; expected a file that torch.save wrote; write the file anew"),
    "text": (bytes_of(b"hello\n"), "cannot be read; expected a whole file that torch.save wrote; "),
    "zeros": (bytes_of(bytes(1000)), "cannot be read"),
    "truncated": (cut(torch.save, -300), "an archive that is truncated or damaged"),
    "truncated early": (cut(torch.save, 600), "an archive that is truncated or damaged"),
    "truncated old form": (cut(legacy, -100), "cannot be read (RuntimeError: unexpected EOF"),
    "other pickle": (bytes_of(pickle.dumps({"x": 1})), "cannot be read"),
    "npz": (arrays, "an archive of another kind, or a compressed one (of"),
    "compressed": (rewritten(lambda name, data: data, zipfile.ZIP_DEFLATED), "or a compressed one"),
    "damaged pickle": (rewritten(lambda name, data: data[:40] if name == "data.pkl" else data), "cannot be read"),
    "short tensors": (
        rewritten(lambda name, data: data[:4] if name == "1" else data),
        "an archive that is damaged (tensors of ",
    ),
    "TorchScript": (
        lambda state, path: torch.jit.script(load_model("nets:Net")).save(path),
        "a TorchScript archive; its compiled operations are hidden from the tap; expected what torch.save wrote; save "
        "the weights with torch.save(model.state_dict(), path), and give --model module:attribute --weights FILE",
    ),
    "exported": (export, "an archive of torch.export; it holds a graph, not a state dict; "),
}


@pytest.mark.parametrize("as_model", [False, True], ids=["weights", "model"])
@pytest.mark.parametrize("write, message", FILES.values(), ids=FILES)
def test_files_of_another_kind(command, state, write, message, as_model):
    write(state, "w.pt")
    err = refused(command, *(("--model", "w.pt") if as_model else ("--model", "nets:Net", "--weights", "w.pt")))
    assert err.startswith(f"w.pt: {message}") or (err.startswith("w.pt: ") and message in err), err


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02" + bytes(7) + b"{}", b"hello"])
def test_safetensors_of_another_kind(command, content):
    pytest.importorskip("safetensors", reason="needs safetensors")
    bytes_of(content)(None, "w.safetensors")
    err = refused(command, "--model", "nets:Net", "--weights", "w.safetensors")
    assert err.startswith("w.safetensors: ") and (
        ".safetensors file" in err or "holds an empty dict" in err or "lacks" in err
    )


def test_safetensors_may_not_be_installed(command, state, monkeypatch):
    bytes_of(b"anything")(None, "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    err = refused(command, "--model", "nets:Net", "--weights", "w.safetensors")
    assert "needs the library safetensors; install it with: pip install 'ulpsim[torch]'" in err


def test_paths_that_lead_to_no_file(command):
    for path, found in [("none.pt", "no such file"), (".", "a directory"), ("/dev/null", "not a regular file")]:
        err = refused(command, "--model", "nets:Net", "--weights", path)
        assert err == f"{path}: {found}; expected a file that torch.save wrote; check the path"
    assert refused(command, "--model", "none.pt").startswith("none.pt: no such file")


# --- code in files --------------------------------------------------------------------------------------------------


class Malicious:
    """Unpickled with the means of pickle, it leaves a file behind."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def malicious():
    import tracks

    return {
        "a command": Malicious(os.system, "touch marker"),
        "an evaluation": Malicious(eval, "open('marker', 'w')"),
        "a module of the user's": Malicious(tracks.left, "marker"),
    }


@pytest.mark.parametrize("as_model", [False, True], ids=["weights", "model"])
@pytest.mark.parametrize("form", ["archive", "old form", "pickle"])
@pytest.mark.parametrize("kind", ["a command", "an evaluation", "a module of the user's"])
def test_code_in_a_file_does_not_run(command, here, state, kind, form, as_model):
    bomb = malicious()[kind]
    value = {**state, "fc1.weight": bomb}
    if form == "pickle":
        with open("w.pt", "wb") as file:
            pickle.dump(value, file)
    else:
        torch.save(value, "w.pt", _use_new_zipfile_serialization=form == "archive")
    err = refused(command, *(("--model", "w.pt") if as_model else ("--model", "nets:Net", "--weights", "w.pt")))
    assert not (here / "marker").exists()
    if form != "pickle":  # what is no file of torch's at all is said to be none
        assert "(nothing was run)" in err and bomb.function.__name__ in err


def test_code_runs_where_it_is_allowed_which_is_why_it_is_not(command, here):
    """The files above would do harm: the same one, allowed, does."""
    torch.save(malicious()["a command"], "w.pt")
    refused(command, "--model", "w.pt", "--allow-code")
    assert (here / "marker").exists()


@pytest.mark.parametrize("write", [torch.save, legacy])
def test_a_pickled_module_needs_leave_to_run_its_code(command, state, write):
    write(load_model("nets:Net"), "whole.pt")
    err = refused(command, "--model", "whole.pt")
    assert err == (
        "whole.pt: holds a pickled object, and loading it would run nets.Net and whatever else the file says, with all "
        "your rights (nothing was run); expected --model module:attribute --weights FILE with a state dict, which runs "
        "nothing of a file; or, if you trust where the file comes from, add --allow-code"
    )
    assert "holds more than tensors, and loading it would run nets.Net (nothing was run); expected a state dict" in (
        refused(command, "--model", "nets:Net", "--weights", "whole.pt")
    )
    code, out, err = run(command, "--model", "whole.pt", "--allow-code")
    assert (code, err) == (0, "") and '"model": "whole.pt"' in out


def test_a_pickled_module_whose_code_is_elsewhere(command, here):
    torch.save(load_model("nets:Net"), "whole.pt")
    (here / "nets.py").unlink()
    del sys.modules["nets"]
    err = refused(command, "--model", "whole.pt", "--allow-code")
    assert "cannot be read (ModuleNotFoundError: No module named 'nets')" in err
    assert "make the modules it names importable here" in err


@pytest.mark.parametrize("allowed", [(), ("--allow-code",)])
def test_a_file_of_weights_is_no_network(command, state, allowed):
    torch.save(state, "w.pt")
    assert refused(command, "--model", "w.pt", *allowed) == (
        "w.pt: a state dict, weights without the network's code; expected a whole module; give --model "
        "module:attribute --weights FILE"
    )
    torch.save({"epoch": 3, "model": state}, "w.pt")
    assert "w.pt: holds a dict of epoch, model; expected a whole module; " in refused(
        command, "--model", "w.pt", *allowed
    )


def test_code_is_allowed_to_files_only(command):
    for name in ("mlp", "nets:Net"):
        assert f"--allow-code: given with --model {name}, " in refused(command, "--model", name, "--allow-code")


def test_torch_is_not_talked_into_unpickling_by_the_environment(command, here, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(malicious()["a command"], "w.pt")
    refused(command, "--model", "w.pt")
    assert not (here / "marker").exists()


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 30)


def test_what_fits_is_half_of_the_memory(small_machine):
    limits.check_fits("x", 1 << 27, 4)
    with pytest.raises(InputError) as caught:
        limits.check_fits("layer fc1: outputs", (1 << 27) + 1, 4)
    assert str(caught.value) == (
        "layer fc1: outputs: 512 MiB (134,217,729 x 4 bytes); expected at most 512 MiB, half of this machine's memory; "
        "take fewer samples at once, a smaller network, or a machine with more memory"
    )


def test_the_memory_is_known():
    assert 1 << 28 < limits.physical_memory() < 1 << 50


def test_a_large_network_is_refused_before_it_is_filled(command, small_machine):
    err = refused(command, "--model", "nets:Large")  # "filled" on standard output would fail here
    assert err.startswith("--model nets:Large: parameters of the network: 2 GiB; expected at most 512 MiB, half of")


def test_a_large_file_is_refused_before_it_is_read(command, small_machine):
    with open("w.pt", "wb") as file:
        file.truncate(1 << 32)
    for arguments in (("--model", "w.pt"), ("--model", "nets:Net", "--weights", "w.pt")):
        assert refused(command, *arguments).startswith("w.pt: 4 GiB; expected at most 512 MiB, half of this machine's")


def test_state_dicts_are_read_where_they_are_told_from_other_things(state):
    torch.save(state, "w.pt")
    assert state_dicts.is_state_dict(state_dicts.read_torch_file("w.pt"))
    assert list(state_dicts.read_state_dict("w.pt")) == list(state)
