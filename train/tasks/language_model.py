"""Language modelling: the probability of each token given those before it."""

import math
from dataclasses import dataclass
from functools import partial
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
from train.data.text import RunningText, load_text
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks import attention
from train.tasks.text import TextTask
from zoo.functional.generate import generate
from zoo.functional.sampling import sample


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """What a language model learns from, and what it is compared with."""

    window: int = 64  # tokens that it learns from at a time, at most the model's context
    baseline: Literal["none", "4-gram"] = "4-gram"  # what it must beat
    balance_weight: float = 0.01  # α, of the experts' imbalance in the loss of a mixture of them

    def __post_init__(self):
        if self.window < 2:
            raise ValueError(f"window={self.window} must be at least 2 tokens")
        if not 0 <= self.balance_weight < math.inf:
            raise ValueError(f"balance_weight={self.balance_weight} must be 0 or more, and finite")


def check_window(recipe: Recipe) -> None:
    """Raises UserError when the windows are longer than what the model can read."""
    context = getattr(recipe.model, "context", None)  # what has a state has no longest text
    if context is not None and recipe.task.window > context:
        raise UserError(
            f"task.window={recipe.task.window} is more than model.context={context}; set them "
            "to the same number"
        )


class LanguageModel(TextTask):
    """Minimises ``-1/T Σ_t log p(x_t | x_<t)`` (Bengio et al. 2003, section 2), in nats a token.

    A mixture of experts adds ``α E Σ_i f_i P_i`` (Fedus et al. 2022, equation 4), the mean over its
    layers, which is least where all experts are used alike.
    """

    summary_metric = "train/perplexity"
    data: RunningText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> RunningText:
        check_window(recipe)
        return load_text(recipe.data, recipe.task.window, tokenizer.of_run(folder))

    @property
    def config(self) -> LanguageModelConfig:
        return self.recipe.task

    def build(self, rngs: nnx.Rngs) -> Objects:
        return self.network(zoo.build(self.model_config, rngs=rngs, ops=self.ops), rngs)

    def loss(
        self, model: Any, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        rngs = nnx.Rngs(dropout=sync.own(key))
        if not getattr(self.recipe.model, "num_experts", 0):
            loss = model.losses(batch["inputs"], batch["targets"], rngs=rngs).mean()
            return loss, {"train/perplexity": jnp.exp(sync(loss))}
        losses, imbalance = model.losses_and_imbalance(batch["inputs"], batch["targets"], rngs=rngs)
        loss, extra = losses.mean(), self.config.balance_weight * imbalance
        return loss + extra, {
            "train/perplexity": jnp.exp(sync(loss)),
            "train/imbalance": imbalance,
        }

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        losses = self.trained(objects).losses(batch["inputs"], batch["targets"])
        return {"loss": losses.mean(-1)}

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        loss = float(outputs["loss"].mean(dtype=np.float64))
        return {
            "loss": loss,
            "perplexity": math.exp(loss),
            "nats_per_char": loss / self.data.chars_per_token,
        }

    def baseline(self, folder: Path) -> Baseline | None:
        if self.config.baseline == "none":
            return None
        return text_baselines.interpolated_ngram(self.data, order=4)

    def predict(self, objects: Objects, inputs: jax.Array) -> dict[str, jax.Array]:
        logits = self.trained(objects)(inputs)[:, -1].astype(jnp.float32)
        return {"probabilities": jax.nn.softmax(logits), "next": logits.argmax(-1)}

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        request = SampleRequest(num=1, length=400)
        written = self.sample(objects, request)[0]
        text = written["prompt"] + written["text"]
        return [
            Section(
                "A text that it wrote",
                f"{request.length} tokens drawn from its own distribution at temperature "
                f"{request.temperature:g}, after {written['prompt']!r}.",
                Table(("text",), [(line,) for line in text.splitlines() if line]),
            ),
            *self._attention_sections(objects),
        ]

    def _attention_sections(self, objects: Objects) -> list[Section]:
        tokens = self.data.eval.tokens[: min(attention.NUM_DRAWN, self.config.window)]
        layers = attention.seen(
            self.trained(objects), lambda model: model(jnp.asarray(tokens)[None])
        )
        return attention.sections(layers, self.readable(tokens))

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Texts that go on from a prompt.

        By default that is a line break, or the first held-out word where tokens are words. The
        model sees a window of tokens: when it is full, writing goes on from its last half. Of a
        prompt longer than that half the start is not seen, and the row says how much.
        """
        if request.out is not None:
            raise UserError(f"--out {request.out}: a text is printed and not drawn; leave it out")
        prompt, ids = self._prompt(request)
        num = request.num or 1
        window = self.config.window
        seen = window // 2
        model = self.trained(objects)
        choose = partial(
            sample,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
        )

        @jax.jit  # compiled twice: for the prompt, and for the half window that it goes on from
        def go_on(prompts, key):
            caches = model.empty_caches(num, window)
            return generate(model.step, caches, prompts, None, window - seen, choose, key)

        texts = np.repeat(ids[None], num, axis=0)
        key = jax.random.key(request.seed)
        while texts.shape[1] < len(ids) + request.length:
            key, now = jax.random.split(key)
            texts = np.concatenate([texts, np.asarray(go_on(texts[:, -seen:], now))], axis=1)
        decode = partial(self.data.tokenizer.decode, skip_special_tokens=False)
        told = decode(ids.tolist())  # in lower case, perhaps; and after it there may be a space
        cut = {"prompt_tokens_unseen": len(ids) - seen} if len(ids) > seen else {}
        return [
            {"prompt": prompt, **cut, "text": decode(row.tolist()).removeprefix(told)}
            for row in texts[:, : len(ids) + request.length]
        ]

    def _prompt(self, request: SampleRequest) -> tuple[str, np.ndarray]:
        """What texts go on from, and its tokens."""
        if request.prompt is None:
            ids = tokenizer.encode(self.data.tokenizer, ["\n"])[0]
            if not len(ids):  # words and their pieces know no line break
                ids = self.data.eval.tokens[:1]
            return "".join(self.readable(ids)), ids
        ids = self.prompt_tokens(request.prompt, blank=True)
        if unknown := tokenizer.unknown_parts(self.data.tokenizer, request.prompt):
            raise UserError(
                f"--prompt holds {', '.join(map(repr, unknown))}, which the tokenizer did not "
                "learn from the train split; write it in other words"
            )
        return request.prompt, ids
