"""What no formatter checks in the C sources."""

from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "native"


def test_no_line_of_c_exceeds_120_columns():
    files = [
        path
        for kind in ("*.c", "*.h", "*.def")
        for path in (*NATIVE.glob(f"src/{kind}"), *NATIVE.glob(f"include/{kind}"))
    ]
    assert len(files) > 10
    wide = [
        f"{path.name}:{place}"
        for path in files
        for place, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert not wide, "\n".join(wide)
