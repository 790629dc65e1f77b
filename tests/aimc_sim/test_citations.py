"""What to cite is what was used, no more and no less."""

from __future__ import annotations

import numpy as np
import pytest

import aimc_sim as aimc
from aimc_sim.errors import UsageError
from aimc_sim.specs import ChipSpec

NANDAKUMAR = "doi:10.1109/icecs46596.2019.8964852"
JOSHI = "doi:10.1038/s41467-020-16108-9"
HU = "doi:10.1002/adma.201705914"
S4D, QS4D = "doi:10.48550/arXiv.2206.11893", "doi:10.48550/arXiv.2507.06079"
PCM = ChipSpec.preset("pcm-nandakumar2019")


def dois(thing):
    references = aimc.cite(thing)
    assert all(isinstance(text, str) for text in references)
    return [text.rsplit(", ")[-1] for text in references]


def test_a_card_gives_its_own_source_alone():
    assert dois(PCM.device) == [NANDAKUMAR]
    assert aimc.cite(PCM.device)[0].startswith("S. R. Nandakumar et al., ")
    assert dois(ChipSpec.preset("ideal")) == []


def test_a_chip_adds_the_compensation_that_it_uses():
    assert PCM.compensation == "global"
    assert dois(PCM) == [NANDAKUMAR, JOSHI]
    assert dois(PCM.replace(compensation="none")) == [NANDAKUMAR]
    assert dois(PCM.replace(compensation="affine")) == [NANDAKUMAR, HU]


def test_a_source_is_named_once():
    assert dois(ChipSpec.preset("pcm-joshi2020").replace(compensation="global")) == [JOSHI]
    assert dois(ChipSpec.preset("generic-taox-64")) == [HU]


def test_sources_without_a_text_are_named_by_their_doi():
    card = PCM.device.replace(cite=())
    assert aimc.cite(card) == [NANDAKUMAR]
    own = PCM.device.replace(doi=(), cite=("measured in our laboratory",))
    assert aimc.cite(own) == ["measured in our laboratory"]


def test_a_matrix_gives_what_its_chip_used():
    mapped = aimc.map_matrix(np.eye(3), PCM)
    assert dois(mapped) == dois(mapped.program(seed=1)) == dois(mapped.program(seed=1).chip)
    assert dois(mapped) == [NANDAKUMAR, JOSHI]


@pytest.mark.compiled
def test_a_network_adds_its_method_and_so_does_all_that_came_of_it():
    from small_models import random_model

    import ssm
    from ssm.evaluate import evaluate

    x = np.random.default_rng(1).random((2, 6, 1)).astype(np.float32)
    model = random_model(seed=1)
    deployment = ssm.deploy(model, PCM, calibrate=x)
    programmed = deployment.program(seed=2)
    found = evaluate(model, PCM, x, times_s=(0.0,), calibrate=x)
    expected = [NANDAKUMAR, JOSHI, S4D, QS4D]
    for thing in (deployment, programmed, programmed.infer(x), found):
        assert dois(thing) == expected


@pytest.mark.parametrize("thing", [3, "pcm-nandakumar2019", None, np.eye(2)], ids=str)
def test_other_things_are_refused(thing):
    with pytest.raises(UsageError, match="It has no device, chip or deployment"):
        aimc.cite(thing)
