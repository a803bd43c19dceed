// A photo whose objects are cut out. `props.scene` is {image, width, height, kinds}: the photo with
// what was cut so far, its size in px, and the classes of objects. `props.value` is what a user asks
// for, words as gen cut reads them: "car:120,80+124,90" for clicks, "bus:40,20,90,130" for a box.
const $ = (name) => element.querySelector(name);
const canvas = $(".photo"), pen = canvas.getContext("2d"), photo = new Image();
const COLOUR = "#F26B0F";
let objects = [], from = null, to = null, cross = null, corner = null, shown = "";

const scene = () => props.scene;
const last = () => objects.at(-1);
const within = (v, size) => Math.min(Math.max(v, 0), size);
const fits = (v, size) => within(Math.floor(v), size);
const words = ({ kind, clicks, box }) => `${kind}:${box ? box.join(",") : clicks.map((c) => c.join(",")).join("+")}`;
const isEmpty = (object) => !object.box && !object.clicks.length;

function place(event) { // px of the photo under the pointer
  const rect = canvas.getBoundingClientRect(), { width, height } = scene();
  return [((event.clientX - rect.left) / rect.width) * width, ((event.clientY - rect.top) / rect.height) * height];
}

function tell() {
  props.value = objects.filter((object) => !isEmpty(object)).map(words);
  draw();
  trigger("input");
}

function begin() { // the next object, of the class that is chosen
  if (!objects.length || !isEmpty(last())) objects.push({ kind: $(".kind").value, clicks: [] });
}

function click([x, y]) { // refines the object, or begins the next one after a box
  if (!objects.length || last().box) begin();
  last().clicks.push([fits(x, scene().width - 1), fits(y, scene().height - 1)]);
  tell();
}

function frame(a, b) { // a box around the next object
  const [left, right] = [a[0], b[0]].sort((p, q) => p - q), [top, bottom] = [a[1], b[1]].sort((p, q) => p - q);
  const { width, height } = scene();
  begin();
  last().box = [fits(left, width - 1), fits(top, height - 1), fits(right + 1, width), fits(bottom + 1, height)];
  tell();
}

function undo() { // the last click or box
  while (objects.length && isEmpty(last())) objects.pop();
  if (!objects.length) return draw();
  if (last().box) objects.pop();
  else last().clicks.pop();
  tell();
}

function mark([x, y], r) {
  for (const [size, colour] of [[r * 1.5, "white"], [r, COLOUR]]) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x, y, size, 0, 7);
    pen.fill();
  }
}

function rectangle([left, top, right, bottom], unit) {
  for (const [width, colour] of [[5 * unit, "white"], [2.5 * unit, COLOUR]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, right - left, bottom - top);
  }
}

function draw() {
  if (!scene()) return;
  const { width } = scene(), k = canvas.width / width, unit = canvas.width / 800;
  const on = (points) => points.map((v) => v * k);
  pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
  for (const { clicks, box } of objects) {
    if (box) rectangle(on(box), unit);
    for (const [x, y] of clicks) mark(on([x + .5, y + .5]), 5 * unit);
  }
  if (from && to) rectangle(on([...from, ...to]), unit);
  if (cross && document.activeElement === canvas) {
    const [x, y] = on(cross);
    if (corner) rectangle([...on(corner), x, y], unit);
    for (const [w, colour] of [[5, "white"], [2, COLOUR]]) {
      pen.lineWidth = w * unit;
      pen.strokeStyle = colour;
      pen.beginPath();
      for (const [u, v] of [[14, 0], [0, 14]]) pen.moveTo(x - u * unit, y - v * unit), pen.lineTo(x + u * unit, y + v * unit);
      pen.stroke();
    }
  }
  const some = objects.some((object) => !isEmpty(object));
  $(".undo").disabled = $(".clear").disabled = !some;
  $(".next").disabled = !objects.length || isEmpty(last());
  $(".hint").textContent = corner ? "move to the other corner, then Enter"
    : !some || isEmpty(last()) ? "click on the object, or draw a box around it; the farthest first"
    : "click on a part that is missing, or undo and draw a box where too much was taken; then the next object, or take them below";
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.focus({ preventScroll: true });
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  [from, to, cross, corner] = [place(event), null, null, null];
});
canvas.addEventListener("pointermove", (event) => {
  if (!from) return;
  const here = place(event), scale = canvas.getBoundingClientRect().width / scene().width;
  if (to || Math.hypot(here[0] - from[0], here[1] - from[1]) * scale > 6) to = here;
  draw();
});
canvas.addEventListener("pointerup", () => {
  const [a, b] = [from, to];
  [from, to] = [null, null];
  if (a) b ? frame(a, b) : click(a);
});
canvas.addEventListener("pointercancel", () => (([from, to] = [null, null]), draw()));
canvas.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const { width, height } = scene(), key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  cross ??= [width / 2, height / 2];
  if (way) {
    const step = width / (event.shiftKey ? 200 : 40); // with shift, finely
    cross = [within(cross[0] + way[0] * step, width - 1), within(cross[1] + way[1] * step, height - 1)];
  } else if (event.key === "Enter" && corner) {
    const other = corner;
    corner = null;
    frame(other, cross);
  } else if (event.key === "Enter" || event.key === " ") click(cross);
  else if (key === "b" && !control) corner = [...cross];
  else if (key === "n" && !control) begin();
  else if (event.key === "Escape") corner = null;
  else if (event.key === "Delete" || event.key === "Backspace" || (key === "z" && control)) undo();
  else return;
  event.preventDefault();
  draw();
});
for (const name of ["focus", "blur"]) canvas.addEventListener(name, draw);
$(".next").addEventListener("click", () => (begin(), draw()));
$(".undo").addEventListener("click", undo);
$(".clear").addEventListener("click", () => ((objects = []), tell()));
$(".kind").addEventListener("change", () => {
  if (!objects.length) return;
  last().kind = $(".kind").value;
  if (!isEmpty(last())) tell();
});

function load() {
  if (!scene()) return;
  const { image, width, height, kinds, photo: id } = scene();
  if (id !== shown) { // another photo
    [objects, cross, corner, shown] = [[], null, null, id];
    $(".kind").innerHTML = kinds.map((kind) => `<option>${kind}</option>`).join("");
    $(".kind").value = "car";
  }
  canvas.width = 960;
  canvas.height = Math.round((960 * height) / width);
  photo.onload = draw;
  photo.src = image;
}

watch("scene", load);
load();
