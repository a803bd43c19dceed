// A scene whose objects are dragged. `props.scene` is {image, width, height, ids, numbers}: the id
// of each px as one letter (code 48: none, 49 + k: object k) and the id of object k; `props.paths`
// the ways {id: [[x, y], ..]} that the model predicts. `props.value` is what a user asks for, the
// JSON that gen move reads; each change of it triggers `input`.
const $ = (name) => element.querySelector(name);
const canvas = $(".scene"), pen = canvas.getContext("2d"), photo = new Image();
const COLOURS = { you: "#F26B0F", pinned: "#C2278F", removed: "#101418", reacts: "#0B84D8" };
const EMPTY = { drags: [], tracks: [], pins: [], remove: [], camera: null };
const TIMES = 9, ARM = 3; // times of a track; px between two points of an object
const TURN = Math.PI / 18, GROWTH = 1.1; // of one press of a key
let past = [], chosen = null, over = null, from = null, to = null, armed = false, pushed;
let trail = []; // the way of the pointer since it was pressed
let grips = {}; // where each object was grabbed first, by its id

const scene = () => props.scene;
const asked = () => ({ ...EMPTY, ...props.value });
const copy = (request) => JSON.parse(JSON.stringify(request));
const dragOf = (id) => asked().drags.find((drag) => drag.id === id);
const trackOf = (id) => asked().tracks.find((track) => track.id === id);
const far = (a, b) => Math.hypot(b[0] - a[0], b[1] - a[1]);

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
  for (const key of ["drags", "tracks"]) request[key] = request[key].filter((one) => one.id !== id);
  for (const key of ["pins", "remove"]) request[key] = request[key].filter((other) => other !== id);
}

// Along points, px of the scene; the camera goes straight. `grip`: where it was grabbed; none: centre.
function drag(id, points, grip, again) {
  const way = points.map(([x, y]) => [x - points[0][0], y - points[0][1]].map((v) => Math.round(v * 10) / 10));
  ask((request) => {
    if (id === null) return (request.camera = [...way.at(-1), request.camera ? request.camera[2] : 1]);
    release(request, id);
    request.drags.push({ id, path: way, scale: 1 });
    grips[id] = grip;
  }, again);
}

function along(path, share) { // the place at a share of a path's length
  const lengths = path.slice(1).map((point, k) => far(path[k], point));
  let rest = share * lengths.reduce((sum, length) => sum + length, 0), k = 0;
  while (k < lengths.length - 1 && rest > lengths[k]) rest -= lengths[k++];
  const t = lengths[k] ? Math.min(1, rest / lengths[k]) : 0, [a, b] = [path[k], path[k + 1]];
  return [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])];
}

// The ways of an object's points, of its track or of the point of its drag. Px count from the edge
// of the scene here, in a request from the middle of its first px.
function points(id) {
  if (trackOf(id)) return trackOf(id).points.map((way) => way.map(([x, y]) => [x + .5, y + .5]));
  const path = dragOf(id)?.path || [[0, 0], [0, 0]], [x, y] = grips[id] || centre(id);
  return [[...Array(TIMES).keys()].map((k) => along(path, k / (TIMES - 1)).map((v, axis) => v - path[0][axis] + [x, y][axis]))];
}

function swing(way, arm, turn, growth) { // the way of a point that turns about another one, and grows from it
  const last = way.length - 1;
  return way.map(([x, y], k) => {
    const t = k / last, size = growth ** t, [c, s] = [Math.cos(turn * t) * size, Math.sin(turn * t) * size];
    return [x + c * arm[0] - s * arm[1], y + s * arm[0] + c * arm[1]];
  });
}

function follow(id, ways, again) { // points of an object as a request
  ask((request) => {
    release(request, id);
    request.tracks.push({ id, points: ways.map((way) => way.map((point) => point.map((v) => Math.round((v - .5) * 100) / 100))) });
  }, again);
}

function pull(id, from, to) { // a further point, from here to there: turns an object and lets it grow
  const ways = points(id), [first] = ways, end = first.at(-1);
  const arm = [from[0] - first[0][0], from[1] - first[0][1]], goal = [to[0] - end[0], to[1] - end[1]];
  const turn = Math.atan2(arm[0] * goal[1] - arm[1] * goal[0], arm[0] * goal[0] + arm[1] * goal[1]);
  const kept = ways.filter((way, k) => !k || far(way[0], from) >= ARM);
  follow(id, [...kept, swing(first, arm, turn, Math.hypot(...goal) / Math.hypot(...arm))]);
}

function spin(id, turn, growth) { // from the keyboard: turns an object about its first point
  const [first, second] = points(id), from = (way, k) => [second[k][0] - first[k][0], second[k][1] - first[k][1]];
  let [arm, angle, size] = [[10, 0], 0, 1];
  if (second) {
    arm = from(second, 0);
    for (let k = 1; k < second.length; k++) { // step by step, for more than half a turn
      const [a, b] = [from(second, k - 1), from(second, k)];
      angle += Math.atan2(a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1]);
    }
    size = Math.hypot(...from(second, second.length - 1)) / Math.hypot(...arm);
  }
  follow(id, [first, swing(first, arm, angle + turn, size * growth)], pushed === id);
  pushed = id;
}

// A second press on a dragged object, away from its first point, takes a further point of it.
const isFurther = (id, here) => id !== null && (dragOf(id) || trackOf(id)) && far(points(id)[0][0], here) >= ARM;

function simple(points) { // without the points that are within 1 px of the line between others
  const [a, b] = [points[0], points.at(-1)], square = far(a, b) ** 2 || 1;
  let most = 1, worst = 0;
  points.forEach(([x, y], k) => {
    const along = ((x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])) / square, t = Math.min(1, Math.max(0, along));
    const off = far([x, y], [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]);
    if (off > most) [most, worst] = [off, k];
  });
  return worst ? [...simple(points.slice(0, worst + 1)), ...simple(points.slice(worst)).slice(1)] : [a, b];
}

function mark(key, id) { // or takes the mark away: `pins`, `remove`
  const was = asked()[key].includes(id);
  ask((request) => {
    release(request, id);
    if (!was) request[key].push(id);
  });
}

function push(dx, dy) { // from the keyboard: the end of the drag
  if (chosen !== null && trackOf(chosen)) {
    const shift = ([x, y], k, way) => [x + (dx * k) / (way.length - 1), y + (dy * k) / (way.length - 1)];
    follow(chosen, points(chosen).map((way) => way.map(shift)), pushed === chosen);
    return (pushed = chosen);
  }
  const old = (chosen === null ? asked().camera && [[0, 0], asked().camera] : dragOf(chosen)?.path) || [[0, 0], [0, 0]];
  const [x, y] = old.at(-1);
  drag(chosen, [...old.slice(0, -1), [x + dx, y + dy]], grips[chosen], pushed === chosen);
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
  const gone = Math.max(...line.map((point) => far(start, point))), unit = canvas.width / 800;
  if (gone < 4 * unit) return dot(start, 5 * unit, colour);
  const near = line.findLast((point) => far(point, end) >= Math.min(12 * unit, gone / 2)) || start;
  const turn = Math.atan2(end[1] - near[1], end[0] - near[0]), size = Math.min(18 * unit, gone * 0.8);
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

function cross([x, y], radius, colour) {
  for (const [width, fill] of [[0.8, "white"], [0.45, colour]]) {
    pen.strokeStyle = fill;
    pen.lineWidth = width * radius;
    pen.lineCap = "round";
    pen.beginPath();
    for (const side of [-1, 1]) {
      pen.moveTo(x - radius, y - side * radius);
      pen.lineTo(x + radius, y + side * radius);
    }
    pen.stroke();
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
  const by = (id) => (dragOf(id) || trackOf(id) ? "you" : request.pins.includes(id) ? "pinned" : request.remove.includes(id) ? "removed" : "reacts");
  for (const id of numbers)
    if (by(id) !== "reacts" || id === over || id === chosen) tint(id, COLOURS[by(id)], id === over || id === chosen ? 0.5 : 0.3, k);
  const paths = props.paths || {};
  for (const id of numbers)
    if (paths[id] && by(id) === "reacts") arrow(paths[id], COLOURS.reacts, k);
  for (const { id, path } of request.drags) {
    const [x, y] = grips[id] || centre(id);
    arrow(path.map(([u, v]) => [x + u - path[0][0], y + v - path[0][1]]), COLOURS.you, k);
  }
  for (const { id } of request.tracks)
    for (const way of points(id)) dot(way[0].map((v) => v * k), canvas.width / 160, COLOURS.you), arrow(way, COLOURS.you, k);
  for (const id of request.pins) dot(centre(id).map((v) => v * k), canvas.width / 90, COLOURS.pinned);
  for (const id of request.remove) cross(centre(id).map((v) => v * k), canvas.width / 60, COLOURS.removed);
  if (request.camera) arrow([[width / 2, height * .93], [width / 2 + request.camera[0], height * .93 + request.camera[1]]], "#333333", k);
  if (from && to) arrow(chosen === null || armed ? [from, to] : [...trail, to], chosen === null ? "#333333" : COLOURS.you, k);
  $(".undo").disabled = !past.length;
  $(".clear").disabled = !request.drags.length && !request.tracks.length && !request.pins.length && !request.remove.length && !request.camera;
  for (const [button, key] of [[$(".pin"), "pins"], [$(".remove"), "remove"]]) {
    button.disabled = chosen === null;
    button.setAttribute("aria-pressed", request[key].includes(chosen));
  }
  $(".hint").textContent = hint(request);
}

const name = (id) => `${scene().names[scene().numbers.indexOf(id)]} ${id}`;

function hint(request) {
  if (armed) return `${name(chosen)}: click where it goes, or pin or remove it`;
  if (request.remove.includes(chosen)) return `${name(chosen)} is removed: R takes it back`;
  if (chosen !== null && (dragOf(chosen) || trackOf(chosen)))
    return `${name(chosen)}: drag another point of it, or press < > to turn it, + - to grow or shrink it`;
  if (chosen !== null) return `${name(chosen)}: arrow keys drag it, P pins it, R removes it`;
  if (over !== null) return `${name(over)}: drag it; shift-click pins it`;
  return request.drags.length || request.tracks.length || request.remove.length || request.camera
    ? "orange: you, blue: what the others will do"
    : "drag an object, or the ground to move the camera";
}

// ---- pointer and keys ---------------------------------------------------------------------------

canvas.addEventListener("pointerdown", (event) => {
  const here = place(event), id = at(...here);
  canvas.focus({ preventScroll: true });
  event.preventDefault();
  if (armed) { // the second click of two
    const start = from;
    [armed, from, to] = [false, null, null];
    return isFurther(chosen, start) ? pull(chosen, start, here) : drag(chosen, [start, here], start);
  }
  if (event.shiftKey) return id === null ? undefined : mark("pins", id);
  canvas.setPointerCapture(event.pointerId);
  [chosen, from, to, trail] = [id, here, here, [here]];
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  const here = place(event);
  if (!from) over = at(...here);
  else {
    to = here;
    if (!armed && far(trail.at(-1), here) >= 1) trail.push(here);
  }
  canvas.style.cursor = over !== null || armed ? "pointer" : "grab";
  draw();
});
canvas.addEventListener("pointerup", () => {
  if (!from || armed) return;
  if (trail.length > 1) {
    const [start, end] = [from, to], way = simple([...trail, to]);
    [from, to] = [null, null];
    return isFurther(chosen, start) ? pull(chosen, start, end) : drag(chosen, way, start);
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
  else if ("<>,.".includes(key) && chosen !== null) spin(chosen, "<,".includes(key) ? -TURN : TURN, 1);
  else if ("+=-".includes(key) && chosen !== null) spin(chosen, 0, key === "-" ? 1 / GROWTH : GROWTH);
  else if (key === "p" && chosen !== null) mark("pins", chosen);
  else if (key === "r" && chosen !== null) mark("remove", chosen);
  else if (event.key === "Delete" || event.key === "Backspace")
    ask((request) => (chosen === null ? (request.camera = null) : release(request, chosen)));
  else if (event.key === "Escape") [chosen, armed, from, to] = [null, false, null, null];
  else if (key === "z" && control) undo();
  else return;
  event.preventDefault();
  draw();
});
$(".undo").addEventListener("click", undo);
for (const [button, key] of [[$(".pin"), "pins"], [$(".remove"), "remove"]])
  button.addEventListener("click", () => (([armed, from, to] = [false, null, null]), mark(key, chosen)));
$(".clear").addEventListener("click", () => ask((request) => Object.assign(request, copy(EMPTY))));
$(".suggest").addEventListener("click", () => {
  past.push(copy(asked()));
  pushed = undefined;
  trigger("select");
});

function load() {
  if (!scene()) return;
  [past, chosen, over, from, to, armed, pushed] = [[], null, null, null, null, false];
  grips = {};
  canvas.width = 960;
  canvas.height = Math.round((960 * scene().height) / scene().width);
  photo.onload = draw;
  photo.src = scene().image;
}

watch("scene", load);
watch(["paths", "value"], draw);
load();
