"""Trained networks as things to use: modules with classes or words, predictions for files, and what cannot be read."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffnas
from diffnas.cli.main import main
from diffnas.core.space import TextShape
from diffnas.data.inputs import ImageInputs
from diffnas.errors import DataError, UserError
from diffnas.pipeline.sources.images import load_data
from diffnas.pipeline.trained import TrainedClassifier, TrainedLanguageModel
from diffnas.recipe.recipe import read_recipe
from diffnas.runtime.console import log

SIDE = 8
SMALL = ["data.name=folder", f"data.side={SIDE}", "data.train_limit=null", "data.test_limit=null"]
SMALL += ["train.layers=1", "train.channels=2", "train.epochs=2", "train.batch=4"]
TEXT = ["data.train_limit=400", "data.test_limit=120", "train.epochs=1", "train.units=8", "train.batch=4"]
TEXT += ["train.test_batch=1", "train.valid_batch=2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes, in colour, larger than the network reads them and not square."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, low in (("cat", 0), ("dog", 128)):
            (root / split / name).mkdir(parents=True)
            for index in range(8):
                pixels = random.integers(low, low + 128, (12, 20, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> diffnas.Run:
    recipe = diffnas.read_recipe("darts-digits-tiny", [*SMALL, f"data.path={photos}"])
    return diffnas.train("darts-v2", recipe, tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> diffnas.Run:
    recipe = diffnas.read_recipe("darts-rnn-demo", TEXT)
    return diffnas.train("darts-rnn-v2", recipe, tmp_path_factory.mktemp("words") / "run")


def classifier(run: diffnas.Run) -> TrainedClassifier:
    network = diffnas.load_network(run)
    assert isinstance(network, TrainedClassifier)
    return network


def language_model(run: diffnas.Run) -> TrainedLanguageModel:
    network = diffnas.load_network(run.path)
    assert isinstance(network, TrainedLanguageModel)
    return network


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """The command line sends the log elsewhere."""
    before = (log.handlers, log.level, log.propagate)
    yield
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


# -- images


def test_a_network_reads_images_as_in_its_training(run: diffnas.Run, photos: Path) -> None:
    network = classifier(run)
    assert network.classes == ("cat", "dog") and not network.training
    assert network.genotype == diffnas.load_genotype("darts-v2")
    data = load_data(read_recipe(run.training().recipe))
    files = sorted((photos / "test").rglob("*.png"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    expected = ((data.test.pixels / 255.0 - mean) / std).flatten(1)
    found = network.preprocess(files).flatten(1)
    assert found.shape == (16, 3 * SIDE * SIDE) and found.dtype == torch.float32
    # each is among the test images, whose order is mixed
    assert float(torch.cdist(found.double(), expected.double()).amin(dim=1).max()) < 1e-4


def test_predictions_are_those_of_the_test(run: diffnas.Run, photos: Path) -> None:
    network, result = classifier(run), diffnas.test(run)
    right = 0
    for label, name in enumerate(network.classes):
        files = sorted((photos / "test" / name).iterdir())
        found = diffnas.predict(run, photos / "test" / name)
        assert [entry["file"] for entry in found] == list(map(str, files))
        shares = network.probabilities(files)
        assert shares.sum(dim=1).tolist() == pytest.approx([1.0] * 8, rel=1e-5)
        assert [entry["class"] for entry in found] == [network.classes[place] for place in shares.argmax(dim=1)]
        assert [entry["probability"] for entry in found] == pytest.approx(shares.amax(dim=1).tolist(), rel=1e-5)
        assert all(entry["top"][0]["class"] == entry["class"] and len(entry["top"]) == 2 for entry in found)
        right += int((shares.argmax(dim=1) == label).sum())
    assert 100.0 * right / 16 == result["accuracy"]


def test_an_image_need_not_be_a_file(run: diffnas.Run, photos: Path) -> None:
    network, file = classifier(run), photos / "test" / "cat" / "0.png"
    picture, expected = Image.open(file), network.preprocess(file)
    assert expected.shape == (1, 3, SIDE, SIDE)
    for same in (str(file), [file], picture, np.asarray(picture), picture.convert("RGBA")):
        assert torch.equal(network.preprocess(same), expected)
    assert network.preprocess([]).shape == (0, 3, SIDE, SIDE) and network.probabilities([]).shape == (0, 2)


@pytest.mark.parametrize("given", ["gone.png", 3, torch.zeros(3, 4, 4), np.zeros((2, 2, 2, 2))])
def test_what_is_no_image_is_named(given: Any, run: diffnas.Run) -> None:
    with pytest.raises(DataError) as refused:
        classifier(run).preprocess([given])
    (line,) = refused.value.lines
    assert line.startswith("gone.png: there is no such file" if isinstance(given, str) else type(given).__name__)


def test_a_grey_network_reads_colour() -> None:
    inputs = ImageInputs("digits", ("0", "1"), SIDE, (0.25,), (0.5,))
    size = {"channels": 2, "layers": 1, "classes": 2, "in_channels": 1, "side": SIDE}
    network = TrainedClassifier(diffnas.build_network("darts-v2", **size), diffnas.load_genotype("darts-v2"), inputs)
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    expected = (torch.arange(64).view(1, 1, 8, 8) / 255 - 0.25) / 0.5
    for same in (grey, grey.convert("RGB")):
        assert torch.allclose(network.preprocess(same), expected)
    assert network(network.preprocess(grey)).shape == (1, 2)


def test_files_that_cannot_be_read_are_named_and_the_others_answered(
    run: diffnas.Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, empty, good = tmp_path / "bad.png", tmp_path / "empty", photos / "test" / "dog" / "0.png"
    bad.write_text("text")
    empty.mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    files = [str(path) for path in (bad, good, tmp_path / "gone.png", empty, tmp_path / "pipe.png")]
    capsys.readouterr()
    assert main(["predict", str(run.path), *files, "--top", "1"]) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 and shown.out.startswith(f"{good}: ") and shown.out.endswith(" %\n")
    assert [line.partition(f"{tmp_path}/")[2] for line in shown.err.splitlines()] == [
        "bad.png: is not a readable image (UnidentifiedImageError)",
        "gone.png: there is no such file",
        "empty: holds no images",
        "pipe.png: is no regular file",
    ]
    assert main(["predict", str(run.path), *files, "", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in found] == [*files, ""] and sum("error" in entry for entry in found) == 5


def test_more_images_than_a_batch(run: diffnas.Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = diffnas.predict(run, photos)
    monkeypatch.setattr("diffnas.pipeline.predict.BATCH", 5)
    parts = diffnas.predict(run, [photos])
    assert len(whole) == 32 and [entry["file"] for entry in parts] == [entry["file"] for entry in whole]
    shares = [[entry["probability"] for entry in found] for found in (parts, whole)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)


def test_what_predict_refuses(run: diffnas.Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--top 0: must be at least 1"):
        diffnas.predict(run, photos, top=0)
    with pytest.raises(UserError, match="--set seed: a trained network is used as it is; only device may change"):
        diffnas.predict(run, photos, overrides=["seed=1"])
    with pytest.raises(UserError, match="does not exist"):
        diffnas.load_network(tmp_path / "gone")
    assert diffnas.predict(run, photos / "test" / "cat", overrides=["device=cpu"])


# -- text


def test_a_language_model_judges_and_goes_on(spoken: diffnas.Run) -> None:
    model = language_model(spoken)
    assert not model.training and len(model.words) == 1345
    tokens = model.encode("The value\nzzzz")
    assert [model.words[token] for token in tokens] == ["the", "value", "<eos>", "<unk>", "<eos>"]
    log_probs = model((tokens[:-1, None], None)).log_probs[:, 0].detach().double()
    losses = -log_probs.gather(1, tokens[1:, None])
    assert model.perplexity("The value\nzzzz\n") == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)
    best = log_probs[-1].exp().topk(3)
    found = model.next_words("The value\nzzzz", top=3)
    assert [word for word, _ in found] == [model.words[place] for place in best.indices]
    assert [value for _, value in found] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert len(model.next_words("")) == 5
    with pytest.raises(DataError, match="text: holds no words"):
        model.perplexity("")


def test_windows_do_not_show_in_a_perplexity(spoken: diffnas.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = language_model(spoken), "the value of the object is the value of a name .\n" * 5
    whole = model.perplexity(text)
    monkeypatch.setattr("diffnas.pipeline.trained.WINDOW", 7)
    assert model.perplexity(text) == pytest.approx(whole, rel=1e-4)


def test_the_test_text_as_a_file_has_the_perplexity_of_the_test(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("a b c a\nb a\n" * 20)
    recipe = diffnas.read_recipe(
        "darts-rnn-demo", [*TEXT, "data.name=text", f"data.path={tmp_path}", "data.test_limit=null"]
    )
    run = diffnas.train("darts-rnn-v1", recipe, tmp_path / "run")
    (found,) = diffnas.predict(run, tmp_path / "test.txt", top=2)
    result = diffnas.test(run)
    assert (found["tokens"], found["perplexity"]) == (result["n"], pytest.approx(result["perplexity"], rel=1e-4))
    assert found["word"] == found["top"][0]["word"] and len(found["top"]) == 2
    (tmp_path / "other.txt").write_text("a\nb z\n")
    (refused,) = diffnas.predict(run, [tmp_path / "other.txt"])
    assert refused["error"].endswith(
        "other.txt line 2: the word 'z' is not among the words that the network was trained"
        " on, which lack <unk>; write another"
    )


def test_predict_reads_standard_input(
    spoken: diffnas.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"The value of the\n")))
    assert main(["predict", str(spoken.path), "-", "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("-: perplexity ") and "(4 tokens), next: " in shown and shown.count(" %") == 2
    binary, empty = tmp_path / "binary", tmp_path / "empty.txt"
    binary.write_bytes(b"\xff\xfe")
    empty.write_text("")
    assert main(["predict", str(spoken.path), str(binary), str(tmp_path), str(empty), os.devnull]) == 2
    lines = [line.rpartition("/")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "binary: cannot be read as text: it is not UTF-8" and lines[2] == "empty.txt: holds no words"
    assert "cannot be read as text: a pipe or device" in lines[3]  # it may never end


# -- what a run knows of its size


def test_a_network_is_built_as_in_the_run(run: diffnas.Run, spoken: diffnas.Run) -> None:
    ours = diffnas.build_network(run)
    ours.load_state_dict(classifier(run).network.state_dict())  # names and shapes fit
    assert diffnas.count(diffnas.build_network(run, channels=4), [3, SIDE, SIDE]) != diffnas.count(
        ours, [3, SIDE, SIDE]
    )
    assert diffnas.build_network(str(run.path), classes=7).eval()(torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 7)
    model = diffnas.build_network(spoken.path)
    model.load_state_dict(language_model(spoken).network.state_dict())
    assert diffnas.count(model, TextShape(1345)) == diffnas.count(language_model(spoken).network, TextShape(1345))
    assert model.dropouts.dropout == 0.3  # type: ignore[union-attr]


def test_sizes_of_a_run_are_counted_with_its_own_classes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        for label in range(5):
            (data / split / f"class {label}").mkdir(parents=True)
            for index in range(4):
                (data / split / f"class {label}" / f"{index}.png").write_bytes(
                    (photos / "train" / "cat" / f"{index}.png").read_bytes()
                )
    sets = [*SMALL, f"data.path={data}", "search.epochs=1", "search.batch=2", "search.validate_every=0"]
    words = [word for key in sets for word in ("--set", key)]
    assert main(["search", "darts-digits-tiny", "--run", str(tmp_path / "run"), "--quiet", *words]) == 0
    data.rename(tmp_path / "gone")  # the data are not read again
    genotype = diffnas.load_genotype(tmp_path / "run")
    network = diffnas.build_network(genotype, channels=2, layers=1, classes=5, side=SIDE)
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run"), "--stats", "--out", str(tmp_path)]) == 0
    params = diffnas.count(network, [3, SIDE, SIDE]).params
    assert f"8x8, 5 classes): {params:,} parameters" in capsys.readouterr().out
    (tmp_path / "gone").rename(data)  # a recipe alone must look
    recipe = str(tmp_path / "run" / "search" / "recipe.yaml")
    assert main(["show", "darts-v2", "--stats", "--recipe", recipe, "--out", str(tmp_path)]) == 0
    assert "8x8, 5 classes)" in capsys.readouterr().out
