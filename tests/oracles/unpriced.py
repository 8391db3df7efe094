"""A MAC unit of a format that the cost model does not price."""

from dataclasses import replace

from formats import Format, Use
from simulator.arithmetic.spec import mac


class Logarithmic(Format):
    """A format whose circuits the model does not know: values are powers of two with a fraction in the exponent."""

    name, bits, max, smallest_normal, smallest_subnormal, has_nan = "lns8", 8, 2.0**7, 2.0**-8, 2.0**-8, False
    default_overflow = "sat"

    def project_finite(self, *_, **__):
        raise NotImplementedError

    overflows = project_special = code_of = value_of = project_finite


UNPRICED = replace(mac("fp8_e4m3 -> fma(fp16)"), operands=(Use(Logarithmic(), "rne", "sat"),) * 2)
