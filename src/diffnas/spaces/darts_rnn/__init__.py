"""The recurrent cells of DARTS (Liu, Simonyan and Yang, 2019, sections 2.1 and 3.1.2)."""
