"""The interactive page: measured networks that a reader can try by hand."""
