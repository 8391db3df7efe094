"""Recipes as YAML files: what ships, what a file means, what is refused and how."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.training import LossScale, Recipe, fit, load_recipe, recipe_names  # noqa: E402

FOLDER = Path(__file__).parents[2] / "hwconfigs" / "recipes"


def convolutional():
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def images(count=96):
    """Three classes, each around an image of its own."""
    random = np.random.default_rng(1)
    y = random.integers(0, 3, count)
    x = random.standard_normal((3, 1, 8, 8))[y] + 0.5 * random.standard_normal((count, 1, 8, 8))
    return x.astype(np.float32), y


def test_every_file_of_the_folder_ships_and_says_its_source():
    assert recipe_names() == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert set(recipe_names()) >= {"truncated", "bf16_mixed", "fp8_hybrid", "sr_storage", "mx_blocks"}
    for name in recipe_names():
        assert "# Source: " in (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_trains_a_network(name):
    model, (x, y) = convolutional(), images()
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.parts
    epochs = fit(model, (x, y), recipe=recipe, epochs=6, batch_size=16, lr=0.1, momentum=0.5).epochs
    assert epochs[-1].accuracy > 0.8 and epochs[-1].loss < 0.7 * epochs[0].loss
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    assert set(epochs[0].counts) == set(recipe.points)


def test_the_recipes_mean_what_the_literature_says():
    assert load_recipe("truncated") == Recipe.of({"weight_store": "e8m6/rz"}, name="truncated")
    assert load_recipe("sr_storage").points["weight_store"].mode.stochastic
    hybrid = load_recipe("fp8_hybrid")
    assert hybrid.loss_scale == LossScale(1024.0, True, 500) and set(hybrid.parts) == {
        "gradient", "forward", "input_gradient", "weight_gradient",
    }  # fmt: skip
    assert all(unit.endswith("-> chunk(64, seq(fp16), seq(fp32))") for unit in hybrid.macs.values())
    assert all(use.format.has_blocks for use in load_recipe("mx_blocks").points.values())


def test_a_file_is_the_recipe_in_python(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: 1\npoints: {activation: fp16, optimizer_state: e8m7/sr}\nmacs: {forward: fp16 -> fma(fp32)}\n"
        "loss_scale: {start: 1024, dynamic: true, every: 10}\n"
    )
    own = Recipe.of(
        {"activation": "fp16", "optimizer_state": "e8m7/sr"}, LossScale(1024.0, True, 10), "mine",
        {"forward": "fp16 -> fma(fp32)"},
    )  # fmt: skip
    assert load_recipe(path) == load_recipe(str(path)) == own
    path.write_text("schema: 1\nname: other\nloss_scale: 256\n")
    assert load_recipe(path) == Recipe.of({}, 256.0, "other")


def test_all_that_is_wrong_comes_at_once_with_its_place(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "schema: 2\npoint: {}\npoints:\n  weight_stor: e8m6\n  activation: e8m\n  gradient: 3\n"
        "macs: {forward: fma(fp17), backward: fma(fp16)}\nloss_scale: {start: 3, dynamic: 1, every: 0}\n"
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    expected = [
        "1:9: schema: got 2; expected 1, the version of the schema; write 1",
        '2:1: point: unknown key; did you mean "points"?',
        '4:3: points.weight_stor: unknown key; did you mean "weight_store"?',
        "5:15: points.activation: ",
        "6:13: points.gradient: got 3; expected the format of gradients with respect to these outputs; write e.g. ",
        "7:17: macs.forward: ",
        "7:28: macs.backward: unknown key; ",
        "8:21: loss_scale.start: got 3; expected a power of two; write e.g. 1024",
        "8:33: loss_scale.dynamic: got 1; expected true or false; write one",
        "8:43: loss_scale.every: got 0; expected a whole number from 1; write e.g. 2000",
    ]
    assert len(lines) == len(expected), lines
    for line, begin in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}:{begin}"), line
    assert "expected a format and its rounding" in lines[3] and "give e.g. 'fma(fp16)'" in lines[5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("points: {}\n", ":1:1: schema: missing; expected the version of the schema, 1; add 'schema: 1'"),
        ("schema: 1\nschema: 1\n", ":2:1: schema: duplicate key"),
        ("schema: true\n", ":1:9: schema: got true; expected 1"),
        ("schema: 1\npoints: [e8m6]\n", ":2:9: points: got a list; expected a mapping"),
        ("schema: 1\nname: 3\n", ":2:7: name: got 3; expected the name of the recipe"),
        ("schema: 1\nmacs: {forward: 3}\n", ":2:17: macs.forward: got 3; expected a MAC unit"),
        ("schema: 1\nloss_scale: many\n", ":2:13: loss_scale: got 'many'; expected a power of two"),
        ("schema: 1\nloss_scale: .inf\n", ":2:13: loss_scale: got inf; expected a power of two"),
        ("schema: 1\npoints:\n  activation:\n", ": got nothing; expected a value"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_name_that_is_none_says_which_there_are():
    with pytest.raises(InputError, match=r"no bundled recipe; expected one of bf16_mixed, .*did you mean \"fp8_hybrid"):
        load_recipe("fp8hybrid")
    with pytest.raises(InputError, match=r"lost/truncated.yaml: no such file; .* write truncated for the bundled"):
        load_recipe("lost/truncated.yaml")
