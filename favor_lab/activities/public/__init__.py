"""Public sets as they lie on disk, one reader per set; nothing is downloaded, no image is shipped."""
