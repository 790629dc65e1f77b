"""Measurements that cannot be fitted are refused in three parts, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

G = np.random.default_rng(3).normal(20, 1, 400)


def lines(head, *columns):
    rows = zip(*columns, strict=True)
    return "\n".join([head, *(",".join(str(cell) for cell in row) for row in rows)]) + "\n"


CELL, TIME = np.repeat(np.arange(50), 4), np.tile([0, 1, 10, 100], 50)
BAD = {
    "missing columns": ("programming", lines("Goal_uS,Read_uS", G, G), [], 3,
                        "measured_s=Read_uS,target_s=Goal_uS"),
    "no header": ("relaxation", lines("0,1,2e-5", CELL, TIME, G[:200] * 1e-6), [], 3,
                  "columns 0 to 2 without names"),
    "units of header and option": ("programming", lines("target_s,measured (uS)", G * 1e-6, G),
                                   ["--columns", "measured_s=1", "--unit", "nS"], 2,
                                   "units are mixed"),
    "siemens and microsiemens": ("programming", lines("target_s,measured_s", G * 1e-6,
                                                      np.where(np.arange(400) % 4, G * 1e-6, G)),
                                 [], 3, "mixes units"),
    "negative": ("programming", lines("target_s,measured_s", G * 1e-6, -G * 1e-6), [], 3,
                 "400 conductance not positive"),
    "zero": ("programming", lines("target_s,measured_s", G * 1e-6,
                                  np.where(np.arange(400) % 4, 0.0, G * 1e-6)), [], 3,
             "300 exactly zero"),
    "zeros alone": ("programming", lines("target_s,measured_s", G * 1e-6, 0 * G), [], 3,
                    "0 of 400 points can be used"),
    "time backwards": ("drift", lines("cell,time_s,conductance_s", CELL, -TIME + 100,
                                      G[:200] * 1e-6), [], 3, "time goes backwards in cell 0"),
    "time that stands": ("relaxation", lines("cell,time_s,conductance_s", CELL, 0 * TIME,
                                             G[:200] * 1e-6), [], 3, "every time is 0 s"),
    "few points": ("programming", lines("target_s,measured_s", G[:6] * 1e-6, G[6:12] * 1e-6),
                   [], 3, "6 points, too few"),
    "few cells": ("relaxation", lines("cell,time_s,conductance_s", CELL[:16], TIME[:16],
                                      G[:16] * 1e-6), [], 3, "too few for the parameters"),
    "few reads": ("read-noise", lines("conductance_s", G[:40] * 1e-6),
                  ["--sample-period", "1ms"], 3, "40 reads"),
    "few codes": ("converter", lines("code,output", [0, 1, 2], [0.0, 1.1, 2.0]), [], 3, "3 codes"),
    "few steps": ("pulse", lines("r1,r2", np.sort(G[:12]) * 1e-6, -np.sort(-G[:12]) * 1e-6), [], 3,
                  "SET steps, too few"),
    "constant value": ("programming", lines("target_s,measured_s", G * 1e-6, 0 * G + 2e-5), [], 3,
                       "there is nothing to fit"),
    "constant reads": ("read-noise", lines("cell,time_s,conductance_s", np.arange(400) // 200,
                                           np.arange(400) % 200,
                                           np.where(np.arange(400) < 200, 1e-5, G * 1e-6)), [],
                       3, "constant"),
    "words for numbers": ("programming", lines("target_s,measured_s", G * 1e-6,
                                               [f"{g:.3g}uS" for g in G]), [], 3, "uS' in line 2"),
    "infinite": ("programming", lines("target_s,measured_s", G * 1e-6, ["inf"] * 400), [], 3,
                 "400 not finite"),
    "header alone": ("programming", "target_s,measured_s\n", [], 3, "no rows of data"),
    "empty": ("programming", "", [], 3, "the file is empty"),
    "currents without a voltage": ("programming", lines("target_s,I (uA)", G * 1e-6, G),
                                   ["--columns", "measured_s=1"], 2, "at no known voltage"),
    "no times": ("read-noise", lines("conductance_s", G * 1e-6), [], 3, "--sample-period"),
    "uneven times": ("read-noise", lines("time_s,conductance_s", np.arange(400) ** 2,
                                         G * 1e-6), [], 3, "not evenly spaced"),
    "one polarity": ("pulse", lines("ramp,pulse,conductance_s", np.arange(400) // 40,
                                    np.arange(400) % 40, (10 + np.arange(400) % 40 + 0.01 * G)
                                    * 1e-6), [], 3, "RESET"),
    "growth for drift": ("drift", lines(
        "cell,time_s,conductance_s", CELL, TIME,
        (G[:50].repeat(4) + np.random.default_rng(1).normal(0, 1, 200) * (TIME > 0)) * 1e-6),
        [], 3, "elaxation describes them better"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_cannot_be_fitted_leave_nothing(cli, tmp_path, case):
    kind, text, options, code, said = BAD[case]
    (tmp_path / "lab.csv").write_text(text)
    out = ["--json", "r.json", "--report", "rep"] + (
        [] if kind == "converter" else ["--out", "card.toml"])
    result = cli("calibrate", kind, "lab.csv", *options, *out, code=code)
    assert said in " ".join(result.stderr.split())
    assert all(part in result.stderr for part in ("asked:", "found:", "to do:"))
    assert {path.name for path in tmp_path.iterdir()} == {"lab.csv"}


@pytest.mark.parametrize("name", ["empty", "absent", "two"])
def test_sheets_that_are_not_there_are_refused(cli, tmp_path, name):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "empty"
    book.create_sheet("other").append(["target_s", "measured_s"])
    book.save(tmp_path / "lab.xlsx")
    options = [] if name == "two" else ["--sheet", name]
    result = cli("calibrate", "programming", "lab.xlsx", *options, "--out", "card.toml",
                 code=3 if name == "empty" else 2)
    assert {"empty": "no rows of data", "absent": "there is no such sheet",
            "two": "it has 2 sheets: empty, other"}[name] in " ".join(result.stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {"lab.xlsx"}


def test_a_file_of_a_gigabyte_is_refused_with_its_size(cli, tmp_path):
    with (tmp_path / "lab.csv").open("wb") as file:
        file.truncate(2**30)
    result = cli("calibrate", "programming", "lab.csv", "--out", "card.toml", code=3)
    assert "it holds 1024 MiB, more than 512 MiB" in " ".join(result.stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {"lab.csv"}


def test_a_report_in_a_pipe_keeps_its_lines_whole(cli, tmp_path):
    (tmp_path / "lab.csv").write_text(lines("target_s,measured_s", G * 1e-6, G[::-1] * 1e-6))
    printed = cli("calibrate", "programming", "lab.csv", "--report", "rep").stdout.rstrip("\n")
    assert printed == (tmp_path / "rep" / "report.txt").read_text("utf-8").rstrip("\n")
    assert any(len(line) > 85 for line in printed.splitlines())
    assert "sha256" in printed
