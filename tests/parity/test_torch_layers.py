"""Functions and layers against PyTorch: values, and gradients with respect to everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import random, randomized, run, weighting
from zoo import layers
from zoo.functional import activation
from zoo.functional.conv import conv, conv_transpose
from zoo.functional.cross_entropy import sigmoid_cross_entropy, softmax_cross_entropy
from zoo.functional.embed import embed
from zoo.functional.norm import group_norm, layer_norm, rms_norm
from zoo.functional.pooling import avg_pool, max_pool

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def value_and_gradients(function, *arrays):
    """A JAX function's value, and the gradients of its weighted sum in every argument."""
    value, backward = jax.vjp(function, *arrays)
    return value, *backward(weighting(value.shape))


def torch_value_and_gradients(function, *arrays, layout=lambda value: value):
    """The same of a PyTorch function; `layout` brings its value to our axes."""
    tensors = [torch.tensor(np.asarray(array), requires_grad=True) for array in arrays]
    value = layout(function(*tensors))
    value.backward(torch.tensor(weighting(tuple(value.shape))))
    return value, *(tensor.grad for tensor in tensors)


def to_torch(x):
    """Channels last to channels second."""
    return torch.movedim(x, -1, 1)


def to_ours(x):
    return torch.movedim(x, 1, -1)


def kernel_to_torch(kernel):
    """[*window, in, out] to [out, in, *window], for a convolution and for a transposed one."""
    return torch.movedim(kernel, (-1, -2), (0, 1))


CONVS = [functional.conv1d, functional.conv2d, functional.conv3d]
TRANSPOSED = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]


@pytest.mark.parametrize("num_axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 4)]
)
def test_conv(num_axes, stride, padding, dilation, groups):
    x = random(2, *[7] * num_axes, 4)
    kernel, bias = random(*[3] * num_axes, 4 // groups, 8, seed=1), random(8, seed=2)
    settings = {"padding": padding, "dilation": dilation, "groups": groups}
    actual = value_and_gradients(
        lambda x, kernel, bias: conv(x, kernel, bias, strides=stride, **settings), x, kernel, bias
    )
    expected = torch_value_and_gradients(
        lambda x, kernel, bias: CONVS[num_axes - 1](
            to_torch(x), kernel_to_torch(kernel), bias, stride, **settings
        ),
        x, kernel, bias, layout=to_ours,
    )  # fmt: skip
    assert_close(actual, expected)


@pytest.mark.parametrize("num_axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation", "groups"),
    [(1, 0, 0, 1, 1), (2, 1, 1, 1, 2), (3, 2, 2, 2, 4), (2, 0, 1, 2, 1)],
)
def test_conv_transpose(num_axes, stride, padding, output_padding, dilation, groups):
    x = random(2, *[4] * num_axes, 8)
    kernel, bias = random(*[3] * num_axes, 4 // groups, 8, seed=1), random(4, seed=2)
    settings = {
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
    }
    actual = value_and_gradients(
        lambda x, kernel, bias: conv_transpose(x, kernel, bias, strides=stride, **settings),
        x, kernel, bias,
    )  # fmt: skip
    expected = torch_value_and_gradients(
        lambda x, kernel, bias: TRANSPOSED[num_axes - 1](
            to_torch(x), kernel_to_torch(kernel), bias, stride, **settings
        ),
        x, kernel, bias, layout=to_ours,
    )  # fmt: skip
    assert_close(actual, expected)


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1)])
def test_pooling(window, stride, padding):
    # Rounded, so that windows hold ties, whose gradient both give to the first.
    x = jnp.round(random(2, 7, 6, 3))
    ours = {"strides": stride, "padding": padding}
    pairs = [
        (
            lambda x: max_pool(x, window, **ours),
            lambda x: functional.max_pool2d(to_torch(x), window, stride, padding),
        ),
        (
            lambda x: avg_pool(x, window, **ours),
            lambda x: functional.avg_pool2d(to_torch(x), window, stride, padding),
        ),
        (
            lambda x: avg_pool(x, window, count_padding=False, **ours),
            lambda x: functional.avg_pool2d(
                to_torch(x), window, stride, padding, count_include_pad=False
            ),
        ),
    ]
    for function, oracle in pairs:
        expected = torch_value_and_gradients(oracle, x, layout=to_ours)
        assert_close(value_and_gradients(function, x), expected)


def test_layer_group_and_rms_norm():
    x, scale, bias = 2 + random(3, 5, 8), random(8, seed=1), random(8, seed=2)
    assert_close(
        value_and_gradients(layer_norm, x, scale, bias),
        torch_value_and_gradients(
            lambda x, s, b: functional.layer_norm(x, (8,), s, b), x, scale, bias
        ),
    )
    assert_close(
        value_and_gradients(lambda x, s, b: group_norm(x, s, b, num_groups=4), x, scale, bias),
        torch_value_and_gradients(
            lambda x, s, b: functional.group_norm(to_torch(x), 4, s, b),
            x, scale, bias, layout=to_ours,
        ),
    )  # fmt: skip
    assert_close(
        value_and_gradients(lambda x, s: rms_norm(x, s, epsilon=1e-6), x, scale),
        torch_value_and_gradients(lambda x, s: functional.rms_norm(x, (8,), s, 1e-6), x, scale),
    )


ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "gelu_erf": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("name", activation.ACTIVATIONS)
def test_activation(name):
    x = jnp.concatenate([4 * random(200), jnp.zeros(1)])
    assert_close(
        value_and_gradients(activation.ACTIVATIONS[name], x),
        torch_value_and_gradients(ACTIVATIONS[name], x),
    )


def test_softmax():
    x = 5 * random(3, 7)
    expected = torch_value_and_gradients(lambda x: functional.softmax(x, -1), x)
    assert_close(value_and_gradients(activation.softmax, x), expected)


@pytest.mark.parametrize("scale", [1, 1e4])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(scale, label_smoothing):
    logits = scale * random(6, 5)
    labels = np.array([0, 4, 2, 2, 1, 3])
    probabilities = np.asarray(jax.nn.softmax(random(6, 5, seed=1)))
    for targets in (labels, probabilities):
        actual = value_and_gradients(
            lambda z, t=targets: softmax_cross_entropy(z, jnp.asarray(t), label_smoothing), logits
        )
        expected = torch_value_and_gradients(
            lambda z, t=targets: functional.cross_entropy(
                z, torch.tensor(t), reduction="none", label_smoothing=label_smoothing
            ),
            logits,
        )
        assert_close(actual, expected)


def test_sigmoid_cross_entropy():
    logits, targets = 10 * random(9), jax.nn.sigmoid(random(9, seed=1))
    oracle = functional.binary_cross_entropy_with_logits
    expected = torch_value_and_gradients(
        lambda z, t: oracle(z, t, reduction="none"), logits, targets
    )
    assert_close(value_and_gradients(sigmoid_cross_entropy, logits, targets), expected)


def test_embedding():
    tokens = np.array([[0, 3, 3], [9, 1, 0]])
    layer = randomized(lambda: layers.Embed(10, 4, rngs=nnx.Rngs(0)))
    table = layer.table[...]
    expected = torch_value_and_gradients(
        lambda table: functional.embedding(torch.tensor(tokens), table), table
    )
    actual = value_and_gradients(lambda table: embed(jnp.asarray(tokens), table), table)
    assert_close(actual, expected)


def test_batch_norm_with_running_statistics_over_several_steps():
    """PyTorch's running variance is unbiased, ours biased: n / (n - 1) lies between them."""
    batches, n = [1 + 2 * random(4, 3, 3, 5, seed=seed) for seed in range(3)], 4 * 3 * 3
    ours = randomized(lambda: layers.BatchNorm(5, decay=0.8))
    ours.var.set_value(jnp.zeros(5))  # so that all of the variance comes from the batches
    theirs = torch.nn.BatchNorm2d(5, momentum=0.2)
    theirs.load_state_dict(
        {
            "weight": torch.tensor(np.asarray(ours.scale)),
            "bias": torch.tensor(np.asarray(ours.bias)),
            "running_mean": torch.tensor(np.asarray(ours.mean)),
            "running_var": torch.zeros(5),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    for batch in batches:
        actual = run(ours, batch)
        ours(batch)
        theirs.zero_grad()
        x = torch.tensor(np.asarray(batch), requires_grad=True)
        output = to_ours(theirs(to_torch(x)))
        output.backward(torch.tensor(weighting(tuple(output.shape))))
        assert_close(actual.output, output)
        assert_close(actual.input_gradient, x.grad)
        gradients = {"bias": theirs.bias.grad, "scale": theirs.weight.grad}
        assert_close(actual.gradients, gradients)
        assert_close(ours.mean[...], theirs.running_mean)
        assert_close(ours.var[...] * (n / (n - 1)), theirs.running_var)

    ours.var.set_value(jnp.asarray(theirs.running_var.numpy()))
    theirs.eval()
    expected = to_ours(theirs(to_torch(torch.tensor(np.asarray(batches[0])))))
    assert_close(nnx.view(ours, deterministic=True)(batches[0]), expected)
