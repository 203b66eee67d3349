"""The U-Net, the noise schedule, its posterior and Euler's steps against `diffusers`."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.close import assert_close
from tests.zoo.compare import by_path, random, randomized, run_on_tokens, weighting
from zoo.functional import diffusion
from zoo.functional.resize import space_to_depth
from zoo.models.diffusion import UNet, UNetConfig

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

PLAIN = UNetConfig(
    image_size=8,
    in_channels=2,
    patch_size=1,
    width=8,
    multipliers=(1, 2, 1),
    attention=(False, True, False),
    num_blocks=2,
    num_groups=4,
)
SMALL = dataclasses.replace(PLAIN, multipliers=(1, 2), attention=(False, True))
CONFIGS = {
    "plain": PLAIN,
    "heads": dataclasses.replace(PLAIN, num_heads=2, attention=(True, True, False), num_blocks=1),
    "classes": dataclasses.replace(
        PLAIN, num_classes=3, multipliers=(1, 2), attention=(False,) * 2
    ),
    "patches": dataclasses.replace(
        PLAIN, patch_size=2, multipliers=(1, 2), attention=(False, True)
    ),
}
TIMES = jnp.array([0.125, 0.5, 0.875])

NAMES = (
    (r"^(first)\.", "conv_in."),
    (r"^(last)\.", "conv_out."),
    (r"^(norm)\.", "conv_norm_out."),
    (r"^time(\d)\.", r"time_embedding.linear_\1."),
    (r"^classes\.table", "class_embedding.weight"),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.(norm3|attention)", r"\1_blocks.\2.attentions.\3.\4"),
    (r"^(down|up)\.(\d+)\.blocks\.(\d+)\.", r"\1_blocks.\2.resnets.\3."),
    (r"^down\.(\d+)\.resample\.", r"down_blocks.\1.downsamplers.0.conv."),
    (r"^up\.(\d+)\.resample\.", r"up_blocks.\1.upsamplers.0.conv."),
    (r"^middle\.(\d+)\.(norm3|attention)", r"mid_block.attentions.\1.\2"),
    (r"^middle\.(\d+)\.", r"mid_block.resnets.\1."),
    (r"\.norm3\.", ".group_norm."),
    (r"\.attention\.out\.", ".to_out.0."),
    (r"\.attention\.qkv\.", ".qkv."),
    (r"\.time\.", ".time_emb_proj."),
    (r"\.straight\.", ".conv_shortcut."),
    (r"(\.kernel|\.scale)$", ".weight"),
)


def as_theirs(ours) -> dict[str, np.ndarray]:
    """Parameters or their gradients by the names, and in the layouts, of `diffusers`."""
    named = {}
    for path, value in ours.items():
        value = np.asarray(value)
        if path == "time1.kernel":  # sines and cosines in turn here; all cosines, all sines there
            value = np.concatenate([value[1::2], value[::2]])
        for pattern, name in NAMES:
            path = re.sub(pattern, name, path)
        if value.ndim > 1 and path != "class_embedding.weight":
            value = np.moveaxis(value, (-1, -2), (0, 1))
        if ".qkv." in path:
            parts = np.split(value, 3)
            named |= {
                path.replace(".qkv.", f".to_{part}."): array
                for part, array in zip("qkv", parts, strict=True)
            }
        else:
            named[path] = value
    return named


def joined(gradients) -> dict[str, np.ndarray]:
    """With queries, keys and values as one: a bias of the keys changes nothing, by rounding."""
    found = {name: np.asarray(value) for name, value in gradients.items() if ".to_k." not in name}
    for name in [name for name in found if ".to_q." in name]:
        three = [gradients[name.replace(".to_q.", f".to_{part}.")] for part in "qkv"]
        found[name] = np.concatenate([np.asarray(part) for part in three])
    return found


def twin(config: UNetConfig):
    names = {True: ("AttnDownBlock2D", "AttnUpBlock2D"), False: ("DownBlock2D", "UpBlock2D")}
    channels = config.in_channels * config.patch_size**2
    widths = [config.width * multiplier for multiplier in config.multipliers]
    return diffusers.UNet2DModel(
        sample_size=config.image_size // config.patch_size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=config.num_blocks,
        block_out_channels=widths,
        norm_num_groups=config.num_groups,
        down_block_types=[names[looks][0] for looks in config.attention],
        up_block_types=[names[looks][1] for looks in reversed(config.attention)],
        attention_head_dim=None,
        num_class_embeds=config.num_classes and config.num_classes + 1,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_unet(name):
    config = CONFIGS[name]
    model = randomized(lambda: UNet(config, rngs=nnx.Rngs(0)))
    labels = None if config.num_classes is None else jnp.array([2, 0, 3])
    theirs = twin(config)
    for block in theirs.modules():  # how many heads follow from their width there
        if isinstance(block, diffusers.models.attention_processor.Attention):
            block.heads = config.num_heads
    parameters = {k: torch.tensor(v) for k, v in as_theirs(by_path(nnx.state(model))).items()}
    theirs.load_state_dict(parameters)

    x = random(3, 8, 8, 2)
    output, gradients = run_on_tokens(model, x, TIMES, labels)
    cut = np.array(space_to_depth(x, config.patch_size))
    expected = theirs(
        torch.tensor(cut).movedim(-1, 1),
        torch.tensor(np.array(1000 * TIMES)),
        None if labels is None else torch.tensor(np.array(labels)),
    ).sample.movedim(1, -1)
    assert_close(space_to_depth(output, config.patch_size), expected, kind="composite")
    weights = space_to_depth(jnp.asarray(weighting(output.shape)), config.patch_size)
    expected.backward(torch.tensor(np.array(weights)))
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert_close(joined(as_theirs(gradients)), joined(wanted), kind="composite")


def test_cosine_schedule():
    theirs = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    ours = diffusion.cosine_schedule(1000)
    assert_close(ours[1:], theirs.alphas_cumprod, kind="composite")  # theirs is summed in float32


@pytest.mark.parametrize("step", [1, 500, 999])
def test_posterior(step):
    """Its mean is the previous sample of their scheduler, whose noise is taken away."""
    theirs = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    theirs.alphas_cumprod = torch.tensor(diffusion.cosine_schedule(1000)[1:])
    x, noise = random(2, 4, 4, 1), random(2, 4, 4, 1, seed=1)
    bars = diffusion.cosine_schedule(1000)
    now, before = (jnp.full(2, bars[index]) for index in (step + 1, step))
    image = diffusion.denoise(x, noise, now)
    mean, variance = diffusion.posterior(image, x, now, before)
    draws = torch.Generator().manual_seed(3)
    found = theirs.step(
        torch.tensor(np.array(noise)), step, torch.tensor(np.array(x)), generator=draws
    )
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    assert_close(image, found.pred_original_sample, kind="composite")
    assert_close(mean + jnp.sqrt(variance) * fresh.numpy(), found.prev_sample, kind="composite")


def test_noise_is_mixed_in_alike():
    theirs = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    image, noise = random(3, 4, 4, 1), random(3, 4, 4, 1, seed=1)
    steps = np.array([0, 400, 998])
    expected = theirs.add_noise(*(torch.tensor(np.array(x)) for x in (image, noise, steps)))
    found = diffusion.diffuse(image, noise, jnp.asarray(diffusion.cosine_schedule(1000)[steps + 1]))
    assert_close(found, expected, kind="composite")


def test_euler():
    """Their time is how much noise there is, 1 - t, and their velocity points at the noise."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    start = random(2, 3, 3, 1)
    x = torch.tensor(np.array(start))
    for time, sigma in zip(theirs.timesteps, [1.0, 0.75, 0.5, 0.25], strict=True):
        velocity = -(torch.sin(x) * (1 - sigma) + x**2 / 9)
        x = theirs.step(velocity, time, x).prev_sample

    def velocity_of(x, t):
        return jnp.sin(x) * t[:, None, None, None] + x**2 / 9

    assert_close(diffusion.euler(velocity_of, start, 4), x)
