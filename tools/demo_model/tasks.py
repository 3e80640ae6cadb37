"""What the model is asked for besides the prompt: frames of the clip that the prompt tells of, given with strength 1."""
import dataclasses

import numpy as np

import scenes

# Frames [first, end) that each task is given: nothing; the first picture; the first half, which the model goes on with;
# the picture in the middle.
_GIVEN_FRAMES = {"t2v": (0, 0), "i2v": (0, 1), "v2v": (0, 9), "middle": (8, 9)}
TASKS = tuple(_GIVEN_FRAMES)


@dataclasses.dataclass
class Given:
    frames: np.ndarray  # uint8 [T, H, W, 3]
    frame_index: int    # of the first of them in the clip

    @property
    def is_first_picture(self):
        return self.frame_index == 0 and len(self.frames) == 1


def given(task, scene):
    """None where the task is given nothing."""
    first, end = _GIVEN_FRAMES[task]
    return Given(scenes.render(scene)[first:end], first) if end > first else None
