"""`aimc-sim device`: predictions of the cards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from aimc_sim.devices import default_targets, lacking_parts, predict
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec, presets

ROW_KEYS = {
    "target_s",
    "at_s",
    "programmed_mean_s",
    "programmed_std_s",
    "read_mean_s",
    "read_std_s",
}


def test_json_has_a_row_for_every_target_and_time_in_siemens(cli):
    result = cli(
        "device",
        "pcm-nandakumar2019",
        "--targets",
        "5uS,25uS",
        "--at",
        "0s,1h",
        "--cells",
        200,
        "--json",
        "-",
    )
    record = json.loads(result.stdout)
    assert record["schema"] == "aimc-sim.device/1"
    assert [row["at_s"] for row in record["rows"]] == [0.0, 3600.0, 0.0, 3600.0]
    assert [row["target_s"] for row in record["rows"]] == pytest.approx([5e-6] * 2 + [25e-6] * 2)
    assert all(set(row) == ROW_KEYS for row in record["rows"])
    assert record["doi"] == ["10.1109/icecs46596.2019.8964852"]
    assert [text.split(":")[0] for text in record["lacks"]] == [
        "no telegraph part", "no white part of read noise",
    ]
    assert record["not_modelled"] and record["caveats"]
    assert record["cite"][0].endswith(", doi:10.1109/icecs46596.2019.8964852")
    assert record["g_range_s"] == pytest.approx([0.0, 25e-6])
    assert record["outside_g_range"] == record["outside_time_range"] == "warn"
    assert record["time_range_s"] == [0.0, 365 * 86400.0]
    assert [row["target_s"] for row in record["curves"]] == pytest.approx([5e-6, 25e-6])
    assert record["curves"][1]["programming_sigma_s"] == pytest.approx(1.05538e-6)
    assert record["curves"][1]["relaxation"] is None


def test_json_of_curves_has_the_relaxation_at_every_time_asked_for(cli):
    arguments = ("--targets", "16uS", "--at", "1s,1d", "--cells", 20, "--json", "-")
    (curve,) = json.loads(cli("device", "reram-wan2022", *arguments).stdout)["curves"]
    assert [at["at_s"] for at in curve["relaxation"]] == [1.0, 86400.0]
    assert [at["sigma_s"] for at in curve["relaxation"]] == pytest.approx(
        [2.22e-6, 4.00e-6], abs=5e-9
    )


def test_table_shows_the_formulas_of_a_card_and_what_was_measured(cli):
    lines = cli("device", "cmo-hfox", "--targets", "50uS", "--at", "0s,1h", "--cells", 50).stdout
    (row,) = [line.split() for line in lines.splitlines() if line.startswith("50 ")][1:]
    # sigma of writing, mean and sigma of relaxation after an hour, read noise at 1 us
    assert row == ["50", "0.5757", "-0.729", "+-", "0.756", "0.0471"]
    assert "targets measured: 9 to 88.2 uS; others are extrapolated, with a warning" in lines
    assert "times measured: 0 s to 1 y" in lines
    assert "to cite: D. F. Falcone et al., arXiv:2502.04524 (2025)" in lines


PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
SHOWN = re.findall(r"^```text\n\$ aimc-sim (.*?)\n(.*?)\n```", PAGE.read_text("utf-8"), re.M | re.S)


@pytest.mark.compiled
@pytest.mark.parametrize(("command", "table"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_page_of_devices_shows_what_its_commands_print(cli, command, table):
    printed = cli(*command.split()).stdout.splitlines()
    shown = table.splitlines()
    assert [line.rstrip() for line in printed[-len(shown) :]] == shown


def test_the_page_of_devices_has_a_section_for_every_card():
    sections = re.findall(r"^## (\S+)$", PAGE.read_text("utf-8"), re.M)
    assert sorted([*sections, "ideal"]) == presets()
    assert [command.split()[1] for command, _ in SHOWN] == sections


def test_table_of_a_card_without_formulas_has_none(cli):
    assert "formulas" not in cli("device", "ideal", "--cells", 2).stdout


PULSED = """
[device]
name = "pulsed"
g_min_s = "1uS"
g_max_s = "50uS"
[device.pulses]
set_mean = { of = "g_us", unit_s = 1e-6, polynomial = [2.0] }
set_sigma = { of = "g_us", unit_s = 1e-6, polynomial = [0.5] }
reset_mean = { of = "g_us", unit_s = 1e-6, polynomial = [-2.0] }
reset_sigma = { of = "g_us", unit_s = 1e-6, polynomial = [0.5] }
[device.relaxation]
kind = "added"
std_per_ln_t_s = 0.05e-6
[device.read_noise]
sigma = { polynomial = [0.01] }
spectrum = "white"
[device.telegraph]
fraction = 0.1
amplitude = { polynomial = [0.03] }
tau_high_s = "50us"
tau_low_s = "20us"
"""


@pytest.mark.parametrize("times", ["1s,1h,1d", "1s,1min,1h,6h,1d,30d"])
def test_every_column_is_shown_whole_at_80_columns(cli, tmp_path, monkeypatch, times):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "pulsed.toml").write_text(PULSED)
    lines = cli("device", "pulsed.toml", "--at", times, "--cells", 20).stdout.splitlines()
    assert lines[0] == "pulsed"
    assert max(map(len, lines)) <= 80
    assert not any("\u2026" in line for line in lines)
    heads = " ".join(lines)
    for at in ("1 h", "1 d"):
        assert f"read at {at}" in heads and f"relaxation {at}" in heads
    for name in ("read noise", "telegraph", "SET pulse", "RESET pulse"):
        assert f"   {name}" in heads
    assert sum(line.startswith("formulas") for line in lines) >= 2


def test_a_card_that_does_not_age_says_so(cli):
    result = cli("device", "pcm-joshi2020", "--at", "0s,1d", "--cells", 50)
    assert "its data cover 0 s alone; its cells are taken not to age" in result.stderr


def test_the_picture_has_a_panel_for_each_part_of_the_card_with_units():
    from aimc_sim.plotting import draw_card

    shown = {
        "ideal": {"mean and standard deviation of cells"},
        "pcm-hermes2023-1dev": {
            "mean and standard deviation of cells",
            "reads over time, mean and standard deviation",
            "spread of cells, formulas",
            "drift, formulas",
            "noise of reads, formulas",
        },
        "sonos-agrawal2022": {
            "mean and standard deviation of cells",
            "reads over time, mean and standard deviation",
            "spread of cells, formulas",
            "shift of cells, formulas",
            "noise of reads, formulas",
        },
    }
    for name, titles in shown.items():
        device = ChipSpec.preset(name).device
        times = (0.0,) if name == "ideal" else (0.0, 86400.0)
        rows = predict(device, default_targets(device), times, n_cells=20)
        figure = draw_card(device, rows)
        assert {ax.get_title() for ax in figure.axes} == titles
        for ax in figure.axes:
            labels = ax.get_xlabel() + ax.get_ylabel()
            assert "uS" in labels or "nu" in labels
        drawn = [line for ax in figure.axes for line in ax.get_lines()]
        assert all(np.isfinite(line.get_ydata()).any() for line in drawn)


def test_the_picture_shows_one_pulse_where_a_card_has_pulses():
    from aimc_sim.plotting import plot_pulses

    curves = [
        {"target_s": g, "set_mean_s": 4e-7, "set_sigma_s": 1e-7, "reset_mean_s": -5e-7,
         "reset_sigma_s": 2e-7}
        for g in (1e-6, 2e-6)
    ]
    ax = plot_pulses(curves)
    raised, lowered = ax.get_lines()[:2]
    assert raised.get_ydata() == pytest.approx([0.4, 0.4])
    assert lowered.get_ydata() == pytest.approx([-0.5, -0.5])


@pytest.mark.compiled
def test_pcm_follows_the_published_check_values():
    # 5.001 +- .609 programmed, 3.881 +- .722 after an hour, 16.626 +- 1.512 for 25 uS after a day
    device = ChipSpec.preset("pcm-nandakumar2019").device
    n = 20_000
    rows = predict(device, (5e-6, 25e-6), (3600.0, 86400.0), n_cells=n, seed=1)
    hour, day = rows[0], rows[3]
    for value, mean, std in (
        ((hour.programmed_mean_s, hour.programmed_std_s), 5.001, 0.609),
        ((hour.read_mean_s, hour.read_std_s), 3.881, 0.722),
        ((day.read_mean_s, day.read_std_s), 16.626, 1.512),
    ):
        # 5 standard errors of ours, and the rounding of the published figure
        assert abs(1e6 * value[0] - mean) < 5 * std / np.sqrt(n) + 5e-4
        assert abs(1e6 * value[1] - std) < 5 * std / np.sqrt(2 * n) + 5e-4


def test_predicted_reads_have_white_and_telegraph_noise_too():
    n, target = 40_000, 20e-6
    quality, white, share, jump = 0.01, 0.03, 0.8, 0.1
    device = ChipSpec.preset("ideal").device.replace(
        read_noise={"sigma": {"polynomial": [quality]}, "white": {"polynomial": [white]}},
        telegraph={
            "fraction": 1.0, "amplitude": {"polynomial": [jump]}, "tau_high_s": 4.0,
            "tau_low_s": 1.0,
        },
    )
    assert not any("white" in line or "telegraph" in line for line in lacking_parts(device))
    gathered = np.log((3600 + 250e-9) / 500e-9)
    alone = {
        "white": (white**2, {"read_noise.sigma": {"polynomial": [0.0]}, "telegraph": None}),
        "telegraph": (jump**2 * share * (1 - share), {"read_noise": None}),
        "all": (quality**2 * gathered + white**2 + jump**2 * share * (1 - share), {}),
    }
    for variance, changes in alone.values():
        (row,) = predict(device.replace(**changes), (target,), (3600.0,), n_cells=n, seed=3)
        sigma = target * np.sqrt(variance)
        assert abs(row.read_mean_s - target) < 5 * sigma / np.sqrt(n)
        assert abs(row.read_std_s - sigma) < 5 * sigma / np.sqrt(2 * n)


def test_prediction_depends_on_the_seed_alone():
    device = ChipSpec.preset("cmo-hfox").device
    first = predict(device, (50e-6,), (3600.0,), n_cells=64, seed=5)
    assert first == predict(device, (50e-6,), (0.0, 3600.0), n_cells=64, seed=5)[1:]
    assert first != predict(device, (50e-6,), (3600.0,), n_cells=64, seed=6)


def test_table_says_what_the_card_lacks_and_does_not_model(cli):
    text = cli("device", "reram-wan2022", "--at", "1s,1d", "--cells", 50).stdout
    assert "no programming part: its error is in that of relaxation" in text
    assert "no drift part" not in text
    assert "not modelled: temperature" in text
    assert "doi:10.1038/s41586-022-04992-8" in text
    assert "read at 1 d" in text
    quiet = cli("device", "reram-wan2022", "--at", "1s", "--cells", 50, "--quiet").stdout
    assert "note" not in quiet


def test_default_targets_span_the_range_of_every_card():
    for name in presets():
        device = ChipSpec.preset(name).device
        targets = default_targets(device)
        assert (targets[0], targets[-1]) == (device.g_min_s, device.g_max_s)
        assert len(predict(device, targets, (0.0,), n_cells=2)) == len(targets)


def test_an_ideal_card_is_exact_and_lacks_everything():
    device = ChipSpec.preset("ideal").device
    assert len(lacking_parts(device)) == 5
    (row,) = predict(device, (5e-6,), (86400.0,), n_cells=10)
    assert row.read_std_s == 0.0
    assert row.read_mean_s == pytest.approx(5e-6, rel=1e-6)


def test_the_notes_say_how_many_cells_jump_and_after_which_times(cli, tmp_path):
    (tmp_path / "jumpy.toml").write_text(
        '[device]\nname = "jumpy"\ng_min_s = "1uS"\ng_max_s = "10uS"\n[device.telegraph]\n'
        'fraction = 0.125\namplitude = { polynomial = [0.1] }\ntau_high_s = "2ms"\n'
        'tau_low_s = "1s"\n'
    )
    record = json.loads(cli("device", "jumpy.toml", "--cells", 20, "--json", "-").stdout)
    assert (
        "telegraph noise in 12.5 % of the cells; mean dwell times 2 ms in the upper level, "
        "1 s in the lower" in record["notes"]
    )
    assert "no telegraph part" not in " ".join(record["notes"])


@pytest.mark.compiled
def test_a_file_with_a_device_alone_is_read(cli, tmp_path):
    (tmp_path / "card.toml").write_text(
        '[device]\nname = "mine"\ng_min_s = "1uS"\ng_max_s = "10uS"\n'
        "[device.programming]\nsigma = { unit_s = 1e-6, polynomial = [0.5] }\n"
    )
    record = json.loads(cli("device", "card.toml", "--cells", 5000, "--json", "-").stdout)
    assert record["device"] == "mine"
    std = [1e6 * row["programmed_std_s"] for row in record["rows"] if row["target_s"] > 5e-6]
    assert std == pytest.approx([0.5] * len(std), abs=5 * 0.5 / np.sqrt(2 * 5000))


def test_folder_of_results_is_written(cli, tmp_path):
    cli("device", "cmo-hfox", "--cells", 20, "--out", "card")
    assert {path.name for path in (tmp_path / "card").iterdir()} == {
        "report.json",
        "table.txt",
        "device.png",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("pcm-nandakumar",), 2, "did you mean 'pcm-nandakumar2019'"),
        (("cmo-hfox", "--targets", "5uS"), 2, "its cells hold 9 to 88.2 uS"),
        (("cmo-hfox", "--targets", "20"), 2, "a bare number is in siemens"),
        (("cmo-hfox", "--targets", "20uV"), 2, "20uV"),
        (("cmo-hfox", "--targets", ","), 2, "it is empty"),
        (("cmo-hfox", "--at", "-1s"), 2, "-1"),
        (("cmo-hfox", "--at", "soon"), 2, "write a number and one of s, ms"),
        (("sonos-agrawal2022", "--at", "1y"), 2, "its data cover 0 s to 5 d"),
        (("pcm-hermes2023-2dev", "--targets", "25uS"), 2, "its cells hold 0 to 20.7 uS"),
        (("reram-wan2022", "--at", "1y"), 2, "its data cover 0 s to 2 d"),
        (("cmo-hfox", "--cells", "1"), 2, "at least 2"),
        (("cmo-hfox", "--cells", "1000000000"), 2, "all targets together"),
        (("cmo-hfox", "--seed", "-1"), 2, "seed"),
        (("absent.toml",), 3, "absent.toml"),
    ],
)
def test_wrong_requests_are_refused(cli, tmp_path, arguments, code, text):
    result = cli("device", *arguments, "--json", "r.json", "--out", "new", code=code)
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_chip_is_as_good_as_its_card_and_a_name_is_neither():
    spec = ChipSpec.preset("ideal")
    assert predict(spec, [5e-6], [0.0], 4) == predict(spec.device, [5e-6], [0.0], 4)
    with pytest.raises(UsageError, match=r"given as str, not as a ChipSpec"):
        predict("ideal", [5e-6], [0.0])
