"""Measurements of any layout become tidy columns in SI, or an error that says what is wrong."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from aimc_sim.errors import InputError, UsageError
from calibration.readers import read_grid
from calibration.tables import read_table

G = np.array([[5.1e-6, 9.7e-6], [4.8e-6, 10.2e-6], [5.3e-6, 10.1e-6]])  # rows x targets


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def csv_of(names: list[str], values: np.ndarray) -> str:
    lines = [",".join(names), *(",".join(f"{v:.10g}" for v in row) for row in values)]
    return "\n".join(lines) + "\n"


LONG = np.column_stack([np.tile([5e-6, 10e-6], 3), G.ravel()])


def check(table):
    order = np.argsort(table["target_s"], kind="stable")
    assert table["target_s"][order] == pytest.approx([5e-6] * 3 + [10e-6] * 3, rel=1e-12)
    assert table["measured_s"][order] == pytest.approx(G.T.ravel(), rel=1e-9)
    assert table.n_rows in (3, 6)


def save_xlsx(path: Path, sheets: dict[str, list[list[object]]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


@pytest.mark.parametrize("layout", ["wide", "long", "tsv", "gzip", "headless", "semicolons"])
def test_text_of_every_layout_gives_the_same_points(tmp_path, layout):
    columns = None
    if layout == "wide":
        path = write(tmp_path, "a.csv", csv_of(["Target_5uS", "Target_10uS"], 1e6 * G))
    elif layout == "long":
        path = write(tmp_path, "a.csv", csv_of(["target (uS)", "g [nS]"], LONG * [1e6, 1e9]))
        columns = {"target_s": "target (uS)", "measured_s": "g*"}
    elif layout == "tsv":
        text = csv_of(["target_s", "measured_s"], LONG).replace(",", "\t")
        path = write(tmp_path, "a.tsv", text)
    elif layout == "gzip":
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(csv_of(["target_s", "measured_s"], LONG).encode()))
    elif layout == "headless":
        text = "\n".join(f"{a:.10g}\t7\t{b:.10g}" for a, b in LONG)
        path = write(tmp_path, "a.tsv", text)
        columns = {"target_s": "0", "measured_s": "2"}
    else:
        text = csv_of(["target (uS)", "measured (uS)"], 1e6 * LONG)
        path = write(tmp_path, "a.csv", text.replace(",", ";").replace(".", ","))
        columns = {"target_s": "0", "measured_s": "1"}
    check(read_table(path, "programming", columns=columns))


@pytest.mark.parametrize("sign", ["\t", ";"])
def test_numbers_with_decimal_commas_need_no_header(tmp_path, sign):
    """Three cells hold three commas and two separators."""
    rows = [f"{a:.2f},7.5,{b:.4f}".replace(",", sign).replace(".", ",") for a, b in 1e6 * LONG]
    path = write(tmp_path, "a.txt", "\n".join(rows))
    columns = {"target_s": "0", "measured_s": "2"}
    check(read_table(path, "programming", columns=columns, unit="uS"))


def test_the_name_of_a_lone_column_may_hold_its_unit(tmp_path):
    path = write(tmp_path, "a.csv", "G (uS)\n20.5\n21\n")
    table = read_table(
        path, "read-noise", columns={"conductance_s": "G (uS)"}, sample_period_s=1e-3
    )
    assert table["conductance_s"] == pytest.approx([20.5e-6, 21e-6])


def test_npz_of_columns_and_of_one_table(tmp_path):
    np.savez(tmp_path / "a.npz", target_s=LONG[:, 0], measured_s=LONG[:, 1])
    check(read_table(tmp_path / "a.npz", "programming"))
    np.savez(tmp_path / "b.npz", data=LONG)
    columns = {"target_s": "0", "measured_s": "1"}
    check(read_table(tmp_path / "b.npz", "programming", columns=columns))


def test_parquet_hdf5_and_xlsx_give_the_same_points(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    h5py = pytest.importorskip("h5py")
    names = {"target_s": LONG[:, 0], "measured_s": LONG[:, 1]}
    parquet.write_table(pyarrow.table(names), tmp_path / "a.parquet")
    check(read_table(tmp_path / "a.parquet", "programming"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in names.items():
            file[f"run1/{name}"] = values
    check(read_table(tmp_path / "a.h5", "programming"))
    check(read_table(tmp_path / "a.h5", "programming", sheet="run1"))
    rows = [["Target_5uS", "Target_10uS"], *(1e6 * G).tolist()]
    save_xlsx(tmp_path / "a.xlsx", {"notes": [["made by hand"]], "data": rows})
    check(read_table(tmp_path / "a.xlsx", "programming", sheet="data"))
    with pytest.raises(UsageError, match="It has 2 sheets: notes, data"):
        read_table(tmp_path / "a.xlsx", "programming")
    with pytest.raises(UsageError, match="Did you mean 'data'"):
        read_table(tmp_path / "a.xlsx", "programming", sheet="dat")
    save_xlsx(tmp_path / "b.xlsx", {"empty": []})
    with pytest.raises(InputError, match="It has no rows of data"):
        read_table(tmp_path / "b.xlsx", "programming")


def test_read_currents_with_a_column_of_voltages_need_the_mapping_alone(tmp_path):
    volts = np.array([0.1, 0.2, 0.1])
    rows = [["V", "I_5uS", "I_10uS"], *np.column_stack([volts, G * volts[:, None]]).tolist()]
    save_xlsx(tmp_path / "a.xlsx", {"wide": rows})
    columns = {"voltage_v": "V", "measured_s": "I_*"}
    check(read_table(tmp_path / "a.xlsx", "programming", columns=columns))


@pytest.mark.parametrize(
    ("names", "factor", "options"),
    [
        (["target_s", "I (uA at 0.1 V)"], 0.1e6, {}),
        (["target_s", "I [nA]"], 0.1e9, {"read_voltage_v": 0.1}),
        (["target_s", "I"], 0.1, {"read_voltage_v": 0.1}),
        (["target_s", "I"], 0.1e6, {"read_voltage_v": 0.1, "unit": "uA"}),
        (["target_s", "G"], 1e6, {"unit": "measured_s=uS"}),
    ],
)
def test_units_come_from_the_header_or_the_call(tmp_path, names, factor, options):
    path = write(tmp_path, "a.csv", csv_of(names, LONG * [1.0, factor]))
    columns = {"measured_s": names[1]}
    check(read_table(path, "programming", columns=columns, **options))


def test_resistances_become_conductances(tmp_path):
    values = np.column_stack([LONG[:, 0], 1e-3 / LONG[:, 1]])
    path = write(tmp_path, "a.csv", csv_of(["target_s", "R (kohm)"], values))
    check(read_table(path, "programming", columns={"measured_s": "R*"}))
    bare = write(tmp_path, "b.csv", csv_of(["target_s", "R"], values * [1, 1e3]))
    check(read_table(bare, "programming", columns={"resistance_ohm": "R"}))


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    text = "target_s,measured_s\n1e-5,1.1e-5\n1e-5,OVLD\n1e-5,\n1e-5,nan\n1e-5,-2e-6\n1e-5,0\n"
    text += "1e-5,9e-6\n" * 3 + "1e-5,9.5e-6\n" * 3
    table = read_table(write(tmp_path, "a.csv", text), "programming")
    assert table.dropped == {
        "empty": 1, "not a number": 1, "not finite": 1, "conductance not positive": 2,
    }
    assert len(table) == 7 and table.n_rows == 12
    assert "'OVLD' in line 3" in table.notes[0]


def test_cells_of_words_are_numbered_and_a_missing_start_is_the_first_read(tmp_path):
    text = "cell,time_s,conductance_s\nB,0,2e-5\nA,0,1e-5\nB,10,2.2e-5\nA,10,1.1e-5\n"
    table = read_table(write(tmp_path, "a.csv", text), "relaxation")
    assert table["cell"].tolist() == [0, 0, 1, 1]
    assert table["initial_s"] == pytest.approx([1e-5, 1e-5, 2e-5, 2e-5])


def test_wide_times_are_read_from_names_in_any_order(tmp_path):
    text = "t_1h,t_0s,t_10s\n3,1,2\n6,4,5\n"
    table = read_table(write(tmp_path, "a.csv", text), "drift", unit="uS")
    assert table["time_s"].tolist() == [0, 10, 3600] * 2
    assert table["conductance_s"] == pytest.approx(1e-6 * np.arange(1, 7))


def test_a_line_may_hold_a_whole_series(tmp_path):
    text = "3\t0\t1e-6\t2e-6\t3e-6\n8\t0\t4e-6\t5e-6\t6e-6\n"
    table = read_table(
        write(tmp_path, "a.tsv", text), "read-noise",
        columns={"cell": "0", "conductance_s": "2:"}, sample_period_s=0.5,
    )
    assert table["cell"].tolist() == [3, 3, 3, 8, 8, 8]
    assert table["time_s"].tolist() == [0, 0.5, 1] * 2
    assert table["conductance_s"] == pytest.approx(1e-6 * np.arange(1, 7))


def test_ramps_of_two_files_stay_apart_and_their_polarity_is_seen(tmp_path):
    up = write(tmp_path, "set.csv", "r1,r2\n1e-6,2e-6\n2e-6,3e-6\n3e-6,\n")
    down = write(tmp_path, "reset.csv", "r1,r2\n5e-6,6e-6\n4e-6,5e-6\n")
    table = read_table([up, down], "pulse", read_voltage_v=0.1)
    assert table["ramp"].tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert table["pulse"].tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 1]
    assert table["polarity"].tolist() == [1] * 5 + [-1] * 4
    assert table["conductance_s"][:3] == pytest.approx([1e-5, 2e-5, 3e-5])
    assert table.dropped == {"empty": 1}


@pytest.mark.parametrize("key", ["inl", "dnl"])
def test_non_linearities_become_outputs_in_steps(tmp_path, key):
    inl = np.array([0.0, 0.25, -0.5, 0.125])
    values = inl if key == "inl" else np.diff(np.r_[inl, 0.0])
    path = write(tmp_path, "a.csv", csv_of(["code", "S1"], np.column_stack([range(4), values])))
    table = read_table(path, "converter", columns={"code": "code", key: "S*"})
    assert table["output"] == pytest.approx(np.arange(4) + inl)
    assert table.units == {"output": "LSB"}


def test_outputs_in_steps_and_in_volts_do_not_mix(tmp_path):
    values = np.column_stack([range(4), [0.0, 1.1, 1.9, 3.0]])
    steps = write(tmp_path, "a.csv", csv_of(["code", "output"], values))
    volts = write(tmp_path, "b.csv", csv_of(["code", "output (V)"], values))
    with pytest.raises(InputError, match=r"output is in V, that of the file before in LSB"):
        read_table([steps, volts], "converter", columns={"code": "0", "output": "1"})


def test_temperatures_and_rows_can_be_told_apart(tmp_path):
    text = "0\t0\t1e-6\t100\n0\t9\t2e-6\t100\n0\t0\t3e-6\t200\n0\t9\t4e-6\t200\n"
    path = write(tmp_path, "a.tsv", text)
    columns = {"cell": "0", "time_s": "1", "conductance_s": "2"}
    both = read_table(path, "relaxation", columns={**columns, "temperature_c": "3"})
    assert both["cell"].tolist() == [0, 0, 1, 1]
    assert both["temperature_k"] == pytest.approx([373.15] * 2 + [473.15] * 2)
    one = read_table(path, "relaxation", columns=columns, where={"3": "200"})
    assert one["conductance_s"] == pytest.approx([3e-6, 4e-6])
    with pytest.raises(InputError, match="Time goes backwards in cell 0, from 9 s to 0 s"):
        read_table(path, "relaxation", columns=columns)


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("Goal_uS,Read_G_uS\n5,5\n5,6\n", {}, r'columns "measured_s=Read_G_uS,target_s=Goal_uS"'),
        ("a,b\n5,5\n5,6\n", {}, "there are 'a', 'b'"),
        ("a,b\n5,5\n", {"columns": {"target_s": "c", "measured_s": "b"}}, "no column 'c'"),
        ("a,b\n5,5\n", {"columns": {"goal": "a"}}, "has no column 'goal'"),
        ("a,a\n5,5\n", {"columns": {"target_s": "a"}}, "2 columns are called 'a'"),
        ("target_s,measured_s\n5,5\n5,6\n", {}, "no memristor's"),
        ("target_s,g (uS)\n5e-6,5\n", {"columns": {"measured_s": "g*"}, "unit": "ohm"}, "mixed"),
        ("target_s,measured_s\n5e-6,5e-6\n5e-6,5\n5e-6,4e-6\n", {}, "mixes units"),
        ("target_s,measured_s\n5e-6,-5e-6\n5e-6,0\n", {}, "2 conductance not positive"),
        ("target_s,measured_s\n5e-6,10uS\n5e-6,11uS\n", {}, "such as '10uS' in line 2"),
        ("target_s,measured_s\n5e-6,5e-6\n6e-6,5e-6\n", {}, "nothing to fit"),
        ("target_s,measured_s\n", {}, "no rows of data"),
        ("# only a remark\n", {}, "no rows of data"),
        ("target_s,current_a\n5e-6,5e-7\n", {}, "at no known voltage"),
        ("target_s,current_a\n5e-6,5e-7\n", {"read_voltage_v": 0.0}, "voltage is zero"),
        ("target_s,measured_s\n5e-6,5e-6\n", {"unit": "V"}, "no unit of conductance"),
        ("target_s,measured_s\n5e-6,5e-6\n", {"unit": "furlong"}, "no unit of"),
        ("target_s,measured_s\n5e-6,5e-6\n", {"where": {"target_s": "7"}}, "no row has 7"),
        ("target_s,g (uS)\n5e-6,5\n", {"columns": {"measured_s": "g*"}, "read_voltage_v": 0.1},
         "is no current"),
        ("target_s,measured_s\n5e-6,5e-6\n", {"sample_period_s": 1.0}, "sampled evenly"),
        ("target_s,measured_s\n5e-6,5e-6\n", {"sheet": "x"}, "has no sheets"),
    ],
)
def test_bad_tables_are_refused_in_three_parts(tmp_path, text, options, match):
    with pytest.raises((InputError, UsageError), match=f"(?i){match}") as caught:
        read_table(write(tmp_path, "a.csv", text), "programming", **options)
    assert caught.value.asked and caught.value.found and caught.value.do


def test_files_that_are_no_tables_are_refused(tmp_path):
    for name, content, match in (
        ("a.doc", b"x", "its ending is '.doc'"),
        ("a.csv", b"", "the file is empty"),
        ("a.npz", b"no archive", "cannot be read"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"(?i){match}"):
            read_grid(tmp_path / name)
    np.savez(tmp_path / "b.npz", a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        read_grid(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", a=np.zeros(3), b=np.zeros(4))
    with pytest.raises(InputError, match="differ in length"):
        read_grid(tmp_path / "c.npz")


def test_a_file_too_large_is_refused_with_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("calibration.readers.MOST_BYTES", 2**20)
    line = b"1e-6,2e-6\n"
    (tmp_path / "a.csv").write_bytes(line * 200_000)
    with pytest.raises(InputError, match="It holds 2 MiB, more than 1 MiB"):
        read_grid(tmp_path / "a.csv")
    # a small archive that unpacks to much
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as packed:
        packed.write(line * 200_000)
    assert len(stream.getvalue()) < 2**20
    (tmp_path / "b.csv.gz").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_grid(tmp_path / "b.csv.gz")


def test_times_of_read_noise_must_be_known(tmp_path):
    path = write(tmp_path, "a.csv", "conductance_s\n1e-6\n2e-6\n")
    with pytest.raises(InputError, match="--sample-period"):
        read_table(path, "read-noise")
    table = read_table(path, "read-noise", sample_period_s=0.1)
    assert table["time_s"] == pytest.approx([0, 0.1])


def test_published_measurements_are_read_whole(shared):
    devices = shared / "data" / "devices"
    rram = devices / "rram-relaxation"
    relaxed = read_table(
        rram / "techB" / "relaxdata_10k.min.tsv.gz", "relaxation",
        columns={"cell": "0", "time_s": "6", "conductance_s": "3", "initial_s": "4"},
    )
    assert len(relaxed) == 103_705 and len(np.unique(relaxed["cell"])) == 15_961
    late = relaxed["time_s"] == 100
    lost = 1e6 * (relaxed["conductance_s"] - relaxed["initial_s"])[late]
    assert (lost.mean(), lost.std()) == pytest.approx((-0.889, 5.211), abs=6e-4)
    both = [devices / "pulse-trains" / name for name in ("set.csv", "reset.csv")]
    pulses = read_table(both, "pulse", read_voltage_v=0.1)
    assert [int((pulses["polarity"] == sign).sum()) for sign in (1, -1)] == [7362, 6055]
    steps = np.diff(pulses["conductance_s"])
    same = np.diff(pulses["ramp"]) == 0
    median = [1e6 * np.median(steps[same & (pulses["polarity"][1:] == s)]) for s in (1, -1)]
    assert median == pytest.approx([4.5, -5.56], abs=0.01)
    noise = read_table(
        rram / "techA" / "tsdata.min.tsv.gz", "read-noise",
        columns={"cell": "0", "conductance_s": "2:"}, sample_period_s=2.5e-3,
    )
    stds = [1e6 * noise["conductance_s"][noise["cell"] == k].std() for k in (0, 8, 16, 24, 31)]
    assert stds == pytest.approx([0.859, 10.188, 2.253, 2.527, 0.523], abs=6e-4)
    baked = read_table(
        rram / "techB" / "bake.tsv.gz", "relaxation",
        columns={"cell": "0", "time_s": "1", "conductance_s": "3", "temperature_c": "4"},
    )
    assert len(np.unique(baked["cell"])) == 5 * 16_384
    pytest.importorskip("openpyxl")
    written = read_table(
        devices / "readc" / "SourceData_Fig_3.xlsx", "programming", sheet="3c_conductance_value"
    )
    spread = 1e6 * written["measured_s"][written["target_s"] == 100e-6].std(ddof=1)
    assert spread == pytest.approx(2.417382900226922, rel=1e-9)
    converter = read_table(
        devices / "readc" / "SourceData_Fig_4.xlsx", "converter", sheet="4b_DNL_Data",
        columns={"code": "Digital_Code", "dnl": "Sample_*"},
    )
    inl = read_table(
        devices / "readc" / "SourceData_Fig_4.xlsx", "converter", sheet="4a_INL_Data",
        columns={"code": "Digital_Code", "inl": "Sample_*"},
    )
    # the file's INL is the running sum of its DNL; it stands in both sheets
    assert converter["output"] == pytest.approx(inl["output"], abs=1e-9)
