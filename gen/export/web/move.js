// Moves objects of a picture by drags; the model moves the others.
import { thetas } from "./motion.js";
import { flags, floats, latest, make, normal, picks, pixels, run, show, unpack, whole } from "./runtime.js";

export const last = {}; // inputs and frames of the clip on show
const MS = 170, NEAR = 8; // ms a frame; px from an object within which a click means it

export function tab({ steps: T, size: [H, W], latent, object: O, camera, scenes }, arrays) {
  const canvas = make("canvas", { width: W, height: H, id: "moved" }), over = make("canvas");
  const stage = make("div.stage", {}, canvas, over);
  const scrub = make("input", { type: "range", min: 0, max: T, step: 1, value: 0, id: "frame", ariaLabel: "frame" });
  const play = make("button.plain.main", { type: "button", id: "play" }, "play");
  const [frames, semantics, instances] = ["frames", "semantic", "instance"].map((name) => arrays(name).bytes);
  let number = 0, seed = 0, clip = [], drags = new Map(), pins = new Set(), gone = new Set(), pulled = null, timer = 0;

  const part = (bytes, width) => bytes.subarray(number * H * W * width, (number + 1) * H * W * width);
  const stills = scenes.map((_, k) => unpack(frames.subarray(3 * H * W * k, 3 * H * W * (k + 1)), W, H));
  const still = () => stills[number];

  const draw = () => {
    const at = Number(scrub.value);
    show(canvas, at && clip.length ? clip[at - 1] : still());
    const [w, h] = [stage.clientWidth, stage.clientHeight], dense = devicePixelRatio || 1;
    over.width = w * dense;
    over.height = h * dense;
    const pen = over.getContext("2d");
    pen.scale((w * dense) / W, (h * dense) / H);
    if (at && !pulled) return;
    pen.lineCap = pen.lineJoin = "round";
    for (const [k, path] of drags) {
      const [cx, cy] = centre(k), way = path.map(([x, y]) => [cx + x - path[0][0], cy + y - path[0][1]]);
      arrow(pen, way);
    }
    for (const k of pins) pin(pen, ...centre(k));
    for (const k of gone) cross(pen, ...centre(k));
  };
  const centre = (k) => {
    const [x, y] = scenes[number].boxes[k];
    return [((x + 1) * (W - 1)) / 2, ((y + 1) * (H - 1)) / 2];
  };
  const animate = latest(async () => {
    const { boxes, classes } = scenes[number], M = boxes.length;
    const image = part(frames, 3), frame = new Float32Array(3 * H * W);
    for (let i = 0; i < H * W; i++) for (let c = 0; c < 3; c++) frame[c * H * W + i] = image[3 * i + c] / 127.5 - 1;
    const theta = thetas(drags, M, T, W, H), user = classes.map((_, k) => drags.has(k) || pins.has(k));
    const inputs = {
      frame: floats(frame, 1, 3, H, W), semantic: whole(part(semantics, 1), 1, H, W),
      instance: whole(part(instances, 1), 1, H, W), boxes: floats(boxes.flat(), 1, M, 4),
      classes: whole(classes, 1, M), present: flags(classes.map((_, k) => !gone.has(k)), 1, M), user: flags(user, 1, M),
      theta: floats(theta, 1, T, M, 2, 3), z: floats(normal(seed, latent), 1, latent),
      object_z: floats(normal(seed + 5000, M * T * O), 1, M, T, O),
    };
    if (camera) {
      const still = Array.from({ length: T }, () => [1, 0, 0, 0, 1, 0]).flat();
      Object.assign(inputs, { known: flags([false], 1), camera: floats(still, 1, T, 2, 3) });
    }
    const { video } = await run("mover_animate", inputs);
    clip = Array.from({ length: T }, (_, t) => pixels(video, t));
    Object.assign(last, { number, drags: [...drags], pins: [...pins], gone: [...gone], theta, z: inputs.z.data, object_z: inputs.object_z.data, video: video.data });
    start();
  }, stage);

  const start = () => {
    stop();
    play.textContent = "pause";
    let at = 0;
    timer = setInterval(() => {
      at = (at + 1) % (T + 5); // it rests at both ends
      scrub.value = Math.min(T, Math.max(0, at - 1));
      draw();
    }, MS);
  };
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "play"; };
  play.onclick = () => { if (timer) stop(); else if (clip.length) start(); else animate(); };
  scrub.oninput = () => { stop(); draw(); };

  const hit = (x, y) => {
    const owner = part(instances, 1);
    let best = null, near = NEAR * NEAR;
    for (let v = 0; v < H; v++) for (let u = 0; u < W; u++) {
      const far = (u - x) ** 2 + (v - y) ** 2;
      if (owner[v * W + u] && far <= near) [best, near] = [owner[v * W + u] - 1, far - 1e-9];
    }
    return best;
  };
  const place = (event) => {
    const box = stage.getBoundingClientRect(), most = (v, n) => Math.min(n - 1, Math.max(0, v));
    return [most(((event.clientX - box.left) / box.width) * W, W), most(((event.clientY - box.top) / box.height) * H, H)];
  };
  stage.onpointerdown = (event) => {
    const at = place(event), k = hit(...at);
    if (k === null) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    stop();
    scrub.value = 0;
    pulled = { k, path: [at] };
  };
  stage.onpointermove = (event) => {
    if (!pulled) return;
    const at = place(event), [x, y] = pulled.path.at(-1);
    if (Math.hypot(at[0] - x, at[1] - y) < 1.5) return;
    pulled.path.push(at);
    pins.delete(pulled.k);
    gone.delete(pulled.k);
    drags.set(pulled.k, pulled.path);
    draw();
  };
  stage.onpointerup = stage.onpointercancel = () => {
    if (!pulled) return;
    if (pulled.path.length === 1) { // a click frees, or pins, then removes
      const { k } = pulled;
      if (!drags.delete(k) && !gone.delete(k)) (pins.delete(k) ? gone : pins).add(k);
    }
    pulled = null;
    draw();
    animate();
  };
  new ResizeObserver(draw).observe(stage);

  const choose = (_, k) => {
    stop();
    number = k;
    [drags, pins, gone, clip] = [new Map(), new Set(), new Set(), []];
    scrub.value = 0;
    draw();
  };
  const { box } = picks(stills, choose, ".scenes");
  const button = (text, act) => make("button.plain", { type: "button", onclick: act }, text);
  const element = make("section.card.wide", {},
    make("p.about", {}, "Drag an object, and the model moves the others: they are pushed, follow, or give way. A click holds an object in place, a second one removes it, a third one takes it back. It has seen such drawn scenes alone."),
    stage,
    make("div.controls", {},
      scrub,
      make("div.row", {}, play,
        button("another future", () => { seed += 1; animate(); }),
        button("no drags", () => choose(null, number))),
      make("div", {}, make("span.label", {}, "Scene"), box)));
  box.children[0].ariaPressed = "true";
  const path = scenes[0].drag;
  drags.set(path[0], path[1]);
  return { element, first: animate() };
}

function arrow(pen, way) {
  const [x, y] = way.at(-1), [px, py] = way.at(-Math.min(4, way.length)), angle = Math.atan2(y - py, x - px);
  for (const [colour, width] of [["#0009", 2.2], ["#fff", 1.1]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    way.forEach(([u, v], k) => (k ? pen.lineTo(u, v) : pen.moveTo(u, v)));
    for (const turn of [2.6, -2.6]) {
      pen.moveTo(x, y);
      pen.lineTo(x + 4 * Math.cos(angle + turn), y + 4 * Math.sin(angle + turn));
    }
    pen.stroke();
  }
}

function pin(pen, x, y) {
  for (const [colour, radius] of [["#0009", 2.6], ["#fff", 1.8]]) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  }
}

function cross(pen, x, y) {
  for (const [colour, width] of [["#fff", 2.2], ["#000", 1.1]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    for (const side of [-2, 2]) {
      pen.moveTo(x - 2, y - side);
      pen.lineTo(x + 2, y + side);
    }
    pen.stroke();
  }
}
