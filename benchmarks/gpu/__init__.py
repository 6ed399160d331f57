"""All that a first hour on a GPU is to tell, in nine minutes, on a machine that has little more than PyTorch.

Before, where the repository is (pip and the parquet files of CIFAR-10 are there, a GPU need not be):

    make carry DATA=FOLDER

fills `carry/`, which git ignores, with the images and the packages that such a machine lacks (29 MiB).  Then, on the
machine, in a copy of the repository with `carry/` in it:

    PYTHONPATH=src:carry/site python3 -m benchmarks.gpu --data carry/cifar10

It needs PyTorch, numpy, PyYAML, typer, rich, matplotlib, safetensors, scikit-learn, Pillow and pyarrow; Python as
`make carry BARE=VERSION` says.  Every result is a line in results.jsonl in the folder `--out` ($OUT, else runs/gpu), written
at once, so that a machine taken away in mid-run leaves what was found; keep it as benchmarks/results/gpu-CARD.jsonl.

Stages run in order of worth, each with a deadline of its own: see `stages.STAGES`; `--only` picks some.  A stage that fails
ends alone; one that takes its process along, or hangs, is given up, and the others run in a new process.  What is not there
yet says so.  `--device cpu --tiny` walks the same code in seconds, without a GPU.
"""
