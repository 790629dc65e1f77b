"""Files of other technologies, in layouts that laboratories use, by the commands of the docs.

Ranges, units, numbers of targets, delimiters and the order of rows differ from the published
data; what was drawn must come back within 3 standard errors, through the command line.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aimc_sim.cli.main import app
from aimc_sim.specs import ChipSpec

Rng = np.random.Generator


@pytest.fixture
def rng() -> Rng:
    return np.random.Generator(np.random.Philox(7))


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a call of `aimc-sim calibrate` that gives the record of the fit."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, card: bool = True) -> dict[str, Any]:
        out = ["--out", "card.toml", "--force"] if card else []
        result = CliRunner().invoke(app, ["calibrate", *arguments, *out, "--json", "fit.json"])
        assert result.exit_code == 0, result.output
        if card:
            ChipSpec.from_toml("card.toml")
        record: dict[str, Any] = json.loads(Path("fit.json").read_text("utf-8"))
        Path("fit.json").unlink()
        return record

    return run


def assert_found(record: dict[str, Any], **truth: float) -> None:
    for name, value in truth.items():
        found = record["parameters"][name]
        assert abs(found["value"] - value) < 3 * found["stderr"], (name, found)


def save_rows(path: str, rows: list[list[Any]], delimiter: str = "\t") -> None:
    text = "\n".join(delimiter.join(format(x, ".10g") if not isinstance(x, str) else x
                                    for x in row) for row in rows) + "\n"
    if path.endswith(".gz"):
        Path(path).write_bytes(gzip.compress(text.encode()))
    else:
        Path(path).write_text(text, "utf-8")


def save_sheet(path: str, rows: list[list[Any]], name: str = "data") -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "about"
    book.active.append(["made for a test"])
    sheet = book.create_sheet(name)
    for row in rows:
        sheet.append(row)
    book.save(path)


def relaxed(rng: Rng, times: np.ndarray, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Return starts [S] and reads (n, times) of cells of 2 to 30 uS: mean -0.1, sigma 0.4 uS."""
    start = rng.uniform(2e-6, 30e-6, n)
    return start, start[:, None] - 0.1e-6 + 0.4e-6 * rng.standard_normal((n, len(times)))


@pytest.mark.parametrize("order", ["by cell", "by time"])
def test_relaxation_without_a_header_in_either_order_of_rows(
    rng: Rng, calibrated: Any, order: str
) -> None:
    times = np.array([0.5, 60.0, 86400.0])
    start, g = relaxed(rng, times)
    rows = [[float(k), t, 1 / g[k, j], g[k, j], start[k], 3.0, t]
            for k in range(len(start)) for j, t in enumerate(times)]
    if order == "by time":
        rows.sort(key=lambda row: row[1])
    save_rows("techX.tsv.gz", rows)
    record = calibrated("relaxation", "techX.tsv.gz", "--columns",
                        "cell=0,time_s=1,conductance_s=3,initial_s=4")
    last = list(record["parameters"])[-1].split(" at ")[-1]
    assert_found(record, **{"mean.c0 at 0.5 s": -0.1, "sigma.c0 at 60 s": 0.4})
    assert last == "8.64e+04 s"
    assert record["n"] == 4500
    # the same reads as resistances
    same = calibrated("relaxation", "techX.tsv.gz", "--columns",
                      "cell=0,time_s=1,resistance_ohm=2,initial_s=4")
    assert_found(same, **{"mean.c0 at 0.5 s": -0.1, "sigma.c0 at 60 s": 0.4})


def test_relaxation_at_one_temperature_of_several(rng: Rng, calibrated: Any) -> None:
    rows = []
    for celsius, sigma in ((85.0, 0.2e-6), (125.0, 0.5e-6)):
        start = rng.uniform(2e-6, 30e-6, 800)
        after = start + sigma * rng.standard_normal(800)
        for k in range(800):
            rows += [[float(k), 0.0, 1 / start[k], start[k], celsius],
                     [float(k), 3600.0, 1 / after[k], after[k], celsius]]
    save_rows("bake.csv", rows, ",")
    columns = "cell=0,time_s=1,conductance_s=3"
    record = calibrated("relaxation", "bake.csv", "--columns", columns, "--where", "4=125")
    assert_found(record, **{"sigma.c0 at 3600 s": 0.5})
    both = calibrated("relaxation", "bake.csv", "--columns", columns + ",temperature_c=4")
    assert "2 temperatures (358.15, 398.15 K)" in " ".join(both["notes"])


def test_times_in_columns_of_any_order(rng: Rng, calibrated: Any) -> None:
    start, g = relaxed(rng, np.array([10.0, 3600.0]), 600)
    names = ["G at 1 h", "G at 10 s", "G at 0 s"]
    rows = [[1e6 * x for x in (g[k, 1], g[k, 0], start[k])] for k in range(600)]
    save_rows("wide.csv", [names, *rows], ";")
    record = calibrated("relaxation", "wide.csv", "--unit", "uS")
    assert_found(record, **{"sigma.c0 at 10 s": 0.4, "sigma.c0 at 3600 s": 0.4})


@pytest.mark.parametrize(("targets", "unit"), [([20, 60, 90], "nS"), (range(50, 1250, 100), "uS")],
                         ids=["3 in nS", "12 in uS"])
def test_writes_with_a_column_a_target(
    rng: Rng, calibrated: Any, targets: Any, unit: str
) -> None:
    targets = np.array(list(targets), float)
    g = targets + 0.01 * targets[-1] * rng.standard_normal((80, len(targets)))
    rows: list[list[Any]] = g.tolist()
    rows[3][0] = None
    rows[5][1] = "OVLD"
    save_sheet("writes.xlsx", [[f"Target_{t:g}{unit}" for t in targets], *rows], "3c_values")
    record = calibrated("programming", "writes.xlsx", "--sheet", "3c_values")
    assert record["n"] == 80 * len(targets) - 2
    assert record["dropped"] == {"empty": 1, "not a number": 1}
    scale = 1e-3 if unit == "nS" else 1.0
    sigma = 0.01 * targets[-1] * scale
    for target in targets:
        assert_found(record, **{f"sigma at {target * scale:.6g} uS": sigma})


@pytest.mark.parametrize("unit", ["nA", "A"])
def test_a_wide_sheet_of_read_currents_with_a_column_of_voltages(
    rng: Rng, calibrated: Any, unit: str
) -> None:
    targets = np.array([10.0, 20.0, 40.0])
    volts = np.tile([0.1, 0.2], 60)
    current = (targets + 0.5 * rng.standard_normal((120, 3))) * 1e-6 * volts[:, None]
    factor, name = (1e9, "I_{:g}uS (nA)") if unit == "nA" else (1.0, "I_{:g}uS")
    head = ["run", "Vread (mV)" if unit == "nA" else "Vread", *(name.format(t) for t in targets)]
    voltage = volts * (1e3 if unit == "nA" else 1.0)
    rows = [[k, voltage[k], *(current[k] * factor).tolist()] for k in range(120)]
    save_sheet("currents.xlsx", [head, *rows])
    record = calibrated("programming", "currents.xlsx", "--sheet", "data", "--columns",
                        f"voltage_v={head[1]},measured_s=I_*")
    assert_found(record, **{f"sigma at {t:g} uS": 0.5 for t in targets})
    assert_found(record, **{f"mean at {t:g} uS": 0.0 for t in targets})


def test_series_of_currents_with_columns_of_time_and_voltage(rng: Rng, calibrated: Any) -> None:
    n = 3000
    g = np.array([20.0, 35.0]) + 0.3 * rng.standard_normal((n, 2))
    volts = np.full(n, 0.2)
    rows = [[5.0 * k, volts[k], *(g[k] * volts[k]).tolist()] for k in range(n)]
    save_sheet("series.xlsx", [["t [ms]", "V", "I1 [uA]", "I2 [uA]"], *rows])
    record = calibrated("read-noise", "series.xlsx", "--sheet", "data", "--columns",
                        "time_s=t [ms],voltage_v=V,current_a=I*")
    white = [value for name, value in record["parameters"].items() if name.startswith("white")]
    assert len(white) == 2
    for one in white:
        assert abs(one["value"] - 0.3) < 3 * one["stderr"]


def test_lines_of_samples_without_a_header(rng: Rng, calibrated: Any) -> None:
    g = np.array([5.0, 12.0, 20.0])[:, None] + 0.05 * rng.standard_normal((3, 4000))
    save_rows("ts.tsv.gz", [[level, 0, *(1e-6 * g[k]).tolist()]
                            for k, level in enumerate([2.0, 7.0, 11.0])])
    record = calibrated("read-noise", "ts.tsv.gz", "--columns", "cell=0,conductance_s=2:",
                        "--sample-period", "1ms")
    assert record["n"] == 12_000
    assert_found(record, fraction=0.0)
    white = [value for name, value in record["parameters"].items() if name.startswith("white")]
    assert all(abs(one["value"] - 0.05) < 3 * one["stderr"] for one in white)


def test_repeated_reads_of_levels_in_rows(rng: Rng, calibrated: Any) -> None:
    rows = [[cycle, target, target + 0.2 * rng.standard_normal()]
            for target in (2.0, 4.0) for cycle in range(500)]
    save_sheet("reads.xlsx", [["Read_Cycle", "Target_Value_uS", "Measured_Conductance_uS"], *rows],
               "3d")
    record = calibrated(
        "read-noise", "reads.xlsx", "--sheet", "3d", "--columns",
        "cell=Target_Value_uS,conductance_s=Measured_*", "--sample-period", "1s",
    )
    white = [value for name, value in record["parameters"].items() if name.startswith("white")]
    assert all(abs(one["value"] - 0.2) < 3 * one["stderr"] for one in white)


@pytest.mark.parametrize("head", ["rmp{}", "ramp {} [A]", "I{} (uA)"])
def test_ramps_of_two_files_and_unequal_lengths(rng: Rng, calibrated: Any, head: str) -> None:
    for name, sign, n_ramps in (("up", 1, 12), ("down", -1, 9)):
        g = np.where(sign > 0, 10.0, 60.0) + np.cumsum(
            sign * 0.8 + 0.1 * rng.standard_normal((n_ramps, 50)), axis=1)
        current = 1e-6 * g * 0.2 * (1e6 if "uA" in head else 1.0)
        rows = [[format(current[k, j], ".9g") if j < 50 - k else "" for k in range(n_ramps)]
                for j in range(50)]
        save_rows(f"{name}.csv", [[head.format(k + 1) for k in range(n_ramps)], *rows], ",")
    record = calibrated("pulse", "up.csv", "down.csv", "--read-voltage", "0.2V")
    assert record["n"] == sum(49 - k for n_ramps in (12, 9) for k in range(n_ramps))
    assert_found(record, **{"set_mean.c0": 0.8, "set_sigma.c0": 0.1, "reset_mean.c0": -0.8})


def test_converters_of_other_sizes(rng: Rng, calibrated: Any) -> None:
    inl = 0.2 * np.sin(np.arange(32) / 5)
    rows = [[k, *(inl[k] + 0.02 * rng.standard_normal(3)).tolist()] for k in range(32)]
    save_sheet("adc.xlsx", [["Digital_Code", *(f"Sample_{k}" for k in range(3))], *rows], "4a")
    record = calibrated("converter", "adc.xlsx", "--sheet", "4a", "--columns",
                        "code=Digital_Code,inl=Sample_*", card=False)
    assert_found(record, noise=0.02)
    assert record["n"] == 96


def test_reads_clipped_at_zero_count_as_beyond_it(rng: Rng, calibrated: Any) -> None:
    target = np.tile([2.0, 6.0], 1000)
    measured = np.maximum(target + 1.5 * rng.standard_normal(2000), 0.0)
    save_rows("w.csv", [["target (uS)", "g (uS)"], *np.column_stack([target, measured]).tolist()],
              ",")
    record = calibrated("programming", "w.csv", "--columns", "target_s=0,measured_s=1")
    zeros = int((measured == 0).sum())
    assert zeros > 50
    assert f"{zeros} reads are exactly zero" in " ".join(record["notes"])
    assert_found(record, **{"sigma at 2 uS": 1.5, "mean at 2 uS": 0.0})
