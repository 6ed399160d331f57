"""What the data of a recipe give the commands, images and text alike."""
