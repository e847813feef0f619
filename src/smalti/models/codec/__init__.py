"""Transform codec: tiles through a linear transform, a scalar quantiser, a context net and a convolutional decoder."""
