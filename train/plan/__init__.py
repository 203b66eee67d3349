"""Whether a training step fits hardware that need not be here, and what it would take.

    python -m train plan gpt3-175b --target v5p:8x8x8

The step is the one that `run --parallel mesh` compiles, by the vendor's own compiler; model and
optimiser are shapes only, so nothing of their size is in memory. What the compiler says is exact:
bytes, and the collectives. What follows from published peaks is an estimate, and called so.

    presets    recipes for models alone, and the sizes of their data
    step       one case compiled: bytes, operations, collectives
    estimate   its time at the chip's peaks
    search     what is asked, where it is put, and what fits where that does not
    tables     how it is shown
    command    the verb of the command line, which starts `python -m train.plan`: the compiler wants
               its variables in the environment before JAX is imported
"""
