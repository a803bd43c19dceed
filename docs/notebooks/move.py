# %% [markdown]
# # Move an object
#
# One frame, its masks and a drag become a video by `ClickToMove`, see [its
# page](../methods/click_to_move.md). Frames are drawn street scenes of [Movers](../movers.md);
# this model knows no photographs.

# %%
import gen
from gen import viz
from gen.inference import dragging, scenes
from gen.viz.motion import arrows, looped

mover = gen.load("click_to_move_movers")
steps, *size = mover.shape
still = scenes.drawn(77, size, steps + 1)
print(scenes.listed(still))

# %% [markdown]
# The bus 15001 is dragged by 22 px to the right. The camera stays where it is.

# %%
request = dragging.parse({"drags": [{"id": 15001, "path": [[0, 0], [22, 0]]}], "camera": [0, 0, 1]})
image = still.frame, still.semantic, still.instance
clip = dragging.animate(mover, *image, request)
print(tuple(clip.video.shape))
scene = dragging.scene(*image)
count = int(scene.present.sum())
boxes = dragging.positions(scene, clip.theta)[:, :count]  # (T + 1, M, 4) px
ids, by = scene.ids[scene.present].tolist(), scenes.moved_by(request, scene)
print(scenes.table(still, ids, boxes, by))

# %% [markdown]
# Orange: the drag; blue: what the graph of objects predicts for the others.

# %%
viz.save_image(arrows(still.frame, scene.instance[0], boxes, by, ids), "arrows.png")
frames = [still.frame, *clip.video[0]]
viz.save_gif(looped([viz.enlarge(frame) for frame in frames]), "video.gif", fps=8)

# %% [markdown]
# If the bus is dragged the other way, does the car stay behind?

# %%
back = dragging.parse({"drags": [{"id": 15001, "path": [[0, 0], [-22, 0]]}], "camera": [0, 0, 1]})
clip = dragging.animate(mover, *image, back)
boxes = dragging.positions(scene, clip.theta)[:, :count]
print(scenes.table(still, ids, boxes, by))
viz.save_image(arrows(still.frame, scene.instance[0], boxes, by, ids), "arrows_back.png")
