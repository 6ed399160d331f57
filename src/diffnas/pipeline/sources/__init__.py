"""Sources: the data of a recipe as the commands use them, images and text alike."""
