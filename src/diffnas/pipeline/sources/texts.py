"""Text as commands use it: windows of tokens, a language model's training, and its perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.data.inputs import TextInputs
from diffnas.data.texts import TEXTS
from diffnas.data.tokens import PARTS, Corpus, read_corpus, read_test, unigram_loss
from diffnas.data.windows import TextFeed
from diffnas.engine.asgd import Trigger, averaged_sgd, averages
from diffnas.engine.search import Feed
from diffnas.engine.steady import sgd
from diffnas.pipeline.evaluate import perplexity_of
from diffnas.pipeline.graphs import training_replays
from diffnas.pipeline.sources.tasks import task_of
from diffnas.pipeline.supernet_weights import ConstantSGD
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import Text, TextSearch, TextTrain
from diffnas.runtime.console import log
from diffnas.runtime.device import PRECISIONS
from diffnas.runtime.run_folder import Part
from diffnas.tasks.base import Task


class TextSource:
    """The text of a recipe."""

    batch_dim = 1  # a batch is [T, N]: its columns can be shared

    def __init__(self, recipe: Recipe, stored: TextInputs | None = None) -> None:
        data = recipe.data
        assert isinstance(data, Text)
        self.recipe = recipe
        whole = read_corpus(data.name, None if data.path is None else Path(data.path))
        self.corpus = limited(whole, data)
        words = whole.vocabulary
        # from all of the training text, in which every word occurs
        counts = torch.bincount(whole.train, minlength=len(words)).tolist()
        own = TextInputs(data.name, words, tuple(counts))
        self.inputs = stored if stored is not None and stored.words == words else own
        self.shape, self.names = self.inputs.shape, self.inputs.names
        usual = TEXTS[data.name].words
        if usual is not None and data.path is not None and usual != len(words):
            log.warning("data.path: %s has %d words here, %d in publications", data.name, len(words), usual)

    @property
    def about(self) -> dict[str, Any]:
        """The words, and the tokens and the file of each part."""
        corpus = self.corpus
        parts = {key: {"from": corpus.origins[key], "tokens": len(getattr(corpus, key))} for key in PARTS}
        return {"name": self.recipe.data.name, "path": self.recipe.data.path, "words": len(self.names), **parts}

    def say(self) -> None:
        """Logs the number of words, and the source of each part."""
        files = {key: where.rpartition("/")[2] for key, where in self.corpus.origins.items()}
        parts = ", ".join(f"{key} {len(getattr(self.corpus, key)):,} tokens in {files[key]}" for key in PARTS)
        log.info(
            "data: %s: %s words; %s", self.recipe.data.path or self.recipe.data.name, f"{len(self.names):,}", parts
        )

    def search_task(self) -> Task:
        """The recipe's task: by default the loss of the next word, with the search's penalties."""
        return task_of(self.recipe, self.recipe.search)

    def search_weights(self) -> ConstantSGD:
        """SGD as the search says."""
        assert isinstance(self.recipe.search, TextSearch)
        return ConstantSGD(self.recipe.search.weights)

    def search_feeds(self, device: torch.device) -> dict[str, Feed]:
        """`train`: windows of the training text; `valid`: of the validation text, beside them; `score`: all of that."""
        search, seed = self.recipe.search, self.recipe.seed
        assert isinstance(search, TextSearch)
        texts, valid = self.corpus.train.to(device), self.corpus.valid.to(device)
        train = TextFeed(texts, search.batch, search.bptt, seed=seed, name="train", lengths="search")
        return {
            "train": train,
            "valid": TextFeed(valid, search.batch, search.bptt, seed=seed, name="valid", beside=train),
            "score": TextFeed(valid, search.valid_batch, search.bptt, seed=seed, name="score"),
        }

    def training(self, network: nn.Module, device: torch.device) -> TextTraining:
        """The training of `network`."""
        return TextTraining(self.recipe, self.corpus, network, device)

    def record_training(self, part: Part) -> None:
        """Does nothing: parts of a text may repeat each other's sentences."""


class TextTest:
    """The test text of a recipe, in the words of `inputs`."""

    def __init__(self, recipe: Recipe, inputs: TextInputs) -> None:
        data = recipe.data
        assert isinstance(data, Text)
        self.recipe, self.inputs, self.names = recipe, inputs, inputs.words
        tokens = read_test(data.name, None if data.path is None else Path(data.path), inputs.words)
        self.tokens = tokens[: data.test_limit]

    def say(self) -> None:
        """Logs the length of the text."""
        data = self.recipe.data
        log.info("data: %s: test %s tokens", data.path or data.name, f"{len(self.tokens):,}")

    def evaluate(self, network: nn.Module, device: torch.device, part: Part | None = None) -> dict[str, Any]:
        """The perplexity of the test text, beside that of a model which knows how frequent words are, and nothing else."""
        train = self.recipe.train
        assert isinstance(train, TextTrain)
        feed = TextFeed(self.tokens.to(device), train.test_batch, train.bptt, name="test")
        result = perplexity_of(network, feed, PRECISIONS[self.recipe.precision])
        return {
            "perplexity": result.value,
            "interval": [result.low, result.high] if math.isfinite(result.high) else None,
            "loss": result.loss,
            "unigram_perplexity": math.exp(unigram_loss(self.inputs.counts, self.tokens)),
            "n": result.n,
            "weights": "the best epoch on the validation text",
            "words": len(self.inputs.words),
        }


def limited(corpus: Corpus, data: Text) -> Corpus:
    """The first tokens of each part, as many as `data` allows; the vocabulary stays."""
    most = data.test_limit
    return replace(corpus, train=corpus.train[: data.train_limit], valid=corpus.valid[:most], test=corpus.test[:most])


class TextTraining:
    """SGD with a rate scaled by the length of the window, then its average; the best epoch on validation is the result."""

    def __init__(self, recipe: Recipe, corpus: Corpus, network: nn.Module, device: torch.device) -> None:
        train = recipe.train
        assert isinstance(train, TextTrain)
        self.settings, self.network, self.precision = train, network, PRECISIONS[recipe.precision]
        self.task = task_of(recipe, train)
        self.feed = TextFeed(corpus.train.to(device), train.batch, train.bptt, seed=recipe.seed, lengths="train")
        self.valid = TextFeed(corpus.valid.to(device), train.valid_batch, train.bptt, name="valid")
        TextFeed(corpus.test, train.test_batch, train.bptt, name="test")  # refused now rather than after the training
        self.trigger = Trigger(train.patience) if train.patience is not None else None
        self.averaging, self.steady = False, training_replays(recipe, device)
        self.optimizer = self._optimizer()
        self.best: dict[str, Any] = {}

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        if self.averaging:
            return averaged_sgd(self.network.parameters(), settings.lr, settings.decay)
        return sgd(self.network.parameters(), settings.lr, 0.0, settings.decay, self.steady)

    def begin(self, epoch: int) -> float:
        """The rate is the same in all epochs."""
        return self.settings.lr

    def after(self, epoch: int) -> dict[str, float]:
        """Validation, with averaged weights where there are any; then perhaps SGD gives way to its average."""
        with averages(self.optimizer):
            result = perplexity_of(self.network, self.valid, self.precision)
            if not self.best or result.loss < self.best["loss"]:
                weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
                self.best = {"loss": result.loss, "epoch": epoch + 1, "weights": weights}
        row = {"valid_loss": result.loss, "valid_perplexity": result.value, "averaged": float(self.averaging)}
        if self.trigger is not None and self.trigger.fires(result.loss):
            self.averaging = True
            self.optimizer = self._optimizer()
            log.info("validation no longer improves: weights are averaged from epoch %d on", epoch + 2)
        return row

    def result(self) -> Mapping[str, Tensor]:
        """The weights of the epoch that was best on validation."""
        log.info("the result is the weights of epoch %d", self.best["epoch"])
        weights: Mapping[str, Tensor] = self.best["weights"]
        return weights

    def state_dict(self) -> dict[str, Any]:
        """The best weights so far, and whether the average has begun."""
        trigger = None if self.trigger is None else self.trigger.state_dict()
        return {"best": self.best, "trigger": trigger, "averaging": self.averaging}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        self.best = dict(state["best"])
        if self.trigger is not None:
            self.trigger.load_state_dict(state["trigger"])
        if bool(state["averaging"]) != self.averaging:
            self.averaging = bool(state["averaging"])
            self.optimizer = self._optimizer()
