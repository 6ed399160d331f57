"""What `diffnas test` was asked to test: a training of a run, or weights of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffnas.errors import UserError


def tested(
    run: Path | None,
    name: str | None,
    weights: Path | None,
    source: str | None,
    genotype: str | None,
    data: str | None,
    overrides: tuple[str, ...],
) -> dict[str, Any]:
    """The result of the one test that the arguments ask for; raises `UserError` where they ask for both, or for none."""
    published = {"--weights": weights, "--source": source, "--genotype": genotype, "--data": data}
    given = [option for option, value in published.items() if value is not None]
    if run is not None:
        if given:
            raise UserError(f"{given[0]} is for weights without a run; leave out the run folder, or {given[0]}")
        from diffnas.runtime.run_folder import open_run

        opened = open_run(run)
        from diffnas.pipeline.test import test

        return test(opened, name, overrides)
    if weights is None:
        raise UserError(
            "name a run folder, or weights of another program: --weights FILE --source PROGRAM --genotype NAME"
        )
    if source is None or genotype is None:
        missing = "--source PROGRAM" if source is None else "--genotype NAME"
        raise UserError(f"--weights {weights}: needs {missing}, since the file does not say it")
    if name is not None:
        raise UserError("--train names a training of a run; leave it out beside --weights")
    from diffnas.api import test_weights

    return test_weights(weights, source, genotype, data, overrides)
