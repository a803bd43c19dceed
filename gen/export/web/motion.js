// Drags of objects -> their motion: the same as gen.inference.dragging, for drags and pins.

// Places (T + 1, 2) evenly spaced along a path, relative to its start; monotone cubics between.
export function resample(path, steps) {
  const points = path.filter((p, k) => !k || Math.hypot(p[0] - path[k - 1][0], p[1] - path[k - 1][1]) > 1e-9);
  if (points.length < 2) return Array.from({ length: steps + 1 }, () => [0, 0]);
  const gone = [0];
  for (let k = 1; k < points.length; k++) {
    gone.push(gone[k - 1] + Math.hypot(points[k][0] - points[k - 1][0], points[k][1] - points[k - 1][1]));
  }
  const axes = [0, 1].map((a) => cubic(gone, points.map((p) => p[a] - points[0][a])));
  return Array.from({ length: steps + 1 }, (_, t) => axes.map((at) => at((gone.at(-1) * t) / steps)));
}

// Fritsch-Carlson slopes, as PCHIP has them.
function cubic(x, y) {
  const h = x.slice(1).map((v, k) => v - x[k]), m = h.map((w, k) => (y[k + 1] - y[k]) / w), n = h.length;
  const end = (h0, h1, m0, m1) => {
    const d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1);
    if (Math.sign(d) !== Math.sign(m0)) return 0;
    return Math.sign(m0) !== Math.sign(m1) && Math.abs(d) > 3 * Math.abs(m0) ? 3 * m0 : d;
  };
  const d = x.map((_, k) => {
    if (n === 1) return m[0];
    if (k === 0) return end(h[0], h[1], m[0], m[1]);
    if (k === n) return end(h[n - 1], h[n - 2], m[n - 1], m[n - 2]);
    if (m[k - 1] * m[k] <= 0) return 0;
    const [a, b] = [2 * h[k] + h[k - 1], h[k] + 2 * h[k - 1]];
    return (a + b) / (a / m[k - 1] + b / m[k]);
  });
  return (at) => {
    let k = 0;
    while (k < n - 1 && at > x[k + 1]) k++;
    const t = (at - x[k]) / h[k], u = 1 - t;
    return u * u * ((1 + 2 * t) * y[k] + t * h[k] * d[k]) + t * t * ((3 - 2 * t) * y[k + 1] - u * h[k] * d[k + 1]);
  };
}

// Backward motion (T, M, 2, 3) of M objects in an image of W x H px; `drags` maps objects to paths.
export function thetas(drags, M, T, W, H) {
  const out = new Float32Array(T * M * 6);
  for (let t = 0; t < T; t++) for (let k = 0; k < M; k++) out.set([1, 0, 0, 0, 1, 0], 6 * (t * M + k));
  for (const [k, path] of drags) {
    resample(path, T).slice(1).forEach(([dx, dy], t) => {
      out[6 * (t * M + k) + 2] = (-2 * dx) / (W - 1);
      out[6 * (t * M + k) + 5] = (-2 * dy) / (H - 1);
    });
  }
  return out;
}
