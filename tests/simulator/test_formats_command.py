"""`python -m simulator formats`: what it prints, the plot it draws, and what it refuses."""

import fcntl
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import formats
from formats import FloatFormat, registry
from formats.families import FAMILIES, source_of
from simulator.report.figures import compact, exact

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Every test starts without registered and plugged-in formats."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_plugged", list)


def printed(command, *arguments):
    code, out, err = command("formats", *arguments)
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "…" not in out
    return out


def in_terminal(width, *arguments):
    """Return what a terminal of a width shows, colours taken off."""
    child, end = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        os.chdir(ROOT)
        # An environment of its own: readline puts COLUMNS and LINES where os.environ does not see them.
        environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        os.execve(sys.executable, [sys.executable, "-m", "simulator", "formats", *arguments], environment)
    received = b""
    while True:
        try:
            part = os.read(end, 65536)
        except OSError:  # the terminal is gone
            break
        if not part:
            break
        received += part
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0, received.decode()
    assert b"\x1b[" in received
    return re.sub(r"\x1b\[[0-9;]*m", "", received.decode()).replace("\r", "")


# --- the list -------------------------------------------------------------------------------------------------------


def test_the_list_has_every_format_with_its_source_and_every_family(command):
    out = printed(command)
    lines = out.split("\n")
    for name in formats.available():
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 1
        assert re.search(rf"^\d+ +{re.escape(source_of(formats.get(name)))}$", out, re.M)
    fp8 = next(line for line in lines if line.startswith("fp8_e4m3 ")).split()
    assert fp8[:9] == ["fp8_e4m3", "8", "4", "448", "2^-6", "2^-9", "NaN", "-0", "nan"]
    flat = " ".join(out.split())
    for family in FAMILIES.values():
        if family.grammar:
            assert family.grammar in flat and " ".join(f"Source: {family.source}".split()) in flat


def test_sources_of_the_list_are_numbered_right(command):
    out = printed(command)
    sources = dict(re.findall(r"^(\d+) +(\S.*)$", out.split("\nSources\n")[1].split("\n\n")[0], re.M))
    for name in formats.available():
        line = re.search(rf"^{name} .*$", out, re.M)[0]
        assert sources[line.split()[-1]] == source_of(formats.get(name))


def test_registered_formats_are_listed_and_said_to_be(command):
    formats.register("mine8", FloatFormat("mine8", 4, 3, bias=5))
    out = printed(command)
    assert re.search(r"^mine8 +8 +4 ", out, re.M) and "registered by the program" in out
    assert "registered by the program" in printed(command, "mine8")


def test_plug_ins_are_listed_with_their_package_and_broken_ones_with_their_problem(command, monkeypatch):
    def fail():
        raise AttributeError("no such thing")

    package = SimpleNamespace(name="vendor-formats", version="1.2")
    entries = [
        SimpleNamespace(name="vendor9", value="v:A", dist=package, load=lambda: FloatFormat("vendor9", 5, 3, bias=12)),
        SimpleNamespace(name="broken", value="v:B", dist=package, load=fail),
        SimpleNamespace(name="wrong", value="v:C", dist=package, load=lambda: 7),
    ]
    monkeypatch.setattr(registry, "_plugged", lambda: entries)
    out = " ".join(printed(command).split())
    assert "plug-in vendor-formats 1.2" in out
    assert "format 'broken': its plug-in v:B cannot be loaded: AttributeError: no such thing" in out
    assert "format 'wrong': its plug-in v:C gives a int; expected a formats.Format" in out
    assert command("formats", "broken")[0] == 2
    assert [one.get("problem", "")[:16] for one in json.loads(printed(command, "--json"))][-2:] == [
        "format 'broken':", "format 'wrong': ",
    ]  # fmt: skip


# --- one format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp4_e2m1", "e8m0", "posit8", "takum8", "int8"])
def test_a_narrow_format_is_shown_with_every_code(command, name):
    fmt = formats.get(name)
    table = printed(command, name).split("\nValues: ")[1].split("\n", 1)[1]
    cells = re.findall(r"([0-9A-F]+)  ([01|]+)  +(\S+)", table)
    shown = {int(code, 16): (fields.replace("|", ""), value) for code, fields, value in cells}
    assert shown == {
        code: (f"{code:0{fmt.bits}b}", "NaR" if value != value and "NaR" in table else exact(value))
        for code, value in enumerate(fmt.table().tolist())
    }


def test_a_format_is_shown_with_its_numbers(command):
    out = printed(command, "fp8_e4m3")
    facts = dict(re.findall(r"^(\S.*?) {2,}(\S.*)$", out.split("\nSpacing")[0], re.M))
    expected = {
        "exponent bits": "4", "fraction bits": "3", "bias": "7", "emin": "-6", "emax": "8", "largest": "448",
        "lowest": "-448", "smallest normal": "2^-6 ≈ 0.015625", "smallest positive": "2^-9 ≈ 0.00195312",
        "dynamic range": "17.8 binades, 5.4 decades", "unit roundoff": "0.0625", "infinity": "none", "NaN": "7F FF",
        "negative zero": "80", "default overflow": "nan",
        "source": "OCP 8-bit Floating Point Specification 1.0, tables 1 and 2",
        "precision": "4 significand bits, the hidden one included",
    }  # fmt: skip
    assert {name: facts[name] for name in expected} == expected
    assert re.search(r"^2\^-9 to 2\^-6 +7 +1 to 3 +2\^-9 +0\.143 to 1$", out, re.M)
    assert re.search(r"^2\^-6 to 2\^9 +119 +4 +2\^-9 to 32 +0\.0667 to 0\.125$", out, re.M)


def test_a_family_shows_its_source_and_grammar(command):
    out = " ".join(printed(command, "posit16").split())
    assert "Standard for Posit Arithmetic (2022)" in out and "positN[eES]: posit of N bits (2 to 32)" in out
    assert "12 significand bits around 1" in out and "NaR 8000" in out


def test_a_wide_format_is_shown_with_landmark_codes(command):
    out = printed(command, "fp32")
    assert re.search(r"^largest +7F7FFFFF +0\|11111110\|1{23} +\(2-2\^-23\)×2\^127$", out, re.M)
    assert re.search(r"^one +3F800000 +0\|01111111\|0{23} +1$", out, re.M)
    assert "7F800001-7FFFFFFF FF800001-FFFFFFFF (16777214 codes)" in out


def test_a_block_format_shows_the_tables_of_its_element_and_scale(command):
    out = printed(command, "nvfp4")
    element, scale = out.split("\nThe element, fp4_e2m1\n")[1].split("\nThe scale, ue4m3\n")
    assert "7  0|11|1  6    B" in element and "7E  1111|110  448" in scale
    facts = re.sub(" +", " ", out)
    assert "block size 16\n" in facts and "scale mode rne\n" in facts and "bits per element 4.5\n" in facts


@pytest.mark.parametrize(
    "name",
    [*formats.available(), "e1m2", "binary16p9uf", "posit32", "takum32", "posit2", "fix53.1000", "uint1",
     "block(posit8,8,scale=e8m0,mode=ceil)", "mxint8:rceil", "e5m2:finite:ftz"],
)  # fmt: skip
def test_every_kind_of_format_can_be_shown_and_written_as_json(command, name):
    assert printed(command, name).startswith(f"\n{formats.get(name).name} · ")
    (record,) = json.loads(printed(command, name, "--json"))
    assert record["name"] == formats.get(name).name and record["source"]


def test_a_format_wider_than_float64_is_shown_exactly(command):
    out = printed(command, "binary16p1se")
    assert re.search(r"^largest +2\^16382 ≈ 2\.97433e\+4931$", out, re.M)
    assert re.search(r"^lowest +-2\^16382 ≈ -2\.97433e\+4931$", out, re.M)
    assert re.search(r"^smallest positive +2\^-16383 ≈ 1\.68105e-4932$", out, re.M)
    assert "dynamic range      32765.0 binades, 9863.2 decades" in out
    assert re.search(r"^2\^-16383 to 2\^16383 +32,766 +1 +2\^-16383 to 2\^16381 +1$", out, re.M)
    assert re.search(r"^largest +7FFE +0\|111111111111110 +2\^16382$", out, re.M)
    assert re.search(r"^smallest positive +2\^-16383 ", out, re.M)
    out = printed(command, "e5m2:b-1000")
    assert re.search(r"^largest +7×2\^1028 ≈ 2\.01342e\+310$", out, re.M)
    assert re.search(r"\b7B  0\|11110\|11 +7×2\^1028\b", out)


@pytest.mark.parametrize("name", ["binary16p1se", "binary16p4ue", "binary13p1ue", "e5m2:b-1000", "e11m52:b1025"])
def test_a_format_wider_than_float64_is_written_as_json(command, name):
    fmt = formats.get(name)
    (record,) = json.loads(printed(command, name, "--json"))
    texts = (record["smallest_subnormal"], record["smallest_normal"], record["max"])
    for text, (integer, exponent) in zip(texts, fmt.exact_ends, strict=True):
        if isinstance(text, str):
            assert tuple(map(int, text.split("*2^"))) == (integer, exponent)
        else:
            assert text.as_integer_ratio() == (Fraction(2) ** exponent * integer).as_integer_ratio()
    assert any(isinstance(text, str) for text in texts)
    assert all(gap is not None for band in record["bands"] for gap in band["gaps"])


def test_a_format_without_normal_values_says_so(command):
    assert re.search(r"^smallest normal +none$", printed(command, "e1m2"), re.M)
    assert json.loads(printed(command, "e1m2", "--json"))[0]["smallest_normal"] is None
    assert re.search(r"^smallest normal +none +0\.25$", printed(command, "--compare", "e1m2", "fp6_e3m2"), re.M)
    formats.register("tiny4", FloatFormat("tiny4", 1, 2))
    assert re.search(r"^tiny4 +4 +3 +1\.5 +none +0\.5 ", printed(command), re.M)


def test_a_plug_in_that_cannot_be_described_is_one_line(command, monkeypatch):
    class Lame(FloatFormat):
        @property
        def exact_ends(self):
            raise ValueError("lame8: has lost its ends")

    monkeypatch.setitem(registry._registered, "lame8", Lame("lame8", 4, 3))
    for arguments in (["lame8"], ["lame8", "--json"], ["--compare", "fp16", "lame8"], ["--plot", "x.html", "lame8"]):
        assert command("formats", *arguments) == (2, "", "ulpsim: error: lame8: has lost its ends\n")
    assert "lame8: has lost its ends" in printed(command)


def test_a_codebook_that_is_registered_can_be_shown(command):
    formats.register("three", formats.CodebookFormat("three", (-1.0, 0.5, 2.0)))
    out = printed(command, "three")
    assert re.search(r"^values +3$", out, re.M) and re.search(r"^0  00  -1 +1  01  0\.5 +2  10 +2$", out, re.M)


def test_several_formats_are_shown_one_after_the_other(command):
    out = printed(command, "fp4_e2m1", "int4")
    assert out.index("fp4_e2m1 · ") < out.index("int4 · ")


def test_json_holds_every_value_of_a_narrow_format(command):
    (record,) = json.loads(printed(command, "fp8_e5m2", "--json"))
    assert [row["code"] for row in record["values"]] == list(range(256))
    assert record["values"][0x7B] == {
        "code": 0x7B, "fields": {"sign": "0", "exponent": "11110", "fraction": "11"}, "value": 57344.0,
        "meaning": "normal",
    }  # fmt: skip
    assert [row["value"] for row in record["values"]][0x7C:0x7E] == ["Infinity", "NaN"]
    assert [one["name"] for one in json.loads(printed(command, "--json"))] == formats.available()


# --- two formats ----------------------------------------------------------------------------------------------------


def test_a_comparison_says_where_two_formats_differ(command):
    out = printed(command, "--compare", "fp8_e4m3", "e4m3:ieee")
    assert re.search(r"^largest +448 +240$", out, re.M)
    assert re.search(r"^  infinity +none +78 F8$", out, re.M)
    assert "fp8_e4m3 has 253, e4m3:ieee has 239, 239 are common to both." in out
    assert "14 beyond its range  ±256 to ±448, for example ±256, ±288, ±320, ±352" in out
    assert "Every value of e4m3:ieee is a value of fp8_e4m3." in out
    assert "Codes with another value: 14\n" in out and re.search(r"^7E +448 +NaN$", out, re.M)
    assert re.search(r"^2\^8 to 2\^9 +4 +no values$", out, re.M)


def test_identical_values_are_said_to_be(command):
    out = printed(command, "--compare", "e5m10", "fp16")
    assert "Identical values: each of the 63,487 finite values" in out
    assert "Every code has the same value in both." in out and "What differs" not in out


def test_wide_formats_are_compared_too(command):
    out = printed(command, "--compare", "fp32", "posit32")
    assert "805,306,367 are common to both" in " ".join(out.split())
    assert re.search(r"^2\^-4 to 2\^4 +24 +28$", out, re.M)
    assert "Landmark codes with another value" in out


def test_formats_wider_than_float64_are_compared_exactly(command):
    out = printed(command, "--compare", "binary13p1ue", "binary13p2ue")
    assert re.search(r"^largest +2\^4093 +3×2\^2045$", out, re.M)
    assert "binary13p1ue has 8,190, binary13p2ue has 8,190, 4,096 are common to both." in out
    assert re.search(r"beyond its range +2\^2047 to 2\^4093, for example 2\^2047, 2\^2048, 2\^2049", out)
    assert re.search(r"^0003 +2\^-4093 +3×2\^-2048$", out, re.M)
    record = json.loads(printed(command, "--compare", "binary13p1ue", "fp8_e5m2", "--json"))
    assert record["record"]["max"] == ["1*2^4093", 57344.0]
    beyond = next(one for one in record["only_a"] if one["kind"] == "beyond its range")
    assert (beyond["low"], beyond["high"]) == (65536.0, "1*2^4093")


def test_block_formats_are_compared_by_their_parts(command):
    out = printed(command, "--compare", "mxfp4", "nvfp4")
    assert re.search(r"^block size +32 +16$", out, re.M) and "e8m0 and ue4m3" in out
    assert "The values of mxfp4 depend on the scales" in printed(command, "--compare", "fp4_e2m1", "mxfp4")


def test_a_comparison_as_json(command):
    record = json.loads(printed(command, "--compare", "fp8_e4m3", "e4m3:ieee", "--json"))
    assert record["counts"] == [253, 239, 239] and record["codes"] == 14 and record["identical"] is False
    assert record["record"]["max"] == [448.0, 240.0]
    assert record["code_examples"][0][1]["value"] == "Infinity"
    blocks = json.loads(printed(command, "--compare", "mxfp4", "nvfp4", "--json"))
    assert [part["a"]["name"] for part in blocks["parts"]] == ["e8m0"]


# --- the plot -------------------------------------------------------------------------------------------------------


def figure(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.S)[1])[
        "spacing"
    ]


def test_a_plot_has_a_curve_for_each_format(command, tmp_path):
    pytest.importorskip("plotly")
    out = printed(command, "--plot", "spacing.html", "fp8_e4m3", "posit16", "mxfp4")
    assert out == "Plot in spacing.html\n"
    plot = figure(tmp_path / "spacing.html")
    assert [curve["name"] for curve in plot["data"]] == ["fp8_e4m3", "posit16", "mxfp4, its elements at scale 1"]
    # The axes show powers of two.
    assert all(plot["layout"][axis]["tickprefix"] == "2<sup>" for axis in ("xaxis", "yaxis"))
    curve = dict(zip(plot["data"][0]["x"], plot["data"][0]["y"], strict=True))
    assert curve[-9] == 0 and curve[0] == -3
    told = {tuple(text) for text in plot["data"][0]["customdata"]}
    assert {("2^-9", "1"), ("1", "0.125"), ("1.875", "0.0667"), ("448", "0.0714")} <= told
    styles = [(curve["line"]["color"], curve["line"]["dash"]) for curve in plot["data"]]
    assert len(set(styles)) == 3


def test_a_plot_reaches_beyond_float64(command, tmp_path):
    pytest.importorskip("plotly")
    printed(command, "--plot", "wide.html", "binary13p2ue", "fp16")
    curve = figure(tmp_path / "wide.html")["data"][0]
    assert (curve["x"][0], curve["x"][-1]) == (-2048, 2046 + math.log2(1.5))
    assert {tuple(text) for text in curve["customdata"]} >= {("2^2046", "0.5"), ("3×2^2045", "0.333"), ("1.5", "0.333")}


def test_a_plot_loads_nothing_and_follows_the_colours_of_the_screen(command, tmp_path):
    pytest.importorskip("plotly")
    printed(command, "--plot", "spacing.html", *["fp16"] * 3)
    text = (tmp_path / "spacing.html").read_text(encoding="utf-8")
    page = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page


def test_thirty_formats_get_thirty_styles(command, tmp_path):
    pytest.importorskip("plotly")
    names = [f"e5m{bits}" for bits in range(1, 31)]
    printed(command, "--plot", "many.html", *names)
    styles = {(curve["line"]["color"], curve["line"]["dash"]) for curve in figure(tmp_path / "many.html")["data"]}
    assert len(styles) == 30


def test_a_comparison_can_be_plotted(command, tmp_path):
    pytest.importorskip("plotly")
    out = printed(command, "--compare", "fp16", "bf16", "--plot", "two.html")
    assert "fp16 has 63,487" in out and out.endswith("Plot in two.html\n")
    assert [curve["name"] for curve in figure(tmp_path / "two.html")["data"]] == ["fp16", "bf16"]


def test_a_plot_beside_json_leaves_standard_output_to_the_record(command, tmp_path):
    pytest.importorskip("plotly")
    assert json.loads(printed(command, "fp16", "--plot", "one.html", "--json"))[0]["name"] == "fp16"
    assert (tmp_path / "one.html").exists()


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fp17"], r"format 'fp17' is unknown; did you mean fp16"),
        (
            ["posit16e"],
            r"format 'posit16e' is unknown; names of this family are written positN\[eES\], such as posit16",
        ),
        (["POSIT16"], r"format 'POSIT16' is unknown; did you mean posit16"),
        (["e5m2fnuz"], r"format 'e5m2fnuz' is unknown; did you mean fp8_e5m2fnuz"),
        (["posit33"], r"posit33: n = 33 is out of range; posits have n from 2 to 32 bits"),
        (["fp16/sat"], r"'fp16/sat' is a use of a format; expected a format, fp16"),
        (["qtorch_posit17"], r"qtorch_posit17: n = 17; qtorch-plus has posits of 2 to 16 bits"),
        (["--compare", "fp16", "fp17"], r"format 'fp17' is unknown"),
        (
            ["--compare", "fp16", "bf16", "fp32"],
            r"--compare: got fp32 besides; expected two formats and no others; leave it out",
        ),
        (["--plot", "x.html"], r"--plot: got no format; expected the names of those to draw; add some"),
        (["--plot", "x.png", "fp16"], r"--plot: got 'x\.png'; expected the name of an HTML page; write x\.html"),
        (["--plot", "", "fp16"], r"--plot: got ''; expected the name of an HTML page; write report\.html"),
        (["--plot", "none/x.html", "fp16"], r"none/x\.html: cannot be written \(.*none is no directory\); expected"),
        (
            ["--markdown", "page", "fp16"],
            r"--markdown: got it beside others; expected it alone, or with names for a table; leave",
        ),
        (
            ["--markdown", "table", "--json", "fp16"],
            r"--markdown: got it beside others; expected it alone, or with names for a table; leave",
        ),
        (["--markdown", "table", "fp17"], r"format 'fp17' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(command, tmp_path, arguments, message):
    code, out, err = command("formats", *arguments)
    assert (code, out) == (2, "")
    assert re.match(rf"ulpsim: error: .*{message}", err) and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "fp16"], r"--compare: got too few values; expected 2 arguments"),
        (["--markdown", "html"], r"formats: --markdown: got 'html'; expected one of 'table', 'page'"),
        (["--hw", "npu"], r"formats: --hw: unknown option"),
    ],
)
def test_arguments_that_the_command_does_not_take(command, arguments, message):
    code, out, err = command("formats", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err)


def test_options_of_the_main_job_do_not_go_unheard(command):
    code, out, err = command("--hw", "npu", "formats")
    assert (code, out) == (2, "")
    assert err.startswith(
        "ulpsim: error: --hw: got it before the command formats; expected it with the main job, whose option it is; "
        "leave it out"
    )


def test_a_plot_without_plotly_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    code, out, err = command("formats", "--plot", "x.html", "fp16")
    assert (code, out) == (2, "")
    assert err == "ulpsim: error: plots need plotly; install it with: pip install 'ulpsim[report]'\n"


def test_a_provider_that_is_not_installed_says_what_to_install(command, monkeypatch):
    from formats.qtorch import extension

    monkeypatch.setattr(extension.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(metadata, "version", lambda name: (_ for _ in ()).throw(metadata.PackageNotFoundError(name)))
    code, out, err = command("formats", "qtorch_posit8")
    assert (code, out) == (2, "")
    assert err.startswith("ulpsim: error: qtorch_posit8 needs torch; install it with") and err.count("\n") == 1


# --- the terminal, pipes and the cost of starting -------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("arguments", [[], ["fp8_e5m2"], ["--compare", "posit16", "fp16"]], ids=["list", "one", "two"])
def test_nothing_is_cut_off_in_a_terminal(width, arguments):
    out = in_terminal(width, *arguments)
    assert max(len(line) for line in out.split("\n")) <= width
    assert "…" not in out
    if not arguments:
        for name in formats.available():
            assert re.search(rf"^{name} ", out, re.M), name
        assert ("Left out for want of width: smallest normal." in out) == (width == 80)


def test_a_reader_that_goes_early_is_no_error():
    job = subprocess.Popen(
        [sys.executable, "-m", "simulator", "formats", "fp8_e4m3"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    job.stdout.close()
    assert (job.stderr.read(), job.wait(60)) == ("", 0)


def test_an_output_that_is_not_unicode_gets_ascii():
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "formats", "fp32"], cwd=ROOT, capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert b"(2-2^-23)x2^127 ~ 3.40282e+38" in done.stdout


def test_showing_formats_loads_no_framework_and_no_machine():
    code = (
        "import sys\nsys.argv = ['ulpsim', 'formats', 'fp16']\n"
        "import simulator.__main__ as m\nm.app(standalone_mode=False)\n"
        "heavy = ('torch', 'pandas', 'plotly', 'yaml', 'simulator.hardware', 'simulator.network')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


# --- numbers as they are written ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (448.0, "448", "448"), (-0.0, "-0", "-0"), (0.1875, "0.1875", "0.1875"), (0.0625, "0.0625", "0.0625"),
        (2.0**-5, "2^-5", "2^-5"), (3 * 2.0**-16, "3×2^-16", "3×2^-16"), (2.0**127, "2^127", "2^127"),
        (7 * 2.0**133, "7×2^133", "7.6223e40"), (255 * 2.0**120, "255×2^120", "3.3895e38"),
        (3.4028234663852886e38, "(2-2^-23)×2^127", "3.4028e38"), (-65504.0, "-65504", "-65504"),
        (float("inf"), "Inf", "Inf"), (float("nan"), "NaN", "NaN"), (8573157376.0, "8573157376", "8573157376"),
        (Fraction(2) ** 16382, "2^16382", "2^16382"), (-(Fraction(2) ** -16383), "-2^-16383", "-2^-16383"),
        (3 * Fraction(2) ** -9000, "3×2^-9000", "3×2^-9000"), (3 * Fraction(2) ** 9000, "3×2^9000", "3×2^9000"),
        (23 * Fraction(2) ** 9000, "23×2^9000", "4.2824e2710"),
        (-((2**53 - 1) * Fraction(2) ** 1024), "-(2-2^-52)×2^1076", "-1.6192e324"),
        (5e-324, "2^-1074", "2^-1074"), (0.1, "3602879701896397×2^-55", "1.0000e-1"), (-1.0, "-1", "-1"),
    ],
)  # fmt: skip
def test_numbers_are_written_exactly_or_in_short(value, text, short):
    assert exact(value) == text
    assert compact(value) == short


def test_an_exact_number_reads_back_as_itself():
    for code in range(0, 1 << 16, 7):
        value = formats.get("bf16").value_of(code)
        if abs(value) < float("inf") and value:
            text = exact(value).replace("^", "**").replace("×", "*")
            assert eval(text) == value, text  # digits and operators of our own making


@pytest.mark.parametrize(
    ("redirected", "message"),
    [
        (
            ">/dev/full",
            "standard output: cannot be written (No space left on device); expected one that takes what is "
            "printed; send it elsewhere",
        ),
        (">&-", "standard output: closed; expected one that takes what is printed; open it, or send it to a file"),
    ],
)
@pytest.mark.parametrize("arguments", ["fp16", "--json fp16", "--markdown table"])
def test_an_output_that_takes_nothing_is_one_message(arguments, redirected, message):
    command = f'"{sys.executable}" -m simulator formats {arguments} {redirected}'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, f"ulpsim: error: {message}\n")


def test_an_output_that_lacks_a_character_is_one_message():
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "formats", "--markdown", "page"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "ulpsim: error: standard output: its encoding ascii lacks '\\xd7'; expected one with all "
        "characters; set PYTHONIOENCODING=utf-8\n"
    )
