"""Image files of the user: listed, decoded, checked and cropped."""
