"""Draws the training geometries once: coverage (uint8), codes and captions' facts; colours come later, at random."""
import dataclasses
import json
import os
import random

import numpy as np

import latent_code
import scenes

# Seeds of the clips that only the basis is fitted to.
_BASIS_SEED = 10 ** 6


def draw(workspace, count, basis_clips):
    folder = workspace.geometry
    os.makedirs(folder, exist_ok=True)
    basis = latent_code.Basis.fit(
        scenes.distance_field(scenes.sample_geometry(random.Random(_BASIS_SEED + i)))
        for i in range(basis_clips))
    basis.save(folder)
    shape = (count, scenes.FRAMES, scenes.SIZE_PX, scenes.SIZE_PX)
    coverage = np.lib.format.open_memmap(os.path.join(folder, "coverage.npy"), mode="w+",
                                         dtype=np.uint8, shape=shape)
    codes = np.zeros((count, latent_code.TOKENS, latent_code.COMPONENTS), np.float32)
    facts = []
    for index in range(count):
        geometry = scenes.sample_geometry(random.Random(index))
        distance = scenes.distance_field(geometry)
        coverage[index] = (scenes.coverage(distance) * 255 + .5).astype(np.uint8)
        codes[index] = basis.code(distance)
        facts.append(dataclasses.asdict(geometry))
    coverage.flush()
    np.save(os.path.join(folder, "codes.npy"), codes)
    with open(os.path.join(folder, "facts.json"), "w", encoding="utf-8") as file:
        json.dump(facts, file)


class Store:
    """The drawn geometries. `coverage` [N, T, H, W] uint8 stays on disk, `codes` [N, 80, 49], `facts` [N]."""

    def __init__(self, workspace):
        folder = workspace.geometry
        self.coverage = np.load(os.path.join(folder, "coverage.npy"), mmap_mode="r")
        self.codes = np.load(os.path.join(folder, "codes.npy"))
        with open(os.path.join(folder, "facts.json"), encoding="utf-8") as file:
            self.facts = [scenes.Geometry(**fact) for fact in json.load(file)]
        self._basis = latent_code.Basis.load(folder)

    def __len__(self):
        return len(self.facts)

    def picture(self, index, frame):
        """Geometry channels [16, 49] of one frame as a picture by itself."""
        distance = scenes.distance_field(self.facts[index], slice(frame, frame + 1))
        return self._basis.picture_code(distance[0])

    def scene(self, index, pair):
        return scenes.Scene(self.facts[index], *pair)
