"""Writes tiny prepared TFDS folders, so that reading them is tested on real record files."""

import contextlib
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

F: Any = tfds.features


def write_set(
    root: Path,
    features: Mapping[str, Any],
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    name: str = "tiny",
    keys: Any = "default",
) -> Path:
    """Writes rows as array_record files in ``root/name/1.0.0`` and returns that folder."""
    # A composite feature, as sets of translations have one, is whole as it is.
    composite = isinstance(features, F.FeaturesDict)
    whole: Any = features if composite else F.FeaturesDict(dict(features))
    supervised: Any = tuple(features) if keys == "default" else keys

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = epath.Path(__file__)

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                features=whole,
                supervised_keys=supervised,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows: Any) -> Iterator[tuple[int, Any]]:
            yield from enumerate(rows)

    Tiny.name = name
    tfds.disable_progress_bar()
    builder = Tiny(data_dir=root, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return Path(builder.data_path)


def png(pixels: np.ndarray) -> io.BytesIO:
    """An encoded image: TFDS stores what it is given, so no TensorFlow is needed to write it."""
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(stream, "png")
    stream.seek(0)
    return stream


def as_tfrecord(folder: Path) -> None:
    """Rewrites a prepared folder in TFDS's default format, framed by hand."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for path in list(folder.glob("*.array_record-*")):
        source: Any = ArrayRecordDataSource(str(path))
        with open(str(path).replace("array_record", "tfrecord"), "wb") as stream:
            for i in range(len(source)):
                stream.write(struct.pack("<QI", len(source[i]), 0) + source[i] + bytes(4))
        path.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def flip_bytes(path: Path, start: float = 0.3, stop: float = 0.7) -> None:
    """Inverts the middle of a file."""
    content = bytearray(path.read_bytes())
    for i in range(int(len(content) * start), int(len(content) * stop)):
        content[i] ^= 0xFF
    path.write_bytes(bytes(content))
