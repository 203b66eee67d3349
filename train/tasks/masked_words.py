"""Masked language modelling: the hidden words of a text from all that stand around them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train import text_baselines
from train.config import Recipe
from train.data import tokenizer
from train.data.masking import Masked, mask_words
from train.data.text import RunningText, load_text
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks import attention
from train.tasks.language_model import check_window
from train.tasks.text import TextTask, check_prompt
from zoo.models.bert import BERT
from zoo.models.bert import MaskedWords as MaskedWordsHead

MASK, START = "[MASK]", "[CLS]"
NUM_SHOWN = 32  # tokens of a held-out text that are printed


@dataclass(frozen=True, kw_only=True)
class MaskedWordsConfig:
    """What a masked language model learns from, and what it is compared with."""

    window: int = 128  # tokens that it sees at a time, [CLS] first; at most the model's context
    mask_rate: float = 0.15  # share of the tokens that are hidden
    baseline: Literal["none", "unigram"] = "unigram"  # what it must beat

    def __post_init__(self):
        if self.window < 3:
            raise ValueError(f"window={self.window} must be at least 3 tokens")
        if not 0 < self.mask_rate < 1:
            raise ValueError(f"mask_rate={self.mask_rate} must lie in (0, 1)")


class MaskedWords(TextTask):
    """Minimises ``-1/M Σ_m log p(x_m | text with the M words hidden)`` (Devlin et al. 2019)."""

    summary_metric = "train/perplexity"
    data: RunningText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> RunningText:
        check_window(recipe)
        data = load_text(recipe.data, recipe.task.window - 1, tokenizer.of_run(folder))
        if None in (data.tokenizer.token_to_id(mark) for mark in (MASK, START)):
            raise UserError(
                f"tokenizer {recipe.data.tokenizer!r} has no {MASK} to hide a word behind; use "
                "--data.tokenizer wordpiece"
            )
        return data

    @property
    def config(self) -> MaskedWordsConfig:
        return self.recipe.task

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.model_config
        encoder = BERT(config, rngs=rngs, ops=self.ops)
        head = MaskedWordsHead(config, rngs=rngs, ops=self.ops)
        # It starts at the frequencies of words, whose learning would take the first hundred steps.
        head.bias[...] = jnp.asarray(np.log(self.data.frequencies()), head.bias.dtype)
        return self.network(nnx.Dict(encoder=encoder, head=head), rngs)

    def _mark(self, name: str) -> int:
        number = self.data.tokenizer.token_to_id(name)
        assert number is not None  # `load` has looked
        return number

    def prepare(self, objects: Objects, batch: Batch) -> Batch:
        return {**self._mask(objects["rngs"].augment(), batch["inputs"])._asdict()}

    def _mask(self, key: jax.Array, texts: jax.Array) -> Masked:
        """Texts [B, T-1] behind a [CLS], with words hidden."""
        start = jnp.full((len(texts), 1), self._mark(START), texts.dtype)
        tokens = jnp.concatenate([start, texts], axis=1)
        return mask_words(
            key,
            tokens,
            jnp.broadcast_to(jnp.arange(tokens.shape[1]) > 0, tokens.shape),
            rate=self.config.mask_rate,
            mask_token=self._mark(MASK),
            vocab_size=self.data.tokenizer.get_vocab_size(),
            longest=texts.shape[1],
        )

    def logits(
        self, model: Any, tokens: jax.Array, positions: jax.Array, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Of every word, at the places [B, M] alone: [B, M, V]."""
        x = model["encoder"](tokens, rngs=rngs)
        x = jnp.take_along_axis(x, positions[..., None], axis=1)
        return model["head"](x, model["encoder"].tokens.table[...])

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        rngs = nnx.Rngs(dropout=sync.own(key))
        logits = self.logits(model, batch["tokens"], batch["positions"], rngs)
        loss = self.ops.softmax_cross_entropy(logits, batch["targets"]).mean()
        hits = logits.argmax(-1) == batch["targets"]
        accuracy = hits.mean(dtype=jnp.float32)
        return loss, {"train/perplexity": jnp.exp(sync(loss)), "train/accuracy": accuracy}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        # What is hidden of a held-out text depends on the text alone: every evaluation asks the
        # same, in whatever batches.
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), row.sum()))(
            batch["inputs"]
        )
        rows = jax.vmap(lambda key, row: self._mask(key, row[None]))(keys, batch["inputs"])
        masked = Masked(*(column[:, 0] for column in rows))
        logits = self.logits(self.trained(objects), masked.tokens, masked.positions)
        return {
            "loss": self.ops.softmax_cross_entropy(logits, masked.targets).mean(-1),
            "hits": (logits.argmax(-1) == masked.targets).mean(-1, dtype=jnp.float32),
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        loss = float(outputs["loss"].mean(dtype=np.float64))
        return {
            "loss": loss,
            "perplexity": math.exp(loss),
            "accuracy": float(outputs["hits"].mean(dtype=np.float64)),
        }

    def baseline(self, folder: Path) -> Baseline | None:
        return None if self.config.baseline == "none" else text_baselines.unigram(self.data)

    def predict(self, objects: Objects, inputs: jax.Array) -> dict[str, jax.Array]:
        """The likeliest word at every place of token rows [B, T], and its probability."""
        model = self.trained(objects)
        places = jnp.broadcast_to(jnp.arange(inputs.shape[1]), inputs.shape)
        probabilities = jax.nn.softmax(self.logits(model, inputs, places).astype(jnp.float32))
        return {"token": probabilities.argmax(-1), "probability": probabilities.max(-1)}

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        request = SampleRequest(num=min(8, len(self.data.eval)))
        found = self.sample(objects, request)
        text = self.data.eval.gather(np.zeros(1, np.int64))["inputs"][0]
        tokens = np.concatenate([[self._mark(START)], text])
        layers = attention.seen(
            self.trained(objects), lambda model: model["encoder"](jnp.asarray(tokens)[None])
        )
        return [
            Section(
                "Hidden words",
                "One word of each of these held-out texts was hidden; the five that the model "
                "finds likeliest there.",
                Table(
                    ("text", "hidden", "found"),
                    [(row["text"], row["hidden"], ", ".join(row["found"])) for row in found],
                ),
            ),
            *attention.sections(layers, self.readable(tokens[: attention.NUM_DRAWN])),
        ]

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Finds hidden words: those written [MASK] in a prompt, or one in each held-out text."""
        if request.out is not None:
            raise UserError(f"--out {request.out}: words are printed and not drawn; leave it out")
        mask, start = self._mark(MASK), self._mark(START)
        if request.prompt is not None:
            check_prompt(request.prompt)
            first, *others = tokenizer.encode(self.data.tokenizer, request.prompt.split(MASK))
            if not others:
                raise UserError(f"--prompt hides no word; write {MASK} in the place of one")
            parts = [part for other in others for part in ([mask], other)]
            tokens = np.concatenate([[start], first, *parts]).astype(np.int32)
            return self._found(objects, tokens, request.prompt, {})
        rows = self.held_out(request)
        shown = []
        for row, text in zip(rows, self.data.eval.gather(rows)["inputs"], strict=True):
            tokens = np.concatenate([[start], text[:NUM_SHOWN]])
            place = 1 + int(row) % (len(tokens) - 1)
            hidden, tokens[place] = int(tokens[place]), mask
            told = self.data.tokenizer.decode(tokens[1:].tolist(), skip_special_tokens=False)
            shown += self._found(
                objects, tokens, told, {"hidden": self.data.tokenizer.id_to_token(hidden)}
            )
        return shown

    def _found(
        self, objects: Objects, tokens: np.ndarray, text: str, facts: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The five likeliest words at each [MASK] of one text, the likeliest first."""
        if len(tokens) > self.config.window:
            raise UserError(
                f"--prompt has {len(tokens)} tokens, {START} included; the model was trained with "
                f"{self.config.window} at most"
            )
        places = np.flatnonzero(tokens == self._mark(MASK))[None]
        logits = self.logits(self.trained(objects), jnp.asarray(tokens)[None], jnp.asarray(places))
        best = np.argsort(-np.asarray(logits[0], np.float32), axis=-1, kind="stable")[:, :5]
        return [
            {
                "text": text,
                **facts,
                "found": [self.data.tokenizer.id_to_token(int(token)) for token in row],
            }
            for row in best
        ]
