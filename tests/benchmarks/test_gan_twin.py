"""The PyTorch twin of digits-gan: it learns, is measured as the recipe is, and shifts images."""

import io

import numpy as np
import pytest
from rich.console import Console

import kernels
from tests.train import tiny
from train.tasks.adversarial import Adversarial

torch = pytest.importorskip("torch")
gan_twin = pytest.importorskip("benchmarks.gan_twin")


def test_a_run_is_measured_as_the_recipe_is():
    recipe = tiny.recipe("digits-gan")
    said = io.StringIO()
    console = Console(file=said)
    once, again = (gan_twin.train(recipe, 3, console) for _ in range(2))
    assert once["metrics"] == again["metrics"]
    assert {"digit_fid", "smallest_class_share", "precision"} <= set(once["metrics"])
    assert once["metrics"] != gan_twin.train(recipe, 4, console)["metrics"]
    assert "seed 3: step 8/8" in said.getvalue()


def test_its_images_are_judged_by_the_recipes_latents():
    """A generator that ignores its noise and always gives the first held-out digit."""
    recipe = tiny.recipe("digits-gan")
    task = Adversarial(recipe, Adversarial.load(recipe), kernels.best())
    digit = task.data.eval.arrays()["inputs"][:1].transpose(0, 3, 1, 2) / 127.5 - 1
    always = torch.tensor(digit, dtype=torch.float32)

    class Always(torch.nn.Module):
        def forward(self, z):
            return always.expand(len(z), -1, -1, -1)

    scores = gan_twin.measured(task, Always())
    assert scores["smallest_class_share"] == 0  # one class only
    assert scores["digit_fid"] > scores["digit_fid_floor"]


def test_shifts_are_of_whole_pixels_and_fill_with_black():
    torch.manual_seed(0)
    images = torch.full((64, 1, 9, 9), -1.0)
    images[:, :, 4, 4] = 1
    moved = gan_twin.shifted(images, 2).numpy()
    _, _, rows, columns = np.nonzero(moved == 1)
    assert len(rows) == 64 and (moved == -1).sum() == 64 * 80
    assert set(rows) == set(columns) == {2, 3, 4, 5, 6}
    assert len({*zip(rows, columns, strict=True)}) > 15  # rows and columns move on their own
    assert gan_twin.shifted(images, 0) is images
