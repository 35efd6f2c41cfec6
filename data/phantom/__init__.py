"""The digital lung phantom: patients, scanners, pairs with their truth, and training sets."""
