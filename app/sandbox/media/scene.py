"""The subject of a photo whose background is anything but plain.

Regions that differ from what surrounds them, do not belong to the border and lie near the middle are salient
(after boundary connectivity, Zhu et al., CVPR 2014). GrabCuts start from them, by colour alone and with a
sense of place; the mask that looks more like a thing is taken.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from skimage.segmentation import slic

from app.sandbox.media.arrays import Field, Mask, Pixels, Vectors
from app.sandbox.media.cutting import border, clean, grab_cut, to_lab
from app.sandbox.media.shapes import shrunk

_SIDE: Final = 260
_REGION_SIDE: Final = 220
_REGIONS: Final = 260
_REMOTE: Final = (0.0, 0.25)
"""Shares of remoteness in salience that are tried; contrast has the rest."""


def scene_subject(rgb: Pixels) -> Mask:
    height, width = rgb.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    cuts: list[Mask] = []
    for remote in _REMOTE:
        salience = np.asarray(cv2.resize(_salience(small, remote), size, interpolation=cv2.INTER_LINEAR), np.float32)
        cuts += [_by_place(small, salience)] if remote else [_by_place(small, salience), _by_colour(small, salience)]
    masks = [clean(cut, softness=0.005, keep_holes=False) for cut in cuts]
    scores = [_thingness(small, mask) for mask in masks]
    best = masks[int(np.argmax(scores))].astype(np.float32)
    return np.asarray(cv2.resize(best, (width, height), interpolation=cv2.INTER_LINEAR)) > 0.5


def _by_colour(rgb: Pixels, salience: Field) -> Mask:
    inner = salience[~border(rgb.shape, 0.04)]
    seeds = np.full(salience.shape, cv2.GC_PR_BGD, np.uint8)
    seeds[salience > float(np.quantile(inner, 0.66))] = cv2.GC_PR_FGD
    seeds[salience > float(np.quantile(inner, 0.95))] = cv2.GC_FGD
    seeds[salience < float(np.quantile(salience, 0.3))] = cv2.GC_BGD
    seeds[_frame(rgb.shape)] = cv2.GC_BGD
    return grab_cut(rgb, seeds, rounds=5)


def _by_place(rgb: Pixels, salience: Field) -> Mask:
    """Distance from the salient place takes one colour channel's seat, so that like colours far off stay out."""
    away = np.clip(1.9 - 0.95 * salience / max(float(np.quantile(salience, 0.72)), 1e-6), 0, 2)
    seeds = np.full(salience.shape, cv2.GC_PR_BGD, np.uint8)
    seeds[away < 1] = cv2.GC_PR_FGD
    seeds[away < 0.38] = cv2.GC_FGD
    seeds[_frame(rgb.shape)] = cv2.GC_BGD
    lab = to_lab(rgb).reshape(-1, 3)
    lab = lab - lab.mean(axis=0)
    axes = np.linalg.svd(lab[::7], full_matrices=False)[2][:2]
    colour = lab @ axes.T
    colour = colour / (np.abs(colour).max(axis=0) + 1e-6) * 127 + 128
    planes = np.concatenate([colour.reshape(*salience.shape, 2), away[..., None] * 60], axis=-1)
    return grab_cut(np.clip(planes, 0, 255).astype(np.uint8), seeds, rounds=4)


def _frame(shape: tuple[int, ...]) -> Mask:
    """The frame's edge. People and things on tables often run out at its foot, hardly ever at the other sides."""
    height, width = shape[:2]
    edge = border(shape, 0.012)
    edge[-max(2, height // 80) :, width // 8 : -width // 8] = False
    return edge


def _thingness(rgb: Pixels, mask: Mask) -> float:
    """How much a mask looks like a thing: strong edges, colours of its own, compact, middle-sized, near the middle."""
    if not mask.any() or mask.all():
        return 0.0
    lab = to_lab(np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0), np.uint8))
    down, right = np.gradient(lab, axis=(0, 1))
    slope = np.sqrt((down**2 + right**2).sum(axis=-1))
    slope = np.clip(slope / max(float(np.quantile(slope, 0.93)), 1e-6), 0, 1).astype(np.float32)
    rim = mask & ~shrunk(mask) & ~border(mask.shape, 0.015)
    edge = float(np.asarray(cv2.dilate(slope, np.ones((3, 3), np.uint8)))[rim].mean()) if rim.any() else 0.0
    bins = np.clip(lab / [12.7, 27.5, 27.5] + [0, 4, 4], 0, 7).astype(np.int64) @ [64, 8, 1]
    own, other = (np.bincount(bins[part], minlength=512) / part.sum() for part in (mask, ~mask))
    apart = 0.5 * float(((own - other) ** 2 / (own + other + 1e-9)).sum())
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = max(float(cv2.contourArea(cv2.convexHull(outline))) for outline in outlines)
    compact = min(float(mask.sum()) / max(hull, 1.0), 1.0)
    size = np.exp(-((max(0.0, abs(np.log(float(mask.mean()) / 0.34)) - 0.35) / 0.8) ** 2) / 2)
    rows, columns = np.nonzero(mask)
    off = np.hypot(columns.mean() / mask.shape[1] - 0.5, rows.mean() / mask.shape[0] - 0.5)
    touching = float(np.concatenate([mask[0], mask[:, 0], mask[:, -1]]).mean())
    return float((edge + 0.7 * apart + 0.5 * compact) * size * np.exp(-((off / 0.25) ** 2) / 2) * (1 - 0.5 * touching))


@dataclass(frozen=True, slots=True)
class _Regions:
    labels: NDArray[np.int64]
    sizes: Field
    """Pixels."""
    places: Vectors
    """Middle of each region in shares of the diagonal; shape (n, 2)."""
    gaps: Field
    """CIELAB distance between the mean colours of all pairs; shape (n, n)."""

    @property
    def count(self) -> int:
        return len(self.sizes)

    def share_of(self, mask: Mask) -> Field:
        """Pixels of `mask` per region."""
        return np.bincount(self.labels.ravel(), mask.ravel(), self.count).astype(np.float64)


def _regions(rgb: Pixels) -> _Regions:
    labels = np.asarray(slic(rgb, n_segments=_REGIONS, compactness=12.0, start_label=0, channel_axis=-1), np.int64)
    flat, count = labels.ravel(), int(labels.max()) + 1
    sizes = np.bincount(flat, minlength=count).astype(np.float64)
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]] / np.hypot(*rgb.shape[:2])
    features = [*to_lab(rgb).reshape(-1, 3).T, x.ravel(), y.ravel()]
    means = np.stack([np.bincount(flat, feature, count) / sizes for feature in features], axis=-1)
    gaps = np.linalg.norm(means[:, None, :3] - means[None, :, :3], axis=-1)
    return _Regions(labels, sizes, means[:, 3:], gaps)


def _salience(rgb: Pixels, remote: float) -> Field:
    height, width = rgb.shape[:2]
    scale = min(1.0, _REGION_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    regions = _regions(small)
    centre = np.array(size) / (2 * np.hypot(*size))
    pull = np.exp(-((np.linalg.norm((regions.places - centre) * [1.0, 0.85], axis=1) / 0.29) ** 2) / 2)
    score = (1 - remote) * _contrast(regions, small.shape) + 0.3
    if remote:
        score = score + remote * _remoteness(regions, small.shape)
    score = score * pull
    return np.asarray(cv2.GaussianBlur(score[regions.labels].astype(np.float32), (0, 0), 2.0), np.float32)


def _contrast(regions: _Regions, shape: tuple[int, ...]) -> Field:
    """Difference in colour from the backdrop nearby, 0–1; backdrop is what the border owns much of."""
    alike = np.exp(-(regions.gaps**2) / (2 * 9.0**2))
    owned = (alike @ regions.share_of(border(shape, 0.02))) / np.sqrt(alike @ regions.sizes)
    backdrop = 1 - np.exp(-(owned**2) / 2.0)
    apart = np.linalg.norm(regions.places[:, None] - regions.places[None], axis=-1)
    near = np.exp(-(apart**2) / (2 * 0.25**2))
    contrast = (regions.gaps * near) @ (backdrop * regions.sizes)
    return contrast / max(float(contrast.max()), 1e-9) * (1 - 0.6 * backdrop)


def _remoteness(regions: _Regions, shape: tuple[int, ...]) -> Field:
    """How much colour changes on the smoothest way from the frame, 0–1: walls and skies are near, however bright."""
    labels = regions.labels
    pairs = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], axis=1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], axis=1),
        ]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    steps = np.maximum(regions.gaps[pairs[:, 0], pairs[:, 1]] - 6, 0) + 0.05
    graph = coo_matrix((steps, (pairs[:, 0], pairs[:, 1])), shape=(regions.count, regions.count)).tocsr()
    outside = np.flatnonzero(regions.share_of(_frame(shape)) > 0)
    way = np.asarray(dijkstra(graph, directed=False, indices=outside, min_only=True), np.float64)
    return np.minimum(way / max(float(np.quantile(way, 0.9)), 1e-9), 1.0)
