// A scene whose objects are dragged. `props.scene` is {image, width, height, ids, numbers}: the id
// of each px as one letter (code 48: none, 49 + k: object k) and the id of object k; `props.paths`
// the ways {id: [[x, y], ..]} that the model predicts. `props.value` is what a user asks for, the
// JSON that gen move reads; each change of it triggers `input`.
const $ = (name) => element.querySelector(name);
const canvas = $(".scene"), pen = canvas.getContext("2d"), photo = new Image();
const COLOURS = { you: "#F26B0F", pinned: "#C2278F", reacts: "#0B84D8" };
const EMPTY = { drags: [], pins: [], camera: null };
let past = [], chosen = null, over = null, from = null, to = null, armed = false, pushed;

const scene = () => props.scene;
const asked = () => props.value || EMPTY;
const copy = (request) => JSON.parse(JSON.stringify(request));
const dragOf = (id) => asked().drags.find((drag) => drag.id === id);

function at(x, y) { // the object at a px of the scene, or near it; null: the ground
  const { width, height, ids, numbers } = scene();
  let best = null, least = 9;
  for (let v = Math.floor(y) - 3; v <= y + 3; v++)
    for (let u = Math.floor(x) - 3; u <= x + 3; u++) {
      if (u < 0 || v < 0 || u >= width || v >= height) continue;
      const k = ids.charCodeAt(v * width + u) - 49, far = (u + .5 - x) ** 2 + (v + .5 - y) ** 2;
      if (k >= 0 && far < least) [best, least] = [numbers[k], far];
    }
  return best;
}

function place(event) { // px of the scene under the pointer
  const box = canvas.getBoundingClientRect(), { width, height } = scene();
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

function centre(id) {
  const { width, ids, numbers } = scene(), letter = String.fromCharCode(49 + numbers.indexOf(id));
  let n = 0, x = 0, y = 0;
  for (let k = ids.indexOf(letter); k >= 0; k = ids.indexOf(letter, k + 1)) {
    n++, (x += (k % width) + .5), (y += Math.floor(k / width) + .5);
  }
  return [x / n, y / n];
}

// ---- asking -----------------------------------------------------------------------------------

function ask(change, again) { // `again`: one step of undo with the change before
  const before = copy(asked()), request = copy(before);
  change(request);
  if (!again && JSON.stringify(request) !== JSON.stringify(before)) past.push(before);
  pushed = undefined;
  tell(request);
}

function tell(request) {
  props.value = request;
  draw();
  trigger("input");
}

function release(request, id) {
  request.drags = request.drags.filter((drag) => drag.id !== id);
  request.pins = request.pins.filter((pin) => pin !== id);
}

function drag(id, dx, dy, again) {
  const way = [Math.round(dx * 10) / 10, Math.round(dy * 10) / 10];
  ask((request) => {
    if (id === null) return (request.camera = [...way, request.camera ? request.camera[2] : 1]);
    release(request, id);
    request.drags.push({ id, path: [[0, 0], way], scale: 1 });
  }, again);
}

function pin(id) {
  const was = asked().pins.includes(id);
  ask((request) => {
    release(request, id);
    if (!was) request.pins.push(id);
  });
}

function push(dx, dy) { // from the keyboard
  const old = chosen === null ? asked().camera : dragOf(chosen)?.path[1];
  drag(chosen, (old?.[0] || 0) + dx, (old?.[1] || 0) + dy, pushed === chosen);
  pushed = chosen;
}

function undo() {
  pushed = undefined;
  const now = JSON.stringify(asked());
  while (past.length && JSON.stringify(past.at(-1)) === now) past.pop();
  if (past.length) tell(past.pop());
  else draw();
}

// ---- drawing ----------------------------------------------------------------------------------

function arrow(points, colour, k) {
  const line = points.map(([x, y]) => [x * k, y * k]), end = line.at(-1), start = line[0];
  const far = Math.hypot(end[0] - start[0], end[1] - start[1]), unit = canvas.width / 800;
  if (far < 4 * unit) return dot(start, 5 * unit, colour);
  const near = line.findLast(([x, y]) => Math.hypot(end[0] - x, end[1] - y) >= Math.min(12 * unit, far)) || start;
  const turn = Math.atan2(end[1] - near[1], end[0] - near[0]), size = Math.min(18 * unit, far * 0.8);
  for (const [rim, fill] of [[3 * unit, "white"], [0, colour]]) {
    pen.strokeStyle = pen.fillStyle = fill;
    pen.lineWidth = 4.5 * unit + rim;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    line.slice(0, -1).forEach(([x, y]) => pen.lineTo(x, y));
    pen.lineTo(end[0] - size * 0.7 * Math.cos(turn), end[1] - size * 0.7 * Math.sin(turn));
    pen.stroke();
    pen.beginPath();
    for (const [along, side] of [[0, 0], [-1, 0.5], [-1, -0.5]]) {
      const x = along * size, y = side * size;
      pen.lineTo(end[0] + x * Math.cos(turn) - y * Math.sin(turn), end[1] + x * Math.sin(turn) + y * Math.cos(turn));
    }
    pen.closePath();
    pen.lineWidth = rim;
    pen.lineJoin = "miter";
    if (rim) pen.stroke();
    pen.fill();
  }
}

function dot([x, y], radius, colour) {
  for (const [r, fill] of [[radius * 1.4, "white"], [radius, colour]]) {
    pen.fillStyle = fill;
    pen.beginPath();
    pen.arc(x, y, r, 0, 7);
    pen.fill();
  }
}

function tint(id, colour, alpha, k) { // an object's px, smoothed
  const { width, height, ids, numbers } = scene(), code = 49 + numbers.indexOf(id);
  const small = new OffscreenCanvas(width, height), ink = small.getContext("2d");
  ink.fillStyle = colour;
  for (let i = 0; i < ids.length; i++)
    if (ids.charCodeAt(i) === code) ink.fillRect(i % width, Math.floor(i / width), 1, 1);
  pen.globalAlpha = alpha;
  pen.drawImage(small, 0, 0, width * k, height * k);
  pen.globalAlpha = 1;
}

function draw() {
  if (!scene()) return;
  const { width, height, numbers } = scene(), k = canvas.width / width, request = asked();
  pen.imageSmoothingQuality = "high";
  pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
  for (const id of numbers) {
    const by = dragOf(id) ? "you" : request.pins.includes(id) ? "pinned" : "reacts";
    if (by !== "reacts" || id === over || id === chosen) tint(id, COLOURS[by], id === over || id === chosen ? 0.5 : 0.3, k);
  }
  const paths = props.paths || {};
  for (const id of numbers)
    if (paths[id] && !dragOf(id) && !request.pins.includes(id)) arrow(paths[id], COLOURS.reacts, k);
  for (const { id, path } of request.drags) {
    const [x, y] = centre(id);
    arrow(path.map(([u, v]) => [x + u - path[0][0], y + v - path[0][1]]), COLOURS.you, k);
  }
  for (const id of request.pins) dot(centre(id).map((v) => v * k), canvas.width / 90, COLOURS.pinned);
  if (request.camera) arrow([[width / 2, height * .93], [width / 2 + request.camera[0], height * .93 + request.camera[1]]], "#333333", k);
  if (from && to) arrow([from, to], chosen === null ? "#333333" : COLOURS.you, k);
  $(".undo").disabled = !past.length;
  $(".clear").disabled = !request.drags.length && !request.pins.length && !request.camera;
  $(".pin").disabled = chosen === null;
  $(".pin").setAttribute("aria-pressed", request.pins.includes(chosen));
  $(".hint").textContent = hint(request);
}

const name = (id) => `${scene().names[scene().numbers.indexOf(id)]} ${id}`;

function hint(request) {
  if (armed) return `${name(chosen)}: click where it goes, or pin it`;
  if (chosen !== null) return `${name(chosen)}: arrow keys drag it, P pins it`;
  if (over !== null) return `${name(over)}: drag it; shift-click pins it`;
  return request.drags.length || request.camera
    ? "orange: you, blue: what the others will do"
    : "drag an object, or the ground to move the camera";
}

// ---- pointer and keys ---------------------------------------------------------------------------

canvas.addEventListener("pointerdown", (event) => {
  const here = place(event), id = at(...here);
  canvas.focus({ preventScroll: true });
  event.preventDefault();
  if (armed) { // the second click of two
    const [x, y] = from;
    [armed, from, to] = [false, null, null];
    return drag(chosen, here[0] - x, here[1] - y);
  }
  if (event.shiftKey) return id === null ? undefined : pin(id);
  canvas.setPointerCapture(event.pointerId);
  [chosen, from, to] = [id, id === null ? here : here, here];
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  const here = place(event);
  if (from) to = here;
  else over = at(...here);
  canvas.style.cursor = over !== null || armed ? "pointer" : "grab";
  draw();
});
canvas.addEventListener("pointerup", () => {
  if (!from || armed) return;
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  if (Math.hypot(dx, dy) >= 1) {
    [from, to] = [null, null];
    return drag(chosen, dx, dy);
  }
  armed = chosen !== null; // a click on an object: the next one says where it goes
  if (!armed) [from, to] = [null, null];
  draw();
});
canvas.addEventListener("pointerleave", () => ((over = null), draw()));
canvas.addEventListener("pointercancel", () => (([from, to, armed] = [null, null, false]), draw()));
canvas.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const { numbers } = scene(), key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (control && key !== "z") return;
  if (way) push(...way);
  else if (key === "n") {
    chosen = numbers[(numbers.indexOf(chosen) + 1) % numbers.length] ?? null;
    [armed, from, to] = [false, null, null];
  }
  else if (key === "p" && chosen !== null) pin(chosen);
  else if (event.key === "Delete" || event.key === "Backspace")
    ask((request) => (chosen === null ? (request.camera = null) : release(request, chosen)));
  else if (event.key === "Escape") [chosen, armed, from, to] = [null, false, null, null];
  else if (key === "z" && control) undo();
  else return;
  event.preventDefault();
  draw();
});
$(".undo").addEventListener("click", undo);
$(".pin").addEventListener("click", () => (([armed, from, to] = [false, null, null]), pin(chosen)));
$(".clear").addEventListener("click", () => ask((request) => Object.assign(request, copy(EMPTY))));
$(".suggest").addEventListener("click", () => {
  past.push(copy(asked()));
  pushed = undefined;
  trigger("select");
});

function load() {
  if (!scene()) return;
  [past, chosen, over, from, to, armed, pushed] = [[], null, null, null, null, false];
  canvas.width = 960;
  canvas.height = Math.round((960 * scene().height) / scene().width);
  photo.onload = draw;
  photo.src = scene().image;
}

watch("scene", load);
watch(["paths", "value"], draw);
load();
