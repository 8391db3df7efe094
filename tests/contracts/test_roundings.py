"""What quantize and encode must do in every rounding and overflow mode, by whatever way they compute it."""

import math

import numpy as np
import pytest

from formats.philox import word
from formats.rounding import parse_rounding
from tests.contracts.samples import (
    DETERMINISTIC,
    ROUNDINGS,
    SEED,
    edges_of,
    finite_of,
    mirrored_in,
    overflow_modes,
    probes_of,
    without,
)
from tests.oracles.bits import assert_same_bits, bits

_expected = {}


def expected_of(fmt, x, rounding, overflow, key):
    """The definition, number by number; computed once for all paths."""
    key = (fmt, rounding, overflow, key)
    if key not in _expected:
        mode = parse_rounding(rounding)
        words = (word(SEED, 9 + i) if mode.stochastic else 0 for i in range(x.size))
        _expected[key] = np.array([fmt.project(v, mode, overflow, w) for v, w in zip(x.tolist(), words, strict=True)])
    return _expected[key]


def trials(fmt):
    """All probes in every rounding under the default overflow mode, the edges under the other ones."""
    for rounding in ROUNDINGS:
        for overflow in overflow_modes(fmt):
            key = "probes" if overflow == fmt.default_overflow else "edges"
            if key == "edges" and rounding in ("rna", "rnz", "sr", "sr:1", "sr:5:c", "sr:63:c"):
                continue  # what happens beyond the range does not ask for these
            yield rounding, overflow, key, without(probes_of(fmt) if key == "probes" else edges_of(fmt), overflow)


def test_quantize_is_the_definition_in_every_mode(fmt, path):
    for rounding, overflow, key, x in trials(fmt):
        expected = expected_of(fmt, x, rounding, overflow, key)
        got = fmt.quantize(x, rounding, overflow, seed=SEED, offset=9)
        assert got.dtype == np.float64
        assert_same_bits(got, expected, x, f"{fmt.name}/{rounding}/{overflow} {path}, seed {SEED}, offset 9")


def test_every_result_of_every_mode_is_a_value_and_encode_gives_its_code(fmt, path):
    for rounding, overflow, key, x in trials(fmt):
        expected = expected_of(fmt, x, rounding, overflow, key)
        places, inverse = np.unique(bits(expected), return_inverse=True)
        codes = np.array([fmt.code_of(v) for v in places.view(np.float64).tolist()], np.uint64)
        got = fmt.encode(x, rounding, overflow, seed=SEED, offset=9)
        assert got.dtype == fmt.code_dtype
        wrong = np.flatnonzero(got != codes[inverse])
        assert not wrong.size, (
            f"{fmt.name}/{rounding}/{overflow} {path}, seed {SEED}, offset 9: "
            f"{[(x[i].hex(), int(got[i]), int(codes[inverse][i])) for i in wrong[:5]]} (from, got, expected)"
        )
        decoded = fmt.decode(got)
        assert_same_bits(decoded, expected, x, f"{fmt.name}/{rounding}/{overflow} {path}: decoded codes")


def test_values_never_move(fmt, path):
    """An exact value stays what it is in every mode, so that quantize is idempotent."""
    finite = finite_of(fmt)
    for i, rounding in enumerate(ROUNDINGS):
        for overflow in overflow_modes(fmt):
            x = finite[i :: max(finite.size // 40, 1)]
            got = fmt.quantize(x, rounding, overflow, seed=SEED)
            assert_same_bits(got, x, x, f"{fmt.name}/{rounding}/{overflow} {path}")


def test_quantize_is_idempotent_in_every_mode(fmt, path):
    for rounding, overflow, key, x in trials(fmt):
        once = expected_of(fmt, x, rounding, overflow, key)
        if overflow in ("nan", "wrap"):
            once = once[np.isfinite(once)]
        twice = fmt.quantize(once, rounding, overflow, seed=SEED + 1)
        assert_same_bits(twice, once, once, f"{fmt.name}/{rounding}/{overflow} {path}")


def test_quantize_is_monotone(fmt, path):
    """On each side of zero where zero is no value: roundings of magnitudes, such as rz, have nowhere to meet there."""
    x = np.sort(probes_of(fmt)[np.isfinite(probes_of(fmt))])
    parts = np.diff(x) > 0 if 0.0 in finite_of(fmt) else (x[1:] < 0) == (x[:-1] < 0)
    for rounding in DETERMINISTIC:
        y = fmt.quantize(x, rounding, "sat")
        falls = np.flatnonzero((np.diff(y) < 0) & parts)
        assert not falls.size, (
            f"{fmt.name}/{rounding} {path}: {[(x[i].hex(), x[i + 1].hex(), y[i], y[i + 1]) for i in falls[:3]]}"
        )


def test_negation_mirrors_the_roundings(fmt, path):
    """rne(-x) = -rne(x) and the like where values and codes are symmetric, ru(x) = -rd(-x) where values are."""
    if not mirrored_in(fmt):
        pytest.skip("not a symmetric format")
    x = probes_of(fmt)
    x = x[np.abs(x) <= fmt.max]
    for rounding, other in ((r, {"ru": "rd", "rd": "ru"}.get(r, r)) for r in DETERMINISTIC):
        y, mirrored = fmt.quantize(x, rounding), -fmt.quantize(-x, other)
        same = (y == mirrored) & ((np.signbit(y) == np.signbit(mirrored)) | (y == 0))
        assert same.all(), f"{fmt.name}/{rounding} {path}: {[float(v).hex() for v in x[~same][:5]]}"


def test_rounding_toward_zero_never_grows(fmt, path):
    """Wherever there is a value between x and zero."""
    finite, x = finite_of(fmt), probes_of(fmt)
    x = x[np.isfinite(x)]
    least = min(finite[finite > 0], default=math.inf)
    least_negative = max(finite[finite < 0], default=-math.inf)
    x = x[(x >= least) | (x <= least_negative)]
    y = fmt.quantize(x, "rz", "sat")
    assert (np.abs(y) <= np.abs(x)).all(), f"{fmt.name} {path}: {x[np.abs(y) > np.abs(x)][:5]}"
    assert (np.signbit(y) == np.signbit(x)).all() or 0.0 in y


def test_roundings_stay_between_down_and_up(fmt, path):
    """Every rounding gives what rd or ru gives; so every stochastic one, with few bits too, gives a neighbour."""
    x = probes_of(fmt)
    x = x[np.isfinite(x)]
    down, up = fmt.quantize(x, "rd", "sat"), fmt.quantize(x, "ru", "sat")
    for rounding in ROUNDINGS:
        for seed in (0, 1) if rounding == "sr:1" else (0,):
            y = fmt.quantize(x, rounding, "sat", seed=seed)
            strange = (y != down) & (y != up)
            assert not strange.any(), (
                f"{fmt.name}/{rounding} {path} seed {seed}: "
                f"{[(a.hex(), b.hex()) for a, b in zip(x[strange][:5].tolist(), y[strange][:5].tolist(), strict=True)]}"
            )
    inside = (x >= finite_of(fmt)[0]) & (x <= finite_of(fmt)[-1])
    tapered_or_flushed = np.abs(x) < fmt.smallest_normal  # zero may lie beyond the neighbour there, or none be left
    inside &= ~tapered_or_flushed
    assert (down[inside] <= x[inside]).all() and (up[inside] >= x[inside]).all(), f"{fmt.name} {path}"


def test_stochastic_roundings_depend_on_seed_and_place_only(fmt, path):
    finite = finite_of(fmt)
    rng = np.random.default_rng(SEED)
    places = rng.integers(0, finite.size - 1, 130)
    weight = rng.random(130)
    x = finite[places] * (1 - weight) + finite[places + 1] * weight
    for rounding in ("sr", "sr:3:b"):
        whole = fmt.quantize(x, rounding, "sat", seed=5)
        for cut in (1, 64, 127):
            parts = [
                fmt.quantize(x[:cut], rounding, "sat", seed=5),
                fmt.quantize(x[cut:], rounding, "sat", seed=5, offset=cut),
            ]
            assert_same_bits(np.concatenate(parts), whole, x, f"{fmt.name}/{rounding} {path} cut at {cut}")
        codes = [fmt.encode(x[:64], rounding, seed=5), fmt.encode(x[64:], rounding, seed=5, offset=64)]
        assert np.concatenate(codes).tolist() == fmt.encode(x, rounding, seed=5).tolist()
        far = 1 << 40
        assert_same_bits(
            fmt.quantize(x[7:], rounding, "sat", seed=5, offset=far + 7),
            fmt.quantize(x, rounding, "sat", seed=5, offset=far)[7:],
            note=f"{fmt.name}/{rounding} {path} beyond 32 bits",
        )
        undecided = fmt.quantize(x, "rd", "sat") != fmt.quantize(x, "ru", "sat")
        others = [fmt.quantize(x, rounding, "sat", seed=s) for s in (6, 7)]
        assert any((other != whole).any() for other in others) == bool(undecided.any()), f"{fmt.name}/{rounding} {path}"
        grid = x[:120].reshape(8, 15)
        assert_same_bits(
            fmt.quantize(grid.T, rounding, "sat", seed=5), fmt.quantize(grid.T.copy(), rounding, "sat", seed=5)
        )
        assert_same_bits(fmt.quantize(grid, rounding, "sat", seed=5).ravel(), whole[:120])
