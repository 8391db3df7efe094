"""The examples silero-vad, digits of scikit-learn and Fashion-MNIST: their networks, their study, and what is shown."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.docs.pages import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("pandas")

from torch import nn  # noqa: E402

from simulator.errors import InputError, MissingLibraryError  # noqa: E402
from simulator.network.idx_files import FASHION  # noqa: E402


def needs(*names):
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"of the extra examples there lacks {', '.join(lacking)}")


needs_silero = needs("silero_vad", "onnx")
needs_runtime = needs("silero_vad", "onnx", "onnxruntime")
needs_scikit_learn = needs("sklearn")
needs_fashion = pytest.mark.skipif(
    not FASHION.is_dir(), reason=f"{FASHION} is not there: Debian's dataset-fashion-mnist"
)


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    """Modules of docs/examples are importable, as they are from that directory."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))


def example(name):
    return importlib.import_module(name)


# --- audio ----------------------------------------------------------------------------------------------------------


def test_a_voice_is_louder_than_the_pauses_and_the_same_for_a_seed():
    voice = example("voice")
    audio, voiced = voice.clip(2.0, 0)
    assert audio.shape == voiced.shape == (32000,) and audio.dtype == np.float32
    assert 0.2 < voiced.mean() < 0.8
    assert np.sqrt((audio[voiced] ** 2).mean()) > 10 * np.sqrt((audio[~voiced] ** 2).mean())
    np.testing.assert_array_equal(voice.clip(2.0, 0)[0], audio)
    assert (voice.clip(2.0, 1)[0] != audio).any()


def test_a_resonance_is_where_it_should_be():
    voice = example("voice")
    impulse = np.eye(1, voice.RATE)[0]
    spectrum = np.abs(np.fft.rfft(voice.resonance(impulse, np.full(voice.RATE, 1000.0), 50)))  # in steps of 1 Hz
    assert abs(int(spectrum.argmax()) - 1000) <= 2
    assert spectrum[0] == pytest.approx(1, rel=1e-3)
    assert np.count_nonzero(spectrum > spectrum.max() / np.sqrt(2)) == pytest.approx(50, abs=3)


# --- silero-vad -----------------------------------------------------------------------------------------------------


def test_chunks_have_what_was_before_them_and_the_last_is_filled_with_silence():
    found = example("silero").chunks(torch.arange(1.0, 1101.0)[None])
    assert found.shape == (1, 3, 576)
    assert found[0, 0, :65].tolist() == [0.0] * 64 + [1.0]
    assert found[0, 1].tolist() == list(range(449, 1025))
    assert found[0, 2].tolist() == [*range(961, 1101), *[0.0] * 436]


@pytest.fixture
def audio():
    """Two clips, (2, 19200), which begin with noise."""
    clips = [example("voice").clip(1.2, seed)[0] for seed in range(2)]
    return torch.from_numpy(np.stack(clips))


@pytest.fixture
def known(audio):
    """The probabilities that onnxruntime computes, (2, 38)."""
    import onnxruntime

    silero = example("silero")
    session = onnxruntime.InferenceSession(str(silero.onnx_file()))
    state, found = np.zeros((2, len(audio), silero.STATE), np.float32), []
    for chunk in silero.chunks(audio).unbind(1):
        given = {"input": chunk.numpy(), "state": state, "sr": np.array(silero.RATE)}
        probabilities, state = session.run(["output", "stateN"], given)
        found.append(probabilities)
    found = np.concatenate(found, 1)
    assert found.min() < 0.1 and found.max() > 0.9  # it hears the voice
    return found


@needs_runtime
@torch.no_grad()
def test_the_onnx_file_gives_what_onnxruntime_gives(audio, known):
    np.testing.assert_allclose(example("silero").onnx_detector()(audio).numpy(), known, rtol=0, atol=1e-5)


@needs_runtime
@torch.no_grad()
def test_the_torch_layers_with_the_weights_of_the_onnx_file_do_too(audio, known):
    silero = example("silero")
    network, other = silero.detector(), silero.onnx_detector()
    for own, theirs in zip(network.parameters(), other.parameters(), strict=True):  # both in the order of the layers
        own.copy_(theirs)
    np.testing.assert_allclose(network(audio).numpy(), known, rtol=0, atol=1e-5)


@needs_silero
@torch.no_grad()
def test_the_torch_file_hears_the_voice_too_and_depends_on_what_was_before(audio):
    network = example("silero").detector()
    found = network(audio)
    assert found.shape == (2, 38) and found.min() < 0.1 and found.max() > 0.9
    torch.testing.assert_close(network(audio[:, : 512 * 20]), found[:, :20])
    assert (network(audio[:, 512 * 20 :]) - found[:, 20:]).abs().max() > 1e-3


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    silero = example("silero")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"needs silero-vad.*pip install 'ulpsim\[examples\]'"):
        silero.detector()
    with pytest.raises(MissingLibraryError, match="the digits: needs scikit-learn"):
        example("digits_mlp").parts()


# --- scikit-learn ---------------------------------------------------------------------------------------------------


@needs_scikit_learn
@torch.no_grad()
def test_the_torch_module_answers_as_scikit_learn_does():
    digits_mlp = example("digits_mlp")
    trained, (x, y) = digits_mlp.classifier(), digits_mlp.parts()[1]
    network = digits_mlp.from_scikit_learn(trained)
    probabilities = network(torch.from_numpy(x).float()).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, trained.predict_proba(x), rtol=0, atol=1e-5)
    assert (probabilities.argmax(1) == y).mean() > 0.95


@needs_scikit_learn
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_other_classifiers_of_scikit_learn_are_refused():
    from sklearn.neural_network import MLPClassifier

    x, y = np.eye(6), np.array([0, 1, 2, 0, 1, 2])
    for classifier, classes, what in (
        (MLPClassifier(4, activation="tanh", max_iter=1), y, "tanh and softmax"),
        (MLPClassifier(4, max_iter=1), y > 0, "relu and logistic"),
    ):
        with pytest.raises(InputError, match=f"has {what}; expected relu and softmax"):
            example("digits_mlp").from_scikit_learn(classifier.fit(x, classes))


# --- the study ------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """A layer that is called twice, and one behind it."""

    def __init__(self):
        super().__init__()
        self.again, self.last = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.again(torch.relu(self.again(x)))))


@pytest.fixture
def task():
    study = example("format_study")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, inputs = Twice().eval(), torch.randn(20, 16)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % 3  # float32 is wrong once
    return study.Task("twice", network, inputs, study.classes(labels))


def test_a_format_that_rounds_more_is_further_from_float32(task):
    study = example("format_study")
    forms = [study.Format("npu", {"operands": operands, "accumulator": "fma(fp32)"})
             for operands in ("fp32", "fp8_e4m3/sat")]  # fmt: skip
    fine, coarse = study.study(task, forms)
    assert list(fine.errors) == list(coarse.errors) == ["again", "last"]
    assert max(fine.errors.values()) < 1e-5 < 1e-2 < min(coarse.errors.values())
    assert fine.difference < 1e-5 < 1e-3 < coarse.difference
    assert fine.measures == {"right": 0.95, "as float32": 1.0}
    assert 0 < coarse.energy_j < fine.energy_j and coarse.cycles > 0
    assert coarse.worst == max(coarse.errors.items(), key=lambda item: item[1])
    assert coarse.mac == "fp8_e4m3/sat -> chunk(16, fma(fp32), seq(fp32))" and coarse.hardware == "npu"


def test_outputs_of_all_calls_of_a_layer_are_kept(task):
    study = example("format_study")
    with torch.no_grad(), study.outputs_of(task.network, ["again"]) as kept:
        task.network(task.inputs)
    first, second = kept["again"]
    torch.testing.assert_close(first, task.network.again(task.inputs))
    torch.testing.assert_close(second, task.network.again(torch.relu(first)))
    task.network(task.inputs)
    assert len(kept["again"]) == 2  # nothing is kept any more


def test_a_study_writes_what_it_prints(task, tmp_path, capsys):
    study = example("format_study")
    study.run("twice", lambda: [task], [str(tmp_path / "new" / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 + len(study.FORMATS)
    out = tmp_path / "new" / "out"
    record = json.loads((out / "study.json").read_text())
    assert record["study"] == "twice" and len(record["formats"]) == len(study.FORMATS)
    import pandas

    rows = pandas.read_csv(out / "formats.csv")
    assert rows["right"].tolist() == [each["measures"]["right"] for each in record["formats"]]
    assert len(pandas.read_csv(out / "layers.csv")) == 2 * len(study.FORMATS)


def test_a_directory_of_another_study_is_left_alone(task, tmp_path, capsys):
    (tmp_path / "study.json").write_text('{"study": "other"}')
    with pytest.raises(SystemExit) as left:
        example("format_study").run("twice", lambda: [task], [str(tmp_path)])
    assert left.value.code == 2 and "is of the study other" in capsys.readouterr().err
    assert (tmp_path / "study.json").read_text() == '{"study": "other"}'


# --- the page -------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@pytest.mark.full
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("silero", marks=needs_silero),
        pytest.param("digits", marks=needs_scikit_learn),
        pytest.param("fashion", marks=needs_fashion),
    ],
)
def test_the_page_shows_what_the_study_prints(name, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / f"{name}_study.py"], cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / name).iterdir()} == {"study.json", "formats.csv", "layers.csv"}
    page = (ROOT / "docs" / "studies" / "real-networks.md").read_text(encoding="utf-8")
    printed = done.stdout.strip().splitlines()
    shown = page[page.index(printed[0]) :].splitlines()[: len(printed)]
    # float32 is torch's own, whose last digits depend on the processor, so that a rounding may fall otherwise.
    for line, known in zip(printed, shown, strict=True):
        assert NUMBER.sub("#", line) == NUMBER.sub("#", known)
        values, expected = ([float(word.replace(",", "")) for word in NUMBER.findall(text)] for text in (line, known))
        assert values == pytest.approx(expected, rel=0.05, abs=0.01)


# --- files of Keras and ONNX ------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "keras", "onnx")),
    reason="needs scikit-learn and the extras keras and onnx",
)
@pytest.mark.parametrize("size", ["small", pytest.param("whole", marks=pytest.mark.full)])
def test_what_is_proved_of_files_of_keras_and_onnx(tmp_path, capsys, monkeypatch, size):
    files = example("digits_files")
    if size == "small":
        monkeypatch.setattr(files, "SAMPLES", 5)
        networks = files.write_files(tmp_path, epochs=4)
        with np.load(tmp_path / "digits.npz") as digits:
            rows = [files.proved(path, digits["x"], digits["y"]) for path in networks]
    else:
        files.main(tmp_path)
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["`mlp.keras`", "`cnn.keras`", "`mlp.onnx`"]
    for row in rows:
        assert float(row[1].rstrip("%")) > (80 if size == "small" else 93)
        half, most, all_of_them = map(int, row[2:5])
        assert 6 <= half <= most <= all_of_them <= 24
        assert row[5] == "100%"  # float32 keeps them all
    if size == "whole":
        shown = (ROOT / "docs" / "studies" / "real-networks.md").read_text()
        assert "| " + " | ".join(rows[2]) + " |" in shown  # Keras' training may differ between processors
