"""From one text to another: translation, summaries; a model with an encoder and a decoder."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import zoo
from train import baselines, text_baselines
from train.config import Recipe
from train.data import tokenizer
from train.data.paired_text import PairedText, load_pairs, mark, marked
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.metrics import bleu, rouge_l
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks import attention
from train.tasks.text import TextTask
from zoo.functional.beam_search import beam_search
from zoo.layers import Memory

NUM_SHOWN = 12  # pairs in the report


@dataclass(frozen=True, kw_only=True)
class SequenceToSequenceConfig:
    """The loss of a model from text to text, how it writes, and what it is compared with."""

    label_smoothing: float = 0.1  # ε: targets become (1-ε)·onehot + ε/V (Szegedy et al. 2016)
    beam_size: int = 4  # hypotheses that it keeps while it writes; 1 is greedy
    length_penalty: float = 0.6  # α of beam search: 0 favours short texts (Wu et al. 2016, eq. 14)
    baseline: Literal["none", "copy", "first-words", "translate-lstm"] = "copy"  # what it must beat

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")
        if self.beam_size < 1:
            raise ValueError(f"beam_size={self.beam_size} must be at least 1, which is greedy")
        if not 0 <= self.length_penalty < math.inf:
            raise ValueError(
                f"length_penalty={self.length_penalty} must be 0 (none) or more, and finite"
            )


class SequenceToSequence(TextTask):
    """Minimises `-1/T Σ_t log p(y_t | y_<t, x)` (Sutskever et al. 2014, section 2), smoothed.

    What it writes for all of the held-out sources is a part of every evaluation, so that the metric
    that a text is judged by has a curve, and decides which checkpoint is the best.
    """

    summary_metric = "train/accuracy"
    data: PairedText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> PairedText:
        return load_pairs(recipe.data, tokenizer.of_run(folder))

    @property
    def config(self) -> SequenceToSequenceConfig:
        return self.recipe.task

    def build(self, rngs: nnx.Rngs) -> Objects:
        return self.network(zoo.build(self.model_config, rngs=rngs, ops=self.ops), rngs)

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        inputs, labels, real = _shifted(batch)
        logits = model(
            batch["source"],
            inputs,
            source_lengths=batch["source_lengths"],
            rngs=nnx.Rngs(dropout=sync.own(key)),
        )
        losses = self.ops.softmax_cross_entropy(logits, labels, self.config.label_smoothing)
        # A comparison with the largest logit: argmax takes several times as long on a CPU.
        chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        right = chosen == logits.max(-1)
        tokens = sync(real.sum())
        loss = jnp.where(real, losses, 0).sum() / tokens
        return loss, {"train/accuracy": jnp.where(real, right, 0).sum(dtype=losses.dtype) / tokens}

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        model, lengths = self.trained(objects), batch["source_lengths"]
        inputs, labels, real = _shifted(batch)
        memory = model.encode(batch["source"], lengths)
        losses = self.ops.softmax_cross_entropy(model.decode(inputs, memory), labels)
        return {
            "loss": jnp.where(real, losses, 0).sum(-1),  # of all tokens of a target
            "tokens": real.sum(-1),
            "written": self._write(model, memory),
        }

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        """Nats a token over all held-out tokens, BLEU (0 to 100) and ROUGE-L (0 to 1)."""
        loss = float(outputs["loss"].sum(dtype=np.float64) / outputs["tokens"].sum())
        written, references = self.texts(outputs["written"]), self.data.eval_texts["target"]
        return {
            "loss": loss,
            "perplexity": math.exp(loss),
            "bleu": bleu(references, written),
            "rouge_l": rouge_l(references, written),
        }

    def baseline(self, folder: Path) -> Baseline | None:
        if self.config.baseline == "none":
            return None
        if self.config.baseline == "copy":
            return text_baselines.copied_source(self.data)
        if self.config.baseline == "first-words":
            return text_baselines.first_words(self.data)
        return baselines.translate_lstm(self.recipe, folder)

    def query(self, batch: Any) -> Any:
        return {name: batch[name] for name in ("source", "source_lengths")}

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        """The best target of each source by beam search: tokens [B, T], end marks after the end."""
        model, lengths = self.trained(objects), inputs["source_lengths"]
        return {"tokens": self._write(model, model.encode(inputs["source"], lengths))}

    def _write(self, model: Any, memory: Memory) -> jax.Array:
        most = self.recipe.data.max_target_tokens + 1  # the end mark too
        begin = mark(self.data.tokenizer, tokenizer.BEGIN)
        tokens, _ = beam_search(
            model.step,
            model.empty_caches(memory, most),
            jnp.full(memory.tokens.shape[0], begin),
            beam_size=self.config.beam_size,
            max_tokens=most,
            end_token=mark(self.data.tokenizer, tokenizer.END),
            alpha=self.config.length_penalty,
            batch_axes=model.batch_axes,
        )
        return tokens[:, 0]

    def texts(self, tokens: np.ndarray) -> list[str]:
        """What tokens [R, T] say, each row up to its first end mark; marks are left out."""
        end = mark(self.data.tokenizer, tokenizer.END)
        rows = [row[: row.index(end)] if end in row else row for row in tokens.tolist()]
        return self.data.tokenizer.decode_batch(rows)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        rows = self.held_out(SampleRequest(num=min(NUM_SHOWN, len(self.data.eval))))
        sides = self.data.eval_texts
        written = self.texts(outputs["written"][rows])
        shown = [
            (sides["source"][row], sides["target"][row], text)
            for row, text in zip(rows, written, strict=True)
        ]
        return [
            Section(
                "What it writes",
                "Held-out sources from the shortest to the longest, what belongs to them, and what "
                "the network writes.",
                Table(("source", "reference", "written"), shown),
            ),
            *self._attention_sections(objects, outputs),
        ]

    def _attention_sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        """Where the decoder looks in a held-out source while it writes."""
        held_out, most = self.data.eval.columns, attention.NUM_DRAWN
        row = max(int(np.searchsorted(self.data.eval.lengths["source"], most, "right")) - 1, 0)
        source = held_out["source"][row]
        end = mark(self.data.tokenizer, tokenizer.END)
        written = outputs["written"][row].tolist()
        written = written[: min(written.index(end) + 1 if end in written else most, most)]
        target = [mark(self.data.tokenizer, tokenizer.BEGIN), *written[:-1]]
        model = self.trained(objects)
        memory = model.encode(jnp.asarray(source)[None])
        seen = attention.seen(model, lambda model: model.decode(jnp.asarray(target)[None], memory))
        return attention.sections(
            # A Transformer's decoder looks at the target and at the source in turn, an LSTM's once.
            seen[1::2] or seen,
            self.readable(written),
            self.readable(source[:most]),
            title="Attention to the source",
        )

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """What it writes for the prompt, or for held-out sources evenly spread over the split."""
        if request.out is not None:
            raise UserError(f"--out {request.out}: a text is printed and not drawn; leave it out")
        if request.prompt is None:
            rows = self.held_out(request)
            written = self._answer(objects, self.query(self.data.eval.gather(rows)))
            sides = self.data.eval_texts
            return [
                {
                    "example": int(row),
                    "source": sides["source"][row],
                    "reference": sides["target"][row],
                    "written": text,
                }
                for row, text in zip(rows, written, strict=True)
            ]
        limit = self.recipe.data.max_tokens
        beyond = len(self.prompt_tokens(request.prompt)) - limit
        (tokens,), _ = marked(self.data.tokenizer, [request.prompt], "source", limit)
        query = {"source": tokens[None], "source_lengths": np.array([len(tokens)], np.int32)}
        (written,) = self._answer(objects, query)
        unseen = {"prompt_tokens_unseen": beyond} if beyond > 0 else {}
        return [{"prompt": request.prompt, **unseen, "written": written}]

    def _answer(self, objects: Objects, query: Any) -> list[str]:
        predict = jax.jit(lambda query: self.predict(objects, query)["tokens"])
        return self.texts(np.asarray(predict(query)))


def _shifted(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the decoder reads, what is to follow each token, and which of that is no padding."""
    target, lengths = batch["target"], batch["target_lengths"]
    real = jnp.arange(target.shape[1] - 1) < lengths[:, None] - 1
    return target[:, :-1], target[:, 1:], real
