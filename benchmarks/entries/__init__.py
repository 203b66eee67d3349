"""The benchmarks by name: a literal table of the modules that define them."""

ENTRIES = {
    "convnet": "benchmarks.entries.convnet",
    "resnet18": "benchmarks.entries.resnet18",
    "gpt": "benchmarks.entries.gpt",
    "lstm": "benchmarks.entries.lstm",
    "conv_transpose": "benchmarks.entries.conv_transpose",
    "attention-gpt-nano": "benchmarks.entries.attention_gpt_nano",
    "attention-gpt2-small": "benchmarks.entries.attention_gpt2_small",
    "attention-bert-base": "benchmarks.entries.attention_bert_base",
    "attention-smollm2-135m": "benchmarks.entries.attention_smollm2_135m",
    "attention-vit-base": "benchmarks.entries.attention_vit_base",
    "attention-llama-8b": "benchmarks.entries.attention_llama_8b",
    "attention-long": "benchmarks.entries.attention_long",
    "attention-gemma-2b": "benchmarks.entries.attention_gemma_2b",
    "cross_entropy": "benchmarks.entries.cross_entropy",
    "layer_norm": "benchmarks.entries.layer_norm",
    "gan": "benchmarks.entries.gan",
    "word2vec": "benchmarks.entries.word2vec",
    "dispatch": "benchmarks.entries.dispatch",
    "pipeline": "benchmarks.entries.pipeline",
}
