"""The page of the server: photos in, ranked classes out; it loads nothing from elsewhere."""
