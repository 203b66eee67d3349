"""The files in this folder; README.md tells where they come from.

Each file's SHA-256 stands here, so a damaged installation is told from a bad model.
"""

import gzip
import hashlib
import lzma
from pathlib import Path

from train.errors import UserError

FOLDER = Path(__file__).parent

SHA256 = {
    "mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    "digits_convnet.safetensors": (
        "9272b77b49cdf3a9ffa4019984e74fd27b786d8d79b03247794c0853cf408d78"
    ),
    "diabetes.csv": "7dae9500120945f10f310cb7834fa7a4545e1aae0a4888012cd65f9102a828af",
    "breast_cancer.csv": "432ff316e7bfb60b70a275064b4401315cc39f09c9099d031013a23647e98687",
    "bible_en_es.tsv.xz": "7762c490b07cd2660f03a27845e3e1e8600dceb492e938b6a2eb1e2d4951b712",
    "debian_synopsis.tsv.xz": "8e615b834ce54eb6d3940e11bfa44f3e33b63bd46a4575eba4391d1ca193b411",
    "intents.jsonl.xz": "1158bb8f439a1f583144468f5b6aeee888870fbad19120d17d7fbdc6cecfb349",
    "japanese_vowels_test.ts.xz": (
        "1b2e51722075efdf5cd0514417ee5288c3a484c749f41a070b21c8fb4d3b24bf"
    ),
    "japanese_vowels_train.ts.xz": (
        "54eedcaea118cd7c5517b2937dd36dab85174ff29d967ee163694a3456575d51"
    ),
    "questions-words.txt.xz": "8acb5d6c7d3b4536833a054f623794e5222f4a3a37cb45b10808c60ad4b36c69",
    "vader_sentiment.tsv.xz": "9e7bfd0d072c041dc94f2714efcecefeb872fcb5b6e8f1673467151d103d0d9f",
    "wordsim353.tsv": "ae31741a8d0323f63ad527e1bae67bdb42dbd29af71b74b4608b82cf7ab29dd4",
}

NAMES = (
    "mnist_5k",
    "diabetes",
    "breast_cancer",
    "bible",
    "japanese_vowels",
    "vader",
    "intents",
    "debian_synopsis",
    "bible_cloze",
)
VERSION = "1.1.0"  # of the records made of them: raise it when a split or a feature changes


def read(filename: str) -> str:
    """The text of an embedded file, decompressed.

    Raises:
        UserError: when the file is absent or is not the one that was released.
    """
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(Path(filename).suffix, bytes)
    return unpack(read_bytes(filename)).decode()


def read_bytes(filename: str) -> bytes:
    """An embedded file as it is.

    Raises:
        UserError: when the file is absent or is not the one that was released.
    """
    path = FOLDER / filename
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): install the package again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[filename]:
        raise UserError(
            f"{path} is corrupt: its SHA-256 starts with {digest[:12]}, "
            f"{SHA256[filename][:12]} is right; install the package again"
        )
    return content
