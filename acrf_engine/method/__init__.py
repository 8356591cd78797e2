"""AC-RF, the method of the paper: one file a subject, plain functions of tensors.

Shape suffixes: B pictures in the batch, C latent channels, H and W latent cells, K anchors. Sigma is the share of
noise, in [0, 1]: 0 is the picture, 1 is noise; x_t = (1 - sigma) * x0 + sigma * noise.
"""
