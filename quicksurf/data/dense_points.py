"""Prototype."""
import time
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.spatial import Delaunay, cKDTree

from quicksurf import _native
from quicksurf.cameras import distort, project, resize


class Frame(NamedTuple):
    grey: np.ndarray
    K: np.ndarray
    R: np.ndarray  # world to camera
    t: np.ndarray
    range: tuple
    pixels: np.ndarray
    inverse: np.ndarray
    inside: np.ndarray | None


def frames(scene, max_pixels):
    out = []
    cams = scene.cameras.to(torch.float64)
    idx, obs = scene.points.observations.unbind(1)
    for i, image in enumerate(scene.images):
        h, w = image.shape[:2]
        s = min(1.0, (max_pixels / (h * w)) ** 0.5)
        size = (round(w * s), round(h * s))
        cam = resize(cams.select(torch.tensor([i])), torch.tensor([size]))
        grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        K = cam.intrinsics[0].numpy()
        dist = cam.distortion[0]
        mask = scene.masks[i]
        mask = None if mask is None else cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        if dist.any() or cam.fisheye[0]:
            u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
            ideal = torch.from_numpy(np.stack([(u - K[2]) / K[0], (v - K[3]) / K[1]], -1).reshape(-1, 2))
            d = distort(ideal, dist.expand(len(ideal), -1), cam.fisheye.expand(len(ideal))).numpy()
            mu = (d[:, 0] * K[0] + K[2] - 0.5).reshape(u.shape).astype(np.float32)
            mv = (d[:, 1] * K[1] + K[3] - 0.5).reshape(u.shape).astype(np.float32)
            grey = cv2.remap(grey, mu, mv, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            if mask is not None:
                mask = cv2.remap(mask, mu, mv, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        R = cam.c2w[0, :, :3].numpy().T
        c = cam.c2w[0, :, 3].numpy()
        x = (scene.points.positions[idx[obs == i]].double().numpy() - c) @ R.T
        x = x[x[:, 2] > 1e-6]
        inv = 1 / x[:, 2]
        pix = x[:, :2] * inv[:, None] * K[:2] + K[2:]
        lo, hi = np.quantile(inv, [0.01, 0.99])
        out.append(Frame(grey, K, R, c, (0.7 * lo, 1.4 * hi), pix, inv, None if mask is None else mask > 127))
    return out


def partners(scene, frames, n):
    idx, obs = scene.points.observations.unbind(1)
    seen = np.zeros((len(frames), len(scene.points.positions)), bool)
    seen[obs.numpy(), idx.numpy()] = True
    pos = scene.points.positions.double().numpy()
    centers = np.stack([f.t for f in frames])
    out = []
    for i in range(len(frames)):
        p = pos[seen[i]]
        d = p[None] - centers[:, None]
        r = np.linalg.norm(d, axis=2)
        d = d / r[..., None]
        ang = np.degrees(np.arccos(np.clip((d * d[i]).sum(-1), -1, 1)))
        sig = np.where(ang < ANGLE, ANGLE / 2, 2 * ANGLE)
        scale = np.minimum(r / r[i], r[i] / r)
        wgt = np.exp(-0.5 * ((ang - ANGLE) / sig) ** 2) * scale**2 * seen[:, seen[i]]
        score = wgt.sum(1)
        score[i] = 0
        best = np.argsort(-score, kind="stable")[:n]
        out.append([int(j) for j in best if score[j] > 3])
    return out


ANGLE = 8.0
N_SOURCES = 5
N_BEST = 2
SIMILARITY = 20.0
CONTRAST = 2.0
LEVELS = ((4, 5, 1.0, 1.0), (2, 3, 0.06, 0.5), (1, 2, 0.02, 0.3))
SHRINK = 0.4


def scaled(f, s):
    if s == 1:
        return f.grey, f.K
    h, w = f.grey.shape
    size = (max(1, round(w / s)), max(1, round(h / s)))
    ratio = np.array([size[0] / w, size[1] / h] * 2)
    return cv2.resize(f.grey, size, interpolation=cv2.INTER_AREA), f.K * ratio


def matrix(K):
    return np.array([[K[0], 0, K[2]], [0, K[1], K[3]], [0, 0, 1]])


def guess(f, shape, K):
    h, w = shape
    ratio = K[:2] / f.K[:2]
    pix = f.pixels * ratio
    u, v = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    q = np.stack([u, v], -1).reshape(-1, 2)
    planes = np.zeros((3, h * w), np.float32)
    planes[0] = f.inverse[cKDTree(pix).query(q)[1]]
    tri = Delaunay(pix)
    s = tri.find_simplex(q)
    P, I = pix[tri.simplices], f.inverse[tri.simplices]
    M = np.concatenate([P, np.ones_like(P[..., :1])], -1)
    ok = np.abs(np.linalg.det(M)) > 1e-6
    co = np.zeros((len(P), 3))
    co[ok] = np.linalg.solve(M[ok], I[ok][..., None])[..., 0]
    good = (s >= 0) & ok[s]
    c = co[s[good]]
    planes[0, good] = (c[:, :2] * q[good]).sum(1) + c[:, 2]
    planes[1, good], planes[2, good] = c[:, 0], c[:, 1]
    return planes.reshape(3, h, w)


def enlarge(planes, shape, coarse_shape):
    h, w = shape
    rows = np.minimum(((np.arange(h) + 0.5) * coarse_shape[0] / h).astype(int), coarse_shape[0] - 1)
    cols = np.minimum(((np.arange(w) + 0.5) * coarse_shape[1] / w).astype(int), coarse_shape[1] - 1)
    p = planes[:, rows][:, :, cols]
    du = (np.arange(w) + 0.5) * coarse_shape[1] / w - (cols + 0.5)
    dv = (np.arange(h) + 0.5) * coarse_shape[0] / h - (rows + 0.5)
    out = np.empty((3, h, w), np.float32)
    out[0] = p[0] + p[1] * du[None] + p[2] * dv[:, None]
    out[1], out[2] = p[1] * coarse_shape[1] / w, p[2] * coarse_shape[0] / h
    return out


def depth_map(fs, i, others, seed):
    f = fs[i]
    planes = None
    for s, n, reach, tilt in LEVELS:
        grey, K = scaled(f, s)
        sources, transforms = [], []
        for j in others:
            g, Kj = scaled(fs[j], s)
            R = fs[j].R @ f.R.T
            t = fs[j].R @ (f.t - fs[j].t)
            A = matrix(Kj) @ R @ np.linalg.inv(matrix(K))
            transforms.append(np.concatenate([A, (matrix(Kj) @ t)[:, None]], 1))
            sources.append(np.ascontiguousarray(g))
        planes = guess(f, grey.shape, K) if planes is None else enlarge(planes, grey.shape, planes.shape[1:])
        costs = np.empty(grey.shape, np.float32)
        _native.match_patches(grey, sources, np.array(transforms, np.float32), planes, costs,
            range=f.range, reach=reach, tilt=tilt, shrink=SHRINK, focal=float(K[0]), similarity=SIMILARITY,
            least_contrast=CONTRAST, n_best=min(N_BEST, len(others)), n_sweeps=n, seed=seed)
    return planes, costs


MAX_COST = 0.4
AGREE = 2
REPROJECTION = 1.0
RELATIVE = 0.01
FLAT = 0.15


def filtered(fs, others, maps, i, fuse=True):
    f = fs[i]
    planes, costs = maps[i]
    h, w = costs.shape
    u, v = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    rays = np.stack([(u - f.K[2]) / f.K[0], (v - f.K[3]) / f.K[1], np.ones_like(u)], -1)
    normal = np.stack([planes[1] * f.K[0], planes[2] * f.K[1], planes[0] - planes[1] * (u - f.K[2]) - planes[2] * (v - f.K[3])], -1)
    cosine = planes[0] / (np.linalg.norm(normal, axis=-1) * np.linalg.norm(rays, axis=-1))
    keep = (costs < MAX_COST) & (planes[0] > 0) & (cosine > FLAT)
    if f.inside is not None:
        keep &= f.inside
    px = np.stack([u[keep], v[keep]], 1)
    z = 1 / planes[0][keep].astype(float)
    X = rays[keep] * z[:, None]  # camera frame
    count = np.zeros(len(px), int)
    total, n, sines = z.copy(), np.ones(len(px)), np.zeros(len(px))
    for j in others[i]:
        g = fs[j]
        R = g.R @ f.R.T
        t = g.R @ (f.t - g.t)
        Y = X @ R.T + t
        pj = Y[:, :2] / np.maximum(Y[:, 2:], 1e-9) * g.K[:2] + g.K[2:]
        c, r = np.floor(pj[:, 0]).astype(int), np.floor(pj[:, 1]).astype(int)
        hj, wj = g.grey.shape
        ok = (Y[:, 2] > 1e-6) & (c >= 0) & (r >= 0) & (c < wj) & (r < hj)
        c, r = c.clip(0, wj - 1), r.clip(0, hj - 1)
        pl, co = maps[j]
        wj_ = pl[0, r, c] + pl[1, r, c] * (pj[:, 0] - c - 0.5) + pl[2, r, c] * (pj[:, 1] - r - 0.5)
        ok &= (co[r, c] < 2 * MAX_COST) & (wj_ > 0)
        ok &= np.abs(wj_ * Y[:, 2] - 1) < RELATIVE
        zj = 1 / np.where(wj_ > 0, wj_, 1)
        Yj = np.concatenate([(pj - g.K[2:]) / g.K[:2], np.ones((len(pj), 1))], 1) * zj[:, None]
        back = (Yj - t) @ R
        pb = back[:, :2] / back[:, 2:] * f.K[:2] + f.K[2:]
        ok &= (np.linalg.norm(pb - px, axis=1) < REPROJECTION) & (back[:, 2] > 0)
        count += ok
        total += np.where(ok, back[:, 2], 0)
        n += ok
        cosang = (X * (X + R.T @ t)).sum(1) / np.linalg.norm(X, axis=1) / np.linalg.norm(X + R.T @ t, axis=1)
        sines = np.maximum(sines, np.where(ok, np.sqrt(np.maximum(0, 1 - cosang**2)), 0))
    good = count >= AGREE
    zz = total / n if fuse else z
    mask = np.zeros((h, w), bool)
    mask[keep] = good
    Xw = (rays[keep] * zz[:, None])[good] @ f.R + f.t
    nw = normal[keep][good] @ f.R
    nw /= -np.linalg.norm(nw, axis=1, keepdims=True)
    return dict(points=Xw, normals=nw, count=count[good], sines=sines[good], depth=zz[good], mask=mask, cost=costs[keep][good], pixels=px[good])


def dense(scene, max_pixels=200_000, seed=0, say=print):
    t0 = time.process_time()
    fs = frames(scene, max_pixels)
    t1 = time.process_time()
    others = partners(scene, fs, N_SOURCES)
    t2 = time.process_time()
    maps = []
    for i in range(len(fs)):
        maps.append(depth_map(fs, i, others[i], seed) if others[i] else (np.zeros((3, *fs[i].grey.shape), np.float32), np.full(fs[i].grey.shape, 2.0, np.float32)))
    t3 = time.process_time()
    parts = [filtered(fs, others, maps, i) for i in range(len(fs))]
    t4 = time.process_time()
    npx = sum(f.grey.size for f in fs)
    say(f"frames {t1-t0:.1f} partners {t2-t1:.1f} match {t3-t2:.1f} ({1e6*(t3-t2)/npx:.2f} us/px) filter {t4-t3:.1f} ({1e6*(t4-t3)/npx:.2f} us/px); kept {sum(len(p['points']) for p in parts):,} of {npx:,}")
    return fs, others, maps, parts
