"""LSTM, GRU and RNN against PyTorch: layers, both directions, padding; values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, weighting
from zoo import layers
from zoo.functional import recurrent

torch = pytest.importorskip("torch")

BATCH, STEPS, IN_DIM, DIM = 4, 7, 3, 5
LENGTHS = [7, 2, 5, 1]
KINDS = ["LSTM", "GRU", "RNN"]


def twin(ours, kind, num_layers, bidirectional):
    """The stock module with our weights; our LSTM's and RNN's one bias is its first, its second 0.

    PyTorch's GRU has the gates in our order, r, z, n, and so has its LSTM, i, f, g, o.
    """
    stock = getattr(torch.nn, kind)(
        IN_DIM, DIM, num_layers, bidirectional=bidirectional, batch_first=True
    )
    weights = {}
    for one_pass, names in zip(ours.passes, stock.all_weights, strict=True):
        second = getattr(one_pass, "b_h", jnp.zeros_like(one_pass.b))
        arrays = (one_pass.w_x.T, one_pass.w_h.T, one_pass.b, second)
        weights |= dict(zip(map(id, names), arrays, strict=True))
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.copy_(torch.tensor(np.asarray(weights[id(parameter)])))
    return stock


def run_ours(module, x, state, mask):
    """Outputs, last state, and the gradients of a weighting of both."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def everything(params, x, state):
        def forward(params, x, state):
            return nnx.merge(graphdef, params, rest)(x, state, mask=mask)

        values, backward = jax.vjp(forward, params, x, state)
        return values, backward(jax.tree.map(lambda y: jnp.asarray(weighting(y.shape)), values))

    values, (in_params, in_x, in_state) = everything(params, x, state)
    return jax.tree.leaves(values), jax.tree.leaves((in_x, in_state)), by_path(in_params)


def run_torch(stock, x, state, lengths):
    x, *state = (torch.tensor(np.asarray(a), requires_grad=True) for a in (x, *state))
    inputs = x
    if lengths is not None:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
    outputs, last = stock(inputs, tuple(state) if len(state) == 2 else state[0])
    if lengths is not None:
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    values = [outputs, *(last if len(state) == 2 else [last])]
    torch.autograd.backward(values, [torch.tensor(weighting(tuple(v.shape))) for v in values])
    return values, [x.grad, *(s.grad for s in state)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("num_layers", "bidirectional"), [(1, False), (1, True), (2, False), (3, True)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, num_layers, bidirectional, lengths):
    ours = randomized(
        lambda: getattr(layers, kind)(
            IN_DIM, DIM, rngs=nnx.Rngs(0), num_layers=num_layers, bidirectional=bidirectional
        )
    )
    stock = twin(ours, kind, num_layers, bidirectional)
    shape = (num_layers * (1 + bidirectional), BATCH, DIM)
    state = [random(*shape, seed=seed) for seed in (1, 2)[: 1 + (kind == "LSTM")]]
    carry = recurrent.LSTMState(*state) if kind == "LSTM" else state[0]
    mask = None if lengths is None else recurrent.length_mask(jnp.array(lengths), STEPS)
    x = random(BATCH, STEPS, IN_DIM)
    values, gradients, in_parameters = run_ours(ours, x, carry, mask)
    expected_values, expected_gradients = run_torch(stock, x, state, lengths)
    kind_of_error = "leaf" if num_layers == 1 else "composite"
    assert_close(values, expected_values, kind=kind_of_error)
    assert_close(gradients, expected_gradients, kind=kind_of_error)
    for index, (w_x, w_h, b, b_h) in enumerate(stock.all_weights):
        expected = {"w_x": w_x.grad.T, "w_h": w_h.grad.T, "b": b.grad}
        expected |= {"b_h": b_h.grad} if kind == "GRU" else {}
        for name, gradient in expected.items():
            ours_gradient = in_parameters[f"passes.{index}.{name}"]
            assert_close(ours_gradient, gradient, kind=kind_of_error)


def test_cells():
    """One step of each, against PyTorch's cells."""
    x, h, c = random(BATCH, IN_DIM), random(BATCH, DIM, seed=1), random(BATCH, DIM, seed=2)
    for kind, num_gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        w_x, w_h = random(IN_DIM, num_gates * DIM, seed=3), random(DIM, num_gates * DIM, seed=4)
        b_x, b_h = random(num_gates * DIM, seed=5), random(num_gates * DIM, seed=6)
        stock = getattr(torch.nn, f"{kind}Cell")(IN_DIM, DIM)
        with torch.no_grad():
            for parameter, array in zip(stock.parameters(), (w_x.T, w_h.T, b_x, b_h), strict=True):
                parameter.copy_(torch.tensor(np.asarray(array)))
        x_, h_, c_ = (torch.tensor(np.asarray(a)) for a in (x, h, c))
        if kind == "LSTM":
            actual = recurrent.lstm_cell(x, h, c, w_x, w_h, b_x + b_h)
            assert_close(list(actual), list(stock(x_, (h_, c_))))
        elif kind == "GRU":
            assert_close(recurrent.gru_cell(x, h, w_x, w_h, b_x, b_h), stock(x_, h_))
        else:
            assert_close(recurrent.rnn_cell(x, h, w_x, w_h, b_x + b_h), stock(x_, h_))
