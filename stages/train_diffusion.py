"""train_diffusion: the class-conditional DDPM with C + 1 classes → EMA weights, loss curve, a picture."""
