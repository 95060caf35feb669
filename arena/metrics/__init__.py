"""The scores: how good the fakes are, and how well a detector tells them from reals."""
