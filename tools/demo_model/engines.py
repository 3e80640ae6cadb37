"""Two ways to run the demo model: diffusers, and Kino's kino-render."""
import json
import os
import subprocess
import tempfile

import numpy as np

# The call the model is made for.
CALL = dict(height=64, width=64, num_frames=17, num_inference_steps=25, guidance_scale=4.0)
FRAME_RATE = 8


class Diffusers:
    """diffusers' LTX pipelines on `folder`, on the CPU: as Kino chooses among them, the class for text alone, for a first
    picture, or for any other condition."""

    def __init__(self, folder, dtype="float32"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
        import diffusers
        import torch
        self._torch = torch
        diffusers.utils.logging.disable_progress_bar()
        self._text = diffusers.LTXPipeline.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True)
        self.transformer = self._text.transformer
        self._image = diffusers.LTXImageToVideoPipeline(**self._text.components)
        # It refuses the folder's scheduler, which shifts by the number of tokens; Kino then takes the plain schedule.
        self._condition = diffusers.LTXConditionPipeline(
            **{**self._text.components, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()})
        for pipeline in (self._text, self._image, self._condition):
            pipeline.set_progress_bar_config(disable=True)

    def render(self, prompt, seed, given=None, **call):
        """float32 [T, H, W, 3] in 0..1. `given`: a tasks.Given or None."""
        pipeline, extra = self._text, {}
        if given is not None:
            import PIL.Image
            pictures = [PIL.Image.fromarray(frame) for frame in given.frames]
            pipeline, extra = self._condition, {"frame_index": given.frame_index}
            if given.is_first_picture:
                pipeline, extra = self._image, {"image": pictures[0]}
            elif len(pictures) == 1:
                extra["image"] = pictures[0]
            else:
                extra["video"] = [pictures]
        self._torch.manual_seed(seed)
        result = pipeline(
            prompt=prompt, frame_rate=FRAME_RATE, output_type="np",
            generator=self._torch.Generator("cpu").manual_seed(seed), **{**CALL, **call}, **extra)
        return np.asarray(result.frames[0], dtype=np.float32)


class KinoRender:
    """The program kino-render on `folder`, on the CPU."""

    def __init__(self, folder, binary, dtype="float32", threads=1):
        self._folder, self._binary, self._dtype, self._threads = folder, binary, dtype, threads

    def render(self, prompt, seed, given=None, **call):
        """As Diffusers.render."""
        return self.render_all([(prompt, seed, given)], **call)[0]

    def render_all(self, clips, **call):
        """Renders (prompt, seed, tasks.Given or None) in turn, in one process with one loaded model."""
        with tempfile.TemporaryDirectory() as scratch:
            command = [self._binary, "--model", self._folder, "--device", "cpu", "--dtype", self._dtype,
                       "--threads", str(self._threads)]
            outs = []
            for index, (prompt, seed, given) in enumerate(clips):
                request = {"task": "TEXT_TO_VIDEO", "prompt": prompt, "seed": seed, "fps": FRAME_RATE,
                           "ltx": {"frame_rate": FRAME_RATE}, **CALL, **call}
                if given is not None:
                    np.save(os.path.join(scratch, f"given_{index}.npy"), given.frames)
                    kind = "IMAGE" if len(given.frames) == 1 else "VIDEO"
                    request["task"] = f"{kind}_TO_VIDEO"
                    request["conditions"] = [{"kind": kind, "path": f"given_{index}.npy",
                                              "frame_index": given.frame_index}]
                path = os.path.join(scratch, f"request_{index}.json")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(request, file)
                outs.append(os.path.join(scratch, f"out_{index}.npy"))
                command += ["--request", path, "--out", outs[-1]]
            done = subprocess.run(command, capture_output=True, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": str(self._threads)})
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")
            return [np.load(out) for out in outs]
