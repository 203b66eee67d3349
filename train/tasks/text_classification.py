"""Classification of texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from train import text_baselines
from train.config import Recipe
from train.data import tokenizer
from train.data.labelled_text import LabelledText, load_labelled_text
from train.errors import UserError
from train.report import Section, Table
from train.step import Objects
from train.task import Baseline, Outputs, SampleRequest
from train.tasks.classification import ClassifierConfig
from train.tasks.sequence_classification import SequenceClassification
from train.tasks.text import TextTask


@dataclass(frozen=True, kw_only=True)
class TextClassificationConfig(ClassifierConfig):
    """What a classifier of texts is compared with."""

    baseline: Literal["none", "tf-idf"] = "tf-idf"  # what it is held against


class TextClassification(TextTask, SequenceClassification):
    """A softmax over the classes from the tokens of a text.

    A model with one output z for two classes has P(class 1) = σ(z), which is the softmax of
    (0, z): its loss is the binary cross-entropy.
    """

    data: LabelledText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> LabelledText:
        return load_labelled_text(recipe.data, tokenizer.of_run(folder))

    def build(self, rngs: nnx.Rngs) -> Objects:
        config, num_classes = self.recipe.model, self.data.num_classes
        num_outputs = 1 if num_classes == 2 and config.num_outputs == 1 else num_classes
        config = config.for_vocab(self.data.tokenizer.get_vocab_size(), num_outputs)
        return self.network(zoo.build(config, rngs=rngs, ops=self.ops), rngs)

    def standardized(self, objects: Objects, query: Any) -> Any:
        return query  # tokens have no unit

    def answer(self, model: Any, query: Any, rngs: nnx.Rngs | None = None) -> jax.Array:
        logits = super().answer(model, query, rngs)
        if logits.shape[-1] == 1:
            return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
        return logits

    def baseline(self, folder: Path) -> Baseline | None:
        if self.recipe.task.baseline == "none":
            return None
        return text_baselines.tf_idf(self.data)

    def mistakes(self, rows: np.ndarray, outputs: Outputs) -> list[Section]:
        names, probabilities = self.data.class_names, outputs["probabilities"]
        told = [
            (
                self.data.eval_texts[row],
                names[outputs["target"][row]],
                names[probabilities[row].argmax()],
                f"{probabilities[row].max():.0%}",
            )
            for row in rows
        ]
        return [
            Section(
                "Most confident mistakes",
                "Held-out texts that the network gets wrong, the surest of them first.",
                Table(("text", "is", "taken for", "with"), told),
            )
        ]

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Held-out texts and what they are taken for; of a prompt, what that is taken for."""
        if request.prompt is None:
            rows = super().sample(objects, request)
            return [{**row, "text": self.data.eval_texts[row["example"]]} for row in rows]
        if request.out is not None:
            raise UserError(f"--out {request.out}: a text is judged and not drawn; leave it out")
        limit = self.recipe.data.max_tokens
        tokens = self.prompt_tokens(request.prompt)
        query = {
            "inputs": jnp.asarray(tokens[:limit])[None],
            "inputs_lengths": jnp.array([min(len(tokens), limit)]),
        }
        probabilities = np.asarray(self.predict(objects, query)["probabilities"])[0]
        unseen = {"prompt_tokens_unseen": len(tokens) - limit} if len(tokens) > limit else {}
        best = int(probabilities.argmax())
        return [
            {
                "prompt": request.prompt,
                **unseen,
                "predicted": self.data.class_names[best],
                "probability": float(probabilities[best]),
            }
        ]
