"""Tagging: a label for each word of a sentence, of which runs make up spans."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train import metrics, text_baselines
from train.config import Recipe
from train.data import tokenizer
from train.data.tagged_text import TaggedText, load_tagged_text
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks import attention
from train.tasks.classification import ClassifierConfig
from train.tasks.text import TextTask, check_context
from zoo.functional.viterbi import bio_rules, viterbi
from zoo.models.bert import BERT, Tagger


@dataclass(frozen=True, kw_only=True)
class TaggingConfig(ClassifierConfig):
    """What a tagger is compared with."""

    baseline: Literal["none", "most-frequent-tag"] = "most-frequent-tag"  # what it must beat


class Tagging(TextTask):
    """Minimises the cross-entropy of each word's tag, given the sentence and what it is about.

    The tags of a sentence are then chosen together, so that every I- tag goes on with a span
    (Viterbi decoding by the BIO rules; He et al. 2017, section 2.2).
    """

    summary_metric = "train/accuracy"
    data: TaggedText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> TaggedText:
        check_context(recipe)
        return load_tagged_text(recipe.data, tokenizer.of_run(folder))

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.model_config
        encoder = BERT(config, rngs=rngs, ops=self.ops)
        head = Tagger(config, len(self.data.tags), rngs=rngs, ops=self.ops)
        return self.network(nnx.Dict(encoder=encoder, head=head), rngs)

    def query(self, batch: Any) -> Any:
        names = ("inputs", "inputs_lengths", "words", "words_lengths")
        return {name: batch[name] for name in names}

    def scores(self, model: Any, query: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits [B, W, K] of the tags of each word, from the vector of its first token."""
        x = model["encoder"](query["inputs"], query["inputs_lengths"], rngs=rngs)
        x = jnp.take_along_axis(x, query["words"][..., None], axis=1)
        return model["head"](x, rngs=rngs)

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        logits = self.scores(model, self.query(batch), nnx.Rngs(dropout=sync.own(key)))
        real = jnp.arange(logits.shape[1]) < batch["words_lengths"][:, None]
        targets = jax.nn.one_hot(batch["targets"], logits.shape[-1])
        losses = self.ops.softmax_cross_entropy(
            logits, targets, label_smoothing=self.recipe.task.label_smoothing
        )
        hits = logits.argmax(-1) == batch["targets"]
        # Each batch weighs the same, however many words are in its sentences.
        words = sync(real.sum())
        loss = jnp.where(real, losses, 0).sum() / words
        return loss, {"train/accuracy": (hits & real).sum() / words}

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        """The best allowed tags [B, W] of the words; those after the last are to be ignored."""
        logits = self.scores(self.trained(objects), inputs)
        tags, _ = viterbi(logits, *bio_rules(self.data.tags), inputs["words_lengths"])
        return {"tags": tags}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        query = self.query(batch)
        logits = self.scores(self.trained(objects), query)
        losses = self.ops.softmax_cross_entropy(logits, batch["targets"])
        real = jnp.arange(logits.shape[1]) < batch["words_lengths"][:, None]
        return {
            "loss": jnp.where(real, losses, 0).sum(1),
            "predicted": self.predict(objects, query)["tags"],
            "target": batch["targets"],
            "words": batch["words_lengths"],
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        target, predicted = (self._names(outputs, name) for name in ("target", "predicted"))
        words = int(outputs["words"].sum())
        hits = sum(
            a == b
            for row, guess in zip(target, predicted, strict=True)
            for a, b in zip(row, guess, strict=True)
        )
        return {
            "loss": float(outputs["loss"].sum(dtype=np.float64) / words),
            "accuracy": hits / words,
            **metrics.spans(target, predicted),
        }

    def _names(self, outputs: Outputs, column: str) -> list[list[str]]:
        """Tags by name, without those of the padding."""
        rows = zip(outputs[column], outputs["words"], strict=True)
        return [[self.data.tags[tag] for tag in row[:length]] for row, length in rows]

    def baseline(self, folder: Path) -> Baseline | None:
        if self.recipe.task.baseline == "none":
            return None
        return text_baselines.frequent_tags(self.data)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        target, predicted = (self._names(outputs, name) for name in ("target", "predicted"))
        wrong = [i for i, row in enumerate(target) if row != predicted[i]]
        shown = [
            (
                " ".join(self.data.eval_words[i]),
                _told(self.data.eval_words[i], target[i]),
                _told(self.data.eval_words[i], predicted[i]),
            )
            for i in wrong[:24]
        ]
        return [
            Section(
                "Mistakes",
                f"{len(wrong)} of {len(target)} held-out sentences have a wrong tag; here are "
                f"{len(shown)} of them.",
                Table(("sentence", "spans", "found"), shown),
            ),
            *self._attention_sections(objects),
        ]

    def _attention_sections(self, objects: Objects) -> list[Section]:
        """Where the words of a held-out sentence look."""
        row = self.data.eval.gather(np.zeros(1, np.int64))
        query = jnp.asarray(row["inputs"]), jnp.asarray(row["inputs_lengths"])
        layers = attention.seen(self.trained(objects), lambda model: model["encoder"](*query))
        tokens = row["inputs"][0, : row["inputs_lengths"][0]]
        return attention.sections(layers, self.readable(tokens[: attention.NUM_DRAWN]))

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Held-out sentences with their spans and those found."""
        if request.out is not None or request.prompt is not None:
            raise UserError("a tagger shows held-out sentences; leave --out and --prompt out")
        rows = self.held_out(request)
        batch = self.data.eval.gather(rows)
        query = jax.tree.map(jnp.asarray, self.query(batch))
        found = np.asarray(self.predict(objects, query)["tags"])
        outputs = {"target": batch["targets"], "predicted": found, "words": batch["words_lengths"]}
        target, predicted = (self._names(outputs, name) for name in ("target", "predicted"))
        return [
            {
                "sentence": " ".join(self.data.eval_words[row]),
                "spans": _told(self.data.eval_words[row], target[i]),
                "found": _told(self.data.eval_words[row], predicted[i]),
            }
            for i, row in enumerate(rows)
        ]


def _told(words: list[str], tags: list[str]) -> str:
    """Spans as text: `area: living room; name: lamp`."""
    spans: list[tuple[str, list[str]]] = []
    for word, tag in zip(words, tags, strict=False):
        if tag.startswith("B-"):
            spans.append((tag[2:], [word]))
        elif tag.startswith("I-"):
            spans[-1][1].append(word)
    return "; ".join(f"{name}: {' '.join(words)}" for name, words in spans)
