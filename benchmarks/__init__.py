"""The same work done by us, by stock `flax.nnx` and by PyTorch, in one run: `python -m benchmarks`.

How a figure comes about, so that a reader can judge it:

1.  One process prepares the initial weights and the data of an entry (ours, seed 0) and writes them
    to a file. Every competitor loads that file in a process of its own, pinned to the same cores.
2.  Each competitor does three units of work (training steps, say), and their values (losses) are
    compared. A competitor that does other work is an error: nothing is timed, nothing is written.
3.  The competitors take turns in rounds, in an order that rotates. A turn is one untimed unit and
    then the timed ones. All other competitors' processes are stopped (SIGSTOP) meanwhile, so that
    no thread pool of one spins while another is timed.
4.  In each round the medians of a competitor and of ours give one ratio. What is reported is the
    median of those ratios with their 10th and 90th percentile: a disturbance that lasts longer than
    a round hits both sides of it.
5.  The load average, the share of the machine that *other* programs took during the turns and the
    machine's own matmul peak stand beside the figures, as do versions, CPU, commit and threads.
"""
