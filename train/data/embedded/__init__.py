"""Names and digests of the files in this folder; README.md tells where they come from."""

SHA256 = {
    "mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    "diabetes.csv": "7dae9500120945f10f310cb7834fa7a4545e1aae0a4888012cd65f9102a828af",
    "breast_cancer.csv": "432ff316e7bfb60b70a275064b4401315cc39f09c9099d031013a23647e98687",
    "bible_en_es.tsv.xz": "7762c490b07cd2660f03a27845e3e1e8600dceb492e938b6a2eb1e2d4951b712",
}

NAMES = ("mnist_5k", "diabetes", "breast_cancer", "bible")
VERSION = "1.0.0"  # of the records made of them: raise it when a split or a feature changes
