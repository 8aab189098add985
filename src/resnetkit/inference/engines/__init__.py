"""Engines that compute a network, one file each; a module is imported when its engine is used."""
