"""The page docs/reference/onnx-operators.md: `python -m tests.docs.operators_page` prints it, from the registry."""

from __future__ import annotations

from simulator.network import onnx_operators  # noqa: F401 - registers them
from simulator.network.onnx_operators.registry import supported, versions

HEAD = """# Operators of ONNX

What nodes of an `.onnx` file may compute, and since which versions of the opset it is computed in which way: a version before the
first is that of ONNX's own function for the operator, or refused. [Networks from files](../howto/model-files.md#onnx-files) says how
to add one. Operators that are not listed are taken where ONNX defines them by those that are, and where the file does.
"""  # noqa: E501 - the page has wider lines


def page() -> str:
    names = supported()
    rows = [f"| `{name}` | {', '.join(map(str, versions(name)))} |" for name in names]
    return "\n".join([HEAD, f"{len(names)} operators.\n", "| operator | since |", "|---|---|", *rows])


if __name__ == "__main__":
    print(page())
