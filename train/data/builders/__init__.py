"""The embedded sets as TFDS builders that need no TensorFlow."""

from train.data.builders import numbers, texts

BUILDERS = {
    builder.name: builder
    for builder in (
        numbers.Mnist5k,
        numbers.Diabetes,
        numbers.BreastCancer,
        texts.Bible,
        numbers.JapaneseVowels,
        texts.Vader,
        texts.Intents,
        texts.DebianSynopsis,
        texts.BibleCloze,
    )
}
