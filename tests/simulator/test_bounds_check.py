"""The checker of certificates: it follows what the analysis writes, and says where something was altered."""

import base64
import hashlib
import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
flint = pytest.importorskip("flint")

from torch import nn  # noqa: E402  (needs torch)
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.arithmetic.spec import mac as house_mac  # noqa: E402
from simulator.bounds import METHODS  # noqa: E402
from simulator.bounds.certificate import certificate, text_of  # noqa: E402
from simulator.bounds.check import Verdict, check, check_file, formats, macs, smooth  # noqa: E402
from simulator.bounds.check.document import NoRule  # noqa: E402
from simulator.bounds.roundings import of_precision, of_use  # noqa: E402
from simulator.bounds.sums import sum_bound  # noqa: E402
from tests.oracles.certificates import LITTLE, Between, Images, altered, change, refused, repack, unpacked  # noqa: E402

ROOT = Path(simulator.__file__).parents[1]

# --- networks, one for each kind of operation ------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention over three places."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.last = (nn.Linear(n, m) for n, m in ((4, 4), (4, 4), (4, 4), (12, 3)))

    def forward(self, x):
        weights = torch.softmax(torch.bmm(self.query(x), self.key(x).transpose(1, 2)) * 0.5, -1)
        return self.last(torch.bmm(weights, self.value(x)).flatten(1))


class Residual(nn.Module):
    """Sums, differences and products of values, constants and numbers that are no powers of two."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.shift = nn.Parameter(torch.randn(6))

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = (y + self.second(y) - self.shift) * x
        y = y * y + y.mean(1, keepdim=True).expand(-1, 6) - 2.0
        return self.last(y) * 0.3 + 0.1


class Shapes(nn.Module):
    """Views of every kind, and a product of two matrices without an addend."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        y = self.first(x).unsqueeze(1).squeeze(1).view(-1, 2, 2).permute(0, 2, 1).transpose(1, 2).contiguous().clone()
        return self.last(y.detach().flatten(1)).unsqueeze(-1).squeeze(-1)


def normalised(channels):
    layer = nn.BatchNorm2d(channels)
    for values, least, most in ((layer.running_mean, -1, 1), (layer.running_var, 0.1, 2), (layer.bias, -1, 1)):
        values.data.uniform_(least, most)
    layer.weight.data[:] = torch.tensor([0.5, 0.0, -1.5])[:channels]
    return layer


NETWORKS = {
    "relu": lambda: Between(torch.relu),
    "leaky_relu": lambda: Between(lambda x: functional.leaky_relu(x, 0.3)),
    "hardtanh": lambda: Between(lambda x: functional.hardtanh(x, -0.1, 0.7)),
    "relu6": lambda: Between(functional.relu6),
    "clamp": lambda: Between(lambda x: x.clamp(min=-0.25)),
    "tanh": lambda: Between(torch.tanh),
    "sigmoid": lambda: Between(torch.sigmoid),
    "exp": lambda: Between(torch.exp),
    "erf": lambda: Between(torch.erf),
    "gelu": lambda: Between(functional.gelu),
    "silu": lambda: Between(functional.silu),
    "softmax": lambda: Between(lambda x: torch.softmax(x, 1)),
    "sum": lambda: Between(lambda x: x + x.sum(1, keepdim=True)),
    "mean": lambda: Between(lambda x: x * x.mean(1, keepdim=True)),
    "square": lambda: Between(lambda x: x * x),
    "residual": Residual,
    "shapes": Shapes,
    "attention": Attention,
    "convolution": lambda: Images(
        12, nn.Conv2d(2, 4, 3, padding=1, stride=2, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 2, bias=False, dilation=2)
    ),
    "batch norm": lambda: Images(27, nn.Conv2d(1, 3, 3), normalised(3), nn.ReLU(), nn.MaxPool2d(2)),
    "pools": lambda: Images(
        3, nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1), nn.AvgPool2d(3)
    ),
}
INPUTS = {"attention": (3, 4), "convolution": (2, 8, 8), "batch norm": (1, 8, 8), "pools": (1, 8, 8)}
MACS = [
    "fma(fp16)", "fma(fp16, 4)", "seq(bf16)", "seq(bf16, fp16)", "seq(fp64)", "chunk(3, fma(fp16), seq(fp32))",
    "late(seq(fp16))", "late(chunk(2, fma(e5m7), seq(bf16/odd)))", "reverse(4, seq(bf16))", "tree(fp16)",
    "tree(bf16, 3, leaves=exact)", "interleave(2, fma(fp16), seq(fp16))", "exact(fp16)", "late(exact(fp16))",
    "fp8_e4m3 -> fma(fp16) -> fp8_e5m2/sat", "fp8_e5m2*fp8_e4m3 -> chunk(2, exact(fp16), fma(fp32))",
    "bf16 -> fma(fp32) -> bf16", "fma(fp16/rz)", "seq(bf16/sr:8)", "fma(fp8_e4m3)", "fma(e5m10:ftz)",
    "tf32/rna -> fma(fp32)",
]  # fmt: skip
ALIGNED = [
    "fp16 -> aligned(n=16, frac=25, out=fp32/rz, e_min=-133)",
    "fp8_e4m3 -> aligned(n=2, frac=13, out=e8m13/rz, order=two_of_four)",
    "bf16*fp16 -> aligned(n=4, frac=12, out=fp16, align=rne, e_min=-20, zero=keep, group=2)",
]
# Units, precisions, methods, and whether the inputs are boxes.
SETTINGS = [
    ("fma(fp16)", None, "adjoint", False), ("seq(fp16)", None, "forward, running sums", True),
    ("fp16 -> chunk(3, fma(fp16), seq(fp32))", None, "adjoint, running sums", True),
    ("tree(fp16)", 12, "adjoint", True), ("seq(fp16)", 24, "adjoint, running sums", False),
    ("late(fma(fp16/rz))", 53, "forward", False),
]  # fmt: skip


def network(name, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name]().eval()


def inputs(name, box, seed=1, samples=2):
    x = torch.randn(samples, *INPUTS.get(name, (6,)), generator=torch.Generator().manual_seed(seed))
    return (x - 2.0**-7, x + x.abs() * 2.0**-9) if box else x


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mac", "precision", "method", "box"), SETTINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_certificates_of_every_kind_of_operation_are_followed(name, mac, precision, method, box):
    found = check(text_of(certificate(network(name), inputs(name, box), mac, precision, method=method)))
    assert found.ok, "\n".join(found.problems)
    assert found.samples == 2 and found.values > 12 and (found.derivatives > 0) == ("adjoint" in method)
    assert found.method == method and found.unit.startswith(mac if precision is None else "")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mac", [*MACS, *ALIGNED])
def test_certificates_of_every_unit_are_followed(mac, method):
    found = check(certificate(network("relu"), inputs("relu", False), mac, method=method))
    assert found.ok, "\n".join(found.problems)


def test_the_certificate_of_a_machine_is_followed():
    found = check(certificate(network("relu"), inputs("relu", False), simulator.load_hardware("npu"), method="adjoint"))
    assert found.ok, "\n".join(found.problems)
    assert found.machine.endswith(", low") and found.vector == "fp32"
    assert found.unit == "fp8_e4m3/sat -> chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))"


@pytest.mark.parametrize("mode", ["low", "high"])
def test_the_certificate_of_a_machine_that_aligns_its_terms_is_followed(mode):
    machine = simulator.load_hardware("nvidia_h100")
    form = certificate(network("relu"), inputs("relu", False), machine, mode=mode, method="adjoint")
    found = check(form)
    assert found.ok and "aligned(" in found.unit, "\n".join(found.problems)


def test_what_factors_below_the_normals_cost_in_aligned_steps_is_found():
    """Their exponent is that of the normals, below which more is cut than is there."""
    x = torch.full((2, 6), 2.0**-23)
    form = certificate(network("relu"), x, "fp16 -> aligned(n=4, frac=8, out=fp32)", method="forward")
    assert check(form).ok

    def lower(form):
        change(form["values"]["1"]["local"], (0, 0), lambda x: x * (1.0 - LITTLE))

    refused(altered(form, lower), r"value 1 \(addmm in first\): local: sample 0, element \(0, 0\)")


def test_what_overflows_is_followed_as_far_as_it_has_bounds():
    model = network("tanh")
    model.first.weight.data *= 1e6
    form = certificate(model, inputs("tanh", False), "fma(fp16)")
    assert np.isinf(unpacked(form["claim"]["bounds"])).any()
    found = check(form)
    assert found.ok and not found.certified, "\n".join(found.problems)


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["mlp", "mlp_tanh", "cnn"])
def test_certificates_of_the_bundled_networks_are_followed(name, method):
    from simulator.network import bundled

    found = check(certificate(bundled.load(name), bundled.digits()[0][:4], "fma(fp16)", method=method))
    assert found.ok, "\n".join(found.problems)


# --- what is refused by name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "mac", "says"),
    [
        (lambda x: functional.gelu(x), "aligned(n=4, frac=20, out=fp32, c=late)", "c=late is no setting of aligned"),
        (lambda x: functional.gelu(x), "fixed(32, 16, sat)", "the accumulator fixed is none"),
        (lambda x: functional.gelu(x), "fma(dlfloat16)", "the format dlfloat16 is none"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(function, mac, says):
    torch.manual_seed(0)
    found = check(certificate(Between(function).eval(), inputs("", False), mac, method="forward"))
    assert not found.ok and any(says in problem for problem in found.problems), found.problems


def test_a_vector_unit_in_another_format_is_refused():
    def narrower(form):
        form["graph"]["nodes"][1]["vector"]["u"] = 2.0**-8

    refused(altered(made(), narrower), r"relu in 1: no rule for the vector unit \{'u': 0.00390625")


# --- what was altered ------------------------------------------------------------------------------------------------


def made(mac="fma(fp16)", precision=None, method="adjoint, running sums"):
    """Return the certificate of a network of two layers, each with an activation behind it."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    return certificate(model, inputs("", False), mac, precision, method=method)


@pytest.mark.parametrize("part", ["lo", "hi", "d", "e", "local"])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_bound_that_is_a_millionth_too_small_is_found(number, part):
    form = made()
    numbers = unpacked(form["values"][str(number)][part])
    there = np.argwhere(np.isfinite(numbers) & (numbers != 0))
    if part == "local" and number == 2:
        assert not len(there)  # a ReLU rounds nothing
        return
    at = tuple(there[len(there) // 2])
    sign = 1.0 if part == "lo" else -1.0

    def narrow(form):
        change(form["values"][str(number)][part], at, lambda x: x + sign * LITTLE * abs(x))

    place = f"sample {at[0]}, element \\({at[0]}, {at[1]}\\)"
    refused(altered(form, narrow), rf"value {number} \(.* in \d\): {part}: {place}: .* that its rule gives")


@pytest.mark.parametrize("end", ["lo", "hi"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_a_narrowed_interval_of_derivatives_is_found(number, end):
    form = made()
    numbers = unpacked(form["gradients"]["1"][str(number)][end])
    at = tuple(np.argwhere(np.abs(numbers) > LITTLE)[0])
    sign = 1.0 if end == "lo" else -1.0

    def narrow(form):
        change(form["gradients"]["1"][str(number)][end], at, lambda x: x + sign * LITTLE * abs(x))

    place = f"sample {at[0]}, element \\({at[0]}, {at[1]}\\)"
    refused(altered(form, narrow), rf"value {number}\b.*derivatives of class 1: {end}: {place}")


def test_a_bit_of_a_weight_is_found():
    def flip(form):
        key = form["graph"]["nodes"][2]["args"][2]["constant"]
        numbers = unpacked(form["graph"]["constants"][key])
        numbers.view(np.int64)[0, 0] ^= 1
        repack(form["graph"]["constants"][key], numbers)

    refused(altered(made(), flip), r"graph: constant \w+: its digest is \w+; the weights are not those")


def test_a_weight_that_is_put_in_the_place_of_another_is_found_by_what_it_computes():
    def replace(form):
        node, constants = form["graph"]["nodes"][2], form["graph"]["constants"]
        array = constants.pop(node["args"][2]["constant"])
        numbers = unpacked(array)
        numbers[1, 2] *= 1.0 + 2.0**-22
        repack(array, numbers)
        shape = f"torch.Size({array['shape']})"
        key = hashlib.sha256(np.asarray(numbers, "<f8").tobytes() + shape.encode()).hexdigest()[:16]
        node["args"][2]["constant"], constants[key] = key, array

    refused(altered(made(), replace), r"value 3 \(addmm in 2\): (lo|hi): sample \d, element \(\d, 2\)")


def test_another_order_in_one_layer_is_found():
    def order(form):
        form["graph"]["nodes"][2]["mac"] = "seq(fp16)"

    def torchs_own(form):
        form["graph"]["nodes"][2] |= {"mac": "seq(fp32)", "ordered": False}

    def everywhere(form):
        for node in form["graph"]["nodes"]:
            node |= {"ordered": False} if "mac" in node else {}

    one = "expected one unit, as no machine is named"
    refused(altered(made(), order), rf"unit: got products on fma\(fp16\) and on seq\(fp16\); {one}")
    refused(
        altered(made(), torchs_own),
        rf"unit: got products on fma\(fp16\) and on seq\(fp32\) in torch's own order; {one}",
    )
    refused(altered(made("seq(fp32)"), everywhere), f"unit: got products in torch's own order; {one}")


@pytest.mark.parametrize(
    ("mac", "other"),
    [
        ("exact(fp16)", "fma(fp16)"), ("tree(fp16)", "seq(fp16)"), ("fma(fp16)", "seq(fp16)"),
        ("fma(fp16, 4)", "fma(fp16, 2)"), ("chunk(2, fma(fp16), fma(fp16))", "chunk(3, fma(fp16), fma(fp16))"),
        ("interleave(2, fma(fp16), seq(fp16))", "interleave(1, fma(fp16), seq(fp16))"),
        ("fma(fp16)", "late(fma(fp16))"), ("fma(fp16)", "fma(fp16/rz)"), ("fma(fp32)", "fma(fp16)"),
        ("aligned(n=4, frac=20, out=fp32)", "aligned(n=4, frac=19, out=fp32)"),
        ("aligned(n=4, frac=20, out=fp32)", "aligned(n=2, frac=20, out=fp32, order=two_of_four)"),
        ("aligned(n=4, frac=20, out=fp32)", "aligned(n=4, frac=20, out=fp32, e_min=4)"),
        ("fma(fp16)", "fp8_e4m3 -> fma(fp16)"), ("fma(fp16)", "fma(fp16) -> bf16"), ("fma(e8m10)", "fma(fp16)"),
    ],
)  # fmt: skip
def test_another_unit_everywhere_is_found_by_what_it_computes(mac, other):
    """The last one has the same roundings, but for underflow."""

    def rename(form):
        for node in form["graph"]["nodes"]:
            if "mac" in node:
                node["mac"] = str(house_mac(other))

    refused(altered(made(mac, method="adjoint"), rename), r"value \d \(addmm in \d\): (d|local): sample \d")


def test_another_precision_is_found():
    form = made("fma(fp16)", 12)

    def fewer(form):
        form["unit"]["precision"] = 11

    def fewer_everywhere(form):
        form["unit"]["precision"] = 11
        for node in form["graph"]["nodes"]:
            node["vector"]["u"] = 2.0**-11

    def none(form):
        form["unit"]["precision"] = None

    refused(altered(form, fewer), "no rule for the vector unit")
    refused(altered(form, fewer_everywhere), r"value 1 \(addmm in 0\): local: sample 0, element \(0, 0\)")
    refused(altered(form, none), "unit: fixed is False, and the precision is None")


def test_another_error_of_the_library_is_found():
    def correctly_rounded(form):
        form["unit"]["library"] = 1.0

    refused(altered(made(), correctly_rounded), r"unit: library: got 1.0; expected 4.0")


def test_underflow_that_is_left_out_is_found():
    def dropped(form):
        form["graph"]["nodes"][3]["vector"]["eta"] = 0.0

    refused(altered(made(), dropped), r"tanh in 3: no rule for the vector unit")
    form = certificate(network("relu"), inputs("relu", False) * 2.0**-20, "fma(e8m10)", method="forward")

    def narrower_range(form):
        for node in form["graph"]["nodes"]:
            node |= {"mac": "fma(fp16)"} if "mac" in node else {}

    assert check(form).ok
    refused(altered(form, narrower_range), r"value 1 \(addmm in first\): d: sample 0, element \(0, 0\)")


def test_a_layer_that_is_left_out_is_found():
    def without_value(form):
        del form["values"]["3"]

    def without_node(form):
        del form["graph"]["nodes"][2]

    def bypassed(form):
        del form["graph"]["nodes"][1], form["values"]["2"]
        form["graph"]["nodes"][1]["args"][1]["value"] = 1
        for grads in form["gradients"].values():
            del grads["2"]

    refused(altered(made(), without_value), r"value 3 \(addmm in 2\): its bounds are missing")
    refused(altered(made(), without_node), r"tanh in 3: reads value 3, which no operation before it makes")
    refused(altered(made(), bypassed), r"value 3 \(addmm in 2\): lo: sample 0")


def test_what_is_claimed_besides_is_found():
    def value(form):
        form["values"]["77"] = form["values"]["1"]

    def derivatives(form):
        form["gradients"]["0"]["77"] = form["gradients"]["0"]["1"]

    def of_another_method(form):
        form["claim"]["method"] = "forward, running sums"

    def name(form):
        form["claim"]["proved"] = True

    def lacking(form):
        del form["gradients"]["2"]["3"]

    refused(altered(made(), value), "values: 77 is stated, and no operation makes it")
    refused(altered(made(), derivatives), "gradients: 0: value 77 is stated, and the output does not depend on it")
    refused(altered(made(), of_another_method), "gradients: some are stated, and the method needs none")
    refused(altered(made(), name), "claim: proved is too much")
    refused(altered(made(), lacking), "gradients: 2: value 3 is missing")


@pytest.mark.parametrize("method", ["adjoint", "forward"])
def test_a_claim_that_is_a_millionth_too_good_is_found(method):
    form = made(method=method)
    top = form["claim"]["top"][1]
    j = (top + 1) % 3

    def lower(form):
        change(form["claim"]["bounds"], (1, j), lambda x: x * (1.0 - LITTLE))

    def wider(form):
        change(form["claim"]["margins"], (1, j), lambda x: x + abs(x) * LITTLE)

    refused(altered(form, lower), rf"claim: sample 1, class {j}: the bound \S+ is less than")
    refused(altered(form, wider), rf"claim: sample 1, class {j}: the margin \S+ is more than")


@pytest.mark.parametrize("precision", [3, 24])
def test_a_sample_that_is_called_certified_or_not_is_found(precision):
    form = made(precision=precision)
    assert form["claim"]["certified"] == [precision == 24] * 2

    def flip(form):
        form["claim"]["certified"][1] = precision != 24

    refused(altered(form, flip), rf"claim: sample 1: certified is {precision != 24}; margins and bounds say")


def test_another_top_class_is_found():
    def other(form):
        form["claim"]["top"][0] = (form["claim"]["top"][0] + 1) % 3

    refused(altered(made(), other), r"value 5 \(addmm in 4\): derivatives of class \d: (lo|hi): sample 0")


def with_digest_of_inputs(form):
    """Make the digest that of the inputs, which a certificate has in the order of their names."""
    digest = hashlib.sha256()
    for one in sorted(form["inputs"]["arrays"], key=lambda one: one["name"]):
        for end in ("lo", "hi"):
            digest.update(str(one[end]["shape"]).encode() + unpacked(one[end]).tobytes())
    form["inputs"]["digest"] = digest.hexdigest()


def test_another_input_is_found():
    def only_stated(form):
        change(form["inputs"]["arrays"][0]["lo"], (1, 2), lambda x: x + 2.0**-30)

    def with_its_digest(form):
        (given,) = form["inputs"]["arrays"]
        for end in ("lo", "hi"):
            change(given[end], (1, 2), lambda x: x + 2.0**-30)
        with_digest_of_inputs(form)

    def everywhere(form):
        with_its_digest(form)
        for end in ("lo", "hi"):
            form["values"]["0"][end] = form["inputs"]["arrays"][0][end]

    refused(altered(made(), only_stated), "inputs: the digest is not that of the inputs")
    refused(altered(made(), with_its_digest), r"value 0, the input: hi: sample 1, element \(1, 2\)")
    refused(altered(made(), everywhere), r"value 1 \(addmm in 0\): (lo|hi): sample 1")


def test_arrays_that_are_damaged_are_found():
    def cut(form):
        form["values"]["1"]["d"]["data"] = form["values"]["1"]["d"]["data"][:-8]

    def no_number(form):
        change(form["values"]["1"]["d"], (0, 1), lambda x: np.nan)

    def shape(form):
        form["values"]["1"]["d"]["shape"] = [5, 2]

    refused(altered(made(), cut), "values: 1: d: its data is cut off")
    refused(altered(made(), no_number), "values: 1: d: element 1 is NaN")
    refused(altered(made(), shape), r"value 1 \(addmm in 0\): d has the shape \[5, 2\]; expected \[2, 5\]")


def test_the_digest_alone_is_found_too():
    form = made()
    certified = sum(form["claim"]["certified"])
    assert check(form) == Verdict(
        True, (), True, 2 * 27, 3 * 2 * 27, 2, certified, "fma(fp16)", "fp32", "adjoint, running sums", None,
        "Sequential", form["network"]["weights"], form["inputs"]["digest"],
    )  # fmt: skip
    found = check({**form, "versions": {}})
    assert found.problems == ("the certificate: its digest is not that of what it holds",) and not found.ok


@pytest.mark.parametrize("machine", ["npu, low", "fma(fp8_e4m3), low", "fma(fp8_e4m3)"])
def test_the_verdict_says_what_computes_by_the_operations_whatever_the_machine_is_called(machine):
    def named(form):
        form["unit"]["machine"] = machine

    def half(form):
        form["graph"]["nodes"][0]["mac"] = "fma(fp16/rna)"
        named(form)

    found = check(altered(made(), named))
    assert found.ok and (found.unit, found.machine) == ("fma(fp16)", machine)
    found = check(altered(made(), half))
    assert found.ok and found.unit == "fma(fp16/rna); fma(fp16)"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("network",), None, "network: got NoneType; expected dict"),
        (("network", "weights"), "0" * 63, "network: weights: got '0{63}'; expected a SHA-256 in hexadecimal"),
        (("network", "name"), 1, "network: name: got int; expected str"),
        (("network", "extra"), 1, "network: extra is too much"),
        (("versions",), None, "versions: got NoneType; expected dict"),
        (("versions", "torch"), 2, "versions: torch: got int; expected str"),
        (("unit", "machine"), 7, "unit: machine: got int; expected str"),
        (("graph", "nodes", 0, "layer"), 7, "graph: node 0: layer: got int; expected str"),
        (("graph", "nodes", 0, "outputs"), [1, 99], "graph: node 0: 2 outputs have 1 shapes"),
        (("graph", "nodes", 0, "kwargs"), {"beta": True}, "addmm in 0: no rule for beta=True"),
        (("graph", "nodes", 0, "mac"), "fma(fp16, \u0663)", r"graph: node 0: mac: got .*; expected ASCII characters"),
    ],
)
def test_what_has_another_form_is_found(path, value, says):
    def put(form):
        for name in path[:-1]:
            form = form[name]
        form[path[-1]] = value

    refused(altered(made(), put), says)


def test_a_result_that_no_operation_makes_is_found():
    def more(form):
        form["graph"]["nodes"][0] |= {"outputs": [1, 99], "shapes": [[2, 5], [2, 5]]}

    refused(altered(made(), more), "addmm in 0: it is said to have 2 results; expected 1")


def test_bytes_behind_the_end_of_an_array_are_found():
    def more(form):
        array = form["values"]["1"]["lo"]
        array["data"] = base64.b64encode(base64.b64decode(array["data"]) + b"more").decode()

    refused(altered(made(), more), "values: 1: lo: 4 bytes are behind the end of its data")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"claim": {', '"claim": {"certified": [true, true]},\n "claim": {', "got claim twice"),
        ('"certified": [', '"certified": [true, true], "certified": [', "got claim: certified twice"),
        ('"kind": "tanh"', '"kind": "relu", "kind": "tanh"', "got graph: nodes: 3: kind twice"),
    ],
)
def test_a_name_that_is_there_twice_is_refused(old, new, says):
    with pytest.raises(simulator.InputError, match=f"certificate: {says}; expected each name once; give the file"):
        check(text_of(made()).replace(old, new, 1))


def _shape(form):
    form["values"]["1"]["lo"]["shape"] = [2**62]


def _name(form):
    form["values"]["1" * 5000] = form["values"]["1"]


def _number(form):
    form["graph"]["nodes"][1] |= {"kind": "clamp", "args": [{"value": 1}, 10**400]}


def _nested(form):
    form["graph"]["nodes"][0]["mac"] = "reverse(2, " * 1200 + "fma(fp16)" + ")" * 1200
    form["unit"]["machine"] = "any"


def _axis(form):
    form["graph"]["nodes"][1] |= {"kind": "unsqueeze", "args": [{"value": 1}, 10**30]}


def _length(form):
    form["graph"]["nodes"][0]["mac"] = f"fma(fp16, {'1' * 5000})"
    form["unit"]["machine"] = "any"


@pytest.mark.parametrize("absurd", [_shape, _name, _number, _nested, _axis, _length])
def test_absurd_numbers_and_nesting_are_an_answer_and_no_fault_of_the_checker(absurd):
    refused(altered(made(), absurd), r"the certificate: what it holds cannot be computed with \(\w+Error: ")


def test_a_certificate_of_other_weights_or_inputs_does_not_hold():
    form = made()
    weights, inputs = form["network"]["weights"], form["inputs"]["digest"]
    found = check(form, weights=weights, inputs=inputs)
    assert found.ok and found.compared == ("weights", "inputs")
    assert check(form, weights=weights).compared == ("weights",) and check(form).compared == ()
    for given, says in (({"weights": "0" * 64}, "network: weights"), ({"inputs": "0" * 64}, "inputs")):
        found = check(form, **given)
        own = weights if "weights" in given else inputs
        assert found.problems == (f"{says}: the digest is {own}; that of what was given is {'0' * 64}",)
        assert not found.ok and found.followed


def test_what_has_no_rule_is_not_followed_and_may_hold():
    torch.manual_seed(0)
    form = certificate(Between(torch.relu).eval(), inputs("", False), "fma(dlfloat16)", method="forward")
    found = check(form)
    assert not found.ok and not found.followed
    broken = check({**form, "versions": {}})
    assert not broken.ok and broken.followed and len(broken.problems) == 2


# --- what is no certificate ------------------------------------------------------------------------------------------


def test_what_is_no_certificate_is_one_clear_message(tmp_path):
    path = tmp_path / "certificate.json"
    with pytest.raises(
        simulator.InputError, match=r"certificate.json: cannot be read .*; expected a certificate; give"
    ):
        check_file(path)
    text = text_of(made())
    for content, says in (
        ("no JSON", "got what is no JSON, or is cut off"), (text[: len(text) // 2], "got what is no JSON, or is cut"),
        ("[1]", "got list; expected 'ulpsim bounds certificate 3'"), ('{"kind": "model"}', "got the kind 'model'"),
        ('{"kind": "a"}', "give what `python -m simulator bounds --certificate FILE.json` writes"),
        (json.dumps({"kind": "ulpsim bounds certificate 3"}), "got no versions, network, inputs, "),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(simulator.InputError, match=says):
            check_file(path)
    path.write_text(text)
    assert check_file(path).ok


def test_without_its_library_the_checker_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("simulator.bounds.check")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(simulator.InputError, match=r"simulator.bounds.check: needs python-flint, .*'ulpsim\[bounds\]'"):
        importlib.import_module("simulator.bounds.check")


@pytest.mark.parametrize("text", ["fp16/sr:x", "fp16/sr:\u0663", "fp16/up", "e\u0663m7"])
def test_what_is_no_rounding_or_format_is_refused(text):
    with pytest.raises(NoRule, match=f"{text}: .* that this checker has a rule for"):
        formats.use(text)


def test_the_command_says_what_was_compared_and_what_was_not(tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "simulator", "bounds", *words], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    assert run("--precision", "24", "--samples", "2", "--certificate", "c.json").returncode == 0
    alone = run("check", "c.json")
    assert "network: Mlp (stated, not checked), weights" in one_line(alone.stdout)
    assert alone.returncode == 0 and one_line(alone.stdout).endswith("(not compared)")
    same = run("check", "c.json", "--model", "mlp", "--samples", "2")
    assert same.returncode == 0 and one_line(same.stdout).count("(the same)") == 2
    assert "products on seq(fp32), 24 significand bits; all else in 24 significand bits" in one_line(same.stdout)
    others = run("check", "c.json", "--model", "mlp_tanh", "--samples", "3")
    assert others.returncode == 3 and others.stdout.startswith("c.json does not hold:")
    assert "network: weights: the digest is" in others.stdout and "inputs: the digest is" in others.stdout
    lacking = run("check", "c.json", "--samples", "2")
    assert lacking.returncode == 2 and "without a network; expected --model beside them" in lacking.stderr

    form = json.loads((tmp_path / "c.json").read_text())
    for node in form["graph"]["nodes"]:
        node |= {"mac": "kahan(fp32)"} if "mac" in node else {}
    (tmp_path / "k.json").write_text(text_of(altered(form, lambda form: None)))
    unknown = run("check", "k.json")
    assert unknown.returncode == 3 and unknown.stdout.startswith("k.json was not followed to its end, and may hold:")


def one_line(text):
    return " ".join(text.split())


# --- the checker's own tables against those of the house -------------------------------------------------------------

_USES = [
    f"{name}{mode}" for name in ("fp32", "fp16", "bf16", "tf32", "fp8_e4m3", "fp8_e5m2", "fp8_e3m4", "fp6_e3m2",
                                 "fp4_e2m1", "e5m7", "e4m3:ieee", "e5m10:ftz", "e3m2:ieee:ftz")
    for mode in ("", "/rna", "/rnz", "/rz", "/ru", "/rd", "/odd", "/sat", "/rz/sat")
]  # fmt: skip


@pytest.mark.parametrize("text", _USES)
def test_formats_round_as_those_of_the_house(text):
    own, house = formats.use(text), Use.parse(text)
    fmt = house.format
    ends = np.array([fmt.smallest_subnormal, fmt.smallest_normal, fmt.max, 2 * fmt.max])
    draw = np.random.default_rng(0)
    x = np.concatenate([ends, draw.standard_normal(60) * ends[1], draw.standard_normal(60),
                        draw.uniform(0.9, 1.1, 60) * fmt.max, ends[1] * draw.uniform(0.9, 1.1, 40)])  # fmt: skip
    x = np.concatenate([x, -x, [0.0]])
    off = np.abs(house.quantize(x) - x)
    with flint.ctx.workprec(128):
        for value, expected in zip(x.tolist(), np.where(np.isfinite(off), off, np.inf).tolist(), strict=True):
            assert float(own.error_of(value)) == expected, value.hex()


@pytest.mark.parametrize("text", [*_USES, "fp16/sr:8", "fp64"])
def test_roundings_are_those_of_the_analysis(text):
    own = formats.use(text)
    for mine, house in (
        (own.rounded(None), of_use(Use.parse(text))),
        (own.rounded(9), of_precision(9)(Use.parse(text))),
    ):
        assert (float(mine.u), float(mine.eta), float(mine.largest)) == (house.u, house.eta, house.largest)
        assert mine.nearest == house.nearest


@pytest.mark.parametrize(
    ("mac", "products", "precision"),
    [
        *itertools.product(MACS, (1, 7, 784, 100_000), (None, 4, 24, 53)),
        *itertools.product(ALIGNED, (1, 7, 784), (None, 4, 24)),
    ],
)
def test_models_of_units_agree_with_the_analysis(mac, products, precision):
    """To 2**-30, from below; underflow of float64 is what the analysis adds to every bound."""
    roundings = of_use if precision is None else of_precision(precision)
    house = sum_bound(house_mac(mac), products, roundings)
    with flint.ctx.workprec(128):
        own = macs.model(macs.mac(mac), products, lambda use: use.rounded(precision))
        for mine, theirs in ((own.products, house.products), (own.addend, house.addend), (own.floor, house.floor)):
            if np.isfinite(theirs):
                assert mine <= theirs + 2.0**-1000 and theirs * (1.0 - 2.0**-30) <= mine
        assert float(own.largest) == house.largest
        # A unit that names its output rounds to it once, also where the addend joins late.
        assert {(float(r.u), float(r.eta)) for r in own.results} == {(r.u, r.eta) for r in house.results}


def test_gelu_and_silu_turn_where_the_checker_says():
    """The signs of the derivative at both ends of the balls, and of the second one."""
    with flint.ctx.workprec(200):
        for function in (smooth.Gelu(), smooth.Silu()):
            at = function.least_at
            assert function.derivative(at.lower() - 1e-20) < 0 < function.derivative(at.upper() + 1e-20)
        turn = smooth.Silu.turn

        def second(x):  # of which the sign is that of the second derivative
            return 2 - x * (x / 2).tanh()

        assert second(turn.lower() - 1e-20) > 0 > second(turn.upper() + 1e-20)
        assert smooth.Gelu.turn.contains(flint.arb(2).sqrt())  # where (2 - x**2) phi(x) is 0
