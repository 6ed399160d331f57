"""Who a process is, by the variables of torchrun and of SLURM."""

from __future__ import annotations

import pytest

from diffnas.errors import RunError
from diffnas.runtime.launched import Place, first_host, place_of, seconds

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[03-05,9]",
    "SLURM_JOB_ID": "1234567",
}


def test_a_process_alone() -> None:
    assert place_of({}) == Place()
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
    assert place_of(batch_script).size == 1


def test_torchrun() -> None:
    assert place_of(TORCHRUN) == Place(3, 4, 1, "gpu1", 29500)
    assert not place_of({**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}).serves


def test_slurm() -> None:
    place = place_of(SLURM)
    assert (place.rank, place.size, place.local, place.host) == (5, 8, 1, "gpu03")
    assert place.port == place_of({**SLURM, "SLURM_PROCID": "0"}).port
    assert place_of({**SLURM, "MASTER_ADDR": "head", "MASTER_PORT": "99"}).host == "head"
    assert place_of({**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}).size == 1


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("a", "a"), ("a,b", "a"), ("gpu[3-5]", "gpu3"), ("n[07,9]-ib,x", "n07-ib"), ("c-1-[2-3]", "c-1-2")],
)
def test_the_first_machine(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"RANK": "4"}, {"MASTER_PORT": "0"}, {"WORLD_SIZE": "-1"}])
def test_wrong_variables_are_named(wrong: dict[str, str]) -> None:
    with pytest.raises(RunError):
        place_of({**TORCHRUN, **wrong})


def test_the_seconds_allowed() -> None:
    assert seconds({}) == 60 and seconds({"DIFFNAS_RANK_TIMEOUT": "7"}) == 7
    with pytest.raises(RunError, match="from 5 to 86400"):
        seconds({"DIFFNAS_RANK_TIMEOUT": "soon"})
