"""Flags of many samples, packed into a file: the counts and the price are those of the whole mask."""

import errno
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import simulator  # noqa: E402
from simulator.cost import Gemm, price  # noqa: E402
from simulator.cost.flags import read_flags  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network import packed  # noqa: E402
from simulator.network.packed import PackedFlags  # noqa: E402

NPU = load_hardware("npu")


def joined(masks, batched):
    return np.concatenate(masks, axis=0 if batched else 1)


def stored(masks, batched):
    flags = PackedFlags(*masks[0].shape, batched)
    for mask in masks:
        flags.add(mask)
    return flags


@st.composite
def runs(draw):
    """Masks of the forward passes of a layer, flagged to a share that differs from place to place."""
    batched, m, n = draw(st.booleans()), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    passes, gemms = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shapes = [(gemms * samples, m, n) if batched else (gemms, m * samples, n) for samples in passes]
    share = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0])) ** rng.random(n)
    return [rng.random(shape) < share for shape in shapes], batched


@settings(deadline=None)
@given(runs(), st.integers(1, 40), st.integers(1, 14), st.integers(1, 14))
def test_the_counts_are_those_of_the_whole_mask(run, at_once, height, width):
    masks, batched = run
    mask = joined(masks, batched)
    wanted = read_flags(mask, *mask.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "FLAGS_AT_ONCE", at_once)
        patch.setattr(packed, "BYTES_IN_MEMORY", 4)
        flags = stored(masks, batched).counts()
        assert flags.shape == mask.shape
        assert (flags.count(), flags.rows(), flags.columns()) == (wanted.count(), wanted.rows(), wanted.columns())
        assert wanted.count() == mask.sum()
        assert flags.bands(width) == wanted.bands(width)
        assert flags.tiles(height, width) == wanted.tiles(height, width)
        counts = np.concatenate(list(flags.per_tile(height, width)))
        assert np.array_equal(counts, np.concatenate(list(wanted.per_tile(height, width))))
        tiles = np.ix_(range(len(mask)), range(0, mask.shape[1], height), range(0, mask.shape[2], width))
        corners = np.array([mask[g, i : i + height, j : j + width].sum() for g, i, j in np.broadcast(*tiles)])
        assert np.array_equal(counts.reshape(-1), corners)


def machines():
    """The array with each way of gathering flags, and with a memory that makes for many tiles."""
    tight = replace(NPU.memory, buffers=(replace(NPU.memory.buffers[0], size_bits=16 * 8192),))
    for dataflow in ("ws", "is", "os"):
        array = replace(NPU.array, dataflow=dataflow)
        yield replace(NPU, array=array, memory=tight)
        for gather in ("row", "coltile", "tile"):
            policy = replace(NPU.policy, gather=gather, overlap="none")
            yield replace(NPU, array=array, memory=tight, policy=policy, side_engine=None)


@pytest.mark.parametrize("batched", [False, True])
def test_the_price_is_that_of_the_whole_mask(batched, monkeypatch):
    monkeypatch.setattr(packed, "FLAGS_AT_ONCE", 1000)
    rng = np.random.default_rng(7)
    masks = [rng.random((2, 90, 70)) < np.linspace(0, 0.3, 70) for _ in range(3)]
    mask = joined(masks, batched)
    for machine in machines():
        for k in (5, 900):
            gemm = Gemm(mask.shape[1], mask.shape[2], k, mask.shape[0])
            assert price(machine, gemm, "two_pass", stored(masks, batched).counts()) == price(
                machine, gemm, "two_pass", mask
            )


def test_flags_of_another_shape_are_refused():
    flags = stored([np.zeros((1, 4, 5), bool)], False).counts()
    with pytest.raises(InputError, match=r"got those of shape \(1, 4, 5\); expected \(1, 5, 5\)"):
        price(NPU, Gemm(5, 5, 9), "two_pass", flags)


def test_a_tally_keeps_flags_only_of_a_second_pass():
    layer, x = torch.nn.Linear(6, 4), torch.randn(5, 6)
    for mode in ("low", "two_pass"):
        with torch.no_grad(), simulator.emulate(layer, "npu", layers={"*": mode}) as run:
            layer(x[:2])
            layer(x[2:])
        (tally,) = run.tallies
        flags = tally.flags()
        assert (flags is None) == (mode == "low")
    assert flags.shape == (1, 5, 4)
    assert flags.count() == run.result.layers[0].recomputed_outputs > 0


def test_a_full_disk_is_one_clear_message(monkeypatch):
    flags = PackedFlags(1, 8, 8, False)

    def write(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(flags, "_file", SimpleNamespace(seek=lambda *_: 0, write=write))
    with pytest.raises(InputError, match=r"temporary file: \[Errno 28\] No space left on device; .* TMPDIR"):
        flags.add(np.ones((1, 8, 8), bool))
