"""Question answering by extraction: which span of a passage answers a question."""

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
from train.data.answered_text import FIRST, LAST, AnsweredText, load_answered_text
from train.errors import UserError
from train.gradient import Batch, Metrics
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest
from train.tasks import attention
from train.tasks.text import TextTask, check_context
from zoo.functional.spans import best_spans
from zoo.models.bert import BERT, Spans

NUM_BEST = 3  # answers that are served and shown


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringConfig:
    """What an answer may be, and what the network is compared with."""

    max_answer_tokens: int = 30
    no_answer_threshold: float = 0.0  # τ: an answer must beat none by more (section 4.3)
    baseline: Literal["none", "sliding-window"] = "sliding-window"  # what it must beat

    def __post_init__(self):
        if self.max_answer_tokens < 1:
            raise ValueError(f"max_answer_tokens={self.max_answer_tokens} must be at least 1")


class QuestionAnswering(TextTask):
    """Minimises `-1/2 (log p(start) + log p(end))` of the answer (Devlin et al. 2019, section 4.2).

    Where the answer stands in several places, their probabilities are added up (Clark and Gardner
    2018, section 2). Words of the question are no place for an answer, and [CLS] means none.
    """

    summary_metric = "train/accuracy"
    data: AnsweredText

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> AnsweredText:
        check_context(recipe)
        return load_answered_text(recipe.data, tokenizer.of_run(folder))

    @property
    def num_held_out(self) -> int:
        return len(self.data.questions)  # some have several rows

    @property
    def config(self) -> QuestionAnsweringConfig:
        return self.recipe.task

    def build(self, rngs: nnx.Rngs) -> Objects:
        config = self.model_config
        encoder = BERT(config, rngs=rngs, ops=self.ops)
        return self.network(
            nnx.Dict(encoder=encoder, head=Spans(config, rngs=rngs, ops=self.ops)), rngs
        )

    def query(self, batch: Any) -> Any:
        return {name: batch[name] for name in ("inputs", "inputs_lengths", "passages")}

    def scores(
        self, model: Any, query: Any, rngs: nnx.Rngs | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Start and end logits [B, T], -inf where no answer may be; [CLS] stands for none."""
        segments = self._passage(query).astype(jnp.int32)
        x = model["encoder"](query["inputs"], query["inputs_lengths"], segments, rngs=rngs)
        places = jnp.arange(x.shape[1])
        allowed = (places == 0) | self._may_answer(query)
        start, end = (logits.astype(jnp.float32) for logits in model["head"](x))
        return jnp.where(allowed, start, -jnp.inf), jnp.where(allowed, end, -jnp.inf)

    @staticmethod
    def _passage(query: Any) -> jax.Array:
        """The second of the two segments: the passage and what comes after it."""
        return jnp.arange(query["inputs"].shape[1]) >= query["passages"][:, None]

    def _may_answer(self, query: Any) -> jax.Array:
        """The passage, without the mark at its end."""
        places = jnp.arange(query["inputs"].shape[1])
        return self._passage(query) & (places < query["inputs_lengths"][:, None] - 1)

    def loss(
        self, model, batch: Batch, key: jax.Array, sync: Sync = Sync()
    ) -> tuple[jax.Array, Metrics]:
        start, end = self.scores(model, self.query(batch), nnx.Rngs(dropout=sync.own(key)))
        first, last = self._wanted(batch)
        loss = self._losses(start, end, batch).mean()
        rows = jnp.arange(len(start))
        hits = first[rows, start.argmax(-1)] & last[rows, end.argmax(-1)]
        return loss, {"train/accuracy": hits.mean(dtype=jnp.float32)}

    @staticmethod
    def _wanted(batch: Batch) -> tuple[jax.Array, jax.Array]:
        return (batch["targets"] & FIRST) > 0, (batch["targets"] & LAST) > 0

    def _losses(self, start: jax.Array, end: jax.Array, batch: Batch) -> jax.Array:
        """[B]."""
        first, last = self._wanted(batch)
        return (_surprise(start, first) + _surprise(end, last)) / 2

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        """The best spans of each row: first and last token [B, N], score; and the score of none."""
        return self._best(*self.scores(self.trained(objects), inputs), inputs)

    def _best(self, start: jax.Array, end: jax.Array, query: Any) -> dict[str, jax.Array]:
        longest = self.config.max_answer_tokens
        may = self._may_answer(query)
        return best_spans(start, end, may, num_best=NUM_BEST, max_length=longest)._asdict()

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        query = self.query(batch)
        start, end = self.scores(self.trained(objects), query)
        return {"loss": self._losses(start, end, batch), **self._best(start, end, query)}

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        answers = [question.answers for question in self.data.questions]
        found = [best for best, *_ in self._answers(outputs, np.arange(len(self.data.eval)))]
        return {
            "loss": float(outputs["loss"].mean(dtype=np.float64)),
            **metrics.squad(answers, found),
        }

    def _answers(self, outputs: Any, rows: np.ndarray) -> list[list[str]]:
        """The best answers to the questions of some rows, of all windows on the passage together.

        Where questions may have none, "" is the first of them if nothing beats it.
        """
        found: dict[int, dict[str, float]] = {}
        for i, row in enumerate(rows):
            scores = found.setdefault(int(self.data.owners[row]), {})
            if self.data.unanswerable:  # no answer in any window is none in the passage
                none = float(outputs["no_answer"][i]) + self.config.no_answer_threshold
                scores[""] = min(scores.get("", np.inf), none)
            spans = zip(*(outputs[name][i] for name in ("start", "end", "score")), strict=True)
            for start, end, score in spans:
                if np.isfinite(score):
                    text = self.data.span(int(row), int(start), int(end))
                    scores[text] = max(scores.get(text, -np.inf), float(score))
        ranked = [sorted(scores, key=lambda text: -scores[text]) for scores in found.values()]
        return [texts[:NUM_BEST] or [""] for texts in ranked]

    def baseline(self, folder: Path) -> Baseline | None:
        return None if self.config.baseline == "none" else text_baselines.sliding_window(self.data)

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        found = self._answers(outputs, np.arange(len(self.data.eval)))
        questions = self.data.questions
        shown = [
            (questions[i].passage, questions[i].question, _any(questions[i].answers), found[i][0])
            for i in self.held_out(SampleRequest())
        ]
        return [
            Section(
                "Answers",
                "Held-out questions, what answers them, and what the network finds.",
                Table(("passage", "question", "answer", "found"), shown),
            ),
            *self._attention_sections(objects),
        ]

    def _attention_sections(self, objects: Objects) -> list[Section]:
        """Where a held-out question looks in its passage, around the answer."""
        marks = self.data.eval.columns["targets"]
        answered = (i for i in range(len(self.data.eval)) if not marks[i][0])  # in this window
        row = self.data.eval.gather(np.array([next(answered, 0)]))
        query = jax.tree.map(jnp.asarray, self.query(row))
        layers = attention.seen(self.trained(objects), lambda model: self.scores(model, query))
        most, passage, end = attention.NUM_DRAWN, row["passages"][0], row["inputs_lengths"][0]
        answer = (row["targets"][0] & FIRST).argmax()
        begin = np.clip(answer - most // 2, passage, max(passage, end - most))
        tokens = row["inputs"][0, :end]
        return attention.sections(
            [weights[..., begin:] for weights in layers],
            self.readable(tokens[:passage][:most]),
            self.readable(tokens[begin:][:most]),
            title="Attention of the question to the passage",
        )

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        """Held-out questions with their answers and the best of those found, the best first."""
        if request.out is not None or request.prompt is not None:
            raise UserError("answers are those to held-out questions; leave --out and --prompt out")
        asked = self.held_out(request)
        rows = np.flatnonzero(np.isin(self.data.owners, asked))
        query = jax.tree.map(jnp.asarray, self.query(self.data.eval.gather(rows)))
        outputs = jax.device_get(self.predict(objects, query))
        questions = [self.data.questions[i] for i in asked]
        return [
            {
                "passage": row.passage,
                "question": row.question,
                "answer": _any(row.answers),
                "found": answers,
            }
            for row, answers in zip(questions, self._answers(outputs, rows), strict=True)
        ]


def _surprise(logits: jax.Array, wanted: jax.Array) -> jax.Array:
    """`-log Σ p` [B] of the places that are wanted."""
    right = jax.nn.logsumexp(jnp.where(wanted, logits, -jnp.inf), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - right


def _any(answers: tuple[str, ...]) -> str:
    """Answers as text, each wording once."""
    return " / ".join(dict.fromkeys(answers))
