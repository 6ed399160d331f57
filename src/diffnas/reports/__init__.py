"""The page of a run, and tables over several: made of the files in run folders alone.

No recipe is resolved and no plug-in is loaded: nothing that a run folder holds is executed.  torch is not loaded.
"""
