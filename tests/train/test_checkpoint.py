"""Checkpoints: bitwise back, the right ones kept, and damage found wherever it is."""

import asyncio
import gc
import itertools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.checkpoint import DAMAGED, Checkpoints, digest
from train.config import CheckpointConfig

PATHS = ["model/layers/0/kernel", "model/layers/0/bias", "optimizer/step", "rngs/dropout/key"]
PROGRESS = {
    "data": {"next_batch": 7, "batch_size": 4, "seed": 0, "num_rows": 64},
    "window": {"train/loss": 0.1 + 0.2},
    "seconds": {"train": 1.25},
}


def leaves(seed: int = 0) -> list[jax.Array]:
    """A float matrix with odd values, a bfloat16 vector, a counter and a typed random key."""
    matrix = np.random.default_rng(seed).normal(size=(33, 17)).astype(np.float32)
    matrix[0, :4] = [-0.0, np.inf, 1e-42, np.finfo(np.float32).max]
    return [
        jnp.asarray(matrix),
        jnp.arange(5, dtype=jnp.bfloat16) / 3 + seed,
        jnp.asarray(seed, jnp.int32),
        jax.random.key(seed),
    ]


def bits(arrays) -> list[bytes]:
    plain = [
        jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
        for a in arrays
    ]
    return [np.asarray(a).tobytes() for a in plain]


def opened(folder: Path, *, keep: int = 2, direction: str = "max", **keywords) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(keep=keep), "accuracy", direction, **keywords)


def save(folder: Path, scores: dict[int, float | None], **keywords) -> list[int]:
    """Saves the arrays of seed s at each step s; returns the steps that are kept."""
    checkpoints = opened(folder, **keywords)
    for step, score in scores.items():
        metrics = None if score is None else {"accuracy": score, "loss": 1.0}
        checkpoints.save(step, PATHS, leaves(step), PROGRESS, metrics)
    checkpoints.close()
    return sorted(int(path.name) for path in folder.iterdir())


def restore(folder: Path, **keywords):
    said: list[str] = []
    checkpoints = opened(folder, **keywords)
    found = checkpoints.restore(PATHS, leaves(), said.append)
    checkpoints.close()
    return found, said


def test_arrays_come_back_bit_for_bit(tmp_path):
    save(tmp_path / "c", {3: 0.5})
    found, said = restore(tmp_path / "c")
    assert not said
    assert found is not None
    assert found.step == 3
    assert bits(found.leaves) == bits(leaves(3))
    assert [leaf.dtype for leaf in found.leaves] == [leaf.dtype for leaf in leaves(3)]
    assert PROGRESS.items() <= found.progress.items()
    ours, theirs = (jax.random.normal(key, (4,)) for key in (found.leaves[3], leaves(3)[3]))
    assert np.array_equal(ours, theirs)


def test_there_is_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "c") == (None, [])


def test_the_step_after_a_save_may_overwrite_its_arrays(tmp_path):
    """The training step donates its buffers while Orbax may still be writing them."""
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros((512, 1024), jnp.float32)
    checkpoints = Checkpoints(tmp_path / "c", CheckpointConfig(keep=9), "accuracy", "max")
    for number in range(1, 5):
        x = step(x)
        checkpoints.save(number, ["x"], [x], {})
        for _ in range(10):
            x = step(x)
    checkpoints.wait()
    for number, start in zip(range(1, 5), range(1, 99, 11), strict=False):
        found = checkpoints._read(number, ["x"], [x])
        assert np.array_equal(found.leaves[0], np.full(x.shape, start, np.float32))
    checkpoints.close()


def test_the_newest_and_the_best_are_kept(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.5, 4: None, 5: 0.7, 6: 0.8}
    assert save(tmp_path / "max", scores) == [2, 5, 6]
    assert save(tmp_path / "min", scores, direction="min", keep=1) == [1, 6]
    assert save(tmp_path / "none", dict.fromkeys(range(1, 6)), keep=3) == [3, 4, 5]
    assert save(tmp_path / "equal", dict.fromkeys(range(1, 6), 0.5), keep=1) == [5]


def test_the_best_is_kept_over_a_restart(tmp_path):
    folder = tmp_path / "c"
    assert save(folder, {1: 0.1, 2: 0.9, 3: 0.5}, keep=1) == [2, 3]
    assert save(folder, {4: 0.6, 5: 0.7}, keep=1) == [2, 5]
    assert save(folder, {6: 0.95}, keep=1) == [6]


# --- Damage ---------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    save(folder, {1: 0.5, 2: 0.6})
    return folder


@pytest.fixture
def copy(two_checkpoints, tmp_path) -> Path:
    return Path(shutil.copytree(two_checkpoints, tmp_path / "checkpoints"))


def check_harmless_or_found(folder: Path, what: str) -> bool:
    """Restores a folder whose newest checkpoint was damaged; returns whether that was found."""
    found, said = restore(folder)
    assert found is not None, what
    if found.step == 2:
        assert not said, what
        assert bits(found.leaves) == bits(leaves(2)), f"{what}: wrong arrays, and nobody noticed"
        assert PROGRESS.items() <= found.progress.items(), f"{what}: wrong progress"
        return False
    assert found.step == 1, what
    assert bits(found.leaves) == bits(leaves(1)), what
    assert PROGRESS.items() <= found.progress.items(), what
    aside = folder.parent / DAMAGED / "2"
    assert aside.is_dir(), what
    assert len(said) == 1, what
    assert said[0].startswith("checkpoint 2 is damaged ("), what
    assert said[0].endswith(f"moved to {aside}"), what
    assert "\n" not in said[0], what
    assert not (folder / "2").exists(), what
    return True


def damage_each_file(original: Path, folder: Path, damage: Callable[[Path], None]) -> set[str]:
    """Damages one file of checkpoint 2 after the other; returns those in which it was found."""
    found = set()
    for path in files_of(original / "2"):
        name = str(path.relative_to(original / "2"))
        shutil.rmtree(folder.parent / DAMAGED, ignore_errors=True)
        shutil.rmtree(folder)
        shutil.copytree(original, folder)
        damage(folder / "2" / name)
        if check_harmless_or_found(folder, name):
            found.add(name)
    return found


def holds_data(name: str) -> bool:
    return "/d/" in name or name == "progress/metadata"


def flip(path: Path, position: int, mask: int = 0x01) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("where", [0.05, 0.5, 0.95])
def test_a_flipped_bit_in_any_file_is_harmless_or_found(two_checkpoints, copy, where):
    def damage(path: Path) -> None:
        size = path.stat().st_size
        if size:
            flip(path, int(where * (size - 1)))

    found = damage_each_file(two_checkpoints, copy, damage)
    assert any(holds_data(name) for name in found)


def test_every_bit_of_the_progress_counts(two_checkpoints, copy):
    """Its JSON stays valid under many flips: 7 becomes 6, and other batches would be trained on."""
    size = (two_checkpoints / "2/progress/metadata").stat().st_size
    found = 0
    for position in range(0, size, 37):
        shutil.rmtree(copy.parent / DAMAGED, ignore_errors=True)
        shutil.rmtree(copy)
        shutil.copytree(two_checkpoints, copy)
        flip(copy / "2/progress/metadata", position, 0x01)
        found += check_harmless_or_found(copy, f"byte {position}")
    assert found > 0.9 * size / 37


def test_a_truncated_file_is_harmless_or_found(two_checkpoints, copy):
    def halve(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    found = damage_each_file(two_checkpoints, copy, halve)
    assert any(holds_data(name) for name in found)
    assert "progress/metadata" in found


def test_a_missing_file_is_harmless_or_found(two_checkpoints, copy):
    found = damage_each_file(two_checkpoints, copy, Path.unlink)
    assert "progress/metadata" in found


def test_all_damaged(copy):
    for step in ("1", "2"):
        os.truncate(copy / step / "progress/metadata", 5)
    found, said = restore(copy)
    assert found is None
    assert [line.split(" is damaged")[0] for line in said[:2]] == ["checkpoint 2", "checkpoint 1"]
    assert said[2] == "no readable checkpoint is left: starting again from step 0"
    assert sorted(path.name for path in (copy.parent / DAMAGED).iterdir()) == ["1", "2"]
    assert save(copy, {1: 0.5}) == [1]  # the numbers are free again


def test_a_second_damaged_checkpoint_of_the_same_step_is_set_aside_too(copy):
    for attempt, name in enumerate(("2", "2-2")):
        os.truncate(copy / "2" / "progress/metadata", 5)
        _, said = restore(copy)
        assert said[0].endswith(str(copy.parent / DAMAGED / name)), attempt
        save(copy, {2: 0.5})


def test_a_look_touches_nothing(copy):
    os.truncate(copy / "2" / "progress/metadata", 5)
    unfinished = copy / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = files_of(copy.parent)
    found, said = restore(copy, read_only=True)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert "moved" not in said[0]
    assert files_of(copy.parent) == before
    assert unfinished.is_dir()  # a run that is going on may be writing it


def test_leftovers_of_a_killed_save_are_removed(copy):
    leftover = copy / "3.orbax-checkpoint-tmp"
    shutil.copytree(copy / "2" / "arrays", leftover / "arrays")
    found, said = restore(copy)
    assert found is not None
    assert found.step == 2
    assert not said
    save(copy, {4: 0.5})  # Orbax clears up in the background, and waits for it before it saves
    assert not leftover.exists()


@pytest.mark.parametrize(
    "like",
    [
        lambda old: [old[0][:-1], *old[1:]],  # another shape
        lambda old: [old[0].astype(jnp.bfloat16), *old[1:]],  # another type
    ],
)
def test_arrays_that_do_not_fit_are_not_bent(copy, like):
    checkpoints = opened(copy)
    said: list[str] = []
    assert checkpoints.restore(PATHS, like(leaves()), said.append) is None
    assert len(said) == 3
    checkpoints.close()


def test_digest_depends_on_everything_but_the_order():
    base = digest(PATHS, leaves())
    assert digest(PATHS[::-1], leaves()[::-1]) == base
    for i in range(len(PATHS)):
        other = leaves()
        other[i] = leaves(1)[i]
        assert digest(PATHS, other) != base
    assert digest(["x", *PATHS[1:]], leaves()) != base
    assert digest(["a"], [jnp.zeros(4)]) != digest(["a"], [jnp.zeros((2, 2))])
    assert digest(["a"], [jnp.zeros(4)]) != digest(["a"], [jnp.zeros(4, jnp.int32)])


# --- A full disk ------------------------------------------------------------------------------

FILL = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from train.checkpoint import Checkpoints
from train.config import CheckpointConfig
from train.errors import UserError

folder, limit, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
checkpoints = Checkpoints(folder, CheckpointConfig(keep=9), "accuracy", "max")
checkpoints.save(1, ["x"], [jnp.arange(1000.0)], {})
checkpoints.wait()
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
import numpy as np
x = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)  # nothing to compress
try:
    for step in range(2, 50):
        checkpoints.save(step, ["x"], [x], {})
        checkpoints.wait()
except UserError as error:
    print(error)
    raise SystemExit(7)
"""


def check_full_disk(folder: Path, limit: int, size: int) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(folder), str(limit), str(size)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 7, done.stderr[-2000:]
    assert done.stdout.startswith(f"the disk of {folder} is full"), done.stdout
    assert "earlier checkpoints are whole" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_file_size_limit_is_told_as_a_full_disk(tmp_path):
    folder = tmp_path / "c"
    check_full_disk(folder, limit=100_000, size=200_000)
    checkpoints = Checkpoints(folder, CheckpointConfig(), "accuracy", "max")
    found = checkpoints.restore(["x"], [jnp.zeros(1000)], pytest.fail)
    checkpoints.close()
    assert found is not None
    assert found.step == 1
    assert np.array_equal(found.leaves[0], np.arange(1000.0))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of four megabytes, where this user may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("only root mounts a small disk; the file size limit is tested everywhere")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk):
    folder = small_disk / "c"
    check_full_disk(folder, limit=0, size=300_000)
    checkpoints = Checkpoints(folder, CheckpointConfig(keep=9), "accuracy", "max", read_only=True)
    found = checkpoints.restore(["x"], [jnp.zeros(300_000)], pytest.fail)
    checkpoints.close()
    assert found is not None
    assert found.step >= 2
    assert math.isclose(float(found.leaves[0].std()), 1.0, rel_tol=0.05)


@pytest.mark.parametrize("together", [False, True], ids=["a task", "gathered"])
@pytest.mark.parametrize(("library", "told"), [("orbax", 0), ("aiofiles", 1)])
def test_what_orbax_gives_up_is_not_told(library, told, together, caplog):
    """When one array meets a full disk, asyncio reports the others, and nobody waits for them."""
    space = {}
    text = "async def write():\n    raise ValueError('File too large')"
    exec(compile(text, f"/site-packages/{library}/write.py", "exec"), space)

    async def abandon():
        write = space["write"]()
        future = asyncio.gather(write) if together else asyncio.ensure_future(write)
        while not future.done():
            await asyncio.sleep(0)

    asyncio.run(abandon())
    gc.collect()
    assert len(caplog.records) == told


def test_other_errors_keep_their_names(tmp_path):
    checkpoints = opened(tmp_path / "c")
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(1, ["x"], [jnp.zeros(2)], {"odd": itertools.count()})
    checkpoints.close()
