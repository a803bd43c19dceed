# %% [markdown]
# # Generate
#
# Images from seeds, truncation, mixed codes and a path, by `StyleGAN2`, see [its
# page](../methods/stylegan2.md).

# %%
import gen
from gen import viz
from gen.inference import generation
from gen.interpolation import alphas, path

model = gen.load("stylegan2_heads64")
z = generation.latents(model, range(8))  # (8, 128), each a function of its seed
x = model.generate(z, 0)  # (8, 3, 64, 64), about [-1, 1]
print(tuple(z.shape), "->", tuple(x.shape))
viz.save_image(viz.grid(generation.generated(model, range(16))), "seeds.png")

# %% [markdown]
# Truncation moves codes towards the mean code: fewer odd heads, less variety.

# %%
psis = [0.0, 0.5, 0.7, 1.0]
rows = generation.truncated(model, range(3), psis)
viz.save_image(viz.grid(rows, headers=[f"psi {psi:g}" for psi in psis]), "truncation.png")

# %% [markdown]
# The first four rows of a code (left) decide on the content; the rest (top) on colours.

# %%
rows = generation.mixed(model, range(3), range(10, 15), first=4, psi=0.7)
viz.save_image(viz.grid(rows, lead=(1, 1)), "mixed.png")

# %% [markdown]
# A straight line between two codes.

# %%
ws = model.map_latents(z, 0, psi=0.7)  # (8, L, 128)
frames = path(lambda w: model.synthesize(w).clamp(-1, 1), ws[:1], ws[1:2], alphas(16, "strict"))
viz.save_image(viz.strip(frames[0], shown=8), "path.png")
viz.save_gif(viz.palindrome([viz.enlarge(frame) for frame in frames[0]]), "path.gif")
