"""Energy, time and area in the records and tables of `run` and `map`."""

from __future__ import annotations

import json

import pytest

from aimc_sim.cost_report import cost_text, with_prefix


@pytest.mark.compiled
def test_a_run_tells_what_a_sequence_costs_and_sums_up(run_json):
    record = run_json("--at", "0s,1h")
    energy_j, costs = record["energy_j_per_inference"], record["costs"]
    for parts in record["energy_breakdown_j"].values():
        assert sum(parts.values()) == pytest.approx(energy_j, rel=1e-12)
    assert costs["energy_j_per_step"] == pytest.approx(energy_j / 12)
    assert record["latency_s_per_inference"] > 11 * costs["step_s"]
    assert record["area_m2"] == pytest.approx(sum(costs["area_m2"].values()))
    assert 0 < costs["in_logic_j"]["int8"] < costs["in_logic_j"]["fp32"]
    verdict = costs["verdict"]
    on_tiles = verdict["accuracy"]["analog"]
    assert on_tiles == record["accuracy"]["chip"][-1]["per_chip"][0]
    assert f"on one chip after 1 h, A on tiles gets {100 * on_tiles:.1f} % and" in verdict["text"]
    cheaper = "A on tiles is"
    if verdict["digital_j_per_step"] < verdict["analog_j_per_step"]:
        cheaper = "digital A is"
    assert cheaper in verdict["text"]
    assert cost_text(record).endswith(verdict["text"])
    assert all(row["source"] and row["name"] for row in costs["constants"])
    assert any("the error-free model on 4" in note for note in record["notes"])
    assert record["complexity"]["states"] == 2 * 2 * 4 * 3
    assert costs["writing_j"] is None  # one-shot


@pytest.mark.compiled
def test_each_accuracy_of_a_verdict_is_that_of_a_run_in_that_form(cli, digits_model):
    ran, verdicts = {}, []
    for form in ("leapfrog", "digital"):
        said = cli("run", digits_model, "--form", form, "--chip", "reram-wan2022", "--at", "0s,1d",
                   "--seed", "4", "--chips", "2", "--limit", "60", "--json", "-")
        record = json.loads(said.stdout)
        ran[form] = record["accuracy"]["chip"][-1]["per_chip"][0]
        verdicts.append(record["costs"]["verdict"])
    assert ran["leapfrog"] != ran["digital"]
    for verdict in verdicts:
        assert verdict["accuracy"] == {
            "analog": ran["leapfrog"], "digital": ran["digital"], "at_s": 86400.0, "n_samples": 60,
        }
        assert verdict["text"].endswith(
            f"on one chip after 1 d, A on tiles gets {100 * ran['leapfrog']:.1f} % and digital A "
            f"{100 * ran['digital']:.1f} % of 60 sequences right"
        )
        assert not verdict["drives_assumed"] and "assumed" not in verdict["text"]


@pytest.mark.compiled
def test_without_labels_a_verdict_speaks_of_no_accuracy(cli, files):
    said = cli("run", files / "tiny.pt", "--data", files / "unlabelled.npz", "--at", "0s",
               "--json", "-")
    verdict = json.loads(said.stdout)["costs"]["verdict"]
    assert verdict["accuracy"] is None
    assert verdict["text"].endswith("times cheaper")


@pytest.mark.compiled
def test_a_map_measures_drives_where_there_are_data_and_else_says_that_it_assumes_them(cli, files):
    def verdict(*arguments):
        said = cli("map", files / "tiny.pt", "--chip", "cmo-hfox", "--json", "-", *arguments)
        return json.loads(said.stdout)["costs"]["verdict"]

    assumed = verdict()
    assert assumed["drives_assumed"]
    assert assumed["text"].endswith("drives of the rows of A are assumed, not measured")
    data = ("--calibrate", files / "data.npz")
    measured = verdict(*data)
    assert not measured["drives_assumed"] and "assumed" not in measured["text"]
    assert measured["analog_j_per_step"] != assumed["analog_j_per_step"]
    # with A in logic, A on tiles is judged by the same drives
    digital = verdict("--form", "digital", *data)
    for name in ("analog_j_per_step", "digital_j_per_step"):
        assert digital[name] == pytest.approx(measured[name], rel=1e-12)
    assert verdict("--form", "digital")["drives_assumed"]


@pytest.mark.compiled
def test_a_map_finds_the_data_of_the_models_own_task(cli, digits_model):
    said = cli("map", digits_model, "--chip", "cmo-hfox", "--json", "-")
    costs = json.loads(said.stdout)["costs"]
    assert not costs["verdict"]["drives_assumed"]
    assert "the error-free model on 4 calibration sequences of 64 steps" in costs["drives"]


@pytest.mark.compiled
def test_drift_lowers_what_the_cells_draw(run_json):
    cells = [
        run_json("--at", at)["energy_breakdown_j"]["kind"]["cells"] for at in ("0s", "30d")
    ]
    assert cells[1] < 0.8 * cells[0]


@pytest.mark.compiled
def test_a_chip_whose_costs_cannot_be_known_runs_and_says_why(run_json):
    record = run_json("--chip", "ideal", "--at", "0s")
    assert record["costs"] is None
    assert record["energy_j_per_inference"] is None
    assert record["area_m2"] is None
    assert any(note.startswith("no costs and no verdict on A:") and "number of bits" in note
               for note in record["notes"])
    assert cost_text(record) == ""


@pytest.mark.compiled
def test_map_prices_a_step_and_lists_every_constant_with_its_source(cli, files):
    result = cli("map", files / "tiny.pt", "--chip", "reram-wan2022", "--json", "-")
    record = json.loads(result.stdout)
    assert record["energy_j_per_step"] == pytest.approx(
        sum(record["energy_breakdown_j"]["part"].values())
    )
    assert record["complexity"]["macs_per_step"] > 0
    by_name = {row["name"]: row for row in record["costs"]["constants"]}
    assert by_name["node_nm"]["value"] == 130
    assert "arXiv.2404.06553" in by_name["adc_j"]["source"]
    for text in ("adc_j", "memory", "bit operations", "A on tiles", "Andrulis"):
        assert text in result.stderr


@pytest.mark.compiled
def test_a_map_ends_with_the_verdict_behind_the_constants_that_it_rests_on(cli, files):
    result = cli(
        "map", files / "tiny.pt", "--chip", "reram-wan2022", "--compare", "--json", "-", "--quiet"
    )
    record = json.loads(result.stdout)
    words = " ".join(result.stderr.split())
    assert words.endswith(record["costs"]["verdict"]["text"])
    places = [words.index(text) for text in ("bit operations", "layout", "Andrulis", "energy in")]
    assert places == sorted(places)


@pytest.mark.compiled
def test_constants_of_a_chip_file_take_the_place_of_published_ones(cli, files, tmp_path):
    from aimc_sim.specs import ChipSpec

    path = tmp_path / "own.toml"
    ChipSpec.preset("cmo-hfox").replace(
        **{"adc.bits": 3, "costs.adc_j": 1e-13, "costs.adc_area_m2": 1e-10}
    ).to_toml(path)
    record = json.loads(cli("map", files / "tiny.pt", "--chip", path, "--json", "-").stdout)
    by_name = {row["name"]: row for row in record["costs"]["constants"]}
    assert by_name["adc_j"] == {
        "name": "adc_j", "value": 1e-13, "unit": "J", "source": "the chip",
    }
    coarse = ChipSpec.preset("cmo-hfox").replace(**{"adc.bits": 3})
    coarse.to_toml(path)
    record = json.loads(cli("map", files / "tiny.pt", "--chip", path, "--json", "-").stdout)
    assert record["costs"] is None
    assert any("3 effective bits" in note and "adc_j" in note for note in record["notes"])


def test_numbers_get_the_prefix_that_suits_them():
    assert [with_prefix(x, "J") for x in (1.0, 1.5e-3, 9.999e-4, 1e-20, 0.0)] == [
        "1 J", "1.5 mJ", "1 mJ", "1e-20 J", "0 J",
    ]


@pytest.mark.compiled
def test_a_run_in_python_carries_its_costs(files):
    import numpy as np

    import aimc_sim as aimc
    import ssm

    model = ssm.load(files / "tiny.pt")
    x = np.load(files / "data.npz")["x"]
    p = ssm.deploy(model, aimc.ChipSpec.preset("cmo-hfox"), calibrate=x).program(seed=1)
    one, two = (p.infer(x[:n]).costs for n in (8, 16))
    assert two.energy_j == 2 * one.energy_j
    assert two.latency_s == 2 * one.latency_s
    assert one.energy_j == pytest.approx(sum(one.by("layer", "part", "kind").values()))
