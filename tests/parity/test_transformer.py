"""The Transformer against PyTorch's blocks and Marian of `transformers`, with all gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, randomized, run_on_tokens, weighting
from zoo.functional.beam_search import beam_search
from zoo.functional.position import sinusoidal
from zoo.models.transformer import Transformer, TransformerConfig

torch = pytest.importorskip("torch")

CONFIG = TransformerConfig(
    vocab_size=31, num_layers=2, num_heads=4, dim=16, hidden_dim=24, dropout_rate=0.0
)
NUMBERS = np.random.default_rng(0)
SOURCE = NUMBERS.integers(0, 30, (3, 9)).astype(np.int32)
TARGET = NUMBERS.integers(0, 30, (3, 7)).astype(np.int32)
LENGTHS = np.array([9, 4, 6], np.int32)
START, END = 1, 17  # an end that the random model often comes to
REAL = np.arange(9) < LENGTHS[:, None]


def set_parameters(twin, ours: dict) -> None:
    """Give the twin our parameters; each of its own must have one, and the reverse."""
    parameters = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    assert ours.keys() == parameters.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(ours[name]))


def gradients_of(twin) -> dict:
    return {name: p.grad.numpy() for name, p in twin.named_parameters() if p.requires_grad}


class TorchTransformer(torch.nn.Module):
    """`torch.nn.Transformer` between our embeddings and output, which it leaves to its user."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        sizes = config.dim, config.num_heads, config.hidden_dim
        options = {"dropout": 0.0, "batch_first": True, "norm_first": config.pre_norm}

        def norm():  # after the last block; the paper's order needs none there
            return torch.nn.LayerNorm(config.dim) if config.pre_norm else None

        nested = {"enable_nested_tensor": False}
        encoder = torch.nn.TransformerEncoderLayer(*sizes, **options)
        decoder = torch.nn.TransformerDecoderLayer(*sizes, **options)
        self.transformer = torch.nn.Transformer(
            *sizes[:2],
            batch_first=True,
            custom_encoder=torch.nn.TransformerEncoder(
                encoder, config.num_layers, norm(), **nested
            ),
            custom_decoder=torch.nn.TransformerDecoder(decoder, config.num_layers, norm()),
        )
        self.source = torch.nn.Embedding(config.source_vocab_size, config.dim)
        self.target = torch.nn.Embedding(config.vocab_size, config.dim)
        self.output = torch.nn.Linear(config.dim, config.vocab_size, bias=False)

    def forward(self, source, target):
        def embed(table, tokens):
            positions = torch.tensor(np.asarray(sinusoidal(tokens.shape[1], 16)))
            return 4.0 * table(tokens) + positions  # 4 is the root of the width, 16

        padding = torch.tensor(~REAL)
        y = self.transformer(
            embed(self.source, source),
            embed(self.target, target),
            tgt_mask=torch.nn.Transformer.generate_square_subsequent_mask(target.shape[1]),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.output(y)


def as_torch(arrays: dict) -> dict[str, np.ndarray]:
    """Our arrays by the names and in the layout of `torch.nn.Transformer`."""
    twin = {}
    for path, array in arrays.items():
        layer, leaf = path.rsplit(".", 1)
        if leaf == "table":
            twin[f"{layer}.weight"] = np.asarray(array)
            continue
        for ours, theirs in {
            "encoder.blocks": "transformer.encoder.layers",
            "decoder.blocks": "transformer.decoder.layers",
            "encoder_norm": "transformer.encoder.norm",
            "decoder_norm": "transformer.decoder.norm",
            ".attention.qkv": ".self_attn.in_proj",
            ".cross.qkv": ".multihead_attn.in_proj",
            ".attention.out": ".self_attn.out_proj",
            ".cross.out": ".multihead_attn.out_proj",
            ".mlp.up": ".linear1",
            ".mlp.down": ".linear2",
            ".residual1.norm": ".norm1",
            ".residual2.norm": ".norm2",
            ".residual3.norm": ".norm3",
        }.items():
            layer = layer.replace(ours, theirs)
        leaf = "bias" if leaf == "bias" else "weight"
        joint = "_" if layer.endswith("in_proj") else "."
        twin[f"{layer}{joint}{leaf}"] = np.asarray(array).T  # [in, out] to [out, in]
    return twin


@pytest.mark.parametrize("pre_norm", [False, True])
def test_blocks_are_those_of_pytorch(pre_norm):
    config = dataclasses.replace(
        CONFIG, pre_norm=pre_norm, share_tables=False, source_vocab_size=41
    )
    model = randomized(lambda: Transformer(config, rngs=nnx.Rngs(0)))
    twin = TorchTransformer(config)
    set_parameters(twin, as_torch(by_path(nnx.state(model))))

    class Padded(nnx.Module):
        def __init__(self):
            self.model = model

        def __call__(self, source, target, lengths):
            return self.model(source, target, source_lengths=lengths)

    logits, gradients = run_on_tokens(Padded(), SOURCE, TARGET, LENGTHS)
    gradients = {path.removeprefix("model."): array for path, array in gradients.items()}
    expected = twin(torch.tensor(SOURCE).long(), torch.tensor(TARGET).long())
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(logits, expected, kind="composite")
    assert_close(as_torch(gradients), gradients_of(twin), kind="composite")


def as_marian(arrays: dict) -> dict[str, np.ndarray]:
    """Our arrays by the names and in the layout of Marian."""
    twin = {}
    for path, array in arrays.items():
        if path == "target.table":
            twin["model.shared.weight"] = np.asarray(array)
            continue
        last = 3 if path.startswith("decoder") else 2
        for ours, theirs in {
            ".blocks.": ".layers.",
            ".attention.": ".self_attn.",
            ".cross.": ".encoder_attn.",
            ".out.": ".out_proj.",
            ".mlp.up.": ".fc1.",
            ".mlp.down.": ".fc2.",
            ".residual1.norm.": ".self_attn_layer_norm.",
            ".residual2.norm.": ".encoder_attn_layer_norm.",
            f".residual{last}.norm.": ".final_layer_norm.",
            ".kernel": ".weight",
            ".scale": ".weight",
        }.items():
            path = path.replace(ours, theirs)
        array = np.asarray(array).T  # [in, out] to [out, in]
        if ".qkv." in path:
            for name, part in zip("qkv", np.split(array, 3), strict=True):
                twin[f"model.{path}".replace(".qkv.", f".{name}_proj.")] = part
        else:
            twin[f"model.{path}"] = array
    return twin


def joined_biases(gradients: dict) -> dict:
    """The biases of queries, keys and values as one array: a key's has the gradient 0 but for
    rounding, as softmax does not see it, and by itself would have nothing to be compared with."""
    joined = dict(gradients)
    for name in gradients:
        if name.endswith("q_proj.bias"):
            parts = [joined.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            joined[name] = np.concatenate(parts)
    return joined


@pytest.fixture(scope="module")
def marian():
    """A Marian with the parameters of our model, which it shares between its three tables."""
    transformers = pytest.importorskip("transformers")
    model = randomized(lambda: Transformer(CONFIG, rngs=nnx.Rngs(0)))
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 24}.items()
    }
    twin = transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=31, d_model=16, activation_function="relu", scale_embedding=True,
            max_position_embeddings=12, pad_token_id=30, eos_token_id=END, forced_eos_token_id=None,
            decoder_start_token_id=START, **sizes,
        )
    ).eval()  # fmt: skip
    set_parameters(twin, as_marian(by_path(nnx.state(model))))
    # Marian's sines come all before its cosines; ours take turns, as the paper's.
    positions = np.asarray(sinusoidal(12, 16))
    for side in (twin.model.encoder, twin.model.decoder):
        table = side.embed_positions.weight
        assert_close(np.concatenate([positions[:, ::2], positions[:, 1::2]], 1), table)
        with torch.no_grad():
            table.copy_(torch.tensor(positions))
    return model, twin


def test_marian(marian):
    model, twin = marian
    logits, gradients = run_on_tokens(model, SOURCE, TARGET)
    expected = twin(
        input_ids=torch.tensor(SOURCE).long(), decoder_input_ids=torch.tensor(TARGET).long()
    ).logits
    expected.backward(torch.tensor(weighting(tuple(expected.shape))))
    assert_close(logits, expected, kind="composite")
    wanted = joined_biases(gradients_of(twin))
    assert_close(joined_biases(as_marian(gradients)), wanted, kind="composite")


def test_beam_search_is_that_of_transformers(marian):
    """Its length penalty is another, so both search without one."""
    model, twin = marian
    expected = twin.generate(
        torch.tensor(SOURCE).long(), attention_mask=torch.tensor(REAL).long(), num_beams=3,
        num_return_sequences=3, max_new_tokens=8, length_penalty=0.0, early_stopping=True,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip

    @jax.jit
    def translate(source, lengths):
        caches = model.empty_caches(model.encode(source, lengths), 8)
        first = jnp.full(len(source), START)
        return beam_search(
            model.step, caches, first, beam_size=3, max_tokens=8, end_token=END, alpha=0.0,
            batch_axes=model.batch_axes,
        )  # fmt: skip

    tokens, scores = translate(SOURCE, LENGTHS)
    assert_close(scores.reshape(-1), expected.sequences_scores, kind="composite")
    found = expected.sequences[:, 1:].numpy()
    padded = np.full((9, 8), 30)
    padded[:, : found.shape[1]] = found
    assert (np.where(padded == 30, END, padded) == np.asarray(tokens).reshape(9, 8)).all()
    assert (found == END).any(), "some hypotheses end by themselves"
