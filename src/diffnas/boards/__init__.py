"""The board: a live page over a folder of runs, made of what `reports` reads; nothing is written, and no plug-in is loaded."""
