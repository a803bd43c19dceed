// Models, random numbers, pictures: what all tabs share.
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let count = 0;

worker.onmessage = ({ data: { id, outputs, error } }) => {
  const { done, failed } = waiting.get(id);
  waiting.delete(id);
  error ? failed(new Error(error)) : done(outputs);
};

// Outputs of a model by name; without inputs it is only loaded.
export function run(name, inputs) {
  return new Promise((done, failed) => {
    waiting.set(++count, { done, failed });
    worker.postMessage({ id: count, name, inputs });
  });
}

export const floats = (data, ...dims) => ({ type: "float32", data: Float32Array.from(data), dims });
export const whole = (data, ...dims) => ({ type: "int64", data: BigInt64Array.from(data, BigInt), dims });
export const flags = (data, ...dims) => ({ type: "bool", data: Uint8Array.from(data), dims });

// Numbers ~ N(0, 1) that a seed fixes (mulberry32, Box-Muller).
export function normal(seed, length) {
  let state = (seed + 1) * 0x9e3779b1;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// Values (3, H, W) in [-1, 1] from an offset on -> pixels.
export function pixels({ data, dims }, index = 0) {
  const [H, W] = dims.slice(-2), size = H * W, from = 3 * size * index;
  const image = new ImageData(W, H);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round((data[from + c * size + i] + 1) * 127.5);
    image.data[4 * i + 3] = 255;
  }
  return image;
}

// Pixels -> values (1, 3, H, W) in [-1, 1]; on white where they are transparent.
export function values(image) {
  const { width: W, height: H, data } = image, out = new Float32Array(3 * H * W);
  for (let i = 0; i < H * W; i++) {
    const alpha = data[4 * i + 3] / 255;
    for (let c = 0; c < 3; c++) {
      out[c * H * W + i] = ((data[4 * i + c] * alpha + 255 * (1 - alpha)) / 255) * 2 - 1;
    }
  }
  return { type: "float32", data: out, dims: [1, 3, H, W] };
}

// Bytes (H, W, 3) -> pixels.
export function unpack(bytes, W, H) {
  const image = new ImageData(W, H);
  for (let i = 0; i < W * H; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  return image;
}

export function show(canvas, image) {
  if (canvas.width !== image.width) canvas.width = image.width;
  if (canvas.height !== image.height) canvas.height = image.height;
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
  return canvas;
}

// A picture of any size -> the pixels of its middle square, side `size`, each a mean of what it covers.
export function square(picture, size) {
  let side = Math.min(picture.width, picture.height);
  let from = document.createElement("canvas");
  from.width = from.height = side;
  from.getContext("2d").drawImage(
    picture, (side - picture.width) / 2, (side - picture.height) / 2);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  while (side >= 2 * size) { // browsers look at few pixels; by halves, at all
    const half = document.createElement("canvas");
    half.width = half.height = side >> 1;
    half.getContext("2d").drawImage(from, 0, 0, side >> 1, side >> 1);
    [from, side] = [half, side >> 1];
  }
  context.imageSmoothingQuality = "high";
  context.drawImage(from, 0, 0, size, size);
  return context.getImageData(0, 0, size, size);
}

// Runs the newest call only, when the one before is done: a slider asks faster than a model answers.
export function latest(work, stage) {
  let busy = false, next = null;
  return async function ask(...given) {
    next = given;
    if (busy) return;
    busy = true;
    stage.classList.add("busy");
    try {
      while (next) {
        const now = next;
        next = null;
        await work(...now);
      }
    } finally {
      busy = false;
      stage.classList.remove("busy");
    }
  };
}

// An element: make("div.card", {title: ".."}, child, "text").
export function make(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = Object.assign(document.createElement(name), properties);
  element.classList.add(...classes);
  element.append(...children);
  return element;
}

// Small pictures to choose from: buttons, the chosen one pressed.
export function picks(images, choose, kind = "") {
  const box = make(`div.picks${kind}`);
  const add = (content, label, act) => {
    const button = make("button", { type: "button", title: label, ariaLabel: label, ariaPressed: "false" }, content);
    button.onclick = () => {
      for (const other of box.children) other.ariaPressed = String(other === button);
      act();
    };
    box.append(button);
    return button;
  };
  images.forEach((image, k) => add(show(make("canvas"), image), `example ${k + 1}`, () => choose(image, k)));
  return { box, add };
}
