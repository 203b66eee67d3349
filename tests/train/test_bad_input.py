"""Every mistake that a user can make: one line, exit code 2, and nothing written."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.train import tiny
from tests.train.data.folders import flip_bytes


def check_refused(call, folder: Path, says: str, *words: str | Path) -> None:
    """One line that begins with ``error:`` and matches, exit code 2, and nothing written."""
    before = tiny.tree(folder)
    code, out, err = call(*words)
    err = re.sub(r"^preparing \w+ in .*\n", "", err)  # said once, by whoever needs a set first
    assert out == ""
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert re.search(says, err), err
    assert code == 2
    assert tiny.tree(folder) == before


MISTAKES = [
    ("verb", r"no verb 'runn'; did you mean 'run'\?", "runn"),
    ("recipe", r"no recipe 'digit-mlp'; did you mean 'digits-mlp'\?", "run digit-mlp"),
    ("far recipe", r"no recipe 'qqq'; there are linear-diabetes, ", "run qqq"),
    ("field", r"--stepz.*did you mean --steps\?", "run digits-mlp --stepz 3"),
    (
        "model field",
        r"--model.hiden-dims.*did you mean --model.hidden-dims\?",
        "run digits-mlp --model.hiden-dims 3",
    ),
    (
        "field of another model",
        r"--model.conv-dims",
        "run digits-mlp --model.conv-dims 3",
    ),
    ("no number", r"--steps.*many", "run digits-mlp --steps many"),
    ("zero steps", r"steps=0 must be at least 1", "run digits-mlp --steps 0"),
    ("rate", r"dropout_rate=1.5 must lie in", "run digits-mlp --model.dropout-rate 1.5"),
    ("lr", r"peak_lr=-1.0 must be positive", "run digits-mlp --optim.peak-lr -1"),
    ("choice", r"invalid choice 'sgd'|sgd", "run digits-mlp --optim.name sgd"),
    ("missing value", r"--steps", "run digits-mlp --steps"),
    ("seed", r"seed=-1 must not be negative", "run digits-mlp --seed -1"),
    (
        "data",
        r"unknown data set 'mnist_5'; did you mean 'mnist_5k'\?",
        "run digits-mlp --data mnist_5",
    ),
    (
        "tfds",
        r"unknown data set 'tfds:cifar11'; did you mean 'tfds:cifar10_1'\?",
        "run digits-mlp --data tfds:cifar11",
    ),
    (
        "unprepared",
        r"data set 'tfds:cifar10' is not prepared in .*download_and_prepare",
        "run digits-mlp --data tfds:cifar10",
    ),
    (
        "split",
        r"no split 'val'; it has test, train: choose with --data.train-split and --data.eval-split",
        "run digits-mlp --data.eval-split val",
    ),
    (
        "no rows",
        r"has no rows; at least one is needed",
        "run digits-mlp --data.eval-split test[:0]",
    ),
    ("data dir", r"data folder nowhere does not exist", "run digits-mlp --data-dir nowhere"),
    ("batch", r"batch size 999999 is larger than the train", "run digits-mlp --batch-size 999999"),
    ("regression data", r"'diabetes' has real-valued targets", "run digits-mlp --data diabetes"),
    (
        "class data",
        r"'breast_cancer' has 2 classes; a regression needs",
        "run linear-diabetes --data breast_cancer",
    ),
    (
        "images to a table model",
        r"mnist_5k.*LinearRegression|mnist_5k.*classes",
        "run linear-diabetes --data mnist_5k",
    ),
    (
        "table to a convolution",
        r"shape \(height, width, channels\), the data's are of shape \(30,\)",
        "run digits-convnet --data breast_cancer --task.augment.shift 0",
    ),
    (
        "augmented table",
        r"only images can be augmented",
        "run digits-convnet --data breast_cancer",
    ),
    ("no folder", r"runs/none is no run folder: it has no config.json", "eval runs/none"),
    ("sample nothing", r"is no run folder", "sample runs/none"),
    ("export nothing", r"is no run folder", "export runs/none --format safetensors --out x"),
    ("format", r"onnx", "export runs/none --format onnx --out x"),
    ("no out", r"--out", "export runs/none --format safetensors"),
    ("eval without folder", r"missing from .*: PATH A folder that `run` wrote", "eval"),
    (
        "resume",
        r"--resume.*sometimes|sometimes",
        "run digits-mlp --resume sometimes",
    ),
]


@pytest.mark.parametrize(
    ("says", "words"), [row[1:] for row in MISTAKES], ids=[r[0] for r in MISTAKES]
)
def test_mistake_is_one_line(call, tmp_path, says, words):
    check_refused(call, tmp_path, says, *words.split())


def test_shift_larger_than_the_image(call, tmp_path):
    says = "augmentation shift=28 must be smaller than the image's shorter side, 28"
    words = tiny.fields("digits-convnet", "--task.augment.shift 28")
    check_refused(call, tmp_path, says, "run", "digits-convnet", *words)


@pytest.fixture
def own_data(tmp_path_factory) -> Path:
    return tiny.images(tmp_path_factory.mktemp("data"))


RUN = ("run", "digits-mlp", "--batch-size", "8", "--data-dir")


def test_corrupt_records(call, tmp_path, own_data):
    for path in own_data.glob("*.array_record-*"):
        flip_bytes(path)
    check_refused(call, tmp_path, r"split '\w+' of .* is corrupt", *RUN, own_data)


def test_corrupt_description(call, tmp_path, own_data):
    flip_bytes(own_data / "dataset_info.json")
    check_refused(call, tmp_path, r"is damaged: TFDS cannot read its description", *RUN, own_data)


def test_labels_out_of_range(call, tmp_path, own_data):
    (own_data / "label.labels.txt").unlink(missing_ok=True)
    features = own_data / "features.json"
    text = features.read_text()
    assert text.count('"numClasses": "3"') == 1
    features.write_text(text.replace('"numClasses": "3"', '"numClasses": "2"'))
    check_refused(call, tmp_path, r"has label 2, labels must lie in 0\.\.1", *RUN, own_data)


def test_zero_length_data(call, tmp_path, own_data):
    info = own_data / "dataset_info.json"
    content = json.loads(info.read_text())
    for split in content["splits"]:
        split["shardLengths"] = []
    info.write_text(json.dumps(content))
    check_refused(call, tmp_path, r"split 'train' of .* has no rows", *RUN, own_data)


def test_images_too_small_for_the_network(call, tmp_path, tmp_path_factory):
    small = tiny.images(tmp_path_factory.mktemp("data"), side=3)
    says = r"image_size=\(3, 3\) is too small for 2 poolings"
    words = ("run", "digits-convnet", "--batch-size", "8", "--data-dir", small)
    check_refused(call, tmp_path, says, *words)


def test_a_folder_that_is_no_data(call, tmp_path):
    check_refused(call, tmp_path.parent, "is not a prepared TFDS folder", *RUN, tmp_path)


# --- Work folders that are not to be written to -------------------------------------------------


def run_words(name: str, folder: Path, *more: str) -> list[str | Path]:
    return ["run", name, "--workdir", folder, *tiny.fields(name, *more)]


def test_the_folder_of_another_recipe(call, finished):
    says = "holds a run of 'digits-mlp', not of 'logistic-cancer'; name another folder"
    check_refused(call, finished, says, *run_words("logistic-cancer", finished))
    never = "--resume never"
    check_refused(call, finished, says, *run_words("logistic-cancer", finished, never))


def test_the_folder_of_another_config(call, finished):
    says = (
        r"another config \(there, here\): optim.peak_lr: 0.001, 0.5; steps: 8, 9; .*--resume never"
    )
    more = "--steps 9 --optim.peak-lr 0.5"
    check_refused(call, finished, says, *run_words("digits-mlp", finished, more))


def test_a_foreign_folder(call, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("It was a dark and stormy night")
    for more in ("", "--resume never"):
        words = run_words("digits-mlp", Path("thesis"), more)
        check_refused(call, tmp_path, "thesis is not empty and holds no run", *words)


def test_a_foreign_config(call, tmp_path):
    """Other programs have a config.json and a folder of checkpoints as well."""
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    (tmp_path / "other/checkpoints/weights").write_text("precious")
    for text, says in (
        ('{"hidden_size": 768}', "is of recipe None, which does not exist here"),
        ('{"name": "gpt-9"}', "is of recipe 'gpt-9', which does not exist here"),
        ('["name"]', "is of recipe None"),
        ('{"name": ["digits-mlp"]}', r"is of recipe \['digits-mlp'\]"),
        ('{"name": "digits-', "config.json is damaged"),
    ):
        (tmp_path / "other/config.json").write_text(text)
        for more in ("", "--resume never"):
            words = run_words("digits-mlp", Path("other"), more)
            check_refused(call, tmp_path, says, *words)
        check_refused(call, tmp_path, says, "eval", "other")


def test_a_work_folder_that_is_a_file(call, tmp_path):
    (tmp_path / "file").write_text("text")
    says = "file is a file; name a folder"
    check_refused(call, tmp_path, says, *run_words("digits-mlp", Path("file")))
    says = "file/run.*cannot be|file is a file"
    check_refused(call, tmp_path, says, *run_words("linear-diabetes", Path("file/run")))


@pytest.fixture
def read_only(tmp_path_factory):
    """A folder that cannot be written to: by its permissions, or for root by its mount."""
    folder = tmp_path_factory.mktemp("mount") / "fixed"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("root may write everywhere and may not mount; /proc is tested below")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_work_folder(call, read_only):
    says = "fixed is read-only; name another folder"
    for folder in (read_only, read_only / "deep/run"):
        check_refused(call, read_only, says, *run_words("linear-diabetes", folder))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
def test_a_place_where_nobody_can_write(call, tmp_path):
    says = "/proc/nowhere.*(cannot be written|is read-only).*name another folder"
    check_refused(call, tmp_path, says, *run_words("linear-diabetes", Path("/proc/nowhere")))


def test_a_run_folder_without_a_checkpoint(call, finished, tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_bytes((finished / "config.json").read_bytes())
    says = "young holds no readable checkpoint; run its recipe again"
    check_refused(call, tmp_path, says, "eval", folder)


def test_a_damaged_result(call, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = (folder / "result.json").read_text()
    (folder / "result.json").write_text(before[:50])
    says = "result.json is damaged .*; remove it and run again"
    check_refused(call, tmp_path, says, *run_words("digits-mlp", folder))
    (folder / "result.json").unlink()  # as advised
    assert call(*run_words("digits-mlp", folder))[0] == 0
    again = json.loads((folder / "result.json").read_text())
    assert again["params_sha256"] == json.loads(before)["params_sha256"]


def test_mistakes_after_training(call, finished, finished_table, tmp_path):
    check_refused(
        call, tmp_path, r"--num 51: the evaluation split has 50", "sample", finished, "--num", "51"
    )
    check_refused(call, tmp_path, r"num=0 must be at least 1", "sample", finished, "--num", "0")
    check_refused(call, tmp_path, "no picture", "sample", finished_table, "--out", "x.png")
    for out, says in (
        ("x.docx", r"x\.docx: it must end in \.png or \.svg or \.pdf"),
        ("nowhere/x.png", "nowhere"),
    ):
        check_refused(call, tmp_path, says, "sample", finished, "--out", out)
    for out, says in (
        ("nowhere/x", "there is no folder nowhere"),
        (".", "is a folder; name a file"),
    ):
        words = ("export", finished, "--format", "safetensors", "--out", out)
        check_refused(call, tmp_path, says, *words)


def test_mistakes_in_a_process_of_their_own(run_cli, tmp_path):
    """Nothing of the libraries beneath comes through either: no warning, no traceback."""
    for words in ("run digits-mlp --stepz 3", "run digits-mlp --data diabetes"):
        done = run_cli(*words.split())
        assert done.code == 2
        assert done.stdout == ""
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert not list(tmp_path.iterdir())
