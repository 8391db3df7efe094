"""The vector unit, folded batch normalisation, and the record of what computed each operation."""

import contextlib
import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.vector import rounded  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

NPU = load_hardware("npu")


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x, name):
    """Rounded by the definition of the format."""
    return torch.from_numpy(Use.parse(name).quantize(x.detach().double().numpy())).to(x.dtype)


def emulated(function, *args, name="bf16", context=torch.no_grad):
    model = function if isinstance(function, nn.Module) else Function(function)
    with simulator.emulate(model, NPU, vector_unit=name, layers={"*": "float32"}) as run, context():
        output = model(*args)
    return output, run.result


UNARY = {
    "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "exp": torch.exp, "gelu": functional.gelu,
    "silu": functional.silu, "leaky_relu": functional.leaky_relu, "elu": functional.elu,
    "hardswish": functional.hardswish, "softplus": functional.softplus,
    "logsigmoid": functional.logsigmoid, "mish": functional.mish, "abs": torch.abs,
    "softmax": lambda x: x.softmax(-1), "log_softmax": lambda x: x.log_softmax(-1),
    "layer_norm": lambda x: functional.layer_norm(x, x.shape[-1:]),
    "sum": lambda x: x.sum(-1), "mean": lambda x: x.mean(-1), "amax": lambda x: x.amax(-1),
    "cumsum": lambda x: x.cumsum(-1),
    "logsumexp": lambda x: x.logsumexp(-1), "avg_pool1d": lambda x: functional.avg_pool2d(x[None, None], 2),
    "adaptive pooling": lambda x: functional.adaptive_avg_pool2d(x[None, None], 2),
    "max_pool": lambda x: functional.max_pool2d(x[None, None], 2), "glu": lambda x: functional.glu(x, -1),
    "clamp": lambda x: x.clamp(-0.3, 0.7), "times two thirds": lambda x: x * (2 / 3),
}  # fmt: skip


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp8_e5m2", "posit8", "fix16.8", "bf16/rz"])
@pytest.mark.parametrize("function", UNARY.values(), ids=UNARY)
def test_operands_and_results_are_rounded_once(function, name):
    x = rand(4, 6)
    output, _ = emulated(function, x, name=name)
    with torch.no_grad():
        wanted = by_definition(function(by_definition(x, name)), name)
    assert torch.equal(output, wanted)


def test_two_operands():
    x, y = rand(4, 6), rand(6, seed=1)
    output, result = emulated(lambda x, y: x / y, x, y)
    assert torch.equal(output, by_definition(by_definition(x, "bf16") / by_definition(y, "bf16"), "bf16"))
    (operation,) = result.operations
    assert (operation.name, operation.unit, operation.arithmetic, operation.count) == ("div", "vector unit", "bf16", 1)
    assert operation.work == 24 and operation.share == 1.0


def test_what_gives_no_tensor_is_counted_too():
    output, record = emulated(lambda x: x + 1 if torch.equal(x, x) else x, rand(4, 6))
    assert output.shape == (4, 6) and "equal" in {one.name for one in record.operations}


def test_each_operation_rounds():
    x = rand(50)
    output, _ = emulated(lambda x: (x * x).exp() + x, x)

    def q(x):
        return by_definition(x, "bf16")

    assert torch.equal(output, q(q(q(q(x) * q(x)).exp()) + q(x)))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, contextlib.nullcontext])
def test_in_place(context):
    def function(x):
        y = x.clone()
        same = y.mul_(1.01).add_(x)
        assert same is y
        torch.tanh(x, out=(z := torch.empty_like(x)))
        return y, z

    x = rand(20)
    (y, z), _ = emulated(function, x, context=context)

    def q(x):
        return by_definition(x, "bf16")

    assert torch.equal(y, q(q(q(x) * 1.01) + q(x))) and torch.equal(z, q(q(x).tanh()))
    assert torch.equal(x, rand(20))  # what is only read stays as it is


def test_what_only_moves_is_not_rounded():
    x = rand(4, 6)
    for function in (
        torch.clone, lambda x: torch.cat([x, x]), lambda x: x[[2, 0]], lambda x: functional.pad(x, (1, 1)),
        lambda x: torch.where(x > 0, x, x.new_zeros(())), lambda x: x.masked_fill(x > 0, 1 / 3),
        lambda x: x.t().contiguous(),
    ):  # fmt: skip
        assert torch.equal(emulated(function, x)[0], function(x))


def test_integers_and_booleans_are_left_alone():
    output, _ = emulated(lambda x, i: (x > 0.1, i + 1, (i * 257).sum()), rand(5), torch.arange(5))
    assert output[1].tolist() == [1, 2, 3, 4, 5] and output[2] == 2570 and output[0].dtype is torch.bool


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_keep_their_type_and_layout(dtype):
    x = rand(2, 3, 4, 5).to(dtype).to(memory_format=torch.channels_last)
    output, _ = emulated(torch.tanh, x, name="fp8_e5m2")
    assert output.dtype is dtype and output.stride() == x.stride()
    assert torch.equal(rounded(output, Use.parse("fp8_e5m2")), output)


def test_batch_normalisation_keeps_its_statistics_whole():
    model, x = nn.BatchNorm1d(3), rand(8, 3)
    twin = nn.BatchNorm1d(3)
    emulated(model, x)
    twin(by_definition(x, "bf16"))
    assert torch.equal(model.running_mean, twin.running_mean) and torch.equal(model.running_var, twin.running_var)


def test_the_backward_pass_is_of_the_same_unit():
    x, model = rand(4, 6).requires_grad_(), Function(torch.tanh)
    with simulator.emulate(model, NPU, vector_unit="bf16") as run:
        y = model(x)
        y.backward(dy := rand(4, 6, seed=1))

    def q(x):
        return by_definition(x, "bf16")

    h = q(q(x).tanh())
    assert torch.equal(y, h)
    assert torch.equal(x.grad, q(torch.ops.aten.tanh_backward(q(dy), h)))
    assert sorted((o.name, o.phase, o.unit, o.arithmetic) for o in run.result.operations) == [
        ("tanh", "forward", "vector unit", "bf16"),
        ("tanh_backward", "backward", "vector unit", "bf16"),
    ]


def test_a_loss_outside_of_the_model_is_torchs_own():
    model, x = nn.Linear(4, 3), rand(5, 4)
    with simulator.emulate(model, NPU, vector_unit="fp8_e5m2") as run:
        y = model(x)
        loss = (y.detach() * (1 / 3)).sum()
    assert torch.equal(loss, (y.detach() * (1 / 3)).sum())
    assert [o.name for o in run.result.operations] == ["addmm"]


def test_rules_of_layers_have_vector_formats_of_their_own():
    model, x = nn.Sequential(nn.Tanh(), nn.Sigmoid()), rand(5, 4)
    with simulator.emulate(model, NPU, layers={"1": {"vector": "fp8_e5m2"}}, vector_unit="bf16"):
        y = model(x)
    wanted = by_definition(by_definition(x, "bf16").tanh(), "bf16")
    assert torch.equal(y, by_definition(by_definition(wanted, "fp8_e5m2").sigmoid(), "fp8_e5m2"))


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "bf16/sr", "bf17"])
def test_formats_that_no_vector_unit_has_are_refused(name):
    with pytest.raises(InputError, match="vector_unit"):
        simulator.emulate(nn.Tanh(), NPU, vector_unit=name)


# --- folded batch normalisation ---------------------------------------------------------------------------------------


def normalised(first, norm):
    torch.manual_seed(2)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(first, norm, nn.ReLU()).eval()


@pytest.mark.parametrize(
    "model, shape",
    [
        (lambda: normalised(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 3, 6, 6)),
        (lambda: normalised(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), (2, 4, 6, 6)),
        (lambda: normalised(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 5, 5)),
        (lambda: normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), (5, 20)),
    ],
)
@pytest.mark.parametrize("name", ["low", "two_pass", "bf16 -> exact(fp32)"])
def test_folded_is_the_network_with_other_weights(model, shape, name):
    model, x = model(), rand(*shape)
    with simulator.emulate(model, NPU, layers={"*": name}, fold_batch_norm=True) as run, torch.no_grad():
        y = model(x)
    first, norm, _ = model
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    twin = copy.deepcopy(first).requires_grad_(False)
    bias = 0 if first.bias is None else first.bias.double()
    twin.bias = nn.Parameter((bias * scale + shift).float(), requires_grad=False)
    if isinstance(first, nn.ConvTranspose2d):
        factors = scale.reshape(first.groups, 1, -1, 1, 1)
        weight = first.weight.double().reshape(first.groups, -1, *first.weight.shape[1:]) * factors
        twin.weight.data = weight.reshape(first.weight.shape).float()
    else:
        twin.weight.data = (first.weight.double() * scale.reshape(-1, *(1,) * (first.weight.dim() - 1))).float()
    twin = nn.Sequential(twin, nn.ReLU())
    with simulator.emulate(twin, NPU, layers={"*": name}) as other, torch.no_grad():
        wanted = twin(x)
    # scale and shift are rounded the same way but for the last bit of a float64
    assert torch.allclose(y, wanted, rtol=1e-6, atol=1e-6)
    assert [o.name for o in run.result.operations if "norm" in o.name] == ["native_batch_norm"]
    record, same = run.result.layers[0], other.result.layers[0]
    assert (record.activation, record.recomputed_outputs) == (same.activation, same.recomputed_outputs)


def test_folded_counts_no_normalisation_as_work_of_the_vector_unit():
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(5, 20)
    with simulator.emulate(model, NPU, fold_batch_norm=True) as run, torch.no_grad():
        model(x)
    (norm,) = [o for o in run.result.operations if "norm" in o.name]
    assert (norm.unit, norm.arithmetic) == ("MAC array", "folded")


def test_what_cannot_be_folded_is_separate():
    """A normalisation that is not the only consumer, or comes first."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            y = self.layer(x)
            return self.norm(y) + y

    model, x = Branches().eval(), rand(5, 6)
    model.norm.running_mean.fill_(2.0)
    outputs = []
    for fold in (False, True):
        with simulator.emulate(model, NPU, layers={"*": "low"}, fold_batch_norm=fold), torch.no_grad():
            outputs.append(model(x))
    assert torch.equal(*outputs)


def test_folding_is_for_inference():
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(5, 20)
    with (
        pytest.raises(InputError, match=r"batch_norm: folded: got a forward pass whose gradients are wanted"),
        simulator.emulate(model, NPU, fold_batch_norm=True),
    ):
        model(x)
    with simulator.emulate(model, NPU, fold_batch_norm=True), torch.no_grad():
        model(x)
        model.train()
        with pytest.raises(InputError, match=r"batch_norm: folded: got a batch normalisation in training mode"):
            model(x)


def fold(model, *args, first=None):
    """Outputs with folded normalisations; the first pass may be another one."""
    run = simulator.emulate(model, NPU, layers={"*": "bf16 -> exact(fp32)"}, fold_batch_norm=True)
    with run, torch.no_grad():
        if first is not None:
            first()
        return model(*args), run.result


def test_a_normalisation_that_changes_is_folded_as_it_is():
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(5, 20)

    def change():
        model(x)
        model[1].weight.data.mul_(2)
        model[1].running_mean.add_(1)

    y, _ = fold(model, x, first=change)
    assert torch.equal(y, fold(model, x)[0])


def test_two_passes_score_behind_a_normalisation_as_it_is():
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(50, 20)
    with simulator.emulate(model, NPU) as run, torch.no_grad():
        model(x)
        model[1].running_mean.add_(3)
        changed = model(x)
    with simulator.emulate(model, NPU) as fresh, torch.no_grad():
        assert torch.equal(model(x), changed)
    assert run.result.layers[0].recomputed_outputs != 2 * fresh.result.layers[0].recomputed_outputs


class Between(nn.Module):
    """A layer, something between, and a normalisation."""

    def __init__(self, layer, norm, between):
        super().__init__()
        self.layer, self.norm, self.between = layer, norm, between
        normalised(layer, norm)

    def forward(self, x):
        return self.norm(self.between(self.layer(x)))


@pytest.mark.parametrize(
    "layer, norm, between, shape",
    [
        (nn.Linear(5, 4), nn.BatchNorm1d(4), lambda y: y.transpose(1, 2).contiguous(), (2, 3, 5)),
        (nn.Linear(5, 4), nn.BatchNorm1d(4), torch.clone, (3, 5)),
        (nn.Linear(5, 4), nn.BatchNorm1d(4), lambda y: y.double().float(), (3, 5)),
        (nn.Linear(5, 4), nn.BatchNorm1d(4), lambda y: y.view(2, 4, -1), (2, 3, 5)),
        (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), lambda y: y.transpose(1, 2), (2, 2, 6, 6)),
        (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), lambda y: functional.channel_shuffle(y, 2), (2, 2, 6, 6)),
        (nn.Linear(5, 4), nn.BatchNorm1d(4), lambda y: y * 2, (3, 5)),
    ],
)
def test_what_lies_between_is_not_folded(layer, norm, between, shape):
    model, x = Between(layer, norm, between).eval(), rand(*shape)
    y, record = fold(model, x)
    with simulator.emulate(model, NPU, layers={"*": "bf16 -> exact(fp32)"}), torch.no_grad():
        assert torch.equal(y, model(x))
    assert "folded" not in [operation.arithmetic for operation in record.operations]


def test_a_result_that_does_not_reach_its_normalisation_is_refused():
    """What was folded in the first pass is wanted as it is in another one."""
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(5, 20)
    with simulator.emulate(model, NPU, fold_batch_norm=True), torch.no_grad():
        model(x)
        with pytest.raises(InputError, match=r"batch_norm: folded: 0: its result leaves the model before the batch"):
            model[0](x)

    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm, self.skips = model[0], model[1], False

        def forward(self, x):
            y = self.layer(x)
            return y.relu() if self.skips else self.norm(y).relu()

    skips = Skips().eval()
    with simulator.emulate(skips, NPU, fold_batch_norm=True), torch.no_grad():
        skips(x)
        skips.skips = True
        with pytest.raises(InputError, match=r"batch_norm: folded: layer: relu.* reads its result before the batch"):
            skips(x)


# --- what computed each operation -------------------------------------------------------------------------------------


@torch.library.custom_op("ulpsim_test::times_three", mutates_args=())
def times_three(x: torch.Tensor) -> torch.Tensor:
    return x * 3


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 4), nn.LayerNorm(4)

    def forward(self, x):
        y = self.norm(self.layer(x)).relu()
        distances = torch.cdist(y, y)
        return times_three(distances.sort().values)


def test_unknown_operations_run_and_are_in_the_record_with_count_and_share():
    model, x = Everything(), rand(5, 6)
    with simulator.emulate(model, NPU, layers={"*": "low"}) as run, torch.no_grad():
        y = model(x)
        model(x)
    assert torch.equal(y.sort().values, y)
    result = run.result
    found = {o.name: o for o in result.operations}
    assert (found["addmm"].unit, found["addmm"].count, found["addmm"].work) == ("MAC array", 2, 2 * 2 * 5 * 6 * 4)
    assert found["native_layer_norm"].unit == found["relu"].unit == "vector unit"
    assert found["relu"].arithmetic == "float32"
    unknown = found["ulpsim_test.times_three"]
    assert (unknown.unit, unknown.count, unknown.work, unknown.places) == ("torch", 2, 50, ("Everything",))
    assert found["_euclidean_dist" if "_euclidean_dist" in found else "_cdist_forward"].unit == "torch"
    assert sum(o.share for o in result.operations) == pytest.approx(1) and all(o.share > 0 for o in result.operations)
    text = " ".join(result.warnings)
    assert "ulpsim_test.times_three in Everything: not emulated" in text


def test_layers_in_float32_are_torchs():
    model, x = nn.Linear(6, 4), rand(5, 6)
    with simulator.emulate(model, NPU, layers={"*": "float32"}) as run:
        model(x)
    (operation,) = run.result.operations
    assert (operation.name, operation.unit, operation.arithmetic) == ("addmm", "torch", "float32")


ACTIVATIONS = [
    nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Softplus, nn.Softshrink, nn.Hardshrink, nn.Hardsigmoid, nn.Hardtanh,
    nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Tanh, nn.Sigmoid, nn.LogSigmoid,
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=[a.__name__ for a in ACTIVATIONS])
def test_gradients_of_activations_are_rounded(activation):
    x, dy = rand(40).requires_grad_(), rand(40, seed=1)
    model = activation()
    with simulator.emulate(model, NPU, vector_unit="bf16") as run:
        model(x).backward(dy)
    assert torch.equal(x.grad, by_definition(x.grad, "bf16"))
    twin = by_definition(x, "bf16").requires_grad_()
    model(twin).backward(by_definition(dy, "bf16"))
    assert (x.grad - twin.grad).abs().max() < 2**-5  # but for the rounded results that some formulas use
    assert [o.unit for o in run.result.operations if o.name.endswith("_backward")] == ["vector unit"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.mish(x, inplace=True), torch.abs_, lambda x: functional.threshold_(x, 0.1, 1 / 3),
        lambda x: functional.rrelu(x, training=True),
        lambda x: torch.zeros(3).index_add(0, torch.tensor([0, 1, 0, 2] * 5), x),
    ],
)  # fmt: skip
def test_what_torch_does_not_mark_is_rounded(function):
    output, result = emulated(lambda x: function(x.clone()), rand(20))
    assert torch.equal(output, by_definition(output, "bf16"))
    assert "vector unit" in [o.unit for o in result.operations]


def test_two_passes_score_behind_a_normalisation_that_is_replaced():
    model, x = normalised(nn.Linear(20, 4), nn.BatchNorm1d(4)), rand(50, 20)
    with simulator.emulate(model, NPU), torch.no_grad():
        model(x)
        model[1].running_mean = model[1].running_mean + 3
        model[1].weight = nn.Parameter(model[1].weight * 2)
        replaced = model(x)
    with simulator.emulate(model, NPU), torch.no_grad():
        assert torch.equal(model(x), replaced)
