"""Where images come from, how they are decoded, split and stored, and how they are dealt out in batches."""
