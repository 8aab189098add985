"""Where images come from; knows no model."""
