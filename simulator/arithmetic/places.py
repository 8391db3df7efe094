"""Where a rounding happens: the key of its random word.

Its key is (seed, training step), its counter (index of the output in C order, k, site), and which word. Within a MAC k
counts the roundings of one kind that a node of the accumulator has made for the output (for a plain fma or seq that is
the k of the product), and the site holds the node's number in its highest byte, so that no two roundings share a word.
"""

from __future__ import annotations

from dataclasses import dataclass

# Which of a place's two words: the first rounding of a step, of the product, or the second, of the sum.
PRODUCT, SUM = 0, 1

# Numbers of places outside the accumulator's nodes, whose numbers begin at 0 with the root.
A, B, C, SCORE, ALPHA, BETA, OUTPUT = 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xE1, 0xF0

SITE_BITS = 24


@dataclass(frozen=True)
class Place:
    """An output: which one, of what.

    Args:
        row, column: of the output. columns: of the whole result.
        seed, step: key. site: number of the operation in the network, 24 bits.
        matrix: which operand b of a stack, or of the groups of a convolution.
    """

    row: int = 0
    column: int = 0
    columns: int = 1
    seed: int = 0
    step: int = 0
    site: int = 0
    matrix: int = 0

    @property
    def index(self) -> int:
        """Index of the output in C order."""
        return self.row * self.columns + self.column


def site_of(node: int, site: int) -> int:
    """Return the counter word that holds a node and a site."""
    return node << SITE_BITS | site
