"""The whole way on real images in a few minutes: search, look, train, test, and compare with what is simple.

    python examples/demo.py [RUN]

DARTS searches for a cell on handwritten digits; the cell is drawn, trained from scratch and tested on digits held out.
Beside it stand a linear model, and three cells drawn at random that are trained in the same way at the same size.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

import diffnas
from diffnas.core.seeds import generator
from diffnas.data.images import Images
from diffnas.engine import random_genotype
from diffnas.errors import DiffnasError, Interrupted
from diffnas.pipeline.sources.images import load_data
from diffnas.runtime.console import start_console

OURS = {"demo.txt", "demo.json", "search", "train"}


def linear_accuracy(recipe: diffnas.Recipe) -> float:
    """The test accuracy, in percent, of logistic regression on the same pixels."""
    data = load_data(recipe)
    assert isinstance(data.train, Images) and isinstance(data.test, Images)
    train, test = (part.pixels.flatten(1).numpy() / 255.0 for part in (data.train, data.test))
    model = LogisticRegression(max_iter=2000).fit(train, data.train.labels.numpy())
    return 100.0 * float(model.score(test, data.test.labels.numpy()))


def prepare(folder: Path) -> None:
    """Makes `folder` for a demo; what an earlier one left there goes, finished or not, and nothing else ever does."""
    marker = folder / "demo.txt"
    if marker.is_file() and {path.name for path in folder.iterdir()} <= OURS:
        whole = (folder / "demo.json").is_file()
        print(f"{folder} holds {'an earlier demo' if whole else 'a demo that was stopped'}: it begins anew")
        for name in ("search", "train"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "demo.json").unlink(missing_ok=True)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        sys.exit(f"{folder} holds something else; name another folder: make demo RUN=FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("made by examples/demo.py, which empties this folder when it runs again\n")
    (folder / "search").mkdir(exist_ok=True)  # so that a search may begin beside the marker


def main(folder: Path) -> None:
    """Runs the demo in `folder`."""
    start_console()
    started = time.monotonic()
    prepare(folder)
    recipe = diffnas.read_recipe("darts-digits")

    run = diffnas.search(recipe, folder)
    searched = time.monotonic()
    diffnas.train(run, recipe, folder, name="found")
    found = diffnas.test(run, "found")
    whole = time.monotonic() - started

    space, random = recipe.space, []
    assert space is not None
    for number in range(3):
        genotype = random_genotype(space.name, space.cells, generator(recipe.seed, "random-cells", number))
        diffnas.train(genotype, recipe, folder, name=f"random-{number}")
        random.append(diffnas.test(run, f"random-{number}"))

    rows = {
        "linear": linear_accuracy(recipe),
        "random": [result["accuracy"] for result in random],
        "found": found["accuracy"],
        "interval": found["interval"],
        "n": found["n"],
        "search_seconds": searched - started,
        "search_train_test_seconds": whole,
        "seconds": time.monotonic() - started,
    }
    (folder / "demo.json").write_text(json.dumps(rows, indent=1) + "\n")
    report(folder, rows, [found, *random])


def report(folder: Path, rows: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Prints the table, where everything lies, and what to try next."""
    low, high = rows["interval"]
    spread = f"{min(rows['random']):.1f} to {max(rows['random']):.1f}"
    sizes = [result["params"] for result in results]
    table = Table(title=f"Test accuracy on {rows['n']} digits held out", title_justify="left")
    for heading in ("model", "accuracy", "remark", "parameters"):
        table.add_column(heading)
    table.add_row("linear model", f"{rows['linear']:.1f} %", "", "650")
    mean = statistics.mean(rows["random"])
    table.add_row("three random cells, mean", f"{mean:.1f} %", spread, f"{min(sizes[1:]):,} to {max(sizes[1:]):,}")
    table.add_row("the cell DARTS found", f"{rows['found']:.1f} %", f"95 %: {low:.1f} to {high:.1f}", f"{sizes[0]:,}")
    Console().print(table)
    print(f"One seed each: differences of a point are noise here. {rows['seconds']:.0f} seconds in all,")
    print(f"{rows['search_train_test_seconds']:.0f} of them from the first step of the search to the test of its cell.")
    print(f"the cell:   {folder / 'search' / 'cells.png'}")
    print(f"everything: {folder}/")
    program = Path(sys.executable).with_name("diffnas")
    print(f"next:       {program} list recipes; {program} show darts-v2 --stats")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    except (Interrupted, KeyboardInterrupt):
        sys.exit("stopped; make demo begins anew")
    except DiffnasError as error:
        sys.exit(f"demo: {error}")
