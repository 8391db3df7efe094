"""Published figures that docs/validation.md compares the cost model with, each with its source."""

from __future__ import annotations

from typing import NamedTuple

HOROWITZ, JOUPPI = "horowitz2014_45nm", "jouppi2021_7nm"


class Operation(NamedTuple):
    """One operation of an energy table.

    Args:
        name: of the operation. table: of the node. published_pj: its energy. status: reprint, secondary or unconfirmed.
        mac, part: MAC unit and part of its energy, mul or acc, that is this operation in the model.
        fitted: whether a coefficient of the model was fitted to it.
    """

    name: str
    table: str
    published_pj: float
    status: str
    mac: str
    part: str
    fitted: bool


# 45 nm: Horowitz, ISSCC 2014. 7 nm: Jouppi et al., ISCA 2021, table 2.
OPERATIONS = (
    Operation("int8 add", HOROWITZ, 0.03, "secondary", "int8 -> fma(int8)", "acc", True),
    Operation("int16 add", HOROWITZ, 0.05, "secondary", "int8 -> fma(int16)", "acc", True),
    Operation("int32 add", HOROWITZ, 0.1, "reprint", "int8 -> fma(int32)", "acc", True),
    Operation("int8 multiply", HOROWITZ, 0.2, "secondary", "int8 -> fma(int32)", "mul", True),
    Operation("int32 multiply", HOROWITZ, 3.1, "reprint", "int32 -> fma(int32)", "mul", True),
    Operation("fp16 add", HOROWITZ, 0.4, "secondary", "fp16 -> fma(fp16)", "acc", True),
    Operation("fp32 add", HOROWITZ, 0.9, "reprint", "fp32 -> fma(fp32)", "acc", True),
    Operation("fp16 multiply", HOROWITZ, 1.1, "secondary", "fp16 -> seq(fp16)", "mul", True),
    Operation("fp32 multiply", HOROWITZ, 3.7, "reprint", "fp32 -> seq(fp32)", "mul", True),
    Operation("int8 add", JOUPPI, 0.007, "secondary", "int8 -> fma(int8)", "acc", True),
    Operation("int32 add", JOUPPI, 0.03, "secondary", "int8 -> fma(int32)", "acc", True),
    Operation("int8 multiply", JOUPPI, 0.07, "secondary", "int8 -> fma(int32)", "mul", True),
    Operation("int32 multiply", JOUPPI, 1.48, "secondary", "int32 -> fma(int32)", "mul", True),
    Operation("bf16 add", JOUPPI, 0.11, "unconfirmed", "bf16 -> fma(bf16)", "acc", True),
    Operation("fp16 add", JOUPPI, 0.16, "unconfirmed", "fp16 -> fma(fp16)", "acc", True),
    Operation("fp32 add", JOUPPI, 0.38, "secondary", "fp32 -> fma(fp32)", "acc", True),
    Operation("bf16 multiply", JOUPPI, 0.21, "unconfirmed", "bf16 -> seq(bf16)", "mul", False),
    Operation("fp16 multiply", JOUPPI, 0.34, "secondary", "fp16 -> seq(fp16)", "mul", True),
    Operation("fp32 multiply", JOUPPI, 1.31, "secondary", "fp32 -> seq(fp32)", "mul", True),
)


class Unit(NamedTuple):
    """The energy of a MAC of a published unit, to which nothing was fitted.

    Args:
        what: the unit. node_nm: its process. published_pj: of one MAC, two of its operations.
        mac: the unit of the model beside it. scope: what the published figure is of. source: with its status.
    """

    what: str
    node_nm: int
    published_pj: float
    mac: str
    scope: str
    source: str


UNITS = (
    Unit("int8 MAC", 7, 0.055, "int8 -> fma(int32)", "unit, post-layout, ASAP7", "arXiv 2504.09072, secondary"),
    Unit("e4m3 MAC, fp32 sum", 7, 0.195, "fp8_e4m3 -> fma(fp32)", "unit, post-layout, ASAP7",
         "arXiv 2504.09072, secondary"),
    Unit("TPU v4i, bf16 MAC", 7, 0.084, "bf16 -> fma(fp32)", "unit, as a model's file has it",
         "AccelForge's TPU v4i file, secondary"),
    Unit("FPnew, FP8", 22, 2 * 0.34, "fp8_e4m3 -> fma(fp16)", "unit, silicon", "arXiv 2007.01530, abstract"),
    Unit("FPnew, FP64", 22, 2 * 5.6, "fp64 -> fma(fp64)", "unit, silicon", "arXiv 2007.01530, abstract"),
    Unit("ExSdotp, FP8", 12, 2 * 0.61, "fp8_e4m3 -> fma(fp16)", "unit", "arXiv 2207.03192, secondary"),
    Unit("ExSdotp cluster, FP8", 12, 2 * 1.74, "fp8_e4m3 -> fma(fp16)", "cores and memory too",
         "arXiv 2207.03192, secondary"),
    Unit("MXDOTP, MXFP8", 12, 2 * 1000 / 356, "fp8_e4m3 -> fma(fp32)", "cores and memory too",
         "arXiv 2505.13159, abstract: 356 GFLOPS/W"),
    Unit("MX units, FP4", 22, 2 * 0.25, "fp4_e2m1 -> fma(fp32)", "system", "arXiv 2511.06313"),
    Unit("MX units, INT8", 22, 2 * 1.52, "int8 -> fma(int32)", "system", "arXiv 2511.06313"),
)  # fmt: skip


class Work(NamedTuple):
    """What a chip ran.

    Args:
        machine: name of the file that describes the chip. mode: of its MAC, low or high. what: the network or product.
        products: (M, N, K, how many, distinct elements of all A or None).
        published, unit: the figure: % (of the peak MACs, useful ones), TFLOPS, ms, MB (of DRAM) or mJ (of the chip,
            without DRAM).
        source: with what is assumed.
    """

    machine: str
    mode: str
    what: str
    products: tuple[tuple[int, int, int, int, int | None], ...]
    published: float
    unit: str
    source: str


TPU = "Jouppi et al., ISCA 2017, table 3, useful MACs; table 1 for batch, layers and weights"
EYERISS = "Chen et al., JSSC 52(1), 2017, section VI"
FINDER = "stas00/ml-engineering, bf16, the fastest shape that its finder met; secondary"
# Five convolutions, two of them in two groups, of four images of 227 x 227; Krizhevsky et al., NeurIPS 2012.
# Distinct elements are those of the images, which the chip unfolds itself.
ALEXNET = ((4 * 55**2, 96, 363, 1, 4 * 227**2 * 3), (4 * 27**2, 128, 1200, 2, 4 * 27**2 * 96),
           (4 * 13**2, 384, 2304, 1, 4 * 13**2 * 256), (4 * 13**2, 192, 1728, 2, 4 * 13**2 * 384),
           (4 * 13**2, 128, 1728, 2, 4 * 13**2 * 384))  # fmt: skip

FRAMES = "AlexNet, convolutions of 4 images"

WORK = (
    Work("tpu_v1", "low", "MLP0, batch 200", ((200, 2000, 2000, 5, None),), 12.5, "%",
         f"{TPU}; five layers, taken as of 2000 x 2000, which makes the 20 M weights"),
    Work("tpu_v1", "low", "MLP1, batch 168", ((168, 1118, 1118, 4, None),), 9.4, "%",
         f"{TPU}; four layers, taken as of 1118 x 1118, which makes the 5 M weights"),
    Work("eyeriss_like", "low", FRAMES, ALEXNET, 4000 / 34.7, "ms", f"{EYERISS}: 34.7 frames/s"),
    Work("eyeriss_like", "low", FRAMES, ALEXNET, 15.4, "MB", f"{EYERISS}; compressed"),
    Work("eyeriss_like", "low", FRAMES, ALEXNET, 4 * 278 / 34.7, "mJ",
         f"{EYERISS}: 278 mW at 1 V; the table is at 0.9 V, at which it would be 0.81 of that"),
    Work("nvidia_v100", "low", "fp16, 8192 x 8192 x 8192", ((8192, 8192, 8192, 1, None),), 83, "TFLOPS",
         "Markidis et al., IPDPSW 2018, arXiv 1803.04014, abstract: up to, of which size and board it does not say"),
    Work("nvidia_a100", "low", "fp16, 6912 x 16384 x 2048", ((6912, 16384, 2048, 1, None),), 267.9, "TFLOPS", FINDER),
    Work("nvidia_h100", "high", "fp16, 6144 x 17920 x 2816", ((6144, 17920, 2816, 1, None),), 792.1, "TFLOPS", FINDER),
)  # fmt: skip
