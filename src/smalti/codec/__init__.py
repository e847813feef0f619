"""Images to bytes and back: entropy coding, file formats."""
