"""Video clips in the layout of KITTI-360, with labels, tracks and flow precomputed.

For a model size of W x H and a split such as train (<drive> = 2013_05_28_drive_0000_sync, <frame>,
<start> and <target> of 10 digits):

    <split>W_H/<drive>/image_00/data_rect/<frame>.png                             RGB
    <split>_semantic_segmaskWxH/<drive>/image_02/data/<frame>.png                 8 bit, trainIds
    <split>_instanceWxH/<drive>/image_02/data/<frame>.png                         16 bit
    <split>_bw_optical_flow_HxW/<drive>/<start>_<target>_flow_backward.flow       Middlebury
    <split>_bw_occlusion_HxW/<drive>/<start>_<target>_occlusion_bw.png            8 bit, 255 visible
    <split>_instance_tracking_test/<drive>/<drive>_<start>_<id>.txt               x,y,w,h,id a frame

Labels are KITTI-360's with the trainIds of Cityscapes. Flow and occlusion lead from frame <target>
to <start>, the first frame of the clip. Boxes come from a tracker, in source pixels, with their
whole width and height. All else, including the errors for a bad file, is as in
`gen.data.clips.cityscapes`; names that the release does not publish are taken from there.
"""

import re
from pathlib import Path

from gen.data.clips.cityscapes import Cityscapes, CityscapesClips, Layout, Start


class Kitti360Layout(Layout):
    """Paths of the files of a split, for frames of a size in px; a start is (drive, frame)."""

    source = (1408, 376)
    missing = 0
    names = "<drive>/<drive>_<start>_<id>.txt"

    def path(self, kind: str, start: Start, t: int) -> Path:
        drive, first = start
        folder, frame = self.kinds[kind][0] / drive, f"{first + t:010d}"
        if kind == "frame":
            return folder / "image_00" / "data_rect" / f"{frame}.png"
        if kind in ("semantic", "instance"):
            return folder / "image_02" / "data" / f"{frame}.png"
        suffix = {"flow": "flow_backward.flow", "occlusion": "occlusion_bw.png"}[kind]
        return folder / f"{first:010d}_{frame}_{suffix}"

    def track(self, start: Start, number: int) -> Path:
        drive, first = start
        return self.tracks / drive / f"{drive}_{first:010d}_{number}.txt"

    def parse(self, track: Path) -> tuple[Start, int] | None:
        if match := re.fullmatch(r"(.+)_(\d{10})_(\d+)\.txt", track.name):
            return (match[1], int(match[2])), int(match[3])
        return None


class Kitti360Clips(CityscapesClips):
    """Clips of a split: one for every first frame that has a track. See `CityscapesClips`."""

    of_files = Kitti360Layout


class KITTI360(Cityscapes):
    """Clips in the layout of KITTI-360; see `gen.data.clips.kitti360`. Options: as `Cityscapes`."""

    reader = Kitti360Clips
