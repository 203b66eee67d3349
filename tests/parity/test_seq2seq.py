"""The LSTM encoder-decoder against one of `torch.nn.LSTM` and PyTorch operations, all gradients."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, randomized, run_on_tokens, weighting
from zoo.models.seq2seq import LSTMSeq2Seq, LSTMSeq2SeqConfig

torch = pytest.importorskip("torch")

CONFIG = LSTMSeq2SeqConfig(vocab_size=31, num_layers=2, dim=16, dropout_rate=0.0)
NUMBERS = np.random.default_rng(0)
SOURCE = NUMBERS.integers(0, 31, (4, 9)).astype(np.int32)
TARGET = NUMBERS.integers(0, 31, (4, 7)).astype(np.int32)
LENGTHS = np.array([9, 4, 6, 1], np.int32)


class TorchSeq2Seq(torch.nn.Module):
    """As the papers print it: one target step after the other, one sum over the source each."""

    def __init__(self, config: LSTMSeq2SeqConfig):
        super().__init__()
        self.num_layers, dim = config.num_layers, config.dim
        own, plain = not config.share_tables, {"bias": False}
        source_size = config.source_vocab_size or config.vocab_size
        self.target = torch.nn.Embedding(config.vocab_size, dim)
        self.source = torch.nn.Embedding(source_size, dim) if own else None
        self.output = torch.nn.Linear(dim, config.vocab_size, **plain) if own else None
        lstm = {"num_layers": config.num_layers, "batch_first": True}
        self.encoder = torch.nn.LSTM(dim, dim // 2, bidirectional=True, **lstm)
        self.decoder = torch.nn.LSTM(dim, dim, **lstm)
        self.start = torch.nn.Linear(dim // 2, config.num_layers * dim, **plain)
        self.query = torch.nn.Linear(dim, dim, **plain)
        self.combine = torch.nn.Linear(2 * dim, dim, **plain)

    def forward(self, source, target, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            (self.source or self.target)(source), lengths, batch_first=True, enforce_sorted=False
        )
        memory, (last, _) = self.encoder(packed)
        memory, _ = torch.nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
        real = torch.arange(memory.shape[1]) < lengths[:, None]
        # The last state of the last pass, which is the backward one of the last layer.
        c = torch.stack(self.start(last[-1]).chunk(self.num_layers, -1))
        h = torch.tanh(c)
        logits = []
        for token in target.T:
            y, (h, c) = self.decoder(self.target(token)[:, None], (h, c))
            y = y[:, 0]
            scores = (memory * self.query(y)[:, None]).sum(-1) / memory.shape[-1] ** 0.5
            weights = scores.masked_fill(~real, -torch.inf).softmax(-1)
            context = (weights[..., None] * memory).sum(1)
            y = torch.tanh(self.combine(torch.cat([context, y], -1)))
            table = self.target.weight if self.output is None else self.output.weight
            logits.append(y @ table.T)
        return torch.stack(logits, 1)


def as_torch(arrays: dict) -> dict[str, np.ndarray]:
    """Our arrays by the twin's names and in its layout; of its two biases ours is the first."""
    twin = {}
    for path, array in arrays.items():
        module, *_, leaf = path.split(".")
        if leaf in ("table", "kernel"):
            weight = np.asarray(array)
            twin[f"{module}.weight"] = weight if leaf == "table" else weight.T
            continue
        number, directions = int(path.split(".")[2]), 2 if module == "encoder" else 1
        layer, backward = divmod(number, directions)
        name = {"w_x": "weight_ih", "w_h": "weight_hh", "b": "bias_ih"}[leaf]
        twin[f"{module}.{name}_l{layer}{'_reverse' * backward}"] = np.asarray(array).T
    return twin


def without_second_biases(named) -> dict:
    return {name: tensor for name, tensor in named if "bias_hh" not in name}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "changes",
    [{"source_vocab_size": 41}, {"share_tables": True}, {"share_tables": True, "num_layers": 1}],
    ids=["three tables", "one table", "one layer"],
)
def test_values_and_gradients(changes, padded):
    config = dataclasses.replace(CONFIG, **changes)
    model = randomized(lambda: LSTMSeq2Seq(config, rngs=nnx.Rngs(0)))
    twin = TorchSeq2Seq(config)
    ours = as_torch(by_path(nnx.state(model)))
    assert ours.keys() == without_second_biases(twin.named_parameters()).keys()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(torch.tensor(ours[name]) if name in ours else torch.zeros(()))

    class Padded(nnx.Module):
        def __init__(self):
            self.model = model

        def __call__(self, source, target, lengths):
            return self.model(source, target, source_lengths=lengths if padded else None)

    logits, gradients = run_on_tokens(Padded(), SOURCE, TARGET, LENGTHS)
    gradients = {path.removeprefix("model."): array for path, array in gradients.items()}
    lengths = LENGTHS if padded else np.full(len(SOURCE), SOURCE.shape[1])
    tokens = (torch.tensor(SOURCE).long(), torch.tensor(TARGET).long())
    expected = twin(*tokens, torch.tensor(lengths).long())
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(logits, expected, kind="composite")
    wanted = {name: p.grad for name, p in without_second_biases(twin.named_parameters()).items()}
    assert_close(as_torch(gradients), wanted, kind="composite")
