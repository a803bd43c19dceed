"""Claims: files of `configs/claims`, trained, measured, compared and published by `gen bench`."""
