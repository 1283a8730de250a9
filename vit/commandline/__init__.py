"""What the commands share: options, overlays, one-line errors, run folders, trained models."""
