"""Recipes: what is read, where it comes from, and that every mistake gets a line of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from diffnas.core.space import Shape
from diffnas.errors import RecipeError
from diffnas.recipe.keys import nearest, recipe_keys
from diffnas.recipe.recipe import LARGEST, Recipe, changed_keys, leaves, read_recipe, recipe_names

TINY = "darts-digits-tiny"


def refused(name: str | Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(name, overrides)
    assert all(line and "\n" not in line and len(line) < 700 for line in caught.value.lines)
    assert not re.search(r"Input|pydantic|Traceback|Error\b", str(caught.value))
    return caught.value.lines


def write(folder: Path, text: str | bytes, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# -- what is read


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_read_and_written_back(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    again = read_recipe(write(tmp_path, recipe.to_yaml()))
    assert again == recipe and again.to_yaml().count("#") >= len(list(leaves(recipe.values())))
    assert recipe.name == name and recipe.about


def test_overrides_win_and_are_remembered() -> None:
    recipe = read_recipe(TINY, ["search.epochs=7", "search.epochs=9", "seed=3", "search.arch={lr: 1e-3}"])
    assert recipe.search is not None and recipe.search.epochs == 9 and recipe.seed == 3
    assert recipe.search.arch.lr == 1e-3 and recipe.search.arch.decay == 1e-3
    assert recipe.origins["search.epochs"] == "--set search.epochs"
    assert recipe.origins["search.batch"] == f"recipe {TINY}" and "search.sampling" not in recipe.origins
    assert "  epochs: 9  # --set search.epochs\n" in recipe.to_yaml()
    assert "  sampling: fresh  # default\n" in recipe.to_yaml()


def test_a_recipe_extends_one_other(tmp_path: Path) -> None:
    write(
        tmp_path, "name: base\nabout: of the base\nseed: 4\ndata: {name: digits, crop: 2}\nlog: {every: 5}", "base.yaml"
    )
    recipe = read_recipe(write(tmp_path, "extends: base.yaml\ndata: {crop: 1}\nseed: 5"))
    assert (recipe.name, recipe.about, recipe.seed) == ("mine", "", 5)
    assert (recipe.data.name, recipe.data.crop, recipe.log.every) == ("digits", 1, 5.0)
    assert recipe.origins["data.crop"].endswith("mine.yaml") and recipe.origins["data.name"].endswith("base.yaml")
    second = read_recipe("darts-cifar10-second")
    assert second.source.endswith("4 GPU-days") and second.search == read_recipe("darts-cifar10").search


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("3", 3.0),
        ("1_000", 1000.0),
    ],
)
def test_numbers_are_numbers(text: str, expected: float) -> None:
    assert read_recipe(TINY, [f"log.every={text}"]).log.every == expected


def test_words_stay_words_and_whole_floats_count(tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ["about=off", "source=no", "name=on", "seed=1e3"])
    assert (recipe.about, recipe.source, recipe.name, recipe.seed) == ("off", "no", "on", 1000)
    assert read_recipe(TINY, ["about=010"]).about == "010" and read_recipe(TINY, ["about=1:30"]).about == "1:30"


@pytest.mark.parametrize(
    "about", ["1e-3", "true", "off", "", "# no", "a: b", "two\nlines", "'\"", "\u2028é\t☃", "null", "~", "<<"]
)
def test_any_text_survives_being_written(about: str, tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, f"about: {about!a}" if about.isprintable() and "'" not in about else "{}"))
    recipe = Recipe(**{**vars(recipe), "about": about})
    assert read_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_null_leaves_a_section_out() -> None:
    assert read_recipe(TINY, ["train=null"]).train is None
    assert read_recipe("cifar10-train").space is None


def test_a_shape_is_known_before_the_images_are() -> None:
    assert read_recipe(TINY).shape == Shape(10, 1, 8)
    assert read_recipe(TINY, ["data.name=folder", "data.path=x", "data.side=16"]).shape == Shape(2, 3, 16)


def test_keys_cover_every_leaf() -> None:
    listed = {key.name for key in recipe_keys()}
    for name in recipe_names():
        keys = {key for key, _ in leaves(read_recipe(name).values())}
        assert {re.sub(r"\.(edge_ops|base_settings)\..*", r".\1", key) for key in keys} <= listed
    assert all(key.about and key.must for key in recipe_keys())


def test_changed_keys() -> None:
    old = read_recipe(TINY)
    assert changed_keys(old, read_recipe(TINY, ["search.epochs=5", "log.every=1", "device=cpu", "data.path=x"])) == []
    new = read_recipe(TINY, ["search.batch=16", "space.ops=[skip_connect, none]", "seed=1", "train=null"])
    found = changed_keys(old, new)
    assert {"search.batch", "space.ops", "seed", "train.lr"} <= set(found) and "train.epochs" not in found


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("search.epoch", "search.epochs"),
        ("epochs", "search.epochs or train.epochs"),
        ("train.weights.lr", "train.lr"),
        ("search.lr", "search.arch.lr or search.weights.lr"),
        ("method.unrolld", "method.unrolled"),
        ("zzz", None),
    ],
)
def test_a_near_key_is_named(word: str, hint: str | None) -> None:
    names = [key.name for key in recipe_keys()]
    assert nearest(word, names) == (f"; did you mean {hint}?" if hint else "")


# -- what is refused: the override, and what the line must say

OVERRIDES = [
    ("search.epoch=3", "did you mean search.epochs?"),
    ("serach.epochs=3", "did you mean search?"),
    ("search.weights.lrr=1", "did you mean search.weights.lr?"),
    ("search.arch.weight_decay=1", "search.arch.weight_decay=1 is unknown"),
    ("method.unrolld=true", "did you mean method.unrolled?"),
    ("space.chanels=8", "did you mean space.channels?"),
    ("train.dropout=1", "train.dropout=1: is a key for text, and the data are images"),
    ("data.nam=digits", "did you mean data.name?"),
    ("log.evry=1", "did you mean log.every?"),
    ("epochs=3", "did you mean search.epochs or train.epochs?"),
    ("sed=1", "did you mean seed?"),
    ("a.b.c.d.e=3", "a.b.c.d.e=3: a is unknown"),
    ("extends=darts-digits", "is unknown"),
    ("search.weights={lr: 0.1, lrr: 3}", "search.weights.lrr is unknown; did you mean search.weights.lr?"),
    ("search.weights.lr=abc", "must be a number above 0; got 'abc'"),
    ("search.weights.lr=1e-3x", "must be a number above 0; got '1e-3x'"),
    ("search.weights.lr='0.1'", "must be a number above 0; got '0.1'"),
    ("search.weights.lr=true", "must be a number above 0; got true"),
    ("search.weights.lr=[0.1]", "must be a number above 0; got [0.1]"),
    ("search.weights.lr=null", "must be a number above 0; got null"),
    ("search.weights.lr=.nan", "must be a number above 0; got .nan"),
    ("search.weights.lr=.inf", "must be a number above 0 and at most 1e+36 in size; got .inf"),
    ("search.weights.lr=0", "must be a number above 0; got 0"),
    ("search.weights.lr=-1", "must be a number above 0; got -1"),
    (f"search.weights.lr={'9' * 400}", "must be a number above 0 and at most 1e+15 in size; got 999"),
    ("search.weights.momentum=1", "must be a number of at least 0 and below 1; got 1"),
    ("search.weights.clip=0", "must be a number above 0 or null; got 0"),
    ("search.weights.lr=1e999", "must be a number above 0 and at most 1e+36 in size; got .inf"),
    ("train.decay=1e300", "must be a number of at least 0 and at most 1e+36 in size; got 1.0e+300"),
    (f"data.train_limit={10**400}", "must be a whole number of at least 1 or null and at most 1e+15 in size; got 1000"),
    (f"seed={'1' * 5000}", "not valid YAML: Exceeds the limit"),
    (f"data.mean=[{10**400}]", "must be a list of numbers or null and at most 1e+15 in size; got [1000"),
    ("method={name: darts-pt, tuning: 1e15}", "must be a whole number from 1 to 9999; got 1000000000000000.0"),
    ("search.epochs=abc", "must be a whole number from 1 to 9999; got 'abc'"),
    ("search.epochs='3'", "must be a whole number from 1 to 9999; got '3'"),
    ("search.epochs=010", "must be a whole number from 1 to 9999; got '010'"),
    ("search.epochs=1:30", "got '1:30'"),
    ("search.epochs=true", "must be a whole number from 1 to 9999; got true"),
    ("search.epochs=1.5", "must be a whole number from 1 to 9999; got 1.5"),
    ("search.epochs=0", "must be a whole number from 1 to 9999; got 0"),
    ("search.epochs=99999999999999999999", "must be a whole number from 1 to 9999"),
    ("search.epochs=[1]", "got [1]"),
    ("search.epochs={a: 1}", "got {a: 1}"),
    ("search.epochs.x=3", "got {x: 3}"),
    ("search.epochs=", "got null"),
    ("search.epochs=2024-01-01", "got '2024-01-01'"),
    ("search.batch=1", "must be a whole number from 2 to"),
    ("search.batch=1e12", "must be a whole number from 2 to"),
    ("search.sampling=fast", "must be fresh or cycle; got 'fast'"),
    ("search.sampling=null", "must be fresh or cycle; got null"),
    ("search.checkpoint_every=0", "must be a number above 0; got 0"),
    ("search.validate_every=-1", "must be a whole number of at least 0; got -1"),
    ("search.weights=1", "must hold keys and values; got 1"),
    ("search.weights=null", "must hold keys and values; got null"),
    ("search.weights=[lr]", "must hold keys and values; got [lr]"),
    ("search=3", "must hold keys and values; got 3"),
    ("search=[]", "must hold keys and values; got []"),
    ("data=null", "must hold keys and values; got null"),
    ("log=3", "must hold keys and values; got 3"),
    ("space=darts-cnn", "must hold keys and values; got 'darts-cnn'"),
    ("space=null", "space.name: must be there: a search needs one"),
    ("method=null", "method.name: must be there: a search needs one"),
    ("space.name=null", "must say which; known: darts-cnn"),
    ("space.name=[a]", "[a] is unknown; known: darts-cnn"),
    ("space.name={a: b}", "{a: b} is unknown; known: darts-cnn"),
    ("space.name=darts_cnn", "'darts_cnn' is unknown; did you mean darts-cnn?; known: darts-cnn"),
    ("space.name=1", "1 is unknown"),
    ("method.name=dart", "'dart' is unknown; did you mean darts?"),
    ("data.name=cifar11", "'cifar11' is unknown; did you mean cifar10"),
    ("data.name=null", "must be text; got null"),
    ("data.name=10", "must be text; got 10; put it in quotes"),
    ("data.path=3", "must be a path or null; got 3; put it in quotes"),
    ("data.path=''", "must be a path or null; got ''"),
    ('data.path="a\\0b"', "must be a path or null"),
    ("data.name=folder", "data.path: must say which folder of images to read"),
    ("data.flip=maybe", "must be true or false or null; got 'maybe'"),
    ("data.flip=off", "must be true or false or null; got 'off'"),
    ("data.flip=1", "must be true or false or null; got 1"),
    ("method.unrolled='true'", "must be true or false; got 'true'"),
    ("device=gpu", "must be auto, cpu, cuda or cuda:N; got 'gpu'"),
    ("device=cuda:999", "must be auto, cpu, cuda or cuda:N; got 'cuda:999'"),
    ("device=0", "must be auto, cpu, cuda or cuda:N; got 0"),
    ("precision=float64", "must be float32, bfloat16 or float16; got 'float64'"),
    ("seed=-1", "must be a whole number from 0 to 4294967295; got -1"),
    ("seed=1e30", "must be a whole number from 0 to 4294967295; got 1.0e+30"),
    ("name=../x", "must be up to 100 letters, digits, dots, dashes and underscores; got '../x'"),
    (f"name={'x' * 101}", "must be up to 100 letters"),
    ("name=", "must be up to 100 letters"),
    ("about=3", "must be text; got 3; put it in quotes"),
    ("about=null", "must be text; got null"),
    ("search.arch.betas=0.5", "must be a list of 2 numbers; got 0.5"),
    ("search.arch.betas=[0.5]", "must be a list of 2 numbers; got [0.5]"),
    ("search.arch.betas=[a, b]", "must be a list of 2 numbers; got [a, b]"),
    ("search.arch.betas=[0.5, 0.9, 0.1]", "must be a list of 2 numbers"),
    ("search.arch.betas=[1, 2]", "must both be at least 0 and below 1; got [1.0, 2.0]"),
    ("method.exact=true", "needs method.unrolled=true"),
    ("search.weights.warmup_lr=0.1", "needs search.weights.rate_per=step"),
    ("search.weights.cosine_growth=2", "needs search.weights.cosine_epochs"),
    ("search.weights={rate_per: step, warmup: 2}", "must be below the 2 epochs of the schedule; got 2"),
    ("search.arch.optimizer=rmsprop", "must be adam, tf-adam or sgd; got 'rmsprop'"),
    ("search.arch.epsilon=0", "must be a number above 0; got 0"),
    ("space.auxiliary=fixed", "the auxiliary head needs 8x8 features; here they are 2x2; set it to none"),
    ("data.first=test", "must be weights or architecture; got 'test'"),
    ("search.supernet=slow", "must be fast or plain"),
    ("space.partial=3", "must divide the"),
    ("space.channels=5", "must be even, not 5"),
    ("space.nodes=0", "must be a whole number from 1 to 16; got 0"),
    ("space.nodes=17", "must be a whole number from 1 to 16; got 17"),
    ("space.in_degree=0", "must be a whole number of at least 1; got 0"),
    ("space.inputs=3", "three inputs need at least 9 layers"),
    ("space.ops=[]", "must be a list of names (1 or more); got []"),
    ("space.ops=skip_connect", "must be a list of names (1 or more); got 'skip_connect'"),
    ("space.ops=[1]", "must be a list of names (1 or more); got [1]"),
    ("space.ops=[none]", "nothing is left to choose"),
    ("space.ops=[skip_connect, skip_connect]", "an op is listed twice"),
    ("space.ops=[none, conv_9x9]", "'conv_9x9' is unknown; known: none, max_pool_3x3"),
    ("space.edge_ops=3", "must be keys and values or null; got 3"),
    ("space.edge_ops={normal: 3}", "must be keys and values or null; got {normal: 3}"),
    ("space.edge_ops={normal: [[none]], reduce: [[none]]}", "1 lists for 5 edges"),
    ("space.concat=[99]", "must name nodes among 2 to 3"),
    ("space.concat=[-1]", "must name nodes among 2 to 3"),
    ("space.concat=[]", "must name nodes among 2 to 3"),
    ("space.concat=[2.5]", "must be a list of whole numbers or null; got [2.5]"),
    ("train.auxiliary=true", "the auxiliary head needs 8x8 features; here they are 2x2; set it to false"),
    ("train.channels=7", "must be even, not 7"),
    ("train.channels=1e9", "must be a whole number from 2 to 4096"),
    ("train.layers=0", "must be a whole number from 1 to 1000; got 0"),
    ("train.stem=imagenet", "images whose side is a multiple of 32, not 8"),
    ("train.stem=resnet", "must be cifar or imagenet; got 'resnet'"),
    ("train.smoothing=1", "must be a number of at least 0 and below 1; got 1"),
    ("train.drop_path=1", "must be a number of at least 0 and below 1; got 1"),
    ("train.cutout=9", "must not exceed the images' side, 8; got 9"),
    ("search.cutout=9", "must not exceed the images' side, 8; got 9"),
    ("train.lr_min=1", "must not exceed train.lr, 0.025; got 1.0"),
    ("search.weights.lr_min=1", "must not exceed search.weights.lr, 0.025; got 1.0"),
    ("data.split=0", "must be a number above 0 and at most 1; got 0"),
    ("data.split=1", "must be below 1: method darts trains the architecture on the rest"),
    ("data.side=3", "must be a whole number from 4 to 1024 or null; got 3"),
    ("data.crop=8", "must be below the images' side, 8; got 8"),
    ("data.mean=0.5", "must be a list of numbers or null; got 0.5"),
    ("data.mean=[0.5, 0.5]", "must hold one number per channel, 1; got 2"),
    ("data.mean=[.nan]", "must be a list of numbers or null; got [.nan]"),
    ("data.std=[0]", "must be above 0 for every channel"),
    ("data.train_limit=0", "must be a whole number of at least 1 or null; got 0"),
    ("log.every=0", "must be a number above 0; got 0"),
    ("search", "must be section.key=value"),
    ("=3", "must be section.key=value"),
    ("search.=3", "must be section.key=value"),
    ("search..epochs=3", "must be section.key=value"),
    ("search.epochs: 3", "must be section.key=value"),
    ("", "must be section.key=value"),
    ("search.epochs=[", "not valid YAML"),
    ("search.epochs=*x", "aliases (*name) are not supported"),
    ("search.weights={lr: 1, lr: 2}", "the key lr stands twice"),
    ("search.weights={1: 2}", "a key must be text"),
    ("about=\0", "not valid YAML"),
    ("about=!!python/object/apply:os.system [ls]", "not valid YAML"),
    ("about=!!binary aGk=", "must be text"),
]


@pytest.mark.parametrize(("override", "said"), OVERRIDES, ids=[text[:40] for text, _ in OVERRIDES])
def test_one_mistake_is_one_line(override: str, said: str) -> None:
    lines = refused(TINY, override)
    assert len(lines) == 1 and said in lines[0], lines
    assert lines[0].startswith(("--set ", f"recipe {TINY}: "))


FILES = [
    ("search: {epochs: 1\n", "not valid YAML"),
    ("search:\n\tepochs: 1\n", "not valid YAML: found character '\\t' that cannot start any token (line 2)"),
    ("seed: 1\nseed: 2\n", "not valid YAML: the key seed stands twice"),
    ("search:\n  epochs: 1\n  epochs: 2\n", "the key epochs stands twice (line 2)"),
    ("log: &x {every: 1}\ndata: *x\n", "aliases (*name) are not supported"),
    ("a: &a [x]\nb: [*a, *a, *a]\n", "aliases"),
    ("", "must be keys and values"),
    ("# nothing\n", "must be keys and values"),
    ("- a\n- b\n", "must be keys and values"),
    ("just words\n", "must be keys and values"),
    ("3\n", "must be keys and values"),
    ("1: 2\n", "a key must be text; put it in quotes (line 1)"),
    ("? [a]\n: 2\n", "a key must be text"),
    ("a: 1\n---\nb: 2\n", "not valid YAML"),
    (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a text file"),
    (b"\x00\x01\x02", "not valid YAML"),
    ("[" * 3000, "not valid YAML"),
    ("a: " + "{a: " * 3000, "not valid YAML"),
    ("!!python/object/apply:os.system ['true']\n", "not valid YAML: could not determine a constructor"),
    ("about: !!python/name:os.system\n", "not valid YAML: could not determine a constructor"),
    ("extends: nothing-such\n", "recipe 'nothing-such' is unknown"),
    ("extends: darts-digts\n", "did you mean darts-digits?"),
    ("extends: darts-cifar10-second\n", "which extends another; one level is the limit"),
    ("extends: mine.yaml\n", "extends: is the recipe itself"),
    ("extends: [a, b]\n", "extends: must be the name or file of one recipe; got [a, b]"),
    ("extends: null\n", "extends: must be the name or file of one recipe; got null"),
    ("extends: 3\n", "extends: must be the name or file of one recipe; got 3"),
    (f"extends: {'x' * 5000}\n", "extends: must be the name or file of one recipe"),
    ("extends: gone.yaml\n", "gone.yaml: cannot be read: No such file or directory"),
    ("<<: {seed: 3}\n", "<< is unknown"),
    ("search: {epochs: 2}\nmethod: {name: darts}\n", "space.name: must be there: a search needs one"),
    ("serach: {epochs: 2}\n", "serach is unknown; did you mean search?"),
    ("method: {unrolled: true}\n", "method.name: must say which; known: darts"),
]


@pytest.mark.parametrize(("text", "said"), FILES, ids=range(len(FILES)))
def test_a_bad_file_is_one_line(text: str | bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    lines = refused(path)
    assert len(lines) == 1 and said in lines[0], lines
    assert lines[0].startswith("recipe ") and (str(tmp_path) in lines[0] or "extends" in str(text))


def test_a_huge_file_is_refused_at_once(tmp_path: Path) -> None:
    assert "larger than 256 KiB" in refused(write(tmp_path, "a: 1\n" * 2_000_000))[0]
    read_recipe(write(tmp_path, "seed: 1\n" + "#" * (LARGEST - 8)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("darts-digit", "recipe 'darts-digit' is unknown; did you mean darts-digits?"),
        ("nothing", "recipe 'nothing' is unknown; `diffnas list recipes` shows all, or give a file"),
        ("gone.yaml", "recipe gone.yaml: cannot be read: No such file or directory"),
        ("no/such/file.yaml", "cannot be read: No such file or directory"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("a\0b.yaml", "cannot be read"),
        ("", "is a folder"),
    ],
)
def test_a_recipe_that_is_not_there(name: str, said: str) -> None:
    (line,) = refused(name)
    assert said in line


def test_folders_are_not_recipes(tmp_path: Path) -> None:
    assert refused(tmp_path) == (f"recipe {tmp_path}: is a folder; name a file",)
    (tmp_path / "search").mkdir()
    inside = write(tmp_path / "search", "seed: 1", "recipe.yaml")
    assert refused(tmp_path) == (f"recipe {tmp_path}: is a folder; name a file: {inside}",)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = """
    sed: 3
    device: gpu
    data: {name: digits, split: 2, crop: -1}
    space: {name: darts-cnn, channels: x, layer: 3}
    method: {name: dart, unrolled: 3}
    search: {epochs: 0, weights: {lr: a, momentun: 0.9}, arch: 3}
    train: {lr: 0.1, lr_min: 0.2, channels: 4}
    nothing: {}
    """
    path = write(tmp_path, text)
    lines = refused(path, "train.layers=-1", "oops", "log.every=x")
    at = f"recipe {path}: "
    starts = [
        "--set oops: must be section.key=value",
        f"{at}sed is unknown; did you mean seed?",
        f"{at}nothing is unknown",
        f"{at}device: must be auto",
        f"{at}data.split: must be a number above 0 and at most 1; got 2",
        f"{at}data.crop: must be a whole number of at least 0 or null; got -1",
        f"{at}search.epochs: must be a whole number from 1 to 9999; got 0",
        f"{at}search.weights.lr: must be a number above 0; got 'a'",
        f"{at}search.weights.momentun is unknown; did you mean search.weights.momentum?",
        f"{at}search.arch: must hold keys and values; got 3",
        "--set train.layers=-1: must be a whole number from 1 to 1000; got -1",
        "--set log.every=x: must be a number above 0; got 'x'",
        f"{at}method.name: 'dart' is unknown; did you mean darts?; known: darts",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert len(lines) == len(starts)
    # the settings of space and method are read where the sections are right
    lines = refused(write(tmp_path, text.replace("sed: 3", "").replace("nothing: {}", "")))
    for start in (
        f"{at}space.channels: must be a whole number from 2 to 4096; got 'x'",
        f"{at}space.layer is unknown; did you mean space.layers?",
        f"{at}search.epochs: must be a whole number from 1 to 9999; got 0",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)


def test_what_does_not_go_together_is_told_with_the_rest() -> None:
    lines = refused(TINY, "train.channels=7", "search.epochs=x", "method.exact=true", "train.lr_min=3")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.weights={nesterov: true, momentum: 0}"], "search.weights.nesterov: needs search.weights.momentum"),
        (["search.weights.nesterov=true", "method.unrolled=true"], "must be false: method darts as set here looks one"),
        (
            ["search.weights.nesterov=true", "method={name: darts-plus, base_settings: {unrolled: true}}"],
            "must be false: method darts-plus as set here looks one",
        ),
        (["data.split=1", "method={name: robust-darts, base: dsnas}"], "method robust-darts measures the supernet"),
        (["data.split=1", "method={name: darts-pt, base: snas}"], "method darts-pt measures the supernet"),
        (["data.split=1", "method={name: budget, base: robust-darts, base_settings: {base: snas}}"], "must be below 1"),
        (["method={name: pdarts, rates: [0, 0, 0], added_layers: [0, 9999999]}"], "nor exceed 1000"),
    ],
)
def test_methods_are_not_asked_for_what_they_cannot_do(overrides: list[str], said: str) -> None:
    lines = refused(TINY, *overrides)
    assert len(lines) == 1 and said in lines[0], lines


def test_an_override_of_a_key_blames_the_override(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {name: digits, crop: x}")
    assert refused(path)[0].startswith(f"recipe {path}: data.crop: ")
    assert refused(path, "data.crop=y")[0].startswith("--set data.crop=y: ")
    assert read_recipe(path, ["data.crop=1"]).data.crop == 1


def test_nothing_in_a_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr("os.system", called.append)
    for text in ("!!python/object/apply:os.system [x]", "about: !!python/object/new:os.system [x]"):
        refused(write(tmp_path, text))
    assert not called
