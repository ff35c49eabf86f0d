"""Where the evidence lies: maps from activations and gradients, shared by losses, metrics and pictures."""
