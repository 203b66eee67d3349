"""BERT and its heads against `transformers`: outputs and the gradient of every parameter."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, randomized, run_on_tokens, weighting
from zoo.models.bert import BERT, BERTConfig, Classifier, MaskedWords, Spans, Tagger

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = BERTConfig(
    vocab_size=31, context=12, num_segments=3, num_layers=2, num_heads=4, dim=16, hidden_dim=24,
    dropout_rate=0.0,
)  # fmt: skip
NUMBERS = np.random.default_rng(0)
TOKENS = NUMBERS.integers(0, 31, (3, 9)).astype(np.int32)
SEGMENTS = NUMBERS.integers(0, 3, (3, 9)).astype(np.int32)
LENGTHS = np.array([9, 4, 6], np.int32)
REAL = np.arange(9) < LENGTHS[:, None]
PLACES = {
    "encoder.tokens.table": "bert.embeddings.word_embeddings.weight",
    "encoder.positions.table": "bert.embeddings.position_embeddings.weight",
    "encoder.segments.table": "bert.embeddings.token_type_embeddings.weight",
    "encoder.norm": "bert.embeddings.LayerNorm",
    "encoder.pooler": "bert.pooler.dense",
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norm2": "output.LayerNorm",
    "head.transform": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head.bias": "cls.predictions.bias",
}


def as_twin(arrays: dict, head: str) -> dict[str, np.ndarray]:
    """Our arrays by the names and in the layout of `transformers`."""
    twin = {}
    for path, array in arrays.items():
        array = np.asarray(array).T  # [in, out] to [out, in]
        if path in PLACES:
            twin[PLACES[path]] = array.T
            continue
        layer, leaf = path.rsplit(".", 1)
        prefix, leaf = "", "bias" if leaf == "bias" else "weight"
        if layer.startswith("encoder.blocks.blocks."):
            number, layer = layer.removeprefix("encoder.blocks.blocks.").split(".", 1)
            prefix = f"bert.encoder.layer.{number}."
        if layer == "attention.qkv":
            for name, part in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                twin[f"{prefix}attention.self.{name}.{leaf}"] = part
        else:
            twin[f"{prefix}{PLACES.get(layer, head)}.{leaf}"] = array
    return twin


def joined_biases(gradients: dict) -> dict:
    """The biases of queries, keys and values as one array, as ours are.

    A key's bias adds the same to all scores of a query, which softmax does not see: its gradient
    is 0 but for rounding, and by itself would have nothing to be compared with.
    """
    joined = dict(gradients)
    for name in gradients:
        if name.endswith("query.bias"):
            parts = [joined.pop(name.replace("query", part)) for part in ("query", "key", "value")]
            joined[name] = np.concatenate(parts)
    return joined


class WithHead(nnx.Module):
    """The encoder, a head, and what stands between them."""

    def __init__(self, head, config: BERTConfig, joined):
        self.encoder = BERT(config, rngs=nnx.Rngs(0))
        self.head = head(config)
        self.joined = joined

    def __call__(self, tokens, lengths, segments):
        return self.joined(self.encoder, self.head, self.encoder(tokens, lengths, segments))


def compare(head, joined, twin_class: str, twin_head: str = "", *, read, pooled=False, **twin):
    """`read` gives the twin's outputs as one tensor, padding left out as in `joined`."""
    config = BERTConfig(**(vars(CONFIG) | {"pooled": pooled}))
    model = randomized(lambda: WithHead(head, config, joined))
    other = getattr(transformers, twin_class)(
        transformers.BertConfig(
            vocab_size=31, max_position_embeddings=12, type_vocab_size=3, num_hidden_layers=2,
            num_attention_heads=4, hidden_size=16, intermediate_size=24,
            pad_token_id=None,  # its embedding would get no gradient
            **twin,
        )
    ).eval()  # fmt: skip
    parameters = dict(other.named_parameters())
    ours = as_twin(by_path(nnx.state(model)), twin_head)
    assert ours.keys() == parameters.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(ours[name]))

    output, gradients = run_on_tokens(model, TOKENS, LENGTHS, SEGMENTS)
    expected = read(
        other(
            input_ids=torch.tensor(TOKENS, dtype=torch.long),
            attention_mask=torch.tensor(REAL, dtype=torch.long),
            token_type_ids=torch.tensor(SEGMENTS, dtype=torch.long),
        )
    )
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(output, expected, kind="composite")
    wanted = {
        name: np.zeros(p.shape) if p.grad is None else p.grad for name, p in parameters.items()
    }
    gradients = as_twin(gradients, twin_head)
    assert_close(joined_biases(gradients), joined_biases(wanted), kind="composite")


def real(output):
    """Without the padding, whose vectors mean nothing."""
    return output[REAL]


def test_masked_words():
    compare(
        lambda config: MaskedWords(config, rngs=nnx.Rngs(0)),
        lambda encoder, head, x: real(head(x, encoder.tokens.table[...])),
        "BertForMaskedLM",
        read=lambda output: real(output.logits),
    )


def test_classifier():
    compare(
        lambda config: Classifier(config, 5, rngs=nnx.Rngs(0)),
        lambda encoder, head, x: head(encoder.pool(x)),
        "BertForSequenceClassification",
        "classifier",
        read=lambda output: output.logits,
        pooled=True,
        num_labels=5,
    )


def test_tagger():
    compare(
        lambda config: Tagger(config, 5, rngs=nnx.Rngs(0)),
        lambda encoder, head, x: real(head(x)),
        "BertForTokenClassification",
        "classifier",
        read=lambda output: real(output.logits),
        num_labels=5,
    )


def test_spans():
    compare(
        lambda config: Spans(config, rngs=nnx.Rngs(0)),
        lambda encoder, head, x: jnp.stack(
            [real(logits) for logits in head(x, jnp.asarray(LENGTHS))]
        ),
        "BertForQuestionAnswering",
        "qa_outputs",
        read=lambda output: torch.stack([real(output.start_logits), real(output.end_logits)]),
    )
