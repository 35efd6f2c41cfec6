"""Networks, losses, the training model, checkpoints and the super-resolver."""
