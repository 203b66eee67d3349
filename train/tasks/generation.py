"""What all tasks share that make digits out of noise: how they are measured, shown and drawn.

Every held-out image comes with latents of its own, drawn once and for all, so that two evaluations
differ in nothing but the weights.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Integer, UInt8

import zoo
from train import baselines, figures
from train.config import Recipe
from train.data import AugmentConfig, load
from train.data.augment import augment
from train.data.dataset import ArraySource
from train.digit_judge import CLASSES, IMAGE_SHAPE, NUM_CLASSES, DigitJudge
from train.errors import UserError
from train.generative_metrics import frechet_distance, nearest, precision_recall
from train.gradient import Batch
from train.report import Section, Table
from train.step import Objects
from train.sync import Sync
from train.task import Baseline, Outputs, SampleRequest, Task

NUM_MOMENTS = 8  # rows of the gallery: after 1/128, 1/64, ... and all of the steps
NUM_SHOWN = 8  # images in a row
NUM_WALKS = 4  # rows of the walk between latents
EVALUATION, GALLERY, SAMPLES = range(3)  # streams of latents that share no number


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What networks see of the images, and how many of their own are measured."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)  # of all that a network sees
    samples_per_image: int = 10  # generated for each held-out image when it is evaluated

    def __post_init__(self):
        if self.samples_per_image < 1:
            raise ValueError(f"samples_per_image={self.samples_per_image} must be at least 1")
        if self.augment.mixup:
            raise ValueError(
                f"augment.mixup={self.augment.mixup} mixes images with others, and a generator "
                "would learn to make mixtures: leave it at 0"
            )


def standard_normal(stream: int, seed: int, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """The latents of one of the streams."""
    return np.random.default_rng((stream, seed)).standard_normal(shape, np.float32)


def slerp(
    start: Float[np.ndarray, "*Z"], end: Float[np.ndarray, "*Z"], num: int
) -> Float[np.ndarray, "N *Z"]:
    """``sin((1-μ)θ)/sin θ · a + sin(μθ)/sin θ · b`` for N values of μ from 0 to 1.

    Between two latents of about the same length, all on the way have that length too, which those
    on a straight line would not (White 2016, "Sampling generative networks", section 2).
    """
    cosine = np.vdot(start, end) / (np.linalg.norm(start) * np.linalg.norm(end))
    angle, way = np.arccos(cosine), np.linspace(0, 1, num).reshape(-1, *[1] * start.ndim)
    on_the_way = np.sin((1 - way) * angle) * start + np.sin(way * angle) * end
    return (on_the_way / np.sin(angle)).astype(np.float32)


class Gallery(nnx.Module):
    """What a few fixed latents became after ever more steps; a part of every checkpoint."""

    def __init__(self, steps: int):
        self.moments = tuple(max(steps >> n, 1) for n in reversed(range(NUM_MOMENTS)))
        self.images = nnx.Variable(jnp.zeros((NUM_MOMENTS, NUM_SHOWN, *IMAGE_SHAPE), jnp.uint8))

    def hang(self, step: Integer[Array, ""], draw: Callable[[], UInt8[Array, "N I J C"]]) -> None:
        """Keeps what ``draw`` gives for the latents if this step is one of the moments."""
        due = (jnp.asarray(self.moments) == step)[:, None, None, None, None]
        images = self.images[...]
        self.images[...] = jax.lax.cond(
            due.any(), lambda: jnp.where(due, draw()[None], images), lambda: images
        )


class Generation(Task):
    """Digits from latents, and from a class where the model knows of any.

    Images are -1 (black) to 1 inside the models, and 0 to 255 outside.
    """

    takes_label = True

    def __init__(self, recipe: Recipe, data: Any, ops: zoo.Ops):
        shape = (len(data.eval), recipe.task.samples_per_image, *self.latent_shape(recipe))
        latents = standard_normal(EVALUATION, 0, shape)
        held_out = ArraySource({**data.eval.arrays(), "latents": latents})
        super().__init__(recipe, dataclasses.replace(data, eval=held_out), ops)
        self.judge = DigitJudge(ops)

    @classmethod
    def load(cls, recipe: Recipe, folder: Path | None = None) -> Any:
        data = load(recipe.data)
        if data.input_shape != IMAGE_SHAPE or data.class_names != CLASSES:
            raise UserError(
                f"data {data.name!r} has inputs of shape {data.input_shape} in {data.num_classes} "
                f"classes; the judge of generated images knows the digits 0 to 9 in the shape "
                f"{IMAGE_SHAPE}: use mnist_5k or tfds:mnist"
            )
        return data

    # --- What networks see ----------------------------------------------------------------------

    def from_pixels(self, pixels: Array) -> Float[Array, "B I J C"]:
        """0 to 255 as -1 to 1, in the compute dtype."""
        return (pixels.astype(jnp.float32) / 127.5 - 1).astype(self.recipe.compute_dtype)

    @staticmethod
    def to_pixels(images: Float[Array, "B I J C"]) -> Float[Array, "B I J C"]:
        """-1 to 1 as 0 to 255, in float32, not rounded."""
        return jnp.clip((images.astype(jnp.float32) + 1) * 127.5, 0, 255)

    def labels(self, batch: Batch) -> Int[Array, " B"] | None:
        """The classes that the model is told, if it is told any."""
        return batch["targets"] if self.is_conditional else None

    def augmented(
        self, key: Array, images: Float[Array, "B I J C"], sync: Sync = Sync()
    ) -> Float[Array, "B I J C"]:
        """Images of -1 to 1 moved and cut as `task.augment` says."""
        if self.recipe.task.augment == AugmentConfig():
            return images

        def moved(images: Array) -> Array:
            unused = jnp.zeros((len(images), 1))
            # Augmentation fills with 0, which is black only where black is 0.
            return augment(self.recipe.task.augment, key, images + 1, unused)[0] - 1

        return sync.whole(moved, images)

    # --- What a kind of generator must say ------------------------------------------------------

    @staticmethod
    def latent_shape(recipe: Recipe) -> tuple[int, ...]:
        """The shape of one image's noise."""
        raise NotImplementedError

    def generate(
        self, objects: Objects, latents: Array, labels: Int[Array, " B"] | None
    ) -> Float[Array, "B I J C"]:
        """Images from noise, by weights as they are; it changes no object."""
        raise NotImplementedError

    # --- Measured -------------------------------------------------------------------------------

    @property
    def is_conditional(self) -> bool:
        """Whether the model is told a class."""
        return self.recipe.model.num_classes is not None

    def pixels(self, objects: Objects, latents: Array, labels: Array | None) -> Float[Array, "..."]:
        """What evaluations see of :meth:`generate`: averaged weights, 0 to 255, not rounded."""
        return self.to_pixels(self.generate(self.evaluated(objects), latents, labels))

    def eval_step(self, objects: Objects, batch: Batch) -> dict[str, jax.Array]:
        latents, target = batch["latents"], batch["targets"]
        rows, each = latents.shape[:2]
        labels = jnp.repeat(target, each) if self.is_conditional else None
        images = self.pixels(objects, latents.reshape(rows * each, *latents.shape[2:]), labels)
        return self.judged(images, batch)

    def judged(self, images: Float[Array, "N I J C"], batch: Batch) -> dict[str, jax.Array]:
        """What the judge sees of the images made for a batch, and of the batch's own."""
        rows, each = batch["latents"].shape[:2]
        features, probabilities = self.judge(images)
        return {
            "features": features.reshape(rows, each, -1),
            "class": probabilities.argmax(-1).reshape(rows, each),
            "real_features": self.judge(batch["inputs"])[0],
            "target": batch["targets"],
        }

    @cached_property
    def floor(self) -> float:
        """digit-FID of the train split: what real digits reach."""
        return self.digit_fid(self.data.train.arrays()["inputs"])

    def digit_fid(self, images: UInt8[np.ndarray, "N I J C"]) -> float:
        """The Fréchet distance of such images from the held-out ones, as the judge sees both."""
        real, features = map(self.judge.features, (self.data.eval.arrays()["inputs"], images))
        return frechet_distance(real, features)

    def baseline(self, folder: Path) -> Baseline | None:
        if self.recipe.task.baseline == "none":
            return None
        if self.recipe.task.baseline == "digits-gan":
            return baselines.digits_gan(self.recipe, folder)
        num = len(self.data.eval) * self.recipe.task.samples_per_image
        return baselines.gaussian_digits(self.data, num, self.digit_fid)

    def summarise(self, outputs: Outputs) -> dict[str, float]:
        real, features, classes = (outputs[k] for k in ("real_features", "features", "class"))
        # One for one: the k-th neighbour is the nearer, the more there are.
        precision, recall = precision_recall(real, features[:, 0])
        shares = np.bincount(classes.ravel(), minlength=NUM_CLASSES) / classes.size
        summary = {
            "digit_fid": frechet_distance(real, features.reshape(-1, features.shape[-1])),
            "digit_fid_floor": self.floor,
            "smallest_class_share": float(shares.min()),
            "precision": precision,
            "recall": recall,
        }
        if self.is_conditional:
            summary["label_accuracy"] = float(np.mean(classes == outputs["target"][:, None]))
        return summary

    # --- Shown ----------------------------------------------------------------------------------

    def query(self, batch: Any) -> dict[str, Any]:
        asked = {"latents": batch["latents"][:, 0]}
        return {**asked, "labels": batch["targets"]} if self.is_conditional else asked

    def predict(self, objects: Objects, inputs: Any) -> dict[str, jax.Array]:
        pixels = self.pixels(objects, inputs["latents"], inputs.get("labels"))
        return {"images": jnp.round(pixels).astype(jnp.uint8)}

    def draw(
        self, objects: Objects, latents: Float[np.ndarray, "N *Z"], labels: np.ndarray
    ) -> UInt8[np.ndarray, "N I J C"]:
        """Images on the host; the labels are for a model that is told some."""
        graphdef, state = nnx.split(objects)
        asked = self.query({"latents": latents[:, None], "targets": labels})
        predict = jax.jit(lambda state, asked: self.predict(nnx.merge(graphdef, state), asked))
        return np.asarray(predict(state, asked)["images"])

    def fixed_images(self, objects: Objects) -> UInt8[Array, "N I J C"]:
        """What the latents of the gallery become now."""
        latents = standard_normal(GALLERY, 0, (NUM_SHOWN, *self.latent_shape(self.recipe)))
        labels = jnp.arange(NUM_SHOWN) % NUM_CLASSES
        asked = {"latents": jnp.asarray(latents)[:, None], "targets": labels}
        return self.predict(objects, self.query(asked))["images"]

    def sections(self, objects: Objects, outputs: Outputs) -> list[Section]:
        gallery, known = objects["gallery"], self.data.train.arrays()["inputs"]
        grid, walks = self._grid(objects), self._walks(objects)
        shown = (grid[:, 0] if self.is_conditional else grid[0])[:NUM_SHOWN]
        pairs = np.stack([shown, known[nearest(shown, known)]])
        counts = np.bincount(outputs["class"].ravel(), minlength=NUM_CLASSES)
        shares = [f"{share:.1%}" for share in counts / counts.sum()]
        names = self.data.class_names
        return [
            Section(
                "Digits out of noise",
                "A row has one class, a column one latent."
                if self.is_conditional
                else "Each from a latent that training never saw.",
                figures.image_rows_figure(grid, names if self.is_conditional else ()),
            ),
            Section(
                "The same noise as it learns",
                "A column has one latent; the number of steps stands before its row.",
                figures.image_rows_figure(
                    np.asarray(gallery.images[...]), [f"{step:,}" for step in gallery.moments]
                ),
            ),
            Section(
                "Walks between latents",
                "Each row goes from one latent to another, on a great circle.",
                figures.image_rows_figure(walks),
            ),
            Section(
                "The most similar training digits",
                f"Below each generated digit, of {len(known):,} the one whose pixels are nearest: "
                "a copy would show.",
                figures.image_rows_figure(pairs, ("generated", "training")),
            ),
            Section(
                "How often each class",
                f"Of {counts.sum():,} generated digits, by the judge's class.",
                Table(("class", *names), [("share", *shares)]),
            ),
        ]

    def _grid(self, objects: Objects) -> UInt8[np.ndarray, "R N I J C"]:
        """Rows of generated digits; one a class where the model is told one."""
        num_latents = NUM_SHOWN if self.is_conditional else NUM_SHOWN * NUM_SHOWN
        latents = standard_normal(SAMPLES, 0, (num_latents, *self.latent_shape(self.recipe)))
        labels = np.zeros(num_latents, np.int32)
        if self.is_conditional:
            labels = np.repeat(np.arange(NUM_CLASSES, dtype=np.int32), NUM_SHOWN)
            latents = np.concatenate([latents] * NUM_CLASSES)
        images = self.draw(objects, latents, labels)
        return images.reshape(-1, NUM_SHOWN, *IMAGE_SHAPE)

    def _walks(self, objects: Objects) -> UInt8[np.ndarray, "R N I J C"]:
        """Rows of digits on the way from one latent to another, each of one class."""
        ends = standard_normal(SAMPLES, 1, (NUM_WALKS, 2, *self.latent_shape(self.recipe)))
        latents = np.concatenate([slerp(start, end, NUM_SHOWN) for start, end in ends])
        labels = np.repeat(np.arange(NUM_WALKS, dtype=np.int32), NUM_SHOWN)
        return self.draw(objects, latents, labels).reshape(-1, NUM_SHOWN, *IMAGE_SHAPE)

    def sample(self, objects: Objects, request: SampleRequest) -> list[dict[str, Any]]:
        num, label = request.num or 16, request.label
        if request.prompt is not None:
            raise UserError(
                f"--prompt: recipe {self.recipe.name!r} is no language model; leave it out"
            )
        if label is not None and not self.is_conditional:
            raise UserError(
                f"--label {label}: recipe {self.recipe.name!r} knows of no classes; leave it out, "
                f"or train with --model.num-classes {NUM_CLASSES}"
            )
        if label is not None and not 0 <= label < NUM_CLASSES:
            raise UserError(f"--label {label}: classes are 0 to {NUM_CLASSES - 1}")
        labels = (np.arange(num) % NUM_CLASSES if label is None else np.full(num, label)).astype(
            np.int32
        )
        latents = standard_normal(SAMPLES, request.seed, (num, *self.latent_shape(self.recipe)))
        images = self.draw(objects, latents, labels)
        if request.out:
            columns = math.ceil(math.sqrt(num))
            blank = np.full((-num % columns, *IMAGE_SHAPE), 255, np.uint8)
            grid = np.concatenate([images, blank]).reshape(-1, columns, *IMAGE_SHAPE)
            figures.image_rows_figure(grid).savefig(request.out)
        probabilities = np.asarray(self.judge(jnp.asarray(images))[1])
        asked = [{"asked": int(label)} if self.is_conditional else {} for label in labels]
        return [
            {"sample": i, **told, "class": int(row.argmax()), "probability": float(row.max())}
            for i, (told, row) in enumerate(zip(asked, probabilities, strict=True))
        ]
