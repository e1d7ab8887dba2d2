"""Who calls: one file per proof."""
