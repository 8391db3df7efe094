"""The checker's rules one by one: certificates with an operation are followed, lowered bounds of it are found."""

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
flint = pytest.importorskip("flint")

from torch import nn  # noqa: E402  (needs torch)
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from simulator.bounds import analysis  # noqa: E402
from simulator.bounds.certificate import certificate, text_of  # noqa: E402
from simulator.bounds.check import check, smooth, walk  # noqa: E402
from simulator.network import bundled, vector  # noqa: E402
from tests.oracles.certificates import LITTLE, Between, Images, altered, change, refused, unpacked  # noqa: E402


class Encoder(nn.Module):
    """A layer of torch's transformer, of which the sequence comes first in its attention."""

    def __init__(self, **settings):
        super().__init__()
        self.layer, self.last = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **settings), nn.Linear(8, 3)
        for norm in (self.layer.norm1, self.layer.norm2):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.uniform_(-0.5, 0.5)

    def forward(self, x):
        return torch.log_softmax(self.last(self.layer(x).mean(1)), 1)


class Attention(nn.Module):
    """Attention as torch has it, with an addend to the scores, and a token that is the same for all samples."""

    def __init__(self):
        super().__init__()
        self.token, self.shift = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(4, 4))
        self.norm, self.inner, self.last = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        y = self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        y = functional.scaled_dot_product_attention(self.inner(y), y, y)
        scores = torch.baddbmm(self.shift, y, y.transpose(1, 2))
        return self.last(torch.softmax(scores, 1).bmm(y)[:, 0])


def positive(x):
    return torch.sigmoid(x) + 0.25


def rows(function):
    return lambda: Between(function)


def of_images(features, *modules):
    return lambda: Images(features, *modules)


COLUMN = torch.tensor([0.3, -0.1, 0.7, 2.0, -1.5])
# By operation: a network, and the shape of a sample unless it is (6,).
NETWORKS = {
    "native_layer_norm": (lambda: Between(nn.LayerNorm(5)), None),
    "_log_softmax": (rows(lambda x: torch.log_softmax(x, 1)), None),
    "_safe_softmax": (Attention, (3, 4)),
    "baddbmm": (Attention, (3, 4)),
    "bmm": (Attention, (3, 4)),
    "mv": (rows(lambda x: torch.mv(x, COLUMN)[:, None].repeat(1, 5)), None),
    "log": (rows(lambda x: torch.log(positive(x))), None),
    "sqrt": (rows(lambda x: x / torch.sqrt((x * x).sum(1, keepdim=True))), None),
    "abs": (rows(torch.abs), None),
    "neg": (rows(torch.neg), None),
    "div": (rows(lambda x: x / positive(x) + COLUMN / positive(x) + x / 0.3 + x / 4), None),
    "maximum": (rows(lambda x: torch.maximum(x, x.flip(1))), None),
    "minimum": (rows(lambda x: torch.minimum(x, COLUMN)), None),
    "cat": (rows(lambda x: torch.cat([x[:, :2], torch.full((len(x), 1), 0.3), x[:, -2:]], 1)), None),
    "stack": (rows(lambda x: torch.stack([x, x * x], 1)[:, 1]), None),
    "split": (rows(lambda x: torch.cat([y * x[:, :1] for y in x.split(2, 1)], 1)), None),
    "split_with_sizes": (rows(lambda x: torch.cat(x.split([1, 4], 1)[::-1], 1)), None),
    "unbind": (rows(lambda x: torch.stack(x.unbind(1)[::-1], 1)), None),
    "slice": (rows(lambda x: x[:, 1:2] * x), None),
    "select": (rows(lambda x: x[:, 3, None] * x), None),
    "index": (rows(lambda x: x[:, torch.tensor([0, 3, 3, 1, 1])]), None),
    "index_select": (rows(lambda x: x.index_select(1, torch.tensor([0, 3, 3, 1, 1]))), None),
    "gather": (rows(lambda x: x.gather(1, torch.tensor([[0, 1, 4, 4, 2], [2, 2, 3, 0, 1]])[: len(x)])), None),
    "flip": (rows(lambda x: x.flip(1) * x), None),
    "roll": (rows(lambda x: x.roll(2, 1) * x), None),
    "repeat": (rows(lambda x: x[:, :1].repeat(1, 5)), None),
    "diagonal": (rows(lambda x: (x[:, :, None] * x[:, None]).diagonal(0, 1, 2)), None),
    "pixel_shuffle": (of_images(16, nn.Conv2d(1, 4, 2), nn.PixelShuffle(2)), (1, 3, 3)),
    "_to_copy": (rows(lambda x: x.half().float()), None),
    "constant_pad_nd": (rows(lambda x: functional.pad(x, (1, -1), value=0.3)), None),
    "avg_pool2d along one axis": (of_images(6, nn.Conv1d(1, 2, 2), nn.AvgPool1d(3, 2, 1)), (1, 6)),
    "avg_pool2d": (
        of_images(8, nn.Conv2d(1, 2, 2), nn.AvgPool2d(3, ceil_mode=True, count_include_pad=False)), (1, 6, 7)
    ),
    "avg_pool3d": (of_images(8, nn.Conv3d(1, 1, 2), nn.AvgPool3d(2, 1)), (1, 4, 4, 4)),
    "_adaptive_avg_pool2d": (of_images(12, nn.Conv2d(1, 2, 2), nn.AdaptiveAvgPool2d((2, 3))), (1, 6, 5)),
    "convolution": (of_images(20, nn.ConvTranspose2d(2, 2, 2, 3, 1, 1, groups=2, dilation=2)), (2, 2, 1)),
    "convolution along one axis": (of_images(16, nn.Conv1d(2, 4, 3, 2, 1, groups=2)), (2, 7)),
    "convolution along three": (of_images(24, nn.Conv3d(1, 2, 2, dilation=(1, 2, 1))), (1, 3, 4, 4)),
}  # fmt: skip
# Units, precisions, methods, and whether the inputs are boxes.
SETTINGS = [
    ("fma(fp16)", None, "adjoint", False),
    ("bf16 -> chunk(3, fma(fp16), seq(fp32))", None, "adjoint, running sums", True),
    ("tree(fp16)", 12, "adjoint", True), ("seq(fp16)", None, "forward, running sums", True),
    ("late(fma(fp16/rz))", 53, "forward", False),
]  # fmt: skip


def network(name):
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval()


def inputs(name, box, samples=2):
    x = torch.randn(samples, *(NETWORKS[name][1] or (6,)), generator=torch.Generator().manual_seed(1))
    return (x - 2.0**-7, x + x.abs() * 2.0**-9) if box else x


def narrow(form="bf16"):
    """Return a machine whose vector unit computes in a format."""
    machine = simulator.load_hardware("npu")
    return replace(machine, vector_unit=replace(machine.vector_unit, format=vector.unit(form)))


def test_every_operation_that_the_analysis_bounds_has_a_rule():
    assert walk.RULES.keys() == analysis.RULES.keys()


@pytest.mark.parametrize(
    ("mac", "precision", "method", "box"),
    [pytest.param(*setting, marks=() if i < 2 else pytest.mark.full) for i, setting in enumerate(SETTINGS)],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_certificates_of_an_operation_are_followed(name, mac, precision, method, box):
    found = check(text_of(certificate(network(name), inputs(name, box), mac, precision, method=method)))
    assert found.ok, "\n".join(found.problems)
    assert found.samples == 2 and (found.derivatives > 0) == ("adjoint" in method)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bound_of_an_operation_that_is_a_little_too_small_is_found(name):
    """Its ends, how far it is off, its own share in that, and the derivatives by what it reads: by a millionth."""
    form = certificate(network(name), inputs(name, True), "fma(fp16)", method="adjoint")
    kind = name.split(" ")[0]
    node = next(node for node in form["graph"]["nodes"] if node["kind"] == kind)
    number, read = node["outputs"][0], next(arg for arg in leaves(node["args"]) if isinstance(arg, dict))["value"]
    little, j = LOOSER.get(name, LITTLE), str((form["claim"]["top"][0] + 1) % 3)
    arrays = {part: (("values", str(number), part), rf"value {number} \({kind} in .*\): {part}") for part in _PARTS}
    for end in ("lo", "hi"):
        says = rf"value {read}\b.*: derivatives of class {j}: {end}"
        arrays[f"derivatives, {end}"] = ("gradients", j, str(read), end), says
    checked = 0
    for part, (path, says) in arrays.items():
        numbers = unpacked(within(form, path))
        at = tuple(np.unravel_index(np.abs(np.where(np.isfinite(numbers), numbers, 0)).argmax(), numbers.shape))
        if numbers[at] == 0:
            continue  # what is moved has no error of its own
        sign = 1.0 if part.endswith("lo") else -1.0

        def lower(form, path=path, at=at, sign=sign):
            change(within(form, path), at, lambda x: x + sign * little * abs(x))

        place = ", ".join(map(str, at))
        refused(altered(form, lower), rf"{says}: sample \d, element \({place}\): .* that its rule gives")
        checked += 1
    assert checked >= 5


_PARTS = ("lo", "hi", "d", "local")
LOOSER = {"_safe_softmax": 2.0**-7}  # of which the checker's rule for the local error is the tighter one by more


def within(form, path):
    for name in path:
        form = form[name]
    return form


def leaves(form):
    if isinstance(form, list):
        for part in form:
            yield from leaves(part)
    elif not isinstance(form, dict) or "value" in form:
        yield form


@pytest.mark.parametrize("method", ["adjoint", pytest.param("forward, running sums", marks=pytest.mark.full)])
@pytest.mark.parametrize("settings", [{}, {"norm_first": True, "activation": functional.gelu}])
def test_a_layer_of_a_transformer_is_followed_whole(settings, method):
    torch.manual_seed(0)
    model, x = Encoder(**settings).eval(), torch.randn(3, 3, 8)
    form = certificate(model, x, "fma(fp16)", method=method)
    found = check(form)
    assert found.ok, "\n".join(found.problems)
    assert np.isfinite(unpacked(form["claim"]["bounds"])).all()


@pytest.mark.full
def test_the_bundled_transformer_is_followed():
    form = certificate(bundled.load("transformer"), bundled.digits()[0][:2], precision=24, method="adjoint")
    found = check(form)
    assert found.ok, "\n".join(found.problems)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("native_layer_norm", "minimum", "div", "cat") else pytest.mark.full)
        for name in NETWORKS
    ],
)
@pytest.mark.parametrize("form", ["bf16", "fp16/rz"])
def test_a_narrow_vector_unit_is_followed(name, form):
    found = check(certificate(network(name), inputs(name, False), narrow(form), method="adjoint"))
    assert found.ok, "\n".join(found.problems)


def test_a_vector_unit_that_is_said_to_be_wider_is_found():
    form = certificate(network("minimum"), inputs("minimum", False), narrow(), method="forward")

    def wider(form):
        for node in form["graph"]["nodes"]:
            if "use" in node:
                node["use"] = "fp8_e5m2"

    refused(
        altered(form, wider), r"value \d+ \(round to format in .*\): d: sample", r"\(minimum in .*\): local: sample"
    )


def test_a_constant_among_values_counts_for_the_sample_that_reads_it():
    """Of each sample alone and of all together the same bounds, of which some come from the token."""
    model, x = network("_safe_softmax"), inputs("_safe_softmax", False, samples=3)
    together = certificate(model, x, "fma(fp16)", method="adjoint")
    assert check(together).ok
    alone = [certificate(model, x[i : i + 1], "fma(fp16)", method="adjoint") for i in range(3)]
    assert all(check(form).ok for form in alone)
    bounds = np.concatenate([unpacked(form["claim"]["bounds"]) for form in alone])
    assert unpacked(together["claim"]["bounds"]) == pytest.approx(bounds, rel=1e-9)


def test_what_overflows_has_no_relative_bound_either():
    model = Between(lambda x: torch.exp(x + 100.0)).eval()
    form = certificate(model, inputs("abs", False), "fma(fp32)", method="forward")
    number = next(str(node["outputs"][0]) for node in form["graph"]["nodes"] if node["kind"] == "exp")
    assert check(form).ok and np.isinf(unpacked(form["values"][number]["d"])).all()

    def bounded(form):
        change(form["values"][number]["e"], (0, 0), lambda x: 0.5)
        change(form["values"][number]["d"], (0, 0), lambda x: unpacked(form["values"][number]["hi"])[0, 0])

    refused(altered(form, bounded), r"\(exp in .*\): d: sample 0, element \(0, 0\)", r"\(exp in .*\): e: sample 0")


def test_a_softmax_that_saturates_is_followed():
    """Its largest output is at most 1, and no ball around that."""
    form = certificate(Between(lambda x: torch.softmax(x * 1000.0, 1)).eval(), inputs("abs", False), "fma(fp16)")
    found = check(form)
    assert found.ok, "\n".join(found.problems)


def test_a_sample_that_overflows_leaves_the_others_their_partial_sums():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), inputs("abs", False)
    x[1] *= 1e6
    form = certificate(model, x, "fma(fp16)", method="forward, running sums")
    assert np.isfinite(unpacked(form["claim"]["bounds"])).all(1).tolist() == [True, False]
    found = check(form)
    assert found.ok, "\n".join(found.problems)


def test_constants_that_a_batch_normalisation_reads_in_a_narrower_format_count():
    model = Between(nn.BatchNorm1d(5)).eval()
    model.function.weight.data.uniform_(0.5, 1.5)
    form = certificate(model, inputs("abs", False), narrow(), method="forward")
    assert check(form).ok

    def as_they_are(form):
        for node in form["graph"]["nodes"]:
            if "batch_norm" in node["kind"]:
                node["use"] = "bf16/rz"

    refused(altered(form, as_they_are), r"batch_norm.*: local: sample")


def test_what_reads_places_that_are_no_constants_is_refused():
    form = certificate(network("gather"), inputs("gather", False), "fma(fp16)", method="forward")

    def computed(form):
        node = next(node for node in form["graph"]["nodes"] if node["kind"] == "gather")
        node["args"][2] = copy.deepcopy(node["args"][0])

    refused(altered(form, computed), r"gather in Between: got the places \{'value': 1\}; expected constants")


TWO_PASSES = """
array: {rows: 8, columns: 8}
mac:
  low: {operands: fp16, accumulator: fma(fp16), rate: 2 MAC/cycle}
  high: {operands: fp16, accumulator: fma(fp32)}
policy: {tolerance: 2.0}
"""


@pytest.mark.parametrize("method", ["adjoint, running sums", "forward"])
def test_two_passes_are_followed_with_what_flags_outputs(tmp_path, method):
    path = tmp_path / "m.yaml"
    path.write_text(TWO_PASSES)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
    x = torch.randn(2, 6)
    form = certificate(model, x, simulator.load_hardware(path), mode="two_pass", method=method)
    found = check(form)
    assert found.ok and found.machine == "m, two_pass", "\n".join(found.problems)
    assert found.unit == (
        "fp16 -> chunk(16, fma(fp16), seq(fp16)), again on fp16 -> chunk(8, fma(fp32), seq(fp32)) above the tolerance 2"
    )
    assert form["graph"]["nodes"][0]["second"] == {
        "mac": "fp16 -> chunk(8, fma(fp32), seq(fp32))", "tolerance": 2.0, "activation": "relu"
    }  # fmt: skip

    def higher(form):
        form["graph"]["nodes"][0]["second"]["tolerance"] = 1e6

    def otherwise(form):
        form["graph"]["nodes"][0]["second"]["activation"] = "gelu"

    def lower_unit(form):
        form["graph"]["nodes"][0]["second"]["mac"] = "fp8_e4m3 -> fma(fp16)"

    def nothing(form):
        form["graph"]["nodes"][0]["second"]["tolerance"] = -1.0

    for alter in (higher, otherwise, lower_unit):
        refused(altered(form, alter), r"value 1 \(addmm in 0\): local: sample")
    refused(altered(form, nothing), "graph: node 0: second: got the tolerance -1.0; expected one from 0")


SECOND_PASSES = {
    "relu": ([nn.ReLU()], "relu"), "behind a view": ([nn.Unflatten(1, (8, 5)), nn.ReLU(), nn.Flatten()], "relu"),
    "of no slope": ([nn.LeakyReLU(0.0)], "relu"), "leaky_relu": ([nn.LeakyReLU(0.1)], "leaky_relu"),
    "nothing": ([], "identity"), "what is no activation": ([nn.Hardtanh()], "identity"), "gelu": ([nn.GELU()], "gelu"),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND_PASSES)
def test_the_activation_of_two_passes_is_that_of_the_graph(tmp_path, name):
    """Whatever the file says of it, as long as something would be flagged by what it says."""
    path = tmp_path / "m.yaml"
    path.write_text(TWO_PASSES)
    torch.manual_seed(0)
    between, activation = SECOND_PASSES[name]
    model = nn.Sequential(nn.Linear(6, 40), *between, nn.Linear(40, 3)).eval()
    form = certificate(model, torch.randn(2, 6), simulator.load_hardware(path), mode="two_pass", method="forward")
    found = check(form)
    assert found.ok and form["graph"]["nodes"][0]["second"]["activation"] == activation, "\n".join(found.problems)
    for other in {"identity", "relu", "leaky_relu"} - {activation}:

        def otherwise(form, other=other):
            form["graph"]["nodes"][0]["second"]["activation"] = other

        says = rf"addmm in 0: second: got the activation {other}; the graph has {activation} behind it"
        refused(altered(form, otherwise), says)


def test_an_output_that_two_operations_read_is_flagged_as_it_is(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(TWO_PASSES)
    torch.manual_seed(0)
    model = Between(lambda x: torch.relu(x) + x).eval()
    form = certificate(model, torch.randn(2, 6), simulator.load_hardware(path), mode="two_pass", method="forward")
    assert form["graph"]["nodes"][0]["second"]["activation"] == "identity"
    found = check(form)
    assert found.ok, "\n".join(found.problems)


def test_a_gelu_whose_bound_is_less_than_what_torch_does_is_found():
    """Torch's own result is off by more than c u (|f| + |x|) would say, where 1 + erf cancels."""
    x = torch.full((1, 4), -2.98516)
    form = certificate(nn.GELU().eval(), x, "fma(fp32)", method="forward")
    assert check(form).ok

    def as_if_erf_were_exact(form):
        for part in ("d", "e", "local"):
            change(form["values"][str(form["graph"]["output"])][part], ..., lambda x: x * 0.66)

    stated = altered(form, as_if_erf_were_exact)
    with flint.ctx.workprec(200):
        exact = smooth.Gelu().value(flint.arb(float(x[0, 0])))
        off = abs(flint.arb(float(functional.gelu(x)[0, 0])) - exact)
        assert off > flint.arb(unpacked(stated["values"]["1"]["d"])[0, 0])
    refused(stated, r"\(gelu in GELU\): d: sample 0")


def test_a_bias_that_a_narrow_vector_unit_does_not_hold_is_followed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()
    model[1].bias.data.normal_()
    form = certificate(model, torch.randn(2, 6), narrow(), mode="high", method="forward")
    found = check(form)
    assert found.ok, "\n".join(found.problems)
    number = next(str(node["outputs"][0]) for node in form["graph"]["nodes"] if "batch_norm" in node["kind"])

    def lower(form):
        change(form["values"][number]["local"], (0, 0), lambda x: x * (1.0 - LITTLE))

    refused(altered(form, lower), r"batch_norm.*: local: sample 0, element \(0, 0\)")


class Empty(nn.Module):
    """A product of no columns, which is 0."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(x[:, :0] @ torch.zeros(0, 4) + x[:, :4])


class Sum(nn.Module):
    """The sum of one sample, a value without axes."""

    def forward(self, x):
        return x.sum().squeeze(0).expand(1, 3) * torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("model", [Empty, Sum])
def test_sums_of_nothing_and_values_without_axes_are_followed(model):
    torch.manual_seed(0)
    form = certificate(model().eval(), inputs("abs", False, samples=1), "fma(fp16)", method="forward")
    found = check(form)
    assert found.ok, "\n".join(found.problems)
