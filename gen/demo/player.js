// Shows frames: `props.value` is {sprite, count, at, from, to, steps, caption, fps}, frames below
// each other in one image. All of it happens here, so that dragging the slider needs no server.
// Words of the slider, if it has any, are {label, middle, places}, a place for each frame; `curves`
// are [{name, values}], numbers in 0 .. 1 for each frame, the first line solid and others dashed.
const $ = (name) => element.querySelector(name);
const view = $(".view"), at = $(".at"), play = $(".play"), strip = $(".strip"), steps = $(".steps");
const curves = $(".curves"), key = $(".key");
const THUMBS = 8, LINE = "position on the path";
let thumbs = THUMBS;
let sprite = null, timer = null, made = null;

const height = () => sprite.height / props.value.count;

function draw() {
  if (!sprite) return;
  const h = height();
  view.width = sprite.width;
  view.height = h;
  view.getContext("2d").drawImage(sprite, 0, at.value * h, sprite.width, h, 0, 0, sprite.width, h);
  steps.querySelectorAll("rect").forEach((bar, k) => bar.classList.toggle("now", k == at.value));
  mark();
}

function mark() {
  const { curves: lines = [], places } = props.value, now = lines.map((line) => line.values[at.value]);
  curves.querySelector(".now")?.setAttribute("d", `M${at.value} 0V1`);
  curves.querySelectorAll(".dot").forEach((dot, k) =>
    dot.setAttribute("d", `M${at.value} ${1 - now[k]}h.001`));
  const told = [places?.[at.value], ...now.map((number) => number.toFixed(2))];
  key.querySelectorAll("b").forEach((item, k) => (item.textContent = told[k]));
  const all = lines.map((line, k) => `${line.name} ${told[k + 1]}`);
  if (places) at.setAttribute("aria-valuetext", [told[0], ...all].join(", "));
  else at.removeAttribute("aria-valuetext");
}

function drawCurves() {
  const { curves: lines = [], places, count, label } = props.value, last = count - 1;
  $(".plot").hidden = !lines.length;
  key.hidden = !places;
  const points = (line) => line.values.map((y, x) => `${x},${1 - y}`).join(" ");
  curves.setAttribute("viewBox", `0 0 ${Math.max(last, 1)} 1`);
  curves.innerHTML = `<path class="rim" d="M0 0H${last}M0 1H${last}"/><path class="now"/>` +
    lines.map((line) => `<polyline points="${points(line)}"/>`).join("") +
    lines.map(() => '<path class="dot"/>').join("");
  const told = (line) => [0, Math.round(last / 2), last].map((k) => `${line.values[k].toFixed(2)} at ${places[k]}`);
  const all = lines.map((line) => `${line.name}: ${told(line).join(", ")}`);
  curves.setAttribute("aria-label", [`curves over the ${label}`, ...all].join("; "));
  key.innerHTML = "<li><b></b></li>" + lines
    .map(() => '<li class="line"><svg viewBox="0 0 28 8"><path d="M0 4H28"/></svg> <b></b></li>')
    .join("");
  key.querySelectorAll(".line").forEach((item, k) => item.append(` ${lines[k].name}`));
}

function drawStrip() {
  const { count } = props.value, h = height(), wide = sprite.width / h;
  const w = Math.round(wide * 96), gap = 6;
  const n = (thumbs = Math.min(count, wide > 1.5 ? 6 : THUMBS));
  strip.hidden = count < 3 || wide > 2.5 || !!props.value.places; // whose pictures have words
  strip.width = n * (w + gap) - gap;
  strip.height = 96;
  for (let k = 0; k < n; k++) {
    const frame = Math.round((k * (count - 1)) / Math.max(n - 1, 1));
    const to = [k * (w + gap), 0, w, 96];
    strip.getContext("2d").drawImage(sprite, 0, frame * h, sprite.width, h, ...to);
  }
}

function drawSteps() {
  const sizes = props.value.steps || [], most = Math.max(...sizes, 1e-9);
  steps.setAttribute("viewBox", `0 0 ${Math.max(sizes.length, 1)} 1`);
  steps.innerHTML = sizes
    .map((s, k) => `<rect x="${k + 0.08}" width="0.84" y="${1 - s / most}" height="${s / most}"/>`)
    .join("");
  steps.style.display = sizes.length ? "" : "none";
}

function load() {
  const value = props.value;
  element.hidden = !value;
  $(".player").classList.toggle("ready", !!value);
  if (!value) return;
  $(".player").classList.toggle("wide", !!value.wide);
  if (value.made !== made) $(".player").classList.remove("stale"); // more on old frames is old
  made = value.made;
  $("figcaption").textContent = value.caption || "";
  $(".from").textContent = value.from || "";
  $(".middle").textContent = value.middle || "";
  $(".to").textContent = value.to || "";
  at.setAttribute("aria-label", value.label || LINE);
  drawSteps();
  drawCurves();
  if (sprite && sprite.src === value.sprite) return draw();
  const image = new Image();
  image.onload = () => {
    sprite = image;
    at.max = value.count - 1;
    at.value = value.at ?? value.count - 1;
    at.disabled = play.disabled = value.count < 2;
    draw();
    drawStrip();
    if (value.autoplay && !timer) toggle();
  };
  image.src = value.sprite;
}

function toggle() {
  play.innerHTML = timer ? "&#9654;" : "&#10074;&#10074;";
  play.setAttribute("aria-label", timer ? "play" : "pause");
  if (timer) return (timer = clearInterval(timer));
  let way = 1, rest = 0;
  timer = setInterval(() => {
    if (!element.isConnected) return clearInterval(timer);
    const last = at.max * 1, now = at.value * 1;
    if ((way > 0 && now >= last) || (way < 0 && now <= 0)) {
      if (rest++ < 3) return;
      way = now >= last ? -1 : 1;
      rest = 0;
    }
    at.value = now + way;
    draw();
  }, 1000 / (props.value.fps || 12));
}

at.addEventListener("input", draw);
play.addEventListener("click", toggle);
strip.addEventListener("click", (event) => {
  const k = Math.floor((event.offsetX / strip.clientWidth) * thumbs);
  at.value = Math.round((k * at.max) / Math.max(thumbs - 1, 1));
  draw();
});
watch("value", load);
load();
