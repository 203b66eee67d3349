"""Prepared TFDS folders: what can be read, and one clear line for what cannot."""

import json

import numpy as np
import pytest

from tests.train.data.folders import F, as_tfrecord, flip_bytes, png, write_set
from train.data import DataConfig, load, train_batches
from train.errors import UserError

RNG = np.random.default_rng(0)
LABEL = F.ClassLabel(names=["a", "b", "c"])
PIXELS = F.Tensor(shape=(6, 6, 1), dtype=np.uint8)


def pictures(count: int, shape: tuple[int, ...] = (6, 6, 1)) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


def labelled(images, **more):
    return [{"image": image, "label": i % 3, **more} for i, image in enumerate(images)]


def failure(**config) -> str:
    """The message of the one-line error that loading ends in."""
    with pytest.raises(UserError) as caught:
        load(DataConfig(**config))
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    train, test = pictures(20), pictures(7)
    folder = write_set(
        tmp_path_factory.mktemp("tensors"),
        {"image": PIXELS, "label": LABEL},
        {"train": labelled(train), "test": labelled(test)},
    )
    return folder, train, test


def check_equal(data, train, test):
    np.testing.assert_array_equal(data.train.arrays()["inputs"], train)
    np.testing.assert_array_equal(data.eval.arrays()["inputs"], test)
    np.testing.assert_array_equal(data.train.arrays()["targets"], np.arange(len(train)) % 3)


def test_version_set_and_data_folders_are_all_accepted(tensors, monkeypatch):
    folder, train, test = tensors
    for place, name in ((folder, "mnist_5k"), (folder.parent, "mnist_5k"), (folder, "tfds:tiny")):
        data = load(DataConfig(name=name, data_dir=place))
        check_equal(data, train, test)
        assert data.class_names == ("a", "b", "c") and data.name.endswith("tiny")
    check_equal(load(DataConfig(name="tfds:tiny", data_dir=folder.parents[1])), train, test)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder.parents[1]))
    check_equal(load(DataConfig(name="tfds:tiny")), train, test)
    check_equal(load(DataConfig(name="tfds:tiny:1.0.0")), train, test)


def test_split_slices(tensors):
    data = load(DataConfig(data_dir=tensors[0], train_split="train[:15]", eval_split="train[15:]"))
    check_equal(data, tensors[1][:15], tensors[1][15:])


@pytest.mark.parametrize("channels", [1, 3])
def test_image_features_decode_without_tensorflow(tmp_path, channels):
    train, test = pictures(12, (6, 5, channels)), pictures(4, (6, 5, channels))
    folder = write_set(
        tmp_path,
        {"image": F.Image(shape=(6, 5, channels)), "label": LABEL},
        {"train": labelled(map(png, train)), "test": labelled(map(png, test))},
    )
    check_equal(load(DataConfig(data_dir=folder)), train, test)


def test_tfrecord_files_and_bytes_encodings(tmp_path):
    for encoding in ("none", "bytes", "zlib"):
        train, test = pictures(9), pictures(3)
        folder = write_set(
            tmp_path,
            {
                "image": F.Tensor(shape=(6, 6, 1), dtype=np.uint8, encoding=encoding),
                "label": LABEL,
            },
            {"train": labelled(train), "test": labelled(test)},
            name=f"tiny_{encoding}",
        )
        check_equal(load(DataConfig(data_dir=folder)), train, test)
        as_tfrecord(folder)
        check_equal(load(DataConfig(data_dir=folder)), train, test)


def test_a_tfrecord_file_cut_short(tmp_path):
    rows = labelled(pictures(9))
    folder = write_set(tmp_path, {"image": PIXELS, "label": LABEL}, {"train": rows, "test": rows})
    as_tfrecord(folder)
    path = next(folder.glob("*train.tfrecord*"))
    whole = path.read_bytes()
    for kept in (len(whole) - 60, len(whole) // 2, 5):
        path.write_bytes(whole[:kept])
        assert "corrupt" in failure(data_dir=folder)
    path.unlink()
    assert "corrupt" in failure(data_dir=folder)


def test_grey_images_without_a_channel_gain_one(tmp_path):
    rows = labelled(pictures(5, (4, 4)))
    features = {"image": F.Tensor(shape=(4, 4), dtype=np.uint8), "label": LABEL}
    folder = write_set(tmp_path, features, {"train": rows, "test": labelled(pictures(2, (4, 4)))})
    assert load(DataConfig(data_dir=folder)).input_shape == (4, 4, 1)


def test_images_of_many_sizes_want_resize(tmp_path):
    sizes = [(8, 8, 3), (10, 12, 3), (9, 8, 3)]
    rows = labelled([png(pictures(1, size)[0]) for size in sizes])
    more = labelled([png(pictures(1, size)[0]) for size in sizes])
    features = {"image": F.Image(shape=(None, None, 3)), "label": LABEL}
    folder = write_set(tmp_path, features, {"train": rows, "test": more})
    assert "--data.resize" in failure(data_dir=folder)
    assert load(DataConfig(data_dir=folder, resize=8)).input_shape == (8, 8, 3)


def test_tables_of_scalars_with_words(tmp_path):
    features = {
        "x": F.FeaturesDict(
            {
                "age": F.Scalar(dtype=np.float32),
                "port": F.Text(),
                "sex": F.ClassLabel(names=["f", "m"]),
            }
        ),
        "survived": F.ClassLabel(names=["no", "yes"]),
    }
    ports = ["S", "C", "S", "", "S"]
    train = [
        {"x": {"age": float(i), "port": port, "sex": i % 2}, "survived": i % 2}
        for i, port in enumerate(ports)
    ]
    test = [{"x": {"age": 9.0, "port": "unseen", "sex": 1}, "survived": 1}]
    folder = write_set(tmp_path, features, {"train": train, "test": test})
    assert "missing" in failure(data_dir=folder)
    data = load(DataConfig(data_dir=folder, missing="repair"))
    assert data.cleaning.missing_repaired == 1
    # columns: age | C, S | f, m, and the empty word became the most frequent one, S
    expected = [[0, 0, 1, 1, 0], [1, 1, 0, 0, 1], [2, 0, 1, 1, 0], [3, 0, 1, 0, 1], [4, 0, 1, 1, 0]]
    np.testing.assert_array_equal(data.train.arrays()["inputs"], expected)
    np.testing.assert_array_equal(data.eval.arrays()["inputs"], [[9, 0, 0, 0, 1]])
    dropped = load(DataConfig(data_dir=folder, missing="drop"))
    assert len(dropped.train) == 4 and dropped.cleaning.missing_dropped == 1


def test_large_splits_are_read_when_wanted(tensors, monkeypatch):
    folder, train, test = tensors
    monkeypatch.setattr("train.data.loading.IN_MEMORY_BYTES", 10)
    data = load(DataConfig(data_dir=folder))
    assert type(data.train).__name__ == "RecordSource"
    check_equal(data, train, test)
    got = data.train.gather(np.array([5, 2, 5]))
    np.testing.assert_array_equal(got["inputs"], train[[5, 2, 5]])
    assert data.cleaning.unexamined == 27
    batches = train_batches(data.train, batch_size=8, seed=2)
    monkeypatch.undo()
    in_memory = load(DataConfig(data_dir=folder)).train
    assert type(in_memory).__name__ == "ArraySource"
    expected = train_batches(in_memory, batch_size=8, seed=2)
    for _ in range(6):  # decoded by several threads, in the same order
        np.testing.assert_array_equal(next(batches)["inputs"], next(expected)["inputs"])


@pytest.mark.parametrize("large", [False, True])
def test_labels_out_of_range(tmp_path, monkeypatch, large):
    rows = labelled(pictures(9))
    features = {"image": PIXELS, "label": F.ClassLabel(num_classes=3)}
    folder = write_set(tmp_path, features, {"train": rows, "test": labelled(pictures(3))})
    info = folder / "features.json"
    info.write_text(info.read_text().replace('"numClasses": "3"', '"numClasses": "2"'))
    if large:
        monkeypatch.setattr("train.data.loading.IN_MEMORY_BYTES", 10)
        message = failure(data_dir=folder)
        assert "row 5 has label 2, labels must lie in 0..1" in message
        assert message.endswith("mend the set")
        return
    message = failure(data_dir=folder)
    assert "row 2 has label 2, labels must lie in 0..1; 3 of 9 rows" in message
    data = load(DataConfig(data_dir=folder, missing="drop"))
    assert (len(data.train), len(data.eval)) == (6, 2)
    assert data.cleaning.malformed_dropped == 4


def test_unlabelled_splits_are_explained(tmp_path):
    rows = labelled(pictures(4))
    hidden = [{**row, "label": -1} for row in labelled(pictures(3))]
    folder = write_set(tmp_path, {"image": PIXELS, "label": LABEL}, {"train": rows, "test": hidden})
    assert "has label -1 (-1 marks unlabelled rows)" in failure(data_dir=folder)


def test_missing_and_infinite_values(tmp_path):
    features = {
        "x": F.Tensor(shape=(2,), dtype=np.float32),
        "y": F.Scalar(dtype=np.float32),
    }

    def rows(values):
        return [{"x": np.array(v, np.float32), "y": float(i)} for i, v in enumerate(values)]

    bad = [[0, 1], [np.nan, 2], [4, 3], [np.inf, 0], [2, np.nan]]
    splits = {"train": rows(bad), "test": rows([[np.nan, 7]])}
    folder = write_set(tmp_path, features, splits)
    message = failure(data_dir=folder)
    assert "row 1 has missing (NaN) values, as 2 of 5 rows" in message
    assert "--data.missing drop or repair" in message
    repaired = load(DataConfig(data_dir=folder, missing="repair"))
    np.testing.assert_array_equal(
        repaired.train.arrays()["inputs"], [[0, 1], [2, 2], [4, 3], [2, 2]]
    )
    np.testing.assert_array_equal(repaired.eval.arrays()["inputs"], [[2, 7]])
    assert repaired.cleaning.missing_repaired == 3 and repaired.cleaning.malformed_dropped == 1
    assert "none is left after cleaning" in failure(data_dir=folder, missing="drop")


def test_corrupt_and_absent_record_files(tmp_path):
    rows = labelled(pictures(400))
    folder = write_set(tmp_path, {"image": PIXELS, "label": LABEL}, {"train": rows, "test": rows})
    path = next(folder.glob("*train*"))
    whole = path.read_bytes()
    for damage in (lambda: flip_bytes(path), lambda: path.write_bytes(whole[: len(whole) // 2])):
        path.write_bytes(whole)
        damage()
        message = failure(data_dir=folder)
        assert "split 'train'" in message and "corrupt" in message and "prepare it again" in message
    path.unlink()
    assert "corrupt" in failure(data_dir=folder)
    (folder / "dataset_info.json").write_text("{")
    assert "damaged" in failure(data_dir=folder)


def test_a_broken_image_in_a_sound_file(tmp_path):
    import io

    broken = io.BytesIO(png(pictures(1)[0]).getvalue()[:50])
    features = {"image": F.Image(shape=(6, 6, 1)), "label": LABEL}
    rows = labelled([png(pictures(1)[0]), broken])
    folder = write_set(tmp_path, features, {"train": rows, "test": rows[:1]})
    assert "corrupt" in failure(data_dir=folder)


def test_records_of_another_shape_than_declared(tmp_path):
    rows = labelled(pictures(4))
    folder = write_set(tmp_path, {"image": PIXELS, "label": LABEL}, {"train": rows, "test": rows})
    info = folder / "features.json"
    content = json.loads(info.read_text())
    content["featuresDict"]["features"]["image"]["tensor"]["shape"]["dimensions"] = ["6", "5", "1"]
    info.write_text(json.dumps(content))
    assert "feature 'image' has shape (36,) in one record and (6, 5, 1)" in failure(data_dir=folder)


def test_splits_of_different_image_sizes(tmp_path):
    features = {"image": F.Image(shape=(None, None, 1)), "label": LABEL}
    splits = {
        "train": labelled(map(png, pictures(4))),
        "test": labelled(map(png, pictures(4, (7, 7, 1)))),
    }
    folder = write_set(tmp_path, features, splits)
    assert "(6, 6, 1) in split 'train' and (7, 7, 1) in 'test'" in failure(data_dir=folder)


def test_zero_length_data(tmp_path):
    rows = labelled(pictures(4))
    folder = write_set(tmp_path, {"image": PIXELS, "label": LABEL}, {"train": rows, "test": rows})
    assert "has no rows" in failure(data_dir=folder, train_split="train[:0]")
    info = folder / "dataset_info.json"
    content = json.loads(info.read_text())
    for split in content["splits"]:
        split["shardLengths"] = []
    info.write_text(json.dumps(content))
    assert "has no rows; at least one is needed" in failure(data_dir=folder)


def test_features_that_do_not_fit(tmp_path):
    text = {"image": F.Text(), "label": LABEL}
    rows = [{"image": "word", "label": 0}]
    folder = write_set(tmp_path, text, {"train": rows, "test": rows}, name="text")
    assert "an Image or a numeric Tensor fits here" in failure(data_dir=folder)
    rows = [{"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)}]
    vector = F.Tensor(shape=(2,), dtype=np.float32)
    target = F.Tensor(shape=(3,), dtype=np.float32)
    features = {"x": vector, "y": target}
    folder = write_set(tmp_path, features, {"train": rows, "test": rows}, name="vectors")
    assert "a ClassLabel or Scalar fits" in failure(data_dir=folder)
    folder = write_set(tmp_path, features, {"train": rows, "test": rows}, name="plain", keys=None)
    assert "names no supervised keys" in failure(data_dir=folder)


def test_unknown_names_and_places(tensors, tmp_path, monkeypatch):
    assert failure(name="mnist5k").endswith("did you mean 'mnist_5k'?")
    assert failure(name="mnist").endswith("did you mean 'tfds:mnist'?")
    assert failure(name="tfds:cifr10").endswith("did you mean 'tfds:cifar10'?")
    assert "embedded sets are" in failure(name="qqqqqqqqqq")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    message = failure(name="tfds:mnist")
    assert f"not prepared in {tmp_path}" in message and "download_and_prepare()" in message
    assert "does not exist" in failure(data_dir=tmp_path / "absent")
    assert "not a prepared TFDS folder" in failure(data_dir=tmp_path)
    assert "it holds tiny: choose one with --data tfds:tiny" in failure(
        data_dir=tensors[0].parents[1]
    )
    assert "holds 'tiny', not 'tfds:mnist'" in failure(name="tfds:mnist", data_dir=tensors[0])
    assert "has no split 'trian'; it has test, train" in failure(
        data_dir=tensors[0], train_split="trian"
    )
    assert "split 'train[:'" in failure(data_dir=tensors[0], train_split="train[:")


def test_several_configurations_want_a_choice(tmp_path, monkeypatch):
    rows = labelled(pictures(4))
    for config in ("one", "two"):
        folder = write_set(
            tmp_path / "w",
            {"image": PIXELS, "label": LABEL},
            {"train": rows, "test": rows},
            name=config,
        )
        (tmp_path / "home/tiny" / config).mkdir(parents=True)
        folder.rename(tmp_path / "home/tiny" / config / "1.0.0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    assert "choose one of tfds:tiny/one, tfds:tiny/two" in failure(name="tfds:tiny")
