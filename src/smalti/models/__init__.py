"""Networks. They take and give float32 NCHW images in [-1, 1]."""
